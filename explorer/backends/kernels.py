"""Which operators have a kernel for which types on a backend: ONNX Runtime's own list, live or from a snapshot.

The list is what ONNX Runtime registers (``get_all_opkernel_def``). It says that a kernel *exists*; what a kernel
computes in is another matter: the CPU provider's few float16 kernels may compute in float32. It does not know the
device either: bfloat16 kernels are listed although a GPU older than Ampere cannot run them all.

Where the list comes from: the installed package when only CPU providers are in it; a GPU build in a process of its own,
where that is safe (`explorer.backends.kernels_live`); else the snapshot under ``data/``, which
``benchmarks/gpu/take_kernel_snapshot.py`` takes anew.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from explorer.backends.kernels_live import cuda_kernels
from explorer.errors import BackendError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Kernel", "KernelSupport", "kernel_support"]

_PROVIDERS = {"onnxruntime-cpu": "CPUExecutionProvider", "onnxruntime-cuda": "CUDAExecutionProvider"}
_SNAPSHOTS = {"onnxruntime-cpu": "onnxruntime_cpu_kernels.json", "onnxruntime-cuda": "onnxruntime_cuda_kernels.json"}
_WITHOUT_LIST = ("tensorrt", "roofline")
_OPEN_END = 2**31 - 1  # INT_MAX, ONNX Runtime's mark of a kernel without a last version
_FUNCTION_DEPTH = 4  # functions of the ONNX standard call each other at most twice: a guard, not a limit


@dataclass(frozen=True, slots=True)
class Kernel:
    """One registered kernel: the operator versions and the types that it accepts.

    Attributes:
        first_version: the operator version (``since_version`` of its schema) from which it is registered.
        last_version: the last one; None when the kernel names no end.
        types: type variable, or name of an input or output, to the types accepted there.
    """

    first_version: int
    last_version: int | None
    types: Mapping[str, frozenset[str]]

    def runs(self, since_version: int) -> bool:
        """Return whether ONNX Runtime picks this kernel for an operator of that schema version.

        A kernel without an end serves only the version at which it starts: a later schema may mean something else.
        """
        if self.first_version == since_version:
            return True
        return self.last_version is not None and self.first_version < since_version <= self.last_version

    def accepts(self, types: Mapping[str, str]) -> bool:
        """Return whether no type of ``types`` is outside what the kernel accepts for the same variable."""
        return all(kind in self.types.get(variable, (kind,)) for variable, kind in types.items())


@dataclass(frozen=True)
class KernelSupport:
    """The kernels of one backend.

    Attributes:
        backend: ``onnxruntime-cpu``, ``onnxruntime-cuda``, ``tensorrt`` or ``roofline``.
        source: where the list comes from, with the version of ONNX Runtime; a sentence for the user.
        kernels: the kernels by (domain, op); empty and not `known` for a backend without a list.
        known: whether there is a list at all.
    """

    backend: str
    source: str
    kernels: Mapping[tuple[str, str], tuple[Kernel, ...]] = field(repr=False, default_factory=dict)
    known: bool = True
    _answers: dict[tuple[object, ...], bool | None] = field(repr=False, compare=False, default_factory=dict)

    def supports(self, domain: str, op: str, opset: int, types: Mapping[str, str]) -> bool | None:
        """Return whether a kernel takes ``op`` with these types; None when that is not known.

        It is None for a backend without a list, and for an operator that has no kernel of its own but is a function
        whose body ONNX Runtime runs instead, unless every operator of that body is known to have a kernel.

        Args:
            domain: domain of the operator; ``''`` or ``ai.onnx`` for ONNX's own.
            op: operator type.
            opset: version of the domain that the model imports.
            types: type variable of the operator's schema (``T``) to type (``tensor(float16)``); variables that are
                not named may be anything.

        >>> cpu = kernel_support("onnxruntime-cpu")
        >>> [cpu.supports("", "MatMul", 17, {"T": kind}) for kind in ("tensor(float)", "tensor(float16)")]
        [True, False]
        """
        key = (domain, op, opset, tuple(sorted(types.items())))
        if key not in self._answers:
            self._answers[key] = self._supports(domain, op, opset, types, depth=0)
        return self._answers[key]

    def _supports(self, domain: str, op: str, opset: int, types: Mapping[str, str], *, depth: int) -> bool | None:
        if not self.known:
            return None
        domain = "" if domain == "ai.onnx" else domain
        schema = _schema(op, opset, domain)
        registered = self.kernels.get((domain, op), ())
        if schema is None:
            return any(_covers(kernel, opset) and kernel.accepts(types) for kernel in registered)
        wanted = _by_every_name(types, schema)
        if any(kernel.runs(schema.since_version) and kernel.accepts(wanted) for kernel in registered):
            return True
        if not (schema.has_function or schema.has_context_dependent_function):
            return False
        return self._body_supports(schema, opset, frozenset(types.values()), depth=depth)

    def _body_supports(self, schema: Any, opset: int, kinds: frozenset[str], *, depth: int) -> bool | None:
        """Return True when each operator of the function's body takes ``kinds`` somewhere, else None."""
        if not schema.has_function or depth >= _FUNCTION_DEPTH:
            return None
        for node in schema.function_body.node:
            inner = _schema(node.op_type, opset, node.domain)
            if node.op_type == "Constant":
                continue  # folded away before kernels are chosen
            variables = [item.type_param_str for item in inner.type_constraints] if inner is not None else []
            if not any(
                self._supports(node.domain, node.op_type, opset, {variable: kind}, depth=depth + 1)
                for variable in variables
                for kind in kinds
            ):
                return None
        return True


