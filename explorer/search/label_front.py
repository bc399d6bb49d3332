"""The Pareto front of plans that choose among fp32 and two low formats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.convert import decide
from explorer.errors import InputError
from explorer.search.front import Front
from explorer.search.label_explain import explain_labels, label_noise
from explorer.search.label_fill import fill_labels
from explorer.search.label_take import LabelTaker
from explorer.search.plans import blocked_layers, plan_in, plan_with
from explorer.search.point import FrontPoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

    from explorer.backends.runtime import Cancel
    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.search.explain import Explanation
    from explorer.search.hull import Cut
    from explorer.search.labels import Choice, Labels
    from explorer.search.noise import NoiseModel
    from explorer.search.point import Outcome, Preview

__all__ = ["LabelFront", "Side"]


class Side(Front):
    """The plans of a front that use one of its low formats only; what is run is known to the whole front.

    Args:
        front: the same plans as a front of two formats.
        label: of the low format.
    """

    def __init__(self, front: Front, label: int) -> None:
        super().__init__(
            front.settings, front.typing, noise=front.noise, costs=front.costs, problem=front.problem, cuts=front.cuts,
            judge=front.judge, pinned=front.pinned,
        )  # fmt: skip
        self.label = label
        self.whole: LabelFront

    def labels(self, low: npt.NDArray[Any]) -> Labels:
        """Return the labels of a plan."""
        return np.where(low, self.label, 0).astype(np.int8)

    def point(self, low: npt.NDArray[Any]) -> FrontPoint:
        """Return the plan that runs these layers low; nothing is run."""
        return self._mine(self.whole.point(self.labels(low)))

    def measured(self, low: npt.NDArray[Any], *, cancel: Cancel | None = None) -> tuple[FrontPoint, Outcome]:
        """Return the plan that runs these layers low, run."""
        point, outcome = self.whole.measured(self.labels(low), cancel=cancel)
        return self._mine(point), outcome

    def scored(self, point: FrontPoint, *, cancel: Cancel | None = None) -> FrontPoint:
        """Return a point with the user's metric, run where it was not."""
        return self._mine(self.whole.scored(replace(point, labels=self.labels(point.mask)), cancel=cancel))

    @property
    def run(self) -> list[FrontPoint]:
        """Every plan with this format only that was run, in no order."""
        return [self._mine(each) for each in self.whole.run if np.isin(each.choice, (0, self.label)).all()]

    @staticmethod
    def _mine(point: FrontPoint) -> FrontPoint:
        return replace(point, labels=None)


