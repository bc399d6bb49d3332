"""What NVIDIA states about each GPU: peak rates, bandwidth, sizes; the ceilings of the predicted latencies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from explorer.errors import BackendError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GPUS", "Gpu", "get_gpu"]

# A tensor core wants operands in runs of 16 bytes, and runs fastest with runs of 128 bytes from A100 on. In elements,
# that is 8 and 64 in fp16, 4 and 32 in TF32, 16 and 128 in int8: NVIDIA, Matrix Multiplication Background User's Guide
# (DU-09799-001), section 2.2, table 1.
GRANULE_BYTES = 16  # DU-09799-001 table 1, all GPUs
BEST_GRANULE_BYTES = 16  # DU-09799-001 table 1, V100 and T4
BEST_GRANULE_BYTES_AMPERE = 128  # DU-09799-001 table 1, "on A100"; later GPUs are taken to be alike
LAUNCH_US = 2.0  # a kernel's start and drain inside a CUDA graph; assumption, of the order of the smallest kernels


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that predictions can be cached by GPU
class Gpu:
    """One GPU's datasheet: dense peaks (no sparsity) at boost clock.

    Attributes:
        name: as NVIDIA writes it, with the form factor.
        capability: CUDA compute capability.
        sm_count: streaming multiprocessors.
        fp32_tflops: peak of the CUDA cores.
        tensor_tflops: peak of the tensor cores by format (``tf32``, ``fp16`` ...), accumulating in fp32 (int32).
        fp16_accumulate_tflops: peak of fp16 accumulating in fp16; twice the other on GeForce cards, the same elsewhere.
        bandwidth_gbs: memory bandwidth in GB/s (10^9 bytes).
        launch_us: assumed fixed cost of one kernel inside a running graph.
    """

    name: str
    capability: tuple[int, int]
    sm_count: int
    fp32_tflops: float
    tensor_tflops: Mapping[str, float]
    bandwidth_gbs: float
    fp16_accumulate_tflops: float = 0.0
    launch_us: float = LAUNCH_US
    aliases: tuple[str, ...] = field(default=(), repr=False)

    def granule(self, element_bytes: float) -> int:
        """Return the elements in which extents must come for full use of the tensor cores.

        >>> get_gpu("A100").granule(2), get_gpu("A100").granule(4), get_gpu("A100").granule(1)
        (8, 4, 16)
        """
        return max(1, int(GRANULE_BYTES / element_bytes))

    def best_granule(self, element_bytes: float) -> int:
        """Return the elements in which extents come best.

        >>> get_gpu("A100").best_granule(2), get_gpu("T4").best_granule(2)
        (64, 8)
        """
        best = BEST_GRANULE_BYTES_AMPERE if self.capability >= (8, 0) else BEST_GRANULE_BYTES
        return max(1, int(best / element_bytes))


def _rates(**tflops: float) -> Mapping[str, float]:
    return MappingProxyType(tflops)


_A100 = _rates(tf32=156, bf16=312, fp16=312, int8=624)  # NVIDIA A100 datasheet (2021)
_HOPPER = _rates(tf32=495, bf16=989, fp16=989, fp8e4m3=1979, fp8e5m2=1979, int8=1979)  # H100 and H200 datasheets, SXM

_TABLE = (
    # NVIDIA T4 datasheet (320 GB/s: its 2018 edition; later ones say 300); Turing tensor cores know no bf16 and no TF32
    Gpu("T4", (7, 5), 40, 8.1, _rates(fp16=65, int8=130), 320),
    # NVIDIA V100 datasheet, SXM2; no tensor-core int8
    Gpu("V100-SXM2", (7, 0), 80, 15.7, _rates(fp16=125), 900, aliases=("V100-SXM",)),
    # NVIDIA A10 datasheet
    Gpu("A10", (8, 6), 72, 31.2, _rates(tf32=62.5, bf16=125, fp16=125, int8=250), 600),
    # NVIDIA A100 datasheet; SXM and PCIe differ in power and bandwidth, not in peak
    Gpu("A100-SXM-80GB", (8, 0), 108, 19.5, _A100, 2039, aliases=("A100", "A100-SXM", "A100-80GB", "A100-SXM4-80GB")),
    Gpu("A100-SXM-40GB", (8, 0), 108, 19.5, _A100, 1555, aliases=("A100-40GB", "A100-SXM4-40GB")),
    Gpu("A100-PCIE-80GB", (8, 0), 108, 19.5, _A100, 1935, aliases=("A100-PCIE", "A100-80GB-PCIE")),
    Gpu("A100-PCIE-40GB", (8, 0), 108, 19.5, _A100, 1555, aliases=("A100-40GB-PCIE",)),
    # NVIDIA L4 datasheet (its tensor rates are stated with sparsity: halved here)
    Gpu("L4", (8, 9), 58, 30.3, _rates(tf32=60, bf16=121, fp16=121, fp8e4m3=242, fp8e5m2=242, int8=242), 300),
    # NVIDIA L40S datasheet
    Gpu("L40S", (8, 9), 142, 91.6, _rates(tf32=183, bf16=362, fp16=362, fp8e4m3=733, fp8e5m2=733, int8=733), 864),
    # NVIDIA Ampere GA102 architecture whitepaper, appendix A
    Gpu(
        "RTX 3090",
        (8, 6),
        82,
        35.6,
        _rates(tf32=35.6, bf16=71, fp16=71, int8=284),
        936,
        fp16_accumulate_tflops=142,
        aliases=("GeForce RTX 3090",),
    ),
    # NVIDIA Ada GPU architecture whitepaper, appendix A
    Gpu(
        "RTX 4090",
        (8, 9),
        128,
        82.6,
        _rates(tf32=82.6, bf16=165.2, fp16=165.2, fp8e4m3=330.3, fp8e5m2=330.3, int8=660.6),
        1008,
        fp16_accumulate_tflops=330.3,
        aliases=("GeForce RTX 4090",),
    ),
    # NVIDIA H100 datasheet, SXM; NVIDIA H200 datasheet
    Gpu("H100-SXM", (9, 0), 132, 67, _HOPPER, 3350, aliases=("H100", "H100-80GB", "H100-SXM5-80GB")),
    Gpu("H200", (9, 0), 132, 67, _HOPPER, 4800, aliases=("H200-SXM", "H200-141GB")),
)

GPUS: Mapping[str, Gpu] = MappingProxyType({gpu.name: gpu for gpu in _TABLE})


def _folded(name: str) -> str:
    words = re.sub(r"[^a-z0-9]", "", name.casefold())
    return re.sub(r"^(nvidia|tesla)+", "", words).removeprefix("geforce")


def _index() -> dict[str, Gpu]:
    known: dict[str, Gpu] = {}
    for gpu in _TABLE:
        for name in (gpu.name, *gpu.aliases):
            known[_folded(name)] = gpu
    return known


_KNOWN = _index()
_SUFFIX = re.compile(r"(sxm\d?|hbm\de?|\d+gb)$")  # not PCIe: that card is slower, so it must not pass for the SXM one
_MEMORY = re.compile(r"(?<![^\W_])(\d+) ?gb", re.IGNORECASE)  # A100-80GB, but not what A100 and 80GB fold to


def get_gpu(name: str) -> Gpu:
    """Return the GPU of this name; case, spaces, vendor and missing or unknown suffixes are forgiven.

    A card with another memory than the table states is refused: its bandwidth is another, too.

    >>> get_gpu("h100").name, get_gpu("NVIDIA GeForce RTX4090").name, get_gpu("a100").name
    ('H100-SXM', 'RTX 4090', 'A100-SXM-80GB')

    Args:
        name: a name as in ``GPUS``, or as the driver or a seller writes it.

    Raises:
        BackendError: no such GPU is in the table.
    """
    found = _found(_folded(name))
    if found is not None:
        sizes = _memory(found.name, *found.aliases)
        if not sizes or _memory(name) <= sizes:
            return found
    raise BackendError(
        f"No GPU named '{name}' is in the table.",
        why="A predicted latency needs the GPU's peak rates and bandwidth.",
        fix=nearest(name, GPUS) or f"Known: {', '.join(GPUS)}.",
    )


def _found(folded: str) -> Gpu | None:
    """Return the GPU of a folded name, or of that without its last suffixes; None where there is none, or several."""
    while folded:
        if folded in _KNOWN:
            return _KNOWN[folded]
        longer = {known.name: known for key, known in _KNOWN.items() if _SUFFIX.sub("", key) == folded}
        if len(longer) == 1:
            return next(iter(longer.values()))
        shorter = _SUFFIX.sub("", folded)
        if shorter == folded:
            break
        folded = shorter
    return None


def _memory(*names: str) -> set[str]:
    """Return the sizes of memory that names state, in GB."""
    return {size for name in names for size in _MEMORY.findall(name)}
