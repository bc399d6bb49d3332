"""Time of one GPU kernel from its work: the roofline with tiles, waves, alignment and realistic ceilings.

    time = launch + max(arithmetic, memory) + (1 - overlap) x min(arithmetic, memory)

``docs/roofline.md`` derives each term, and says how far it was from real kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from explorer.errors import BackendError, nearest

if TYPE_CHECKING:
    from explorer.backends.gpus import Gpu
    from explorer.model.cost_types import GemmShape, Kind

__all__ = ["STORAGE_BYTES", "Bound", "KernelTime", "Settings", "kernel_time", "product_us", "storage_bytes"]

Bound = Literal["compute", "memory", "launch", "free", "unknown"]

# Fitted on ResNet-18, batch 32, A100 80GB PCIe, fp32 with TF32 and fp16 (benchmarks/roofline_fidelity.py --fit).
TENSOR_CEILING = 0.95  # share of the tensor cores' peak that an endless tile reaches; set, the fit does not bound it
TILE_COST = 16.0  # operand traffic on chip: a tile of a x b runs at 1 / (1 + TILE_COST (1/a + 1/b)); fitted
TILE_LATENCY_BYTES = 96.0  # a tile's start and end cost as much as this many bytes more of k; fitted
MEMORY_CEILING = 0.75  # share of the datasheet's bandwidth that a kernel reaches; fitted
OVERLAP = 0.6  # share of the shorter of arithmetic and memory that hides behind the longer; fitted
CUDA_CORE_CEILING = 0.77  # share of the fp32 peak: Conv_0 of ResNet-18/A100, 7.55 GFLOP in 522 us without TF32

K_STEP_BYTES = 64  # kernels walk k in steps of 32 fp16 elements: "tilesize...x32" in the tactic names of the fixtures
MISALIGNED_COST = 1.0  # a matmul whose k or n is odd takes twice as long, halfway in between; assumption, unmeasured
STEM_CHANNELS = 4  # convolutions of up to 4 channels pad to 4, not to the granule: "channel % 4" in the fixtures
REDUCED_BYTES = 8  # split k: each partial sum is written and read once more in fp32
TILES = ((256, 128), (128, 256), (128, 128), (256, 64), (64, 256), (128, 64), (64, 128), (64, 64), (128, 32), (64, 32))
SPLITS = (1, 2, 4, 8, 16, 32)  # slices of k that run side by side when there are few tiles

STORAGE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8e4m3": 1, "fp8e5m2": 1, "int8": 1}  # by definition
_WIDER = {"bf16": "fp32", "fp16": "fp32", "fp8e4m3": "fp16", "fp8e5m2": "fp16", "int8": "fp16", "tf32": "fp32"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the predicted run is allowed to do.

    Attributes:
        allow_tf32: whether fp32 convolutions and matrix products may use TF32 (TensorRT's default; ONNX Runtime's too).
        accumulate: ``fp32``, or ``fp16`` for engines that accumulate fp16 products in fp16; differs on GeForce cards.
    """

    allow_tf32: bool = True
    accumulate: Literal["fp32", "fp16"] = "fp32"


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Predicted time of one kernel in microseconds, and what limits it."""

    us: float
    bound: Bound


def storage_bytes(fmt: str) -> int:
    """Return the bytes of one stored element of a format (TF32 is stored as fp32).

    Raises:
        BackendError: there is no such format.
    """
    try:
        return STORAGE_BYTES[fmt]
    except KeyError:
        raise BackendError(
            f"No format is called '{fmt}'.", fix=nearest(fmt, STORAGE_BYTES) or f"Known: {', '.join(STORAGE_BYTES)}."
        ) from None


def kernel_time(
    gpu: Gpu, fmt: str, *, flops: float, moved_bytes: float, gemm: GemmShape | None, kind: Kind, settings: Settings
) -> KernelTime:
    """Return the predicted time of one kernel.

    Args:
        gpu: where it runs.
        fmt: format of its arithmetic and of its operands.
        flops: floating-point operations.
        moved_bytes: bytes between memory and chip.
        gemm: the matrix product, if it is one; ``flops`` beyond it are pointwise work on the CUDA cores.
        kind: what sort of work; only convolutions may pad their channels.
        settings: what the run may do.
    """
    pointwise = max(0.0, flops - (gemm.flops if gemm else 0))
    compute = pointwise / (gpu.fp32_tflops * CUDA_CORE_CEILING) * 1e-6
    if gemm is not None:
        compute += product_us(gpu, fmt, gemm, kind, settings)
    memory = moved_bytes / (gpu.bandwidth_gbs * MEMORY_CEILING) * 1e-3
    us = gpu.launch_us + max(compute, memory) + (1 - OVERLAP) * min(compute, memory)
    if max(compute, memory) < gpu.launch_us:
        return KernelTime(us, "launch")
    return KernelTime(us, "compute" if compute > memory else "memory")


@lru_cache(maxsize=8192)  # models repeat their shapes
def product_us(gpu: Gpu, fmt: str, gemm: GemmShape, kind: Kind, settings: Settings) -> float:
    """Return the microseconds of a matrix product's arithmetic: the fastest way that the GPU has for this format."""
    if not gemm.flops:
        return 0.0
    ways = [gemm.flops / (gpu.fp32_tflops * CUDA_CORE_CEILING) * 1e-6]
    engine = "tf32" if fmt == "fp32" and settings.allow_tf32 else fmt
    if engine in gpu.tensor_tflops and _tensor_ready(engine, gemm, kind):
        peak = gpu.tensor_tflops[engine]
        if engine == "fp16" and settings.accumulate == "fp16":
            peak = max(peak, gpu.fp16_accumulate_tflops)
        ways.append(_tensor_us(gpu, peak, STORAGE_BYTES[engine], gemm, kind))
    if fmt in _WIDER:  # a kernel may widen its operands as it loads them
        ways.append(product_us(gpu, _WIDER[fmt], gemm, kind, settings))
    return min(ways)


