"""Create and run ONNX Runtime sessions: the one place of the package that touches ``onnxruntime.InferenceSession``.

Everything that goes wrong inside ONNX Runtime leaves this module as an `ExplorerError` of one paragraph:

=========================================  =======================================================
what happened                              what is raised
=========================================  =======================================================
the model cannot be parsed or is invalid   `ModelError`
the backend has no kernel for a node       `BackendError`
the device's memory is too small           `OutOfMemory` (a `BackendError`)
a feed is missing, or has a wrong type     `InputError`
a node failed while it ran                 `BackendError`
`Cancel.cancel` was called                 `RunCancelled` (a `BackendError`)
=========================================  =======================================================
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from explorer._optional import require
from explorer.backends.ort_errors import RunCancelled, translated
from explorer.backends.values import array_of, dtype_of, needs_values, value_of
from explorer.errors import BackendError, InputError, ModelError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Cancel",
    "Optimization",
    "Provider",
    "RunCancelled",
    "Session",
    "create_session",
    "default_threads",
    "run",
    "run_bound",
]

Provider = Literal["cpu", "cuda"]
Optimization = Literal["all", "extended", "basic", "none"]

PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_FP32_IS_FP32 = {"use_tf32": "0"}  # CUDA's default computes products of float32 in tf32: no reference for any error
_ERROR_SEVERITY = 3  # OrtLoggingLevel: 2 warning, 3 error, 4 fatal (onnxruntime_c_api.h)
_FATAL_SEVERITY = 4  # a failing run is raised and translated here: ORT would print it a second time


class Cancel:
    """A token that stops runs from another thread.

    Give it to `create_session`, `run` or `Session.run`; a call of `cancel` makes each of them, running or yet to
    come, raise `RunCancelled`.

    >>> token = Cancel()
    >>> token.cancelled
    False
    >>> token.cancel()
    >>> token.cancelled
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Any] = []  # RunOptions and SessionOptions in use
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop everything that runs with this token, now and later."""
        with self._lock:
            self._cancelled = True
            for options in self._running:
                _stop(options)

    def check(self) -> None:
        """Raise `RunCancelled` if `cancel` was called."""
        if self._cancelled:
            raise RunCancelled("The run was cancelled.")

    @contextlib.contextmanager
    def watch(self, options: Any) -> Iterator[None]:
        """Let `cancel` stop what runs with these RunOptions or SessionOptions, inside the ``with``."""
        with self._lock:
            self._running.append(options)
            if self._cancelled:
                _stop(options)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(options)


def _stop(options: Any) -> None:
    if hasattr(options, "terminate"):
        options.terminate = True
    else:
        options.set_load_cancellation_flag(True)


class Session:
    """An ONNX Runtime session that keeps its weights alive and raises this package's errors.

    Made by `create_session`. ``raw`` is the ``onnxruntime.InferenceSession`` itself.
    """

    def __init__(self, raw: Any, *, provider: Provider, threads: int, keep_alive: object = None) -> None:
        self.raw = raw
        self.provider: Provider = provider
        self.threads = threads
        self.input_types: dict[str, str] = {item.name: item.type for item in raw.get_inputs()}
        self.input_names: tuple[str, ...] = tuple(self.input_types)
        self.output_names: tuple[str, ...] = tuple(item.name for item in raw.get_outputs())
        self.output_types: dict[str, str] = {item.name: item.type for item in raw.get_outputs()}
        self._keep_alive = keep_alive  # ORT borrows the memory of in-memory weights

    def run(
        self,
        feeds: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] | None = None,
        *,
        cancel: Cancel | None = None,
    ) -> dict[str, Any]:
        """Return the outputs by name; see `run`."""
        return run(self, feeds, outputs, cancel=cancel)

    def bind(self, feeds: Mapping[str, NDArray[Any]], *, device: int = 0) -> Any:
        """Return an IO binding: inputs copied to the session's device once, outputs left there; see `run_bound`."""
        ort = require("onnxruntime", why="to run models", extra="cpu")
        _check_feeds(self, feeds, None)
        with translated(doing="run", provider=PROVIDER_NAMES[self.provider]):
            binding = self.raw.io_binding()
            for name in self.input_names:
                array = np.asarray(feeds[name], order="C")  # ascontiguousarray would make a scalar a vector
                if needs_values([array], ()):  # a type that numpy lacks: ONNX Runtime copies it in each run
                    binding.bind_ortvalue_input(name, value_of(array))
                elif self.provider == "cpu" or array.dtype.kind in "OUS":
                    binding.bind_cpu_input(name, array)
                else:
                    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, self.provider, device))
            for name in self.output_names:
                binding.bind_output(name, self.provider, device)
        return binding

    def end_profiling(self) -> Path:
        """Stop profiling and return the path of the JSON that ONNX Runtime wrote."""
        return Path(self.raw.end_profiling())


