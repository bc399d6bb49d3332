"""The choice of formats as an integer program: exact within a budget of noise, where a cut knows prices only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from explorer.errors import InputError
from explorer.search.energy import HIGH, LOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.search.energy import Energy, Terms

__all__ = ["Program", "program_of"]

_Columns = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]  # paid, positive, negative


@dataclass(frozen=True, eq=False)
class Program:
    """Columns that are chosen (0 or 1), then one for each clause and each bond that is paid.

    Attributes:
        count: columns that are chosen.
        base_noise: that every plan has.
        us: by column, microseconds.
        noise: by column, noise.
        most: by column, the most that it may be.
        constraints: what every plan holds to.
    """

    count: int
    base_noise: float
    us: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    most: npt.NDArray[np.float64]
    constraints: tuple[LinearConstraint, ...]

    def best(self, *, price: float, max_noise: float | None, seconds: float) -> npt.NDArray[np.bool_]:
        """Return the chosen columns that minimise latency + price * noise with at most some noise.

        A budget is kept but for a millionth of it, the tolerance of the solver (HiGHS).

        Args:
            price: microseconds for each unit of noise.
            max_noise: squared relative error of the worst output that is allowed; None allows all.
            seconds: after which the solver gives up.

        Raises:
            InputError: no plan has so little noise, or the solver gave up.
        """
        room = np.inf if max_noise is None else max_noise - self.base_noise
        if room < 0:
            raise InputError(
                f"No plan has a noise of {max_noise:.3g}.",
                why=f"Rounding the model's inputs and outputs adds {self.base_noise:.3g}.",
                fix="Keep them in fp32 (keep_io), or allow more.",
            )
        if not self.count:
            return np.zeros(0, np.bool_)
        found = milp(
            self.us + price * self.noise,
            integrality=(np.arange(self.us.size) < self.count).astype(np.int8),
            bounds=Bounds(0.0, np.where(self.noise > room, 0.0, self.most)),
            constraints=[*self.constraints, *self._within(room)],
            options={"mip_rel_gap": 0.0, "time_limit": seconds},
        )
        if found.x is None or found.status != 0:
            raise InputError(f"The solver gave up: {found.message}", fix="Give it more seconds, or use the search.")
        return np.asarray(found.x[: self.count] > 0.5)

    def _within(self, room: float) -> list[LinearConstraint]:
        """Return the budget, in shares of the room: the solver's tolerances are absolute, and noise is tiny."""
        if not np.isfinite(room):
            return []
        return [LinearConstraint((self.noise / max(room, 1e-300))[None, :].clip(None, 1.0), -np.inf, 1.0)]


def program_of(
    parts: Sequence[Energy],
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    same: Sequence[tuple[Sequence[int], Sequence[float], float]] = (),
) -> Program:
    """Return the program of energies that add up.

    Args:
        parts: energies of as many variables each; their variables are the columns, one part behind the other.
        allowed: by column, whether it may be chosen; None allows all.
        same: rows (columns, values, right side) of sums that are given.
    """
    width = len(parts[0])
    count = width * len(parts)
    us, noise = ([getattr(part, name) for part in parts] for name in ("change_us", "change_noise"))
    pairs: list[_Columns] = []  # what is paid is at least the one less the other
    first = count
    for number, part in enumerate(parts):
        for terms, is_noise in ((part.sources, True), (part.down, False), (part.up, False)):
            pairs.append(_clauses(terms, first, number * width))
            nothing = np.zeros(len(terms))
            us.append(nothing if is_noise else terms.weight)
            noise.append(terms.weight if is_noise else nothing)
            first += len(terms)
        pairs += _bonds(part, first, number * width)
        us.append(part.bond_us)
        noise.append(np.zeros(part.bond_us.size))
        first += part.bond_us.size
    most = np.ones(first)
    if allowed is not None:
        most[:count] = allowed
    paid, positive, negative = (np.concatenate(column) for column in zip(*pairs, strict=True))
    constraints = [_differences(paid, positive, negative, first)]
    constraints += [_equalities(same, first)] if same else []
    base_noise = sum(part.base_noise for part in parts)
    return Program(count, base_noise, np.concatenate(us), np.concatenate(noise), most, tuple(constraints))


def _clauses(terms: Terms, first: int, shift: int) -> _Columns:
    """Return (paid, positive, negative) of every member of the clauses."""
    owner, members = (np.where(each >= 0, each + shift, each) for each in (terms.owner[terms.clause], terms.members))
    positive, negative = (owner, members) if terms.swapped else (members, owner)
    return first + terms.clause, positive, negative


def _bonds(part: Energy, first: int, shift: int) -> list[_Columns]:
    paid = first + np.arange(part.bond_us.size)
    return [(paid, one + shift, other + shift) for one, other in ((part.first, part.second), (part.second, part.first))]


def _differences(
    paid: npt.NDArray[np.intp], positive: npt.NDArray[np.intp], negative: npt.NDArray[np.intp], width: int
) -> LinearConstraint:
    """Return rows of ``paid - positive + negative >= 0``, where constants go to the limit.

    Args:
        paid: by row, a column.
        positive: likewise, or one of the constants of :mod:`explorer.search.energy`.
        negative: likewise.
        width: columns in all.
    """
    row = np.arange(paid.size)
    known = (positive == LOW).astype(float) - (negative == LOW)
    entries = [(row, paid, 1.0), (row, positive, -1.0), (row, negative, 1.0)]
    free = [column >= 0 for _, column, _ in entries]
    values = np.concatenate([np.full(int(kept.sum()), value) for kept, (*_, value) in zip(free, entries, strict=True)])
    at = np.concatenate([rows[kept] for kept, (rows, *_) in zip(free, entries, strict=True)])
    columns = np.concatenate([column[kept] for kept, (_, column, _) in zip(free, entries, strict=True)])
    assert HIGH < 0  # a constant that is high counts as 0
    return LinearConstraint(coo_array((values, (at, columns)), shape=(paid.size, width)).tocsr(), known, np.inf)


def _equalities(rows: Sequence[tuple[Sequence[int], Sequence[float], float]], width: int) -> LinearConstraint:
    sides = np.array([value for *_, value in rows])
    row = np.concatenate([np.full(len(columns), number) for number, (columns, *_) in enumerate(rows)])
    columns, values = (np.concatenate([each[place] for each in rows]) for place in (0, 1))
    matrix = coo_array((values, (row, columns)), shape=(len(rows), width))
    return LinearConstraint(matrix.tocsr(), sides, sides)
