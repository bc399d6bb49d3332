"""The best plan of several formats, exactly, by integer programming: for small models, and to hold expansion to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.search.exact import improved
from explorer.search.expand import undominated
from explorer.search.program import program_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from explorer.backends.runtime import Cancel
    from explorer.search.hull import Cut
    from explorer.search.labels import Choice

__all__ = ["best_labels", "refine_labels"]

_SECONDS: Final = 60.0
_REFINING: Final = 3.0
_LARGEST: Final = 130  # layers with a choice; beyond, the solver takes a second and more for one budget (measured)


def best_labels(
    choice: Choice, *, price: float = 0.0, max_noise: float | None = None, seconds: float = _SECONDS
) -> Cut:
    """Return the plan that minimises latency + price * noise with at most some noise.

    A budget is kept but for a millionth of it, the tolerance of the solver (HiGHS).

    Args:
        choice: what is decided.
        price: microseconds for each unit of noise.
        max_noise: squared relative error of the worst output that is allowed; None allows all.
        seconds: after which the solver gives up.

    Raises:
        InputError: no plan has so little noise, or the solver gave up.
    """
    program = program_of(choice.parts, allowed=choice.allowed.ravel(), same=[*_agreeing(choice)])
    chosen = program.best(price=price, max_noise=max_noise, seconds=seconds)
    labels = chosen.reshape(-1, len(choice.layer_ids)).argmax(axis=0).astype(np.int8)
    return choice.cut(labels, price if max_noise is None else float("nan"))


def _agreeing(choice: Choice) -> Iterator[tuple[list[int], list[float], float]]:
    """Yield columns, values and right side: one label a layer, and agreement."""
    layers, labels = len(choice.layer_ids), len(choice.parts)
    for layer in range(layers):
        yield [label * layers + layer for label in range(labels)], [1.0] * labels, 1.0
    for numbers, bound in ((choice.groups, range(labels)), (choice.tied, [labels - 1])):
        heads: dict[int, int] = {}
        for layer, number in enumerate(numbers.tolist()):
            head = heads.setdefault(number, layer)
            for label in bound if head != layer else ():
                yield [label * layers + head, label * layers + layer], [1.0, -1.0], 0.0


def refine_labels(
    choice: Choice, cuts: Sequence[Cut], *, seconds: float = _REFINING, cancel: Cancel | None = None
) -> list[Cut]:
    """Return plans with the best ones within some budgets between them; those of large models come back as they are.

    Args:
        choice: what is decided.
        cuts: plans of which none beats another, from the least noise to the fastest.
        seconds: after which no more budgets are tried.
        cancel: stops it from another thread.

    Raises:
        RunCancelled: `cancel` was called.
    """
    if int(choice.free.sum()) > _LARGEST:
        return list(cuts)

    def solve(budget: float, left_s: float) -> Cut:
        return best_labels(choice, max_noise=budget, seconds=left_s)

    return undominated(improved(cuts, solve, seconds=seconds, cancel=cancel))