def _tensor_ready(engine: str, gemm: GemmShape, kind: Kind) -> bool:
    # TensorRT ran the stem (3 channels) of ResNet-18 on the CUDA cores in fp32, where TF32 wants 4 (fixture, A100).
    return not (engine == "tf32" and kind == "conv" and gemm.aligned_extent % STEM_CHANNELS)


def _tensor_us(gpu: Gpu, peak_tflops: float, element_bytes: int, gemm: GemmShape, kind: Kind) -> float:
    granule = gpu.granule(element_bytes)
    slowdown = 1.0
    if kind == "conv":  # convolution libraries pad channels in memory
        granule = STEM_CHANNELS if gemm.aligned_extent <= STEM_CHANNELS else granule
        k = gemm.k // gemm.aligned_extent * _round_up(gemm.aligned_extent, granule)
    else:  # matrices lie as they are: odd extents are loaded in smaller pieces
        k = gemm.k
        run = min(math.gcd(gemm.aligned_extent, granule), math.gcd(gemm.n, granule))
        slowdown = 1 + MISALIGNED_COST * (1 - run / granule)
    k = _round_up(k, max(1, K_STEP_BYTES // element_bytes))
    per_sm = peak_tflops * TENSOR_CEILING * 1e6 / gpu.sm_count  # operations per microsecond
    start = TILE_LATENCY_BYTES / element_bytes
    best = math.inf
    for rows, columns in TILES:
        rate = per_sm / (1 + TILE_COST * (1 / rows + 1 / columns))
        tiles = math.ceil(gemm.m / rows) * math.ceil(gemm.n / columns) * gemm.batch
        for split in SPLITS:
            tile_us = 2 * rows * columns * (math.ceil(k / split) + start) / rate
            merge = 0.0
            if split > 1:
                merge = (
                    gemm.m * gemm.n * gemm.batch * split * REDUCED_BYTES / (gpu.bandwidth_gbs * MEMORY_CEILING) * 1e-3
                )
            best = min(best, math.ceil(tiles * split / gpu.sm_count) * tile_us + merge)
    return best * gemm.steps * slowdown


def _round_up(value: int, granule: int) -> int:
    return math.ceil(value / granule) * granule
