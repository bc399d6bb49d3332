"""The search among three formats: two searches of two formats, their sum, and the plans that mix all three."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from explorer.search.agree import agreeing, following
from explorer.search.exact_labels import refine_labels
from explorer.search.expand import label_hull, undominated
from explorer.search.label_front import LabelFront, Side
from explorer.search.labels import build_choice
from explorer.search.search import CUTS, FIRST_CUTS, Ground, Search, chosen_plans, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from explorer.backends.runtime import Cancel
    from explorer.search.front import Front
    from explorer.search.noise import NoiseModel

__all__ = ["search_formats"]

_FIRST_S: Final = 1.0  # for plans of a front on the way
_HULL_S: Final = 10.0


def search_formats(
    low: Ground,
    int8: Ground,
    *,
    seconds: float | None = None,
    cancel: Cancel | None = None,
    progress: Callable[[str, int, int, float | None], None] | None = None,
    found: Callable[[Front], None] | None = None,
) -> LabelFront:
    """Return the front of error and latency among fp32, the plan's own format and int8; every plan on it was run.

    The plans of fp32 and either low format alone are among its candidates, so it is never worse than either front.

    Args:
        low: what the search of the plan's own format stands on.
        int8: what that of int8 stands on; settings, samples and judge are those of ``low``.
        seconds: after which no further tensor is measured, half of it for each format; None measures until that no
            longer pays.
        cancel: stops it from another thread.
        progress: called with what is being done, how much of it, of how much, and the seconds left if known.
        found: called with every better front on the way; while the first format is measured these are of two formats.

    Raises:
        RunCancelled: `cancel` was called; what was measured is in the stores.
    """
    return _LabelSearch(low, int8, cancel, progress or (lambda *_: None), found or (lambda _: None)).front(seconds)


class _LabelSearch:
    def __init__(
        self,
        low: Ground,
        int8: Ground,
        cancel: Cancel | None,
        progress: Callable[[str, int, int, float | None], None],
        found: Callable[[Front], None],
    ) -> None:
        self.cancel, self.found = cancel, found
        self._known: dict[int, tuple[NoiseModel, dict[str, str], Front]] = {}
        # The model's inputs and outputs may take the plan's own format; to int8 they are fp32.
        int8 = replace(int8, settings=replace(int8.settings, plan=replace(int8.settings.plan, keep_io=True)))
        self.parts = [Search(ground, cancel, progress, found) for ground in (low, int8)]
        first, second = self.parts
        mine = {layer_id for layer_id, may in low.typing.layers.items() if may.switchable}
        alone = [group for group in agreeing(int8.typing, int8.agree, int8.costs) if mine.isdisjoint(group)]
        self.agree = [*agreeing(low.typing, low.agree, low.costs), *alone]
        first.groups = self.agree
        second.groups = [*self.agree, *following(int8.typing, second.blocked)]

    def front(self, seconds: float | None) -> LabelFront:
        """Return the front."""
        share = None if seconds is None else seconds / 2
        first, second = self.parts
        low = first.measure(share, lambda noise: self.found(first.made(noise, {}, FIRST_CUTS)))
        int8 = second.measure(share, lambda noise: self.found(self._made((low, noise), {}, FIRST_CUTS)))
        front = verified(lambda pins: self._made((low, int8), pins, CUTS), self._run)
        front.complete = True
        self.found(front)
        return front

    def _made(self, noises: tuple[NoiseModel, NoiseModel], pins: Mapping[str, str], most: int) -> LabelFront:
        # What a run showed to break is the plan's own format: int8 saturates.
        parts = [self._part(0, noises[0], pins, most), self._part(1, noises[1], {}, most)]
        sides = [Side(part, label) for label, part in enumerate(parts, 1)]
        choice = build_choice(
            [part.typing.format for part in parts],
            [part.problem for part in parts],
            [part.costs for part in parts],
            agree=self.agree,
        )
        known = [choice.cut(side.labels(cut.low)) for side in sides for cut in side.cuts]
        last = most == CUTS
        cuts = label_hull(choice, known, most=most, seconds=_HULL_S if last else _FIRST_S, cancel=self.cancel)
        if last and all(noise.complete for noise in noises):
            cuts = undominated([*cuts, *refine_labels(choice, cuts, cancel=self.cancel)])
        return LabelFront(choice, cuts, sides)

    def _part(self, index: int, noise: NoiseModel, pins: Mapping[str, str], most: int) -> Front:
        """Return the plans of one low format; once for a noise that is known for good."""
        known = self._known.get(index)
        if known is not None and known[0] is noise and known[1] == pins:
            return known[2]
        made = self.parts[index].made(noise, pins, CUTS if noise.complete else most)
        if noise.complete:
            self._known[index] = (noise, dict(pins), made)
        return made

    def _run(self, front: LabelFront) -> tuple[str, ...]:
        """Run plans of the front and of either pair of formats; stop at one that breaks, and return by what."""
        chosen: list[tuple[Front, Any]] = [(part, low) for part in (front, *front.sides) for low in chosen_plans(part)]
        return self.parts[0].run_all(chosen, front)
