"""The best plan of several formats, exactly, by integer programming: for small models, and to hold expansion to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, vstack

from explorer.errors import InputError
from explorer.search.exact import differences, improved
from explorer.search.expand import undominated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from explorer.backends.runtime import Cancel
    from explorer.search.energy import Energy, Terms
    from explorer.search.hull import Cut
    from explorer.search.labels import Choice

__all__ = ["best_labels", "refine_labels"]

_Columns = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]

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
    base = sum(part.base_noise for part in choice.parts)
    room = np.inf if max_noise is None else max_noise - base
    if room < 0:
        raise InputError(
            f"No plan has a noise of {max_noise:.3g}.",
            why=f"Rounding the model's inputs and outputs adds {base:.3g}.",
            fix="Keep them in fp32 (keep_io), or allow more.",
        )
    program = _Program(choice)
    found = milp(
        program.us + price * program.noise,
        integrality=(np.arange(program.us.size) < program.count).astype(np.int8),
        bounds=Bounds(0.0, np.where(program.noise > room, 0.0, program.most)),
        constraints=program.constraints(room),
        options={"mip_rel_gap": 0.0, "time_limit": seconds},
    )
    if found.x is None or found.status != 0:
        raise InputError(f"The solver gave up: {found.message}", fix="Give it more seconds, or use the search.")
    layers = len(choice.layer_ids)
    labels = found.x[: program.count].reshape(-1, layers).argmax(axis=0).astype(np.int8)
    return choice.cut(labels, price if max_noise is None else float("nan"))


class _Program:
    """The integer program: a variable for each label of each layer, then one for each clause and bond that is paid."""

    def __init__(self, choice: Choice) -> None:
        self.choice, layers = choice, len(choice.layer_ids)
        self.count = layers * len(choice.parts)
        us, noise = [], []
        for part in choice.parts:
            us.append(part.change_us)
            noise.append(part.change_noise)
        pairs: list[_Columns] = []  # what is paid is at least the one less the other
        first = self.count
        for label, part in enumerate(choice.parts):
            for terms, is_noise in ((part.sources, True), (part.down, False), (part.up, False)):
                pairs.append(_clauses(terms, first, label * layers))
                us.append(np.zeros(len(terms)) if is_noise else terms.weight)
                noise.append(terms.weight if is_noise else np.zeros(len(terms)))
                first += len(terms)
            pairs += _bonds(part, first, label * layers)
            us.append(part.bond_us)
            noise.append(np.zeros(part.bond_us.size))
            first += part.bond_us.size
        self.us, self.noise = np.concatenate(us), np.concatenate(noise)
        self.most = np.ones(self.us.size)
        self.most[: self.count] = choice.allowed.ravel()
        paid, positive, negative = (np.concatenate(column) for column in zip(*pairs, strict=True))
        self._pairs: _Columns = (paid, positive, negative)

    def constraints(self, room: float) -> list[LinearConstraint]:
        """Return the constraints, with a budget of noise unless it is infinite."""
        rows, limits = differences(*self._pairs, self.us.size)
        if np.isfinite(room):
            # In shares of the room: the solver's tolerances are absolute, and noise is tiny.
            rows = vstack([rows, coo_array((-self.noise / max(room, 1e-300))[None, :].clip(-1.0))])
            limits = np.append(limits, -1.0)
        equal = [*self._equal()]
        sides = np.array([value for *_, value in equal])
        row = np.concatenate([np.full(len(columns), number) for number, (columns, *_) in enumerate(equal)])
        columns, values = (np.concatenate([each[place] for each in equal]) for place in (0, 1))
        same = coo_array((values, (row, columns)), shape=(len(equal), self.us.size))
        return [LinearConstraint(rows.tocsr(), limits, np.inf), LinearConstraint(same.tocsr(), sides, sides)]

    def _equal(self) -> Iterator[tuple[list[int], list[float], float]]:
        """Yield columns, values and right side: one label a layer, and agreement."""
        layers, labels = len(self.choice.layer_ids), len(self.choice.parts)
        for layer in range(layers):
            yield [label * layers + layer for label in range(labels)], [1.0] * labels, 1.0
        for numbers, bound in ((self.choice.groups, range(labels)), (self.choice.tied, [labels - 1])):
            heads: dict[int, int] = {}
            for layer, number in enumerate(numbers.tolist()):
                head = heads.setdefault(number, layer)
                for label in bound if head != layer else ():
                    yield [label * layers + head, label * layers + layer], [1.0, -1.0], 0.0


def _clauses(terms: Terms, first: int, shift: int) -> _Columns:
    """Return (paid, positive, negative) of every member of the clauses."""
    owner, members = (np.where(each >= 0, each + shift, each) for each in (terms.owner[terms.clause], terms.members))
    positive, negative = (owner, members) if terms.swapped else (members, owner)
    return first + terms.clause, positive, negative


def _bonds(part: Energy, first: int, shift: int) -> list[_Columns]:
    paid = first + np.arange(part.bond_us.size)
    return [(paid, one + shift, other + shift) for one, other in ((part.first, part.second), (part.second, part.first))]


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