def kernel_support(backend: str) -> KernelSupport:
    """Return the kernels of a backend.

    Args:
        backend: ``onnxruntime-cpu``, ``onnxruntime-cuda``, ``tensorrt`` or ``roofline``; the last two have no list.

    Raises:
        BackendError: there is no such backend.

    >>> kernel_support("onnxruntime-cuda").supports("", "Softmax", 17, {"T": "tensor(float16)"})
    True
    """
    if backend in _WITHOUT_LIST:
        return KernelSupport(backend, f"{backend} publishes no list of its kernels.", known=False)
    if backend not in _PROVIDERS:
        known = (*_PROVIDERS, *_WITHOUT_LIST)
        raise BackendError(
            f"There is no backend '{backend}'.",
            fix=nearest(backend, known) or f"Choose one of: {', '.join(known)}.",
        )
    return _load(backend)


@functools.cache
def _load(backend: str) -> KernelSupport:
    live = _live(_PROVIDERS[backend]) if backend == "onnxruntime-cpu" else cuda_kernels()
    if live is not None:
        rows, version = live
        return KernelSupport(backend, f"Listed by the installed ONNX Runtime {version}.", _grouped(rows))
    text = importlib.resources.files("explorer.backends").joinpath("data", _SNAPSHOTS[backend]).read_text("utf-8")
    snapshot = json.loads(text)
    source = f"Snapshot of ONNX Runtime {snapshot['onnxruntime']}: {snapshot['source']}."
    return KernelSupport(backend, source, _grouped(snapshot["kernels"]))


def _live(provider: str) -> tuple[list[Any], str] | None:
    """Return the provider's kernels and ONNX Runtime's version, or None where asking is not safe or not possible."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # noqa: PLC0415 - heavy, and optional

    # Azure's provider is in every CPU wheel and has no device. Any other one may raise or crash: see above.
    if not set(onnxruntime.get_available_providers()) <= {"CPUExecutionProvider", "AzureExecutionProvider"}:
        return None
    listed = onnxruntime.capi.onnxruntime_pybind11_state.get_all_opkernel_def()
    rows = [
        (item.op_name, item.domain, first, None if last == _OPEN_END else last, item.type_constraints)
        for item in listed
        if item.provider == provider
        for first, last in (item.version_range,)
    ]
    return rows, str(onnxruntime.__version__)


def _grouped(rows: Iterable[Any]) -> dict[tuple[str, str], tuple[Kernel, ...]]:
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for op, domain, first, last, types in rows:
        kernel = Kernel(first, last, {name: frozenset(kinds) for name, kinds in types.items()})
        groups.setdefault((domain, op), []).append(kernel)
    return {key: tuple(kernels) for key, kernels in groups.items()}


@functools.lru_cache(maxsize=4096)
def _schema(op: str, opset: int, domain: str) -> Any:
    """Return the operator's schema at this opset, or None where onnx has none (ONNX Runtime's own domains)."""
    try:
        return onnx.defs.get_schema(op, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None


def _covers(kernel: Kernel, opset: int) -> bool:
    """Return whether the kernel's range holds ``opset``: without a schema the operator's own version is not known."""
    return kernel.first_version <= opset and (kernel.last_version is None or opset <= kernel.last_version)


def _by_every_name(types: Mapping[str, str], schema: Any) -> dict[str, str]:
    """Return ``types`` with the inputs and outputs of each variable added: kernels may name those instead."""
    wanted = dict(types)
    for item in (*schema.inputs, *schema.outputs):
        if item.type_str in types:
            wanted.setdefault(item.name, types[item.type_str])
    return wanted