def create_session(
    model: bytes | str | os.PathLike[str],
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
    optimize: Optimization = "all",
    profile_prefix: str | os.PathLike[str] | None = None,
    initializers: Mapping[str, NDArray[Any]] | None = None,
    disable_prepacking: bool = False,
    plan_memory: bool = True,
    optimized_to: str | os.PathLike[str] | None = None,
    config: Mapping[str, str] | None = None,
    device: int = 0,
    provider_options: Mapping[str, str] | None = None,
    cancel: Cancel | None = None,
) -> Session:
    """Return a session of ``model`` on one provider, never silently on another one.

    Args:
        model: the serialized model, or the path of its file (needed when its external data lies in files beside it).
        provider: ``cpu`` or ``cuda``.
        threads: threads inside one operator; `default_threads` when None.
        optimize: ONNX Runtime's graph optimization level; ``all`` is what its users run.
        profile_prefix: if given, every run is recorded and `Session.end_profiling` writes ``<prefix>_<date>.json``.
        initializers: values of the main graph's initializers that ``model`` marks with ``data_location = EXTERNAL``
            (with or without ``external_data`` entries). The session keeps the arrays alive; do not write to them.
        disable_prepacking: keep weights in their own layout. With ``initializers`` this saves all copies of them (the
            session computes on the arrays themselves); without it ONNX Runtime holds its own, packed copy.
        plan_memory: let ONNX Runtime plan which tensors share memory, and lay the plan out in the first run. Both are
            quadratic in the number of tensors: without, a graph of 7,500 nodes is created in 1 s instead of 24 s,
            and one of 4,000 layers runs for the first time in 0.1 s instead of 17 s (measured).
        optimized_to: if given, the optimized graph is written to this file.
        config: session config entries of ONNX Runtime, for what has no argument here.
        device: index of the CUDA device.
        provider_options: options of the CUDA provider beside ``device_id``, as its documentation names them;
            ``use_tf32`` is off unless given, against ONNX Runtime's default.
        cancel: token that can stop the creation.

    Raises:
        ModelError: the model cannot be read, or is not valid.
        BackendError: the provider is not there, or has no kernel for a node.
        MissingDependency: ONNX Runtime is not installed.
    """
    ort = require("onnxruntime", why="to run models", extra="cpu")
    threads = default_threads() if threads is None else threads
    _require_provider(ort, provider)
    source: bytes | str = model if isinstance(model, bytes) else _existing_file(model)

    options = ort.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[optimize])
    options.intra_op_num_threads = threads
    options.enable_mem_reuse = plan_memory
    options.enable_mem_pattern = plan_memory
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profile_prefix)
    if disable_prepacking:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if optimized_to is not None:
        options.optimized_model_filepath = os.fspath(optimized_to)
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    borrowed = _lend(options, initializers or {}, share=disable_prepacking)

    providers: list[Any] = [PROVIDER_NAMES[provider]]
    if provider == "cuda":
        _preload_cuda(ort)
        options_of = {**_FP32_IS_FP32, **(provider_options or {}), "device_id": str(device)}
        providers = [(PROVIDER_NAMES["cuda"], options_of), PROVIDER_NAMES["cpu"]]
    token = cancel or Cancel()
    token.check()
    with (
        token.watch(options),
        translated(doing="load", provider=PROVIDER_NAMES[provider], cancelled=lambda: token.cancelled),
    ):
        raw = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    if PROVIDER_NAMES[provider] not in raw.get_providers():
        raise BackendError(
            f"ONNX Runtime could not start {PROVIDER_NAMES[provider]} and fell back to {raw.get_providers()}.",
            why="Times and errors would belong to another device than the one you asked for.",
            fix="`precision-explorer backends` tells what is missing.",
        )
    return Session(raw, provider=provider, threads=threads, keep_alive=borrowed)


