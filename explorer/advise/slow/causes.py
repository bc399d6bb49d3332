"""Every cause, tested: the confirmed first, what explains most at their head, then what could not be tested."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import Case, told
from explorer.advise.slow.casts import cast_share, fallbacks, held_back, inserted_share
from explorer.advise.slow.hardware import cpu_hardware, gpu_hardware, wider_kernels
from explorer.advise.slow.host import copies, gpu_host, measured_host
from explorer.advise.slow.launch import launch_bound, small_measured, too_small
from explorer.advise.slow.layout import first_convolution, transposes
from explorer.advise.slow.shapes import alignment
from explorer.advise.slow.speed import MUCH, speed
from explorer.advise.slow.versions import runtime_version
from explorer.advise.words import plural
from explorer.backends.gpus import get_gpu
from explorer.backends.machine import look

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.advise.finding import Finding
    from explorer.advise.slow.case import Tested
    from explorer.backends.gpus import Gpu
    from explorer.backends.latency import LatencyResult
    from explorer.backends.roofline import PredictedModel
    from explorer.convert import Decisions
    from explorer.model import Model

__all__ = ["slow_findings"]

_ON_GPU: Final = (
    gpu_hardware, launch_bound, fallbacks, held_back, alignment, first_convolution, transposes, cast_share, too_small,
    wider_kernels, copies, gpu_host, runtime_version,
)  # fmt: skip
_ON_CPU: Final = (cpu_hardware, inserted_share, measured_host, small_measured, runtime_version)
_ORDER: Final = {"confirmed": 0, "untested": 1, "ruled out": 2}


def slow_findings(
    model: Model,
    decisions: Decisions,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    gpu: Gpu | str | None = None,
    predicted: PredictedModel | None = None,
    measured: LatencyResult | None = None,
    packages: Mapping[str, str] | None = None,
    target: str | None = None,
) -> list[Finding]:
    """Return why a plan is not faster than fp32, or how much faster it is; confirmed causes first.

    On a GPU everything is predicted by the roofline, which need not be right; without a GPU, what was measured on the
    CPU is told. With neither there is nothing to test, and nothing is returned.

    Args:
        model: the model.
        decisions: what became of the plan.
        shapes: shape of each input.
        gpu: the GPU to predict for, or its name.
        predicted: the prediction for these decisions, shapes and GPU, where it is there already.
        measured: latency of the fp32 model on the CPU; only asked where no GPU is named.
        packages: installed runtimes, to their versions; None looks.
        target: the backend whose kernels decide what may run low.

    Raises:
        BackendError: the GPU is not known.
    """
    device = get_gpu(gpu) if isinstance(gpu, str) else gpu
    if (device is None and measured is None) or not decisions.low_layers:
        return []
    installed = look().packages if packages is None else packages
    case = Case(model, decisions, shapes, device, predicted, measured, installed, target or "")
    if device is None:
        return _ordered([*(cause(case) for cause in _ON_CPU), _gpu_only()])
    if not case.plan_us:
        return [_unpredicted(case).finding]
    found = _ordered([cause(case) for cause in _ON_GPU])
    lead = speed(case, confirmed=sum(each.verdict == "confirmed" for each in found))
    if case.faster >= MUCH:  # then a cause says what is left to gain, and nothing is wrong
        found = [replace(each, tone="note") for each in found]
    return [lead, *found]


def _ordered(tested: list[Tested]) -> list[Finding]:
    ordered = sorted(tested, key=lambda each: (_ORDER[each.finding.verdict], -each.share))
    return [each.finding for each in ordered]


def _unpredicted(case: Case) -> Tested:
    count = len(case.result.unpredicted)
    return told(
        "unknown", "untested", "The latency cannot be predicted",
        "Without it no cause can be tested. The table of layers says what is missing.",
        f"{plural(count, 'layer')} without a prediction. {case.source}", layers=case.result.unpredicted,
    )  # fmt: skip


def _gpu_only() -> Tested:
    return told(
        "gpu", "untested", "Causes that only a GPU has",
        "Short kernels, dimensions for tensor cores, memory-bound layers between casts, copies: name a GPU, such as "
        "H100, to test them by prediction.",
    )  # fmt: skip