class LabelFront(Front):
    """The best plans of a model among three formats: none has both a smaller error and a smaller latency than another.

    Plans are labels by layer: 0 is fp32, 1 the plan's own format, 2 int8. Everything is as on a front of two formats.

    Args:
        choice: what is decided.
        cuts: plans that none beats by the models, from the most exact to the fastest; their ``low`` holds labels.
        sides: the plans of fp32 and one low format, in the order of the labels.
        latency_basis: how latencies came to be, where it is not as for the sides.
    """

    def __init__(self, choice: Choice, cuts: Sequence[Cut], sides: Sequence[Side], latency_basis: str = "") -> None:
        first = sides[0]
        super().__init__(
            first.settings, first.typing, noise=first.noise, costs=first.costs, problem=first.problem, cuts=cuts,
            judge=first.judge,
        )  # fmt: skip
        self.choice, self.sides, self._basis = choice, tuple(sides), latency_basis
        for side in sides:
            side.whole = self
        every = set.intersection(*(set(side.pinned) for side in sides))
        self.pinned = {layer_id: reason for layer_id, reason in first.pinned.items() if layer_id in every}

    # -- what it is of -----------------------------------------------------------------------------------------------

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats by label, fp32 first."""
        return self.choice.formats

    @property
    def latency_provenance(self) -> str:
        """How latencies came to be."""
        return self._basis or super().latency_provenance

    @property
    def summary(self) -> str:
        """What the front rests on, in words."""
        parts = []
        for side in self.sides:
            parts.append(f"{side.typing.format}: {side.noise.summary}")
            if count := len(side.pinned):
                parts.append(f"{count} {'layer' if count == 1 else 'layers'} not in {side.typing.format}: inf or NaN")
        return "; ".join(parts)

    # -- the plans ---------------------------------------------------------------------------------------------------

    def point(self, low: npt.NDArray[Any]) -> FrontPoint:
        """Return the plan of these labels; nothing is run."""
        key = low.tobytes()
        if key not in self._known:
            plan = self._plan(low)
            cost, count = self.judge.cost(plan), int((low > 0).sum())
            self._known[key] = FrontPoint(
                plan=plan,
                low=count,
                low_share=self._share(low),
                predicted_error=self.predicted_error(low),
                cost=cost,
                latency_us=cost if self.device else float("nan"),
                mask=low > 0,
                labels=low,
            )
        return self._known[key]

    def _plan(self, labels: Labels) -> Plan:
        own, int8 = (side.typing for side in self.sides)
        layers = zip(self.choice.layer_ids, labels.tolist(), strict=True)
        wanted = {layer_id: self.formats[label] for layer_id, label in layers if label}
        if not (labels == 2).any():
            return plan_with(wanted, self.settings.plan, own)[0]
        return plan_in(wanted, self.settings.plan, own, int8)[0]

    def predicted_error(self, low: npt.NDArray[Any]) -> float:
        """Return the predicted relative L2 error of the worst output under the plan of these labels."""
        squares = label_noise(self._noises, low, keep_io=self.settings.plan.keep_io)
        return float(np.sqrt(squares.max(initial=0.0)))

    @property
    def _noises(self) -> list[NoiseModel | None]:
        return [None, *(side.noise for side in self.sides)]

    def preview(self, max_error: float) -> Preview:
        """Return the best plan whose predicted error keeps the budget, in milliseconds; nothing is run.

        Args:
            max_error: relative L2 error of the worst output.
        """
        found = super().preview(max_error)
        return replace(found, low=found.low > 0, labels=found.low.astype(np.int8))

    def filled(self, *, max_noise: float | None = None, max_us: float | None = None) -> Cut:
        """Return the best plan within a budget by the models, among the plans of one low format too."""
        known = list(self.cuts)
        for side in self.sides:
            cut = side.filled(max_noise=max_noise, max_us=max_us)
            known.append(replace(cut, low=side.labels(cut.low)))
        return fill_labels(self.choice, known, max_noise=max_noise, max_us=max_us)

    def _total(self, point: FrontPoint) -> float:
        return self.choice.evaluate(point.choice)[0]

    def _taker(self, cancel: Cancel | None) -> LabelTaker:
        return LabelTaker(self, cancel)

    # -- tables ------------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return one row a plan, as for two formats, with the number of layers in each low format."""
        found, points = super().table(), self.points
        for label, name in enumerate(self.formats[1:], 1):
            found.insert(label, f"{name}_layers", [int((point.choice == label).sum()) for point in points])
        return found

    def words(self, point: FrontPoint) -> str:
        """Return in words how many layers run in each low format under a plan of the front."""
        counts = [(int((point.choice == label).sum()), name) for label, name in enumerate(self.formats) if label]
        return ", ".join(f"{count} {'layer' if count == 1 else 'layers'} in {name}" for count, name in counts)

    @property
    def sensitivity_db(self) -> npt.NDArray[np.float64]:
        """SQNR of the worst output when only that layer runs in the plan's own format, else in int8; predicted."""
        own, int8 = (side.sensitivity_db for side in self.sides)
        return np.where(np.isnan(own), int8, own)

    def explain(self, decisions: Decisions) -> Explanation:
        """Return for each layer what each other format saves and costs, the others as decided; predicted.

        Raises:
            InputError: the plan is of another format.
        """
        if decisions.plan.format != self.formats[1]:
            raise InputError(
                f"The plan is of {decisions.plan.format}, and the front of {' and '.join(self.formats)}.",
                fix="Search again.",
            )
        return self.explained(self.choice_of(decisions))

    def explained(self, low: npt.NDArray[Any]) -> Explanation:
        """Return the same for the plan of these labels."""
        basis = f"{self.latency_provenance.partition(' ')[0]}, {self.device}" if self.device else ""
        keep_io = self.settings.plan.keep_io
        return explain_labels(self.choice, self._noises, low, self._reasons(), basis=basis, keep_io=keep_io)

    def _reasons(self) -> list[Mapping[str, str]]:
        found: list[Mapping[str, str]] = [{}]
        for side in self.sides:
            layers = side.typing.layers
            never = {layer_id: may.blocked for layer_id, may in layers.items() if may.blocked}
            blocked = dict.fromkeys(blocked_layers(self.settings.plan, side.typing), "it is on the blacklist")
            found.append({**side.pinned, **blocked, **never})
        return found

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """By layer, whether a search may choose its format."""
        return self.choice.free

    def decisions(self, plan: Plan) -> Decisions:
        """Return what becomes of each layer under a plan of the front's formats."""
        own, int8 = (side.typing for side in self.sides)
        return decide(plan, own, int8 if int8.format in plan.formats[1:] else None)
