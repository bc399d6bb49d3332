"""The Pareto front of error and latency: what the search found, and how a user takes a plan from it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.convert import decide
from explorer.errors import InputError
from explorer.search.explain import explain
from explorer.search.fill import fill
from explorer.search.plans import blocked_layers, plan_with
from explorer.search.point import FrontPoint, Preview
from explorer.search.take import Taker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

    from explorer.backends.runtime import Cancel
    from explorer.convert import Decisions, Typing
    from explorer.plan import Plan
    from explorer.search.costs import CostModel
    from explorer.search.explain import Explanation
    from explorer.search.hull import Cut
    from explorer.search.noise import NoiseModel
    from explorer.search.point import Judge, Outcome, Settings
    from explorer.search.problem import Problem

__all__ = ["Front", "checked", "spread"]

_SHOWN = 16
_SMALLEST = 1e-6


class Front:
    """The best plans of a model: none has both a smaller error and a smaller latency than another.

    Args:
        settings: what it is of.
        typing: what each layer may be.
        noise: what rounding each tensor adds to the error of the outputs.
        costs: what each layer takes in each format.
        problem: both, with the constraints, as the minimum cut takes them.
        cuts: the lower hull, from the most exact plan to the fastest.
        judge: runs plans.
        pinned: layers that stay in fp32 because runs showed that they break the model, with the reason.
    """

    def __init__(
        self,
        settings: Settings,
        typing: Typing,
        *,
        noise: NoiseModel,
        costs: CostModel,
        problem: Problem,
        cuts: Sequence[Cut],
        judge: Judge,
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.typing = settings, typing
        self.noise, self.costs, self.problem, self.judge = noise, costs, problem, judge
        self.cuts = tuple(cuts)
        self.pinned: dict[str, str] = {**noise.pinned, **(pinned or {})}
        self.complete = False
        self._floats = sum(any(_is_float(typing, name) for name in layer.outputs) for layer in typing.model.layers)
        self._known: dict[bytes, FrontPoint] = {}

    # -- what it is of -----------------------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device that latency is of; empty where no GPU was asked, and more low layers are better."""
        return self.costs.device

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that its plans choose among, fp32 first."""
        return "fp32", self.typing.format

    @property
    def error_provenance(self) -> str:
        """How measured errors came to be."""
        return self.judge.error_provenance

    @property
    def latency_provenance(self) -> str:
        """How latencies came to be."""
        return self.costs.provenance

    def differs(self, settings: Settings) -> str:
        """Return in words why the front does not fit other settings; empty when it does."""
        return self.settings.differs(settings)

    @property
    def summary(self) -> str:
        """What the front rests on, in words."""
        parts = [self.noise.summary]
        if self.complete and len(self.points) == 1:
            where = f"is predicted to be faster than fp32 on {self.device}" if self.device else "runs more layers low"
            parts.insert(0, f"no plan {where}")
        if self.pinned:
            count = len(self.pinned)
            layers = "1 layer keeps fp32: it makes" if count == 1 else f"{count} layers keep fp32: they make"
            parts.append(f"{layers} inf or NaN")
        return "; ".join(part for part in parts if part)

    # -- the plans ---------------------------------------------------------------------------------------------------

    def point(self, low: npt.NDArray[Any]) -> FrontPoint:
        """Return the plan that runs these layers low; nothing is run."""
        key = low.tobytes()
        if key not in self._known:
            layers = self.typing.model.layers
            plan, _ = plan_with(
                [layer.id for layer, is_low in zip(layers, low, strict=True) if is_low], self.settings.plan, self.typing
            )
            self._known[key] = FrontPoint(
                plan=plan,
                low=int(low.sum()),
                low_share=self._share(low),
                predicted_error=self.predicted_error(low),
                cost=self.judge.cost(plan),
                latency_us=self.judge.cost(plan) if self.device else float("nan"),
                mask=low,
            )
        return self._known[key]

    def measured(self, low: npt.NDArray[Any], *, cancel: Cancel | None = None) -> tuple[FrontPoint, Outcome]:
        """Return the plan that runs these layers low, run."""
        point = self.point(low)
        outcome = self.judge.run(point.plan, cancel)
        if point.error != outcome.error:
            point = self._known[low.tobytes()] = replace(point, error=outcome.error)
        return point, outcome

    def scored(self, point: FrontPoint, *, cancel: Cancel | None = None) -> FrontPoint:
        """Return a point with the user's metric, run where it was not."""
        if point.metric is None and self.judge.score is not None:
            made = replace(point, metric=self.judge.score(point.plan, cancel))
            self._known[point.choice.tobytes()] = made
            return made
        return point

    @property
    def run(self) -> list[FrontPoint]:
        """Every plan that was run, in no order."""
        return [point for point in tuple(self._known.values()) if point.error is not None]

    @property
    def points(self) -> tuple[FrontPoint, ...]:
        """The plans of the front, from the most exact to the fastest; none is beaten in both by another.

        Plans that were run stand with what the run gave. While the search goes on, others of the hull stand beside them
        with what is predicted.
        """
        shown = self.run
        if not self.complete:
            shown = [*shown, *(self.point(cut.low) for cut in spread(self.cuts, _SHOWN))]
        return tuple(_undominated([point for point in shown if np.isfinite(point.worst)]))

    @property
    def budget(self) -> tuple[float, float]:
        """The smallest and the largest error, relative L2 of the worst output, between which plans differ."""
        errors = [point.worst for point in self.points if np.isfinite(point.worst) and point.worst > 0]
        return (min(errors), max(errors)) if errors else (_SMALLEST, _SMALLEST)

    def predicted_error(self, low: npt.NDArray[Any]) -> float:
        """Return the predicted relative L2 error of the worst output when these layers run low."""
        squares = self.noise.predict(low, keep_io=self.settings.plan.keep_io)
        return float(np.sqrt(squares.max(initial=0.0)))

    def preview(self, max_error: float) -> Preview:
        """Return the best plan whose predicted error keeps the budget, in milliseconds; nothing is run.

        Args:
            max_error: relative L2 error of the worst output.
        """
        start = time.perf_counter()
        cut = self.filled(max_noise=checked(max_error, "max_error") ** 2)
        return Preview(
            low=cut.low,
            predicted_error=self.predicted_error(cut.low),
            latency_us=self._estimated_us(cut.us) if self.device else float("nan"),
            low_share=self._share(cut.low),
            seconds=time.perf_counter() - start,
        )

    def filled(self, *, max_noise: float | None = None, max_us: float | None = None) -> Cut:
        """Return the best plan within a budget by the models, as :func:`explorer.search.fill.fill` finds it."""
        return fill(self.problem, self.cuts, max_noise=max_noise, max_us=max_us)

    def _share(self, low: npt.NDArray[Any]) -> float:
        return float((low > 0).sum()) / max(1, self._floats)

    def _total(self, point: FrontPoint) -> float:
        """Return the latency of a plan as the sum over its layers."""
        return self.costs.total(point.mask, keep_io=self.settings.plan.keep_io)

    def _estimated_us(self, us: float) -> float:
        """Return the latency of a plan from the sum over its layers, between plans of which both are known."""
        known = sorted((self._total(each), each.latency_us) for each in tuple(self._known.values()))
        if not known:
            return us
        sums, latencies = np.array(known).T
        return float(us + np.interp(us, sums, latencies - sums))

    def best(
        self,
        *,
        max_error: float | None = None,
        max_latency_us: float | None = None,
        max_drop: float | None = None,
        cancel: Cancel | None = None,
    ) -> Plan:
        """Return the best plan within a budget; it was run, and what the run gave keeps the budget.

        Give exactly one budget.

        Args:
            max_error: the fastest plan whose relative L2 error of the worst output is at most this (1e-3 is 60 dB
                SQNR).
            max_latency_us: the most exact plan that takes at most so many microseconds.
            max_drop: the fastest plan that loses at most so much of the metric that was searched with.
            cancel: stops it from another thread.

        Raises:
            InputError: not one budget, or none that can be kept.
            RunCancelled: `cancel` was called.
        """
        return self.take(max_error=max_error, max_latency_us=max_latency_us, max_drop=max_drop, cancel=cancel).plan

    def take(
        self,
        *,
        max_error: float | None = None,
        max_latency_us: float | None = None,
        max_drop: float | None = None,
        cancel: Cancel | None = None,
    ) -> FrontPoint:
        """Return what :meth:`best` finds, with its figures; arguments and errors as there."""
        given = {"max_error": max_error, "max_latency_us": max_latency_us, "max_drop": max_drop}
        named = {name: checked(value, name) for name, value in given.items() if value is not None}
        if len(named) != 1:
            raise InputError(
                f"best() was given {len(named)} budgets.", fix="Give one of max_error, max_latency_us and max_drop."
            )
        (name, value), taker = next(iter(named.items())), self._taker(cancel)
        return {"max_error": taker.error, "max_latency_us": taker.latency, "max_drop": taker.drop}[name](value)

    def _taker(self, cancel: Cancel | None) -> Taker:
        return Taker(self, cancel)

    # -- tables ------------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return one row a plan: predicted and measured error, latency, share of low layers, how they came to be."""
        import pandas as pd  # noqa: PLC0415 - loads only for tables

        points = self.points
        return pd.DataFrame(
            {
                "low_layers": [point.low for point in points],
                "low_share": [point.low_share for point in points],
                "predicted_error": [point.predicted_error for point in points],
                "error": [np.nan if point.error is None else point.error for point in points],
                "metric": [np.nan if point.metric is None else point.metric for point in points],
                "latency_us": [point.latency_us for point in points],
                "error_provenance": self.error_provenance,
                "latency_provenance": self.latency_provenance,
            }
        )

    @property
    def sensitivity_db(self) -> npt.NDArray[np.float64]:
        """SQNR of the worst output when only that layer runs low, by layer; predicted. NaN where none can be told."""
        with np.errstate(divide="ignore"):
            return -10 * np.log10(self.noise.sensitivity())

    def explain(self, decisions: Decisions) -> Explanation:
        """Return for each layer what running it low saves and costs, the others as decided; predicted.

        Raises:
            InputError: the plan runs layers in a format that the front is not of.
        """
        choice = self.choice_of(decisions)
        if (choice > 1).any():
            raise InputError(
                f"The plan runs layers in int8, and the front is of fp32 and {self.typing.format}.",
                fix=f"Search among all: x.search(formats=('{self.typing.format}', 'int8')).",
            )
        return self.explained(choice > 0)

    def explained(self, low: npt.NDArray[Any]) -> Explanation:
        """Return the same for a plan that runs these layers low."""
        blocked = dict.fromkeys(blocked_layers(self.settings.plan, self.typing), "it is on the blacklist")
        keep_io = self.settings.plan.keep_io
        return explain(self.typing, self.noise, self.costs, low, pinned={**self.pinned, **blocked}, keep_io=keep_io)

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """By layer, whether a search may choose its format."""
        return self.problem.fixed < 0

    def __repr__(self) -> str:
        points = self.points
        of = f"latency on {self.device}: " if self.device else ""
        lines = [f"Front of {len(points)} {'plan' if len(points) == 1 else 'plans'}, {of}{self.latency_provenance}"]
        for point in points:
            basis = "predicted" if point.error is None else "emulated"
            time = f"  {point.latency_us:,.1f} us" if self.device else ""
            lines.append(f"  error {point.worst:.2e} ({basis}){time}  {self.words(point)}")
        return "\n".join([*lines, f"  {self.summary}", "  next     x.plan = front.best(max_error=...)"])

    def words(self, point: FrontPoint) -> str:
        """Return in words how many layers run low under a plan of the front."""
        return f"{point.low} layers low"

    def decisions(self, plan: Plan) -> Decisions:
        """Return what becomes of each layer under a plan of the front's formats."""
        return decide(plan, self.typing)

    def choice_of(self, decisions: Decisions) -> npt.NDArray[np.int8]:
        """Return by layer 0 where it runs in fp32, 1 in the low format of the plan, and 2 in int8 beside another."""
        low, int8 = decisions.low_layers, decisions.int8_layers
        layers = self.typing.model.layers
        return np.array([1 if each.id in low else 2 if each.id in int8 else 0 for each in layers], np.int8)


def checked(value: float, name: str) -> float:
    """Return a budget.

    Raises:
        InputError: it is not a number above zero.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number >= 0 or not np.isfinite(number):
        raise InputError(f"{name} is {value!r}.", fix="Give a number of at least zero, such as 1e-3.")
    return number


def _is_float(typing: Typing, name: str) -> bool:
    return name in typing.types and typing.types[name].dtype == "float32"


def _undominated(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Return the points that no other beats in both, from the most exact to the fastest."""
    kept: list[FrontPoint] = []
    fastest = np.inf
    for point in sorted(points, key=lambda each: (each.worst, each.cost)):
        if point.cost < fastest:
            kept.append(point)
            fastest = point.cost
    return kept


def spread(cuts: Sequence[Cut], most: int) -> list[Cut]:
    """Return at most so many cuts, the ends among them, spread over the logarithm of their noise."""
    if len(cuts) <= most:
        return list(cuts)
    place = np.log(np.maximum([cut.noise for cut in cuts], 1e-30))
    wanted = np.linspace(place.min(), place.max(), most)
    chosen = {int(np.abs(place - each).argmin()) for each in wanted} | {0, len(cuts) - 1}
    return [cuts[index] for index in sorted(chosen)]
