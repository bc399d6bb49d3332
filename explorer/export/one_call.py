"""A whole conversion, file to file, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.convert import DEFAULT_TARGET, Conversion, convert
from explorer.errors import PlanError, nearest
from explorer.export.onnx_file import save_onnx
from explorer.model import Model, load_model
from explorer.plan import Plan, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx

__all__ = ["convert_to_mixed_precision"]


def convert_to_mixed_precision(
    src: str | Path | bytes | onnx.ModelProto,
    dst: str | Path,
    *,
    precision: str = "fp16",
    backend: str | None = DEFAULT_TARGET,
    keep_io_types: bool = True,
    black_list: Iterable[str] = (),
    white_list: Iterable[str] = (),
    clamp: bool = False,
) -> Conversion:
    """Convert a model in one call, in the shape that Paddle users know, and return how it came to be.

    Args:
        src: the source model.
        dst: the file to write.
        precision: ``fp16`` or ``bf16``.
        backend: where the model shall run; layers without a low kernel there stay in fp32.
        keep_io_types: inputs and outputs keep their types.
        black_list: operator types, layer ids or glob patterns that stay in fp32.
        white_list: likewise, that run low even where the black list names them.
        clamp: weights beyond the range of the format become its largest value instead of infinity.

    Raises:
        ModelError: the source cannot be read or is invalid.
        PlanError: a name in a list fits nothing in the model; the nearest names are told.
        ConversionError: the model's opset has no such format.
        ExportError: ``dst`` cannot be written; what stood there is untouched.
    """
    model = load_model(src)
    plan = Plan(format=precision, keep_io=keep_io_types)
    for names, change in ((black_list, Plan.block), (white_list, Plan.allow)):
        if isinstance(names, str):
            raise PlanError(f"A list of names is the single string '{names}'.", fix=f"Give [{names!r}].")
        op_types, layers = _sorted_names(model, names)
        plan = change(plan, op_types=op_types, layers=layers)
    conversion = convert(model, plan, backend=backend, clamp=clamp)
    save_onnx(conversion, model, dst)
    return conversion


def _sorted_names(model: Model, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return which of the names are operator types, and which are layers; a pattern that fits layers means layers."""
    operators = {layer.qualified_op for layer in model.layers}
    found: dict[str, list[str]] = {"op": [], "layer": []}
    for name in names:
        kinds = ("op",) if name in operators else ("layer", "op")
        kind = next((kind for kind in kinds if any(map(Rule(kind, name, "fp32").matcher(), model.layers))), None)
        if kind is None:
            raise PlanError(
                f"A list names '{name}', and the model has no operator type or layer that matches.",
                why="A blacklist that names nothing protects nothing.",
                fix=nearest(name, operators | {layer.id for layer in model.layers})
                or "`precision-explorer inspect` lists them.",
            )
        found[kind].append(name)
    return found["op"], found["layer"]
