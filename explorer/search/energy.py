"""The function that a search minimises: latency and noise of a plan, as sums of terms that a minimum cut can take.

Variables are layers, or groups of layers that agree; one is True where they run low. A :class:`Term` table holds
clauses of the one form that noise and casts share: *paid when the owner is high and any member is low*.

- The noise of a tensor is paid when any layer that touches it is low: the owner is always high.
- A cast down is paid when the maker is high and any taker is low.
- A cast up is paid when the maker is low and any taker is high: the same with both formats swapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["HIGH", "LOW", "Energy", "Terms", "distinct", "extended", "summed"]

HIGH: Final = -1  # stands for a variable that is always high; the value of the last entry of an extended vector
LOW: Final = -2  # likewise always low; the last entry but one


def extended(low: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the variables with the two constants behind them, so that ``HIGH`` and ``LOW`` index them."""
    return np.concatenate([low, [True, False]])


def summed(index: npt.NDArray[np.intp], weight: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return the sum of the weights of each index below ``count``."""
    return np.bincount(index, weight, count).astype(np.float64, copy=False)  # of nothing, numpy makes integers


def distinct(numbers: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the numbers in order, each once; several times as fast as ``numpy.unique`` is here (measured, 2.4)."""
    found = np.sort(numbers)
    return found[np.concatenate([[True], found[1:] != found[:-1]])] if found.size else found


@dataclass(frozen=True, eq=False)
class Terms:
    """Clauses with an owner and members.

    Attributes:
        owner: by clause, a variable or a constant.
        start: where the members of each clause begin, and the end of the last (clauses + 1).
        members: variables or constants.
        weight: by clause, what it costs, at least 0.
        swapped: the formats are swapped: paid when the owner is low and any member is high.
    """

    owner: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    members: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float64]
    swapped: bool = False

    @classmethod
    def of(
        cls,
        owner: npt.NDArray[np.intp],
        clause: npt.NDArray[np.intp],
        member: npt.NDArray[np.intp],
        weight: npt.NDArray[np.float64],
        *,
        swapped: bool = False,
    ) -> Terms:
        """Return clauses from pairs of a clause and a member, in any order; a pair may come twice."""
        width = int(member.max(initial=0)) - LOW + 1
        kept = distinct(clause * width + (member - LOW))
        start = np.searchsorted(kept, np.arange(owner.size + 1) * width)
        return cls(owner.astype(np.intp), start, kept % width + LOW, weight, swapped)

    def __len__(self) -> int:
        return self.owner.size

    @cached_property
    def sizes(self) -> npt.NDArray[np.intp]:
        """Number of members of each clause."""
        return np.diff(self.start)

    @cached_property
    def clause(self) -> npt.NDArray[np.intp]:
        """The clause of each member."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def paid(self, low: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which clauses are paid; ``low`` is extended by the constants."""
        owner, fired = self._state(low)
        return ~owner & (fired > 0)

    def total(self, low: npt.NDArray[np.bool_]) -> float:
        """Return what the clauses cost in all; ``low`` is extended by the constants."""
        return float(self.weight[self.paid(low)].sum())

    def steps(self, low: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return by variable what the cost changes by when it alone is switched; ``low`` is extended."""
        owner, fired = self._state(low)
        count = low.size - 2
        on = low[self.members] ^ self.swapped
        alone = np.where(on, fired[self.clause] == 1, fired[self.clause] == 0) & ~owner[self.clause]
        change = np.where(alone, np.where(on, -1.0, 1.0), 0.0) * self.weight[self.clause]
        of_owner = np.where(fired > 0, np.where(owner, 1.0, -1.0), 0.0) * self.weight
        change = summed(self.members + 2, change, count + 2)
        change += summed(self.owner + 2, of_owner, count + 2)
        return change[2:]

    def _state(self, low: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Return by clause whether the owner switches it off, and how many members switch it on."""
        on = low[self.members] ^ self.swapped
        passed = np.concatenate([[0], np.cumsum(on)])
        return low[self.owner] ^ self.swapped, passed[self.start[1:]] - passed[self.start[:-1]]

    def pulls(self, count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return by variable how much at most the clauses pull it high, and how much low, whatever the others are."""
        by_member = summed(self.members + 2, self.weight[self.clause], count + 2)[2:]
        by_owner = summed(self.owner + 2, self.weight, count + 2)[2:]
        return (by_owner, by_member) if self.swapped else (by_member, by_owner)

    def restrict(
        self, place: npt.NDArray[np.intp], count: int
    ) -> tuple[Terms, float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the clauses over other variables, and what of them is constant or depends on one variable.

        Args:
            place: by variable of these clauses, extended: the new variable, or a constant.
            count: of the new variables.

        Returns:
            The clauses that are left; what is paid always; by new variable what is paid more when it is low, first
            because an owner that is not constant always pays or not, second of clauses with one member and no owner.
        """
        never, always = (LOW, HIGH) if self.swapped else (HIGH, LOW)  # members that never fire, or always
        owner, member = place[self.owner], place[self.members]
        live = owner != always
        fires = np.zeros(len(self), np.bool_)
        fires[self.clause[member == always]] = True
        fires &= live
        constant = float(self.weight[fires & (owner == never)].sum())
        own = fires & (owner >= 0)
        by_owner = summed(owner[own], self.weight[own], count)
        if not self.swapped:  # paid when the owner is high
            constant, by_owner = constant + float(self.weight[own].sum()), -by_owner
        clause = self.clause
        kept = (live & ~fires)[clause] & (member != never) & (member != owner[clause])
        left = Terms.of(owner, clause[kept], member[kept], self.weight, swapped=self.swapped)
        single = (left.sizes == 1) & (owner == never)
        alone = summed(left.members[left.start[:-1][single]], self.weight[single], count)
        if self.swapped:  # paid when the member is high
            constant, alone = constant + float(self.weight[single].sum()), -alone
        return left.only((left.sizes > 0) & ~single & (left.weight > 0)), constant, by_owner, alone

    def only(self, kept: npt.NDArray[np.bool_]) -> Terms:
        """Return the clauses that a mask names."""
        start = np.concatenate([[0], np.cumsum(self.sizes[kept])])
        return Terms(self.owner[kept], start, self.members[kept[self.clause]], self.weight[kept], self.swapped)


@dataclass(frozen=True, eq=False)
class Energy:
    """Latency and noise of a plan as functions of its low variables.

    Attributes:
        base_us: latency when every variable is high, casts and splits that depend on variables left out.
        base_noise: noise that every plan has.
        change_us: by variable, what its layers take more when they run low; negative where low is faster.
        change_noise: by variable, the noise of tensors that nobody else rounds.
        sources: noise of tensors that several variables round.
        down: casts to the low format, in microseconds.
        up: casts to fp32.
        first: one end of each bond.
        second: its other end.
        bond_us: what is paid when the ends of a bond differ.
    """

    base_us: float
    base_noise: float
    change_us: npt.NDArray[np.float64]
    change_noise: npt.NDArray[np.float64]
    sources: Terms
    down: Terms
    up: Terms
    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    bond_us: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        weights = (self.sources.weight, self.down.weight, self.up.weight, self.bond_us)
        # A negative one would make two layers dislike each other, and no minimum cut could tell the best plan.
        assert all(np.isfinite(weight).all() and (weight >= 0).all() for weight in weights)

    def __len__(self) -> int:
        return self.change_us.size

    def evaluate(self, low: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Return latency in microseconds and noise (squared relative output error) of a plan."""
        every = extended(low)
        split = low[self.first] != low[self.second]
        us = self.base_us + float(self.change_us[low].sum()) + self.down.total(every) + self.up.total(every)
        noise = self.base_noise + float(self.change_noise[low].sum()) + self.sources.total(every)
        return us + float(self.bond_us[split].sum()), noise

    def steps(self, low: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return by variable what latency and noise change by when it alone is switched; exact, not estimated.

        No variable may own a clause that it is a member of, nor be both ends of a bond: :meth:`restrict` drops those.
        """
        every = extended(low)
        split = np.where(low[self.first] != low[self.second], -self.bond_us, self.bond_us)
        us = np.where(low, -self.change_us, self.change_us) + self.down.steps(every) + self.up.steps(every)
        us += summed(self.first, split, len(self)) + summed(self.second, split, len(self))
        return us, np.where(low, -self.change_noise, self.change_noise) + self.sources.steps(every)

    def pulls(self, price: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return by variable how much at most others pull it high, and how much low, in microseconds at a price."""
        bonds = summed(self.first, self.bond_us, len(self)) + summed(self.second, self.bond_us, len(self))
        (high, low), down, up = (terms.pulls(len(self)) for terms in (self.sources, self.down, self.up))
        return price * high + down[0] + up[0] + bonds, price * low + down[1] + up[1] + bonds

    def restrict(self, place: npt.NDArray[np.intp], count: int) -> Energy:
        """Return the energy over other variables: some joined, some fixed.

        Args:
            place: by variable, the new variable, or ``HIGH`` or ``LOW`` where it is fixed.
            count: of the new variables.
        """
        every = np.concatenate([place, [LOW, HIGH]])
        sources, noise, _, alone = self.sources.restrict(every, count)
        down, down_us, down_owner, down_alone = self.down.restrict(every, count)
        up, up_us, up_owner, up_alone = self.up.restrict(every, count)
        free = place >= 0
        us = summed(place[free], self.change_us[free], count) + down_owner + down_alone + up_owner + up_alone
        change_noise = summed(place[free], self.change_noise[free], count) + alone
        base_us = self.base_us + float(self.change_us[place == LOW].sum()) + down_us + up_us
        base_noise = self.base_noise + float(self.change_noise[place == LOW].sum()) + noise
        one, other = place[self.first], place[self.second]
        base_us += float(self.bond_us[(one < 0) & (other < 0) & (one != other)].sum())
        for end, fixed in ((one, other), (other, one)):  # a bond with one end fixed pulls at the other
            pulled = (end >= 0) & (fixed < 0)
            to_low = pulled & (fixed == LOW)
            base_us += float(self.bond_us[to_low].sum())
            us += summed(end[pulled], np.where(to_low, -self.bond_us, self.bond_us)[pulled], count)
        tied = (one >= 0) & (other >= 0) & (one != other) & (self.bond_us > 0)
        return Energy(
            base_us, base_noise, us, change_noise, sources, down, up, one[tied], other[tied], self.bond_us[tied]
        )
