"""Causes in the device: no fast low format, and kernels that the runtime chooses in a wider one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import HIGH, told
from explorer.advise.words import join, plural, quantity, times
from explorer.backends.kernel_model import Settings, product_us
from explorer.backends.kernels import kernel_support
from explorer.convert.typing import type_layers

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested

__all__ = ["cpu_hardware", "gpu_hardware", "wider_kernels"]

_CPU: Final = "onnxruntime-cpu"
_FAST: Final = 1.5  # times the rate of fp32 products: less is no reason to change the format


def gpu_hardware(case: Case) -> Tested:
    """Test whether the GPU multiplies faster in the low format, by its datasheet."""
    gpu, low = case.gpu, case.low
    assert gpu is not None
    high, engine = (gpu.tensor_tflops["tf32"], "TF32") if "tf32" in gpu.tensor_tflops else (gpu.fp32_tflops, "fp32")
    peak = gpu.tensor_tflops.get(low, 0.0)
    if peak < _FAST * high:
        others = [name for name in ("fp16", "bf16") if gpu.tensor_tflops.get(name, 0.0) >= _FAST * high]
        has = f"{quantity(peak)} TFLOP/s" if peak else "no tensor cores for it"
        return told(
            "hardware", "confirmed", f"{gpu.name} has no fast {low}",
            f"Products in {low} run no faster than in fp32 here."
            + (f" {join(others)} would." if others else " Choose another GPU."),
            f"{low}: {has}; {engine}: {quantity(high)} TFLOP/s (datasheet).", share=1.0,
        )  # fmt: skip
    text = f"Its tensor cores multiply {times(peak / high)} as fast in {low} as "
    text += (
        "in TF32, which products in fp32 use: about the most that a product can gain."
        if engine == "TF32"
        else "its other cores do in fp32."
    )
    return told(
        "hardware", "ruled out", f"Hardware without fast {low}", f"{gpu.name} has it. {text}",
        f"{low}: {quantity(peak)} TFLOP/s, {engine}: {quantity(high)} TFLOP/s (datasheet).",
    )  # fmt: skip


def cpu_hardware(case: Case) -> Tested:
    """Tell what ONNX Runtime's CPU provider does with a low format: it has no arithmetic in it."""
    kernels = kernel_support(_CPU).source
    low = [layer.id for layer in case.layers if layer.id in case.decisions.low_layers]
    typing = type_layers(case.model, case.low, _CPU)
    without = [layer_id for layer_id in low if typing.layers[layer_id].blocked]
    if not without:
        return told(
            "hardware", "untested", f"Hardware without fast {case.low}",
            f"Every layer has a kernel for {case.low} on this CPU. Whether it computes in it was not measured.",
            kernels,
        )  # fmt: skip
    return told(
        "hardware", "confirmed", "ONNX Runtime computes in fp32 on this CPU",
        f"A layer without a kernel for {case.low} runs as cast, fp32, cast: the arithmetic stays what it was. To see "
        "what a GPU would gain, name one.",
        f"{len(without):,} of {plural(len(low), 'layer')} in {case.low} have no such kernel. {kernels}", share=1.0,
    )  # fmt: skip


def wider_kernels(case: Case) -> Tested:
    """Say why nobody can tell without a profile whether the runtime runs a layer in a wider format."""
    gpu, low = case.gpu, case.low
    assert gpu is not None
    long = (each.layer.id for each in case.kernels if each.format == low and each.bound[low] != "launch")
    wide = tuple(layer_id for layer_id in long if _runs_wide(case, layer_id))
    hint = (
        f"{plural(len(wide), 'product')} would run in fp32"
        if wide
        else f"no product would be faster in fp32 than in {low}"
    )
    return told(
        "wider", "untested", "Kernels in a wider format, and reformats",
        "Runtimes may take a kernel in fp32 that they find faster, and reorder tensors in memory between kernels. "
        f"Only a profile on {gpu.name} shows it.",
        f"By prediction {hint}. {case.source}", layers=wide,
    )  # fmt: skip


def _runs_wide(case: Case, layer_id: str) -> bool:
    """Return whether the roofline itself takes a kernel in fp32 for a product in the low format."""
    cost, gpu = case.costs[layer_id], case.gpu
    if gpu is None or cost.gemm is None or not cost.is_known:
        return False
    low, high = (product_us(gpu, name, cost.gemm, cost.kind, Settings()) for name in (case.low, HIGH))
    return low >= high
