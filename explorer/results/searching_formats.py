"""What a search among given formats stands on: costs and the judge of each, with what the results know already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from explorer.plan import Plan
from explorer.results.measuring import CPU as CPU_BACKEND
from explorer.results.measuring import measure_plan
from explorer.results.provenance import provenance_of
from explorer.search.costs import roofline_costs
from explorer.search.counting import counted_costs, counted_formats, counted_plan
from explorer.search.formats import CPU
from explorer.search.measured_costs import measured_costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.backends.runtime import Cancel
    from explorer.convert import Typing
    from explorer.results.results import Results
    from explorer.search.costs import CostModel
    from explorer.search.point import Judge

__all__ = ["costs_of", "judged_by"]


def costs_of(results: Results, typings: Sequence[Typing], gpu: str, cancel: Cancel) -> list[CostModel]:
    """Return what each layer takes in fp32 and in each low format.

    Args:
        results: of the model.
        typings: what each layer may be in each low format.
        gpu: the GPU that latency is predicted for; ``cpu`` measures int8 here; empty counts layers.
        cancel: stops a measurement.
    """
    if gpu == CPU:
        (typing,) = typings
        target = typing.backend
        plans = (Plan.preset("fp32", format=typing.format), Plan(format=typing.format))
        high, low = (measure_plan(results, plan, target, CPU_BACKEND, cancel=cancel) for plan in plans)
        return [measured_costs(typing, results.samples.shapes, high, low)]
    if gpu:
        model, shapes, predictions = results.model, results.samples.shapes, results.latencies.predictions
        found = [roofline_costs(model, shapes, typing, gpu, predictions=predictions) for typing in typings]
        return [replace(each, provenance=f"{each.provenance}, {results.samples.batch_note}") for each in found]
    if len(typings) == 1:
        return [counted_costs(typings[0])]
    return list(counted_formats(typings[0], typings[1]))


def judged_by(judge: Judge, results: Results, typings: Sequence[Typing], costs: Sequence[CostModel], gpu: str) -> Judge:
    """Return the judge with the cost that fits the formats: what a GPU's prediction does not tell.

    Args:
        judge: of plans of a GPU.
        results: of the model.
        typings: what each layer may be in each low format.
        costs: in each.
        gpu: as for :func:`costs_of`.
    """
    target = typings[0].backend
    if gpu == CPU:

        def measured(plan: Plan) -> float:
            low = results.decisions(plan, target).low_layers
            return costs[0].total(np.array([layer.id in low for layer in results.model.layers], np.bool_))

        return replace(judge, cost=measured)
    if len(typings) > 1:
        formats = [typing.format for typing in typings]
        judge = replace(judge, error_provenance=provenance_of(*formats, calibration=results.scales.known))
    if not gpu and len(typings) > 1:
        own, int8 = typings
        return replace(judge, cost=lambda plan: counted_plan(results.decisions(plan, target), own, int8))
    return judge