def run(
    session: Session,
    feeds: Mapping[str, NDArray[Any]],
    outputs: Sequence[str] | None = None,
    *,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Return the outputs of one run by name: arrays, or lists of arrays for sequence outputs.

    Args:
        session: from `create_session`.
        feeds: one array for each input, of the input's dtype and shape.
        outputs: names of the wanted outputs; all when None.
        cancel: token that can stop the run.

    Raises:
        InputError: an input is missing or unknown, or has a wrong dtype or shape.
        BackendError: a node failed while it ran.
        RunCancelled: ``cancel.cancel()`` was called.
    """
    ort = require("onnxruntime", why="to run models", extra="cpu")
    _check_feeds(session, feeds, outputs)
    wanted = list(session.output_names if outputs is None else outputs)
    token = cancel or Cancel()
    token.check()
    options = ort.RunOptions()
    options.log_severity_level = _FATAL_SEVERITY
    with (
        token.watch(options),
        translated(doing="run", provider=PROVIDER_NAMES[session.provider], cancelled=lambda: token.cancelled),
    ):
        values = _run_raw(session, feeds, wanted, options)
    return dict(zip(wanted, values, strict=True))


def _run_raw(session: Session, feeds: Mapping[str, NDArray[Any]], wanted: list[str], options: Any) -> list[Any]:
    types = [session.output_types[name] for name in wanted]
    if not needs_values(feeds.values(), types):
        return list(session.raw.run(wanted, dict(feeds), options))
    values = {name: value_of(feed) for name, feed in feeds.items()}
    return [array_of(value) for value in session.raw.run_with_ort_values(wanted, values, options)]


def run_bound(session: Session, binding: Any, *, wait: bool = True, cancel: Cancel | None = None) -> None:
    """Run once on what `Session.bind` returned; arguments and errors as in `run`.

    Args:
        session: from `create_session`.
        binding: from `Session.bind`.
        wait: until the device is done; if not, runs queue up behind each other on the device.
        cancel: token that can stop the run.
    """
    ort = require("onnxruntime", why="to run models", extra="cpu")
    token = cancel or Cancel()
    token.check()
    options = ort.RunOptions()
    options.log_severity_level = _FATAL_SEVERITY
    with (
        token.watch(options),
        translated(doing="run", provider=PROVIDER_NAMES[session.provider], cancelled=lambda: token.cancelled),
    ):
        if not wait:
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        session.raw.run_with_iobinding(binding, options)
        if wait:
            binding.synchronize_outputs()


def default_threads() -> int:
    """Return the number of processors that this process may really use.

    It is what the scheduler's affinity and the container's CPU quota allow, so that a container with two CPUs of a
    64-core machine gets two threads; ONNX Runtime alone would start one for every core of the machine.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2 here, or no quota ("max")
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    return allowed


def _require_provider(ort: Any, provider: str) -> None:
    if provider not in PROVIDER_NAMES:
        raise BackendError(
            f"There is no provider '{provider}'.",
            fix=nearest(provider, PROVIDER_NAMES) or f"Choose one of {', '.join(PROVIDER_NAMES)}.",
        )
    if PROVIDER_NAMES[provider] not in ort.get_available_providers():
        raise BackendError(
            f"The installed ONNX Runtime {ort.__version__} has no {PROVIDER_NAMES[provider]}.",
            why="It is the CPU build; models can run on a GPU only with the package 'onnxruntime-gpu'.",
            fix="pip uninstall onnxruntime, then pip install 'precision-explorer[gpu]': never have both installed.",
        )


def _preload_cuda(ort: Any) -> None:
    """Load CUDA's libraries from NVIDIA's wheels, where the dynamic linker does not look."""
    if hasattr(ort, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it did not find: the session's error tells
            ort.preload_dlls()


def _existing_file(path: str | os.PathLike[str]) -> str:
    if not Path(path).is_file():
        raise ModelError(f"There is no model file '{os.fspath(path)}'.", fix="Check the path.")
    return os.fspath(path)


def _lend(options: Any, initializers: Mapping[str, NDArray[Any]], *, share: bool) -> list[Any]:
    """Hand the arrays to ``options`` by their address and return what must stay alive."""
    if not initializers:
        return []
    arrays = [np.asarray(array, order="C") for array in initializers.values()]
    values = [value_of(array) for array in arrays]
    options.add_external_initializers(list(initializers), values)  # what the optimizers read
    if share:  # what the kernels read: measured, a weight of 144 MB then costs 0 MB more, else 144 MB
        for name, value in zip(initializers, values, strict=True):
            options.add_initializer(name, value)
    return [arrays, values]


def _check_feeds(session: Session, feeds: Mapping[str, Any], outputs: Sequence[str] | None) -> None:
    missing = [name for name in session.input_names if name not in feeds]
    unknown = [name for name in feeds if name not in session.input_names]
    if missing or unknown:
        parts = [f"Missing inputs: {', '.join(missing)}." if missing else ""]
        parts += [f"Unknown inputs: {', '.join(unknown)}." if unknown else ""]
        raise InputError(
            " ".join(part for part in parts if part),
            fix=f"The model's inputs are: {', '.join(session.input_names) or 'none'}.",
        )
    for name, feed in feeds.items():
        wanted = dtype_of(session.input_types[name])
        if wanted is not None and isinstance(feed, np.ndarray) and feed.dtype != wanted:
            raise InputError(
                f"Input '{name}' has data type {feed.dtype}; the model takes {wanted}.",
                fix=f"Convert it with .astype('{wanted}') where that keeps its meaning.",
            )
    for name in outputs or ():
        if name not in session.output_names:
            raise InputError(f"The model has no output '{name}'.", fix=nearest(name, session.output_names))
