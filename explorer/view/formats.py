"""The formats that a plan may have: what each is and needs, and why a model cannot have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from explorer.model import Model

__all__ = ["formats_json"]

Json = dict[str, Any]

_ABOUT: Final = {
    "fp16": "half the bytes, 11 bits; ends at 65,504",
    "bf16": "half the bytes, range of fp32, 8 bits",
    "int8": "8-bit integers; needs a calibration: made on the samples at first use",
    "tf32": "products in 11 bits, range of fp32; a mode of NVIDIA GPUs, which no file stores",
    "fp8e4m3": "operands of products in 8 bits, up to 448; TensorRT alone runs it",
    "fp8e5m2": "operands of products in 8 bits, up to 57,344; to study: no runtime takes it as weights and data",
}
_FIRST_OPSET: Final = {"bf16": 13, "int8": 10}  # whose operators take it (onnx/docs/Changelog.md)
_EXPORT_OPSET: Final = {"fp8e4m3": 19, "fp8e5m2": 19}  # of QuantizeLinear for these codes; likewise


def formats_json(model: Model) -> list[Json]:
    """Return `FormatState` of js/src/protocol.ts for each low format.

    A format that the model's opset does not have can be looked at where only the file would lack it.
    """
    return [{"name": name, "about": _about(name, model.opset), "off": _off(name, model.opset)} for name in _ABOUT]


def _about(name: str, opset: int) -> str:
    needed = _EXPORT_OPSET.get(name, 0)
    more = f"; exporting needs opset {needed}, and this model has {opset}" if opset < needed else ""
    return _ABOUT[name] + more


def _off(name: str, opset: int) -> str:
    needed = _FIRST_OPSET.get(name, 0)
    return f"needs opset {needed}, and this model has {opset}" if opset < needed else ""
