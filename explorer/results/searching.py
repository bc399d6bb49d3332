"""A search over the plans of a model, with what the results of an exploration know already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from explorer.backends.devices import device_here
from explorer.backends.gpus import get_gpu
from explorer.backends.runtime import Cancel
from explorer.errors import InputError
from explorer.model import load_samples
from explorer.results.judge import judge_of, scorer
from explorer.results.metric import metric_named
from explorer.results.results import Results
from explorer.results.searching_formats import costs_of, judged_by
from explorer.search.agree import AGREE
from explorer.search.formats import CPU, asked_formats, check_device, plan_for
from explorer.search.label_search import search_formats
from explorer.search.plans import blacklist_only
from explorer.search.point import Settings
from explorer.search.search import Ground, search
from explorer.search.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.plan import Plan
    from explorer.search.costs import CostModel
    from explorer.search.front import Front
    from explorer.search.point import Judge

__all__ = ["Quest", "search_settings"]

T = TypeVar("T")


def search_settings(plan: Plan, target: str | None, gpu_model: str | None = None) -> Settings:
    """Return what a front is of that is searched for now.

    Raises:
        BackendError: the GPU is not known.
    """
    gpu = device_here() if gpu_model is None else gpu_model if gpu_model in ("", CPU) else get_gpu(gpu_model).name
    return Settings(blacklist_only(plan), target, gpu)


@dataclass(frozen=True, kw_only=True)
class Quest:
    """What a user asks of a search; the fields are the arguments of :meth:`explorer.Exploration.search`."""

    formats: Sequence[str] | None = None
    metric: str | Callable[[Mapping[str, Any], npt.NDArray[Any] | None], float] | None = None
    data: str | Path | Mapping[str, npt.ArrayLike] | None = None
    max_drop: float | None = None
    gpu_model: str | None = None
    seconds: float | None = None
    resume: bool = True
    agree: Collection[str] = AGREE
    cancel: Cancel | None = None
    progress: Callable[[str, int, int, float | None], None] | None = None
    found: Callable[[Front], None] | None = None

    def run(self, results: Results, plan: Plan, target: str | None) -> Front:
        """Return the front for a model, its samples, the blacklist of a plan and a target."""
        if self.metric is None and (self.data is not None or self.max_drop is not None):
            given = "data" if self.data is not None else "max_drop"
            raise InputError(f"{given} was given, and no metric.", fix="Give metric='top1', or a function.")
        cancel = self.cancel or Cancel()
        formats = asked_formats(plan, self.formats)
        check_device(formats, self.gpu_model)
        settings = search_settings(plan_for(plan, formats), target, self.gpu_model)
        typings = [self._ready(results, cancel, name, target) for name in formats]
        costs = costs_of(results, typings, settings.gpu_model, cancel)
        judge = judge_of(results, settings.plan, target, settings.gpu_model, self._score(results, target))
        self._check_metric(judge.exact_score)
        judge = judged_by(judge, results, typings, costs, settings.gpu_model)
        pairs = zip(typings, costs, strict=True)
        grounds = [self._ground(results, settings, *pair, judge=judge, cancel=cancel) for pair in pairs]

        def tell(front: Front) -> None:
            results.front = front
            if self.found is not None:
                self.found(front)

        seek: Callable[..., Front] = search if len(grounds) == 1 else search_formats
        front = seek(*grounds, seconds=self.seconds, cancel=cancel, progress=self.progress, found=tell)
        if self.max_drop is not None:
            front.take(max_drop=self.max_drop, cancel=cancel)
        for point in front.points if self.metric is not None else ():
            front.scored(point, cancel=cancel)
        tell(front)
        return front

    def _ground(
        self, results: Results, settings: Settings, typing: Typing, costs: CostModel, *, judge: Judge, cancel: Cancel
    ) -> Ground:
        name, target = typing.format, settings.target
        return Ground(
            settings=settings,
            typing=typing,
            samples=results.samples,
            local=lambda: self._asked(results, cancel, lambda: results.local(name, target)),
            ranges=lambda: self._asked(results, cancel, lambda: results.ranges(name, target)),
            costs=costs,
            judge=judge,
            agree=self.agree,
            threads=results.threads,
            store=Store.open(typing, results.samples) if self.resume else None,
        )

    def _ready(self, results: Results, cancel: Cancel, name: str, target: str | None) -> Typing:
        return self._asked(results, cancel, lambda: results.ready(name, target))

    @staticmethod
    def _asked(results: Results, cancel: Cancel, ask: Callable[[], T]) -> T:
        with results.turn(cancel):
            return ask()

    def _check_metric(self, exact: float) -> None:
        """Refuse a metric that compares no plans."""
        if self.metric is not None and not np.isfinite(exact):
            raise InputError(
                f"The metric of the fp32 model is {exact}.",
                why="A plan is judged by what it loses of that figure, so it has to be a number.",
                fix="Try the metric on x.outputs()[0], with the labels of the same samples.",
            )

    def _score(self, results: Results, target: str | None) -> Callable[[Plan, Cancel | None], float] | None:
        """Return what scores plans: on the samples themselves, or on other data."""
        if self.metric is None:
            return None
        judged = results
        if self.data is not None:
            samples = load_samples(results.model, self.data)
            judged = Results(results.model, samples, threads=results.threads, progress=lambda *_: None)
        return scorer(judged, metric_named(self.metric, judged.samples), target)
