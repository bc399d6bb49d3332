"""Causes outside the device: copies to and from it, and the time of the host."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import NOTABLE, told
from explorer.advise.words import duration, plural, quantity, share, size
from explorer.model.cost_types import UnknownCostError, item_bytes

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested
    from explorer.backends.gpus import Gpu

__all__ = ["copies", "gpu_host", "measured_host"]

# One direction of 16 lanes in GB/s, by the standards' rates: PCIe 3.0, 4.0, 5.0. The generation follows the datasheets
# of the GPUs in the table: T4 and V100 have 3.0, Ampere and Ada 4.0, Hopper 5.0.
_PCIE_GBS: Final = (((9, 0), 64.0), ((8, 0), 32.0), ((0, 0), 16.0))
_PCIE_CEILING: Final = 0.8  # share of it that a large copy reaches; assumption
_HOST_LAUNCH_US: Final = 5.0  # of a kernel from the CPU, without a CUDA graph; assumption, of the usual order


def _pcie_gbs(gpu: Gpu) -> float:
    """Return the rate of one direction; Ada has 8.9, which is below Hopper's 9.0."""
    return next(rate for capability, rate in _PCIE_GBS if gpu.capability >= capability)


def copies(case: Case) -> Tested:
    """Test how long inputs and outputs take over the bus beside the predicted latency."""
    gpu = case.gpu
    assert gpu is not None
    moved = sum(_bytes(case, spec.name) for spec in (*case.model.inputs, *case.model.outputs))
    if math.isnan(moved):
        return told("copy", "untested", "Copies to and from the GPU", "The size of an input or output is not known.")
    rate = _pcie_gbs(gpu) * _PCIE_CEILING
    us = moved / rate * 1e-3
    part = us / (us + case.plan_us) if case.plan_us else 0.0
    figures = (
        f"{size(moved)} of inputs and outputs at {quantity(rate)} GB/s over PCIe take {duration(us)}; the "
        f"model takes {duration(case.plan_us)}. Predicted; the rate is assumed to be {_PCIE_CEILING:.0%} of PCIe's."
    )
    if part < NOTABLE:
        return told("copy", "ruled out", "Copies to and from the GPU", "They take little time.", figures)
    text = "Copies that the program waits for come on top of the latency, and the format of the layers does not change "
    text += "them. Keep data on the GPU, or copy while the GPU computes."
    if case.decisions.plan.keep_io:
        text += f" Inputs and outputs in {case.low} are half as large."
    title = f"Copies would take {share(part, 1)} of a run"
    return told("copy", "confirmed", title, text, figures, share=part)


def _bytes(case: Case, name: str) -> float:
    """Return the bytes of an input or output as it crosses the bus; NaN where its size is not known."""
    spec = case.specs.get(name)
    if spec is None or spec.static_shape is None:
        return math.nan
    low = spec.dtype == "float32" and not case.decisions.plan.keep_io
    try:
        return math.prod(spec.static_shape) * (case.low_bytes if low else item_bytes(spec.dtype))
    except UnknownCostError:
        return math.nan


def gpu_host(case: Case) -> Tested:
    """Say why the host's part cannot be tested without the GPU, and when it would matter."""
    assert case.gpu is not None
    count = len(case.kernels) + len(case.casts)
    us = count * _HOST_LAUNCH_US
    launches = (
        "launches alone could take longer than the model"
        if us > case.plan_us
        else "launches would take less than the model"
    )
    return told(
        "host", "untested", "The CPU as the bottleneck",
        f"Whether {case.gpu.name} waits for its host shows only in a run there. Without a CUDA graph, {launches}.",
        f"{plural(count, 'launch', 'launches')} of {quantity(_HOST_LAUNCH_US)} us on the host (assumed): "
        f"{duration(us)}; on the GPU {duration(case.plan_us)}. {case.source}",
    )  # fmt: skip


def measured_host(case: Case) -> Tested:
    """Test what part of a measured run is in no layer: the executor and copies of inputs and outputs."""
    measured = case.measured
    assert measured is not None
    if measured.overhead_us is None or not measured.profiled_us:
        return told("host", "untested", "Time outside the layers", "The runtime gave no times by layer.")
    part = measured.overhead_us / measured.profiled_us
    figures = (
        f"{duration(measured.overhead_us)} of {duration(measured.profiled_us)} are in no layer, the profiler's work "
        f"included. {measured.provenance}."
    )
    if part < NOTABLE:
        return told("host", "ruled out", "Time outside the layers", "It is little.", figures)
    return told(
        "host", "confirmed", f"{share(part, 1)} of the time is in no layer",
        "The executor and the copies of inputs and outputs take it: no format of a layer changes that.",
        figures, share=part,
    )  # fmt: skip
