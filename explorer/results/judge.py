"""What judges the plans that a search proposes: the emulation, the predicted latency, the user's metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.backends.runtime import Cancel
from explorer.errors import InputError
from explorer.search.point import Judge, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.plan import Plan
    from explorer.results.metric import Metric
    from explorer.results.results import PlanErrors, Results

__all__ = ["error_of", "judge_of", "scorer"]


def judge_of(
    results: Results,
    plan: Plan,
    target: str | None,
    gpu_model: str,
    score: Callable[[Plan, Cancel | None], float] | None = None,
) -> Judge:
    """Return the judge of plans.

    Args:
        results: of the model and the samples.
        plan: any plan of the format.
        target: the backend whose kernels decide what may run low.
        gpu_model: the GPU that latency is predicted for; empty counts layers in fp32.
        score: what :func:`scorer` returns.
    """

    def run(candidate: Plan, cancel: Cancel | None) -> Outcome:
        with results.turn(cancel or Cancel()):
            found = results.errors(candidate, target, tried=False)
        return Outcome(error_of(found), () if np.isfinite(found.worst_db) else _suspects(results, candidate, target))

    def cost(candidate: Plan) -> float:
        if gpu_model:
            return results.latencies.predict(candidate, target, gpu_model).result.plan_us
        decisions = results.decisions(candidate, target)
        return float(sum(may.switchable for may in decisions.typing.layers.values()) - len(decisions.low_layers))

    exact = float("nan") if score is None else score(_exact(plan), None)
    return Judge(run, cost, results.provenance(plan, target), score, exact)


def error_of(found: PlanErrors) -> float:
    """Return the relative L2 error of the worst output; inf where one is not finite.

    Raises:
        InputError: the model has no float32 output.
    """
    if np.isnan(found.worst_db):
        raise InputError(
            "No float32 output of the model can be compared, so plans have no error to search by.",
            why="The search minimises latency for a given error of the outputs.",
            fix="Cut the model before its last ArgMax or Cast, so that it returns float32 scores.",
        )
    return float(10 ** (-found.worst_db / 20))


def scorer(results: Results, metric: Metric, target: str | None) -> Callable[[Plan, Cancel | None], float]:
    """Return a function that runs a plan on the samples of ``results`` and returns the metric."""

    def score(plan: Plan, cancel: Cancel | None) -> float:
        with results.turn(cancel or Cancel()):
            exact, planned = results.outputs(plan, target)
        return metric(exact, planned)

    return score


def _exact(plan: Plan) -> Plan:
    """Return the plan that runs nothing low."""
    return type(plan).preset("fp32", format=plan.format)


def _suspects(results: Results, plan: Plan, target: str | None) -> tuple[str, ...]:
    """Return the low layers by which a plan's first result becomes inf or NaN: that layer, or what feeds it."""
    decisions = results.decisions(plan, target)
    found = results.errors(plan, target, tried=False)
    sums: Any = found.layers.sums
    rows = zip(results.model.layers, found.layers.measured, sums.finite, strict=True)
    broken = next((layer for layer, seen, finite in rows if seen and not finite), None)
    if broken is None:
        return ()
    makers = {name: layer for layer in results.model.layers for name in layer.outputs}
    front, seen = [broken], {broken.id}
    while front:
        if low := tuple(layer.id for layer in front if layer.id in decisions.low_layers):
            return low
        behind = [makers[name] for layer in front for name in layer.inputs if name in makers]
        front = [layer for layer in behind if layer.id not in seen]
        seen |= {layer.id for layer in front}
    return ()
