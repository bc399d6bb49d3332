"""The best plan of several formats within a budget, by single moves from the plans around it; runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.search.labels import moves

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from explorer.search.hull import Cut
    from explorer.search.labels import Choice, Moves

__all__ = ["fill_labels"]

_SLACK: Final = 1e-12  # of a budget: sums of the same terms in another order differ by less
_BETTER: Final = 1e-9  # of the figure that shall be small
_CLIMBED: Final = 3  # plans that are improved, the best ones
_WORK: Final = 25_000  # steps times layers: 60 ms
_FEWEST, _MOST = 12, 200  # steps
_LARGE: Final = 4_000  # layers beyond which looking at every move takes longer than a preview may
_TINY: Final = 1e-300


def fill_labels(
    choice: Choice, known: Sequence[Cut], *, max_noise: float | None = None, max_us: float | None = None
) -> Cut:
    """Return the best plan within a budget that is found in milliseconds.

    It is never worse than the known plans that keep the budget. When none does, it is the one that comes nearest.

    Args:
        choice: what is decided.
        known: plans, at least one.
        max_noise: the fastest plan with at most this noise (squared relative error) is asked.
        max_us: or else, the most exact plan that takes at most these microseconds.
    """
    assert (max_noise is None) != (max_us is None)
    walker = _Walker(choice, max_noise if max_noise is not None else float(max_us or 0.0), noise=max_noise is not None)
    order = sorted(known, key=walker.figures)
    kept = [cut for cut in order if walker.keeps(cut)]
    if not kept:
        return min(known, key=lambda cut: walker.figures(cut)[::-1])
    if len(choice.layer_ids) > _LARGE:
        return kept[0]
    beyond = [cut for cut in order if not walker.keeps(cut)]
    nearest = sorted(beyond, key=lambda cut: walker.figures(cut)[1])[:1]
    starts = [*kept[:_CLIMBED], *(cut for far in nearest for cut in walker.repaired(far))]
    return min((walker.climbed(cut) for cut in starts), key=walker.figures)


class _Walker:
    """Walks by single moves; one figure is limited, the other shall be small."""

    def __init__(self, choice: Choice, limit: float, *, noise: bool) -> None:
        self.choice, self.limit, self.noise = choice, limit + _SLACK * abs(limit), noise
        self.left = int(np.clip(_WORK // max(1, len(choice.layer_ids)), _FEWEST, _MOST))

    def figures(self, cut: Cut) -> tuple[float, float]:
        """Return the figure that shall be small, and the limited one."""
        return (cut.us, cut.noise) if self.noise else (cut.noise, cut.us)

    def keeps(self, cut: Cut) -> bool:
        return self.figures(cut)[1] <= self.limit

    def _changes(self, found: Moves) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return (found.us, found.noise) if self.noise else (found.noise, found.us)

    def climbed(self, cut: Cut) -> Cut:
        """Return a plan that keeps the budget improved until no move helps."""
        while self.left:
            self.left -= 1
            found = moves(self.choice, cut.low)
            goal, used = self._changes(found)
            now, spent = self.figures(cut)
            helps = (goal < -_BETTER * abs(now) - _TINY) & (spent + used <= self.limit)
            if not helps.any():
                break
            # What makes room, too, comes first; then what gives most for what it uses.
            ratio = np.where(helps, goal / np.maximum(used, _TINY), np.inf)
            made = self.choice.cut(found.applied(cut.low, int(ratio.argmin())))
            if not self.keeps(made) or self.figures(made) >= self.figures(cut):
                break
            cut = made
        return cut

    def repaired(self, cut: Cut) -> Iterator[Cut]:
        """Yield the plan to which moves that make room lead from one that breaks the budget, those that cost least."""
        while self.left:
            self.left -= 1
            found = moves(self.choice, cut.low)
            goal, used = self._changes(found)
            room = used < 0
            if not room.any():
                return
            ratio = np.where(room, goal / np.maximum(-used, _TINY), np.inf)
            cut = self.choice.cut(found.applied(cut.low, int(ratio.argmin())))
            if self.keeps(cut):
                yield cut
                return
