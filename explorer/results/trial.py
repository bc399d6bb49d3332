"""What another plan would change: both run, told in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.results.accuracy import Accuracy

if TYPE_CHECKING:
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["Trial", "TrialFigures", "trial"]


@dataclass(frozen=True, slots=True)
class TrialFigures:
    """What one plan gives.

    Attributes:
        error: relative L2 error of the worst output; inf where one is not finite, NaN where none can be compared.
        metric: accuracy, 0 to 1; None without labels.
        latency_us: of the whole model in microseconds; None where no GPU was named.
    """

    error: float
    metric: float | None
    latency_us: float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """Two plans side by side.

    Attributes:
        before: under the plan of the exploration.
        after: under the plan that was tried.
        text: both in words, with how they came to be.
    """

    before: TrialFigures
    after: TrialFigures
    text: str

    def __str__(self) -> str:
        return self.text


def trial(results: Results, plan: Plan, other: Plan, target: str | None, *, gpu_model: str | None) -> Trial:
    """Return what ``other`` changes against ``plan``; neither is listed among the plans tried."""
    before, after = (_figures(results, each, target, gpu_model) for each in (plan, other))
    parts = [f"Output error {_error(before.error)} → {_error(after.error)} ({results.provenance(other, target)})"]
    if before.metric is not None and after.metric is not None:
        parts.append(f"accuracy {100 * before.metric:.1f} % → {100 * after.metric:.1f} %")
    if gpu_model is not None and before.latency_us is not None and after.latency_us is not None:
        provenance = results.latencies.predict(other, target, gpu_model).result.provenance
        parts.append(f"latency {before.latency_us:,.1f} → {after.latency_us:,.1f} µs ({provenance})")
    return Trial(before, after, "; ".join(parts) + ".")


def _figures(results: Results, plan: Plan, target: str | None, gpu_model: str | None) -> TrialFigures:
    found = results.errors(plan, target, tried=False)
    latency = None if gpu_model is None else results.latencies.predict(plan, target, gpu_model).result.plan_us
    accuracy = found.accuracy.plan if isinstance(found.accuracy, Accuracy) else None
    return TrialFigures(float(10 ** (-found.worst_db / 20)), accuracy, latency)


def _error(error: float) -> str:
    if np.isnan(error):
        return "unknown"
    if error == 0:
        return "none"
    return f"{error:.2e}" if np.isfinite(error) else "inf or NaN"
