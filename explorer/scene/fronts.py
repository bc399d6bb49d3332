"""The front of a search as a view shows it: `SearchState` of js/src/protocol.ts, and the columns of the layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.results import Accuracy, label_of
from explorer.scene.casts import cast_count
from explorer.scene.numbers import num

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.results import Results
    from explorer.search.front import Front
    from explorer.search.point import FrontPoint

__all__ = ["FrontColumns", "ShownFront", "known_accuracy", "low_mask", "search_json"]

Json = dict[str, Any]

_NOTHING: Json = {
    "points": [],
    "budget": None,
    "chosen": None,
    "device": "",
    "error_provenance": "",
    "latency_provenance": "",
    "summary": "",
    "stale": "",
}


@dataclass(frozen=True)
class ShownFront:
    """A front at one moment, with all that takes long to find out about it.

    Attributes:
        front: the front; a search that is under way may go on adding to it.
        points: its plans, from the most exact to the fastest.
        facts: of each, the casts that conversion inserts, and the plan in a few words.
        budget: between which errors plans differ.
        summary: what it rests on.
    """

    front: Front
    points: tuple[FrontPoint, ...]
    facts: tuple[tuple[int, str], ...]
    budget: tuple[float, float]
    summary: str

    @classmethod
    def of(
        cls,
        front: Front,
        accuracy: Callable[[Plan, str | None], float | None] = lambda *_: None,
        before: ShownFront | None = None,
    ) -> ShownFront:
        """Return what is shown of a front.

        Args:
            front: the front.
            accuracy: of a plan under a target, where it is known; it stands for the metric where there is none.
            before: what it knew of the same plans is not worked out again.
        """
        points = front.points
        if front.judge.score is None:
            target = front.settings.target
            points = tuple(replace(each, metric=accuracy(each.plan, target)) for each in points)
        known: dict[bytes, tuple[int, str]] = {}
        if before is not None and before.front.typing is front.typing and not front.differs(before.front.settings):
            known = {each.choice.tobytes(): facts for each, facts in zip(before.points, before.facts, strict=True)}
        facts = tuple(known.get(each.choice.tobytes()) or _facts(front, each) for each in points)
        return cls(front, points, facts, front.budget, front.summary)

    def runs(self, decisions: Decisions, target: str | None) -> npt.NDArray[np.bool_]:
        """Return by point whether it decides the same as the plan that is set."""
        mine, plan = self.front.settings, decisions.plan
        if (mine.plan.format, mine.plan.keep_io, mine.target) != (plan.format, plan.keep_io, target):
            return np.zeros(len(self.points), np.bool_)
        choice = self.front.choice_of(decisions)
        return np.array([np.array_equal(each.choice, choice) for each in self.points], np.bool_)


def _facts(front: Front, point: FrontPoint) -> tuple[int, str]:
    decisions = front.decisions(point.plan)
    return cast_count(decisions), label_of(decisions)


def known_accuracy(results: Results) -> Callable[[Plan, str | None], float | None]:
    """Return a function that returns the accuracy of a plan under a target where it was measured."""

    def accuracy(plan: Plan, target: str | None) -> float | None:
        known = results.known_errors(plan, target)
        return known.accuracy.plan if known is not None and isinstance(known.accuracy, Accuracy) else None

    return accuracy


def low_mask(decisions: Decisions) -> npt.NDArray[np.int8]:
    """Return by layer 0 where it runs in fp32, 1 in the low format of the plan, 2 in int8 beside another."""
    low, int8 = decisions.low_layers, decisions.int8_layers
    layers = decisions.typing.model.layers
    return np.array([1 if layer.id in low else 2 if layer.id in int8 else 0 for layer in layers], np.int8)


def search_json(
    shown: ShownFront | None,
    decisions: Decisions,
    target: str | None,
    run: Mapping[str, Any],
    *,
    chosen: float | None = None,
    stale: str = "",
) -> Json:
    """Return a `SearchState`.

    Args:
        shown: the front; None where there is none.
        decisions: what becomes of the plan that is set.
        target: of the plan that is set.
        run: how the search goes: state, stage, done, total, seconds left, error.
        chosen: the budget that the plan was taken for.
        stale: why the front does not fit what is set.
    """
    if shown is None:
        return {**run, **_NOTHING}
    front, (low, high) = shown.front, shown.budget
    current = shown.runs(decisions, target).tolist()
    rows = zip(shown.points, shown.facts, current, strict=True)
    return {
        **run,
        "points": [_point(index, *row) for index, row in enumerate(rows)],
        "budget": {"low": low, "high": high} if low < high else None,
        "chosen": num(chosen),
        "device": front.device,
        "error_provenance": front.error_provenance,
        "latency_provenance": front.latency_provenance,
        "summary": shown.summary,
        "stale": stale,
    }


def _point(index: int, point: FrontPoint, facts: tuple[int, str], current: bool) -> Json:  # noqa: FBT001 - a column
    casts, label = facts
    return {
        "index": index,
        "predicted_error": num(point.predicted_error),
        "error": num(point.error),
        "metric": num(point.metric),
        "latency_us": None if np.isnan(point.latency_us) else num(point.latency_us),
        "low": point.low,
        "low_share": point.low_share,
        "casts": casts,
        "label": label,
        "current": current,
    }


@dataclass(frozen=True)
class FrontColumns:
    """What a front tells of each layer; predicted. Columns are empty where it tells nothing of what is set.

    Attributes:
        sensitivity_db: SQNR of the worst output when only that layer runs low.
        saves_us: what running it low saves, the other layers as planned.
        costs: by how much that raises the relative L2 error of the worst output.
    """

    sensitivity_db: npt.ArrayLike = ()
    saves_us: npt.ArrayLike = ()
    costs: npt.ArrayLike = ()

    @classmethod
    def of(
        cls,
        front: Front | None,
        decisions: Decisions,
        target: str | None,
        gpu_model: str = "",
        sensitivity_db: npt.ArrayLike | None = None,
    ) -> FrontColumns:
        """Return the columns under a plan.

        Args:
            front: the front, if there is one.
            decisions: what becomes of the plan.
            target: of the plan.
            gpu_model: the GPU that other latencies on the screen are of; empty for none.
            sensitivity_db: the front's, where it is known: it is the same under every plan.
        """
        if front is None:
            return cls()
        mine, plan = front.settings, decisions.plan
        if (mine.plan.format, mine.target) != (plan.format, target):
            return cls()  # other layers may run low, or their noise is another
        if sensitivity_db is None:
            sensitivity_db = front.sensitivity_db
        if mine.plan.keep_io != plan.keep_io or (decisions.int8_layers and "int8" not in front.formats):
            return cls(sensitivity_db)
        found = front.explain(decisions)
        same_device = front.device != "" and gpu_model in ("", mine.gpu_model)
        return cls(sensitivity_db, found.saves_us if same_device else (), found.costs)
