"""The best plan at a price of noise, by one minimum cut: exact, whatever the size of the model.

Layers are nodes between a source, whose side is low, and a sink, whose side is high. scipy's maximum flow takes 32-bit
integers only, so capacities are scaled and rounded down; the flow of the rounded network is then taken off the true
one, and what is left is scaled up and solved again, until the cut that was found and the flow that was pushed prove
each other to nine digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from explorer.search.energy import HIGH, LOW, distinct, summed

if TYPE_CHECKING:
    import numpy.typing as npt

    from explorer.search.energy import Energy, Terms
    from explorer.search.problem import Problem

__all__ = ["PRECISION", "minimum", "solve"]

PRECISION: Final = 1e-9  # of all that the low side could save: at most so far from the optimum is a cut
_LARGEST: Final = (1 << 30) - 1  # twice this still is a 32-bit integer: an edge is pushed along and back
_ROUNDS: Final = 5  # of deciding layers before the flow; each takes 1 to 5 ms, and 75% of 10,000 are decided (measured)
_PASSES: Final = 6  # each gains four digits or more on 10,000 layers; two are usual


def solve(problem: Problem, price: float) -> npt.NDArray[np.bool_]:
    """Return by layer whether it runs low in the plan that minimises latency + price * noise.

    Of several such plans it is the one with the fewest low layers: every other one runs these low, too.

    Args:
        problem: what is decided.
        price: microseconds for each unit of noise (squared relative error), at least 0; inf allows no noise that can
            be avoided.
    """
    return problem.layers(minimum(problem.core, price))


def minimum(energy: Energy, price: float) -> npt.NDArray[np.bool_]:
    """Return the variables that are low in the minimum of latency + price * noise; the fewest of several minima."""
    if price == np.inf:
        noisy = energy.change_noise > 0
        noisy[energy.sources.members] = True
        place = np.where(noisy, HIGH, np.cumsum(~noisy) - 1)
        return np.concatenate([minimum(energy.restrict(place, int((~noisy).sum())), 0.0), [True, False]])[place]
    place = np.arange(len(energy))
    for _ in range(_ROUNDS):
        decided = _decided(energy, price)
        kept = int((decided >= 0).sum())
        if kept == len(energy):
            break
        energy = energy.restrict(decided, kept)
        place = np.concatenate([decided, [LOW, HIGH]])[place]
    return np.concatenate([_Network(energy, price).cut(), [True, False]])[place]


def _decided(energy: Energy, price: float) -> npt.NDArray[np.intp]:
    """Return by variable its number among those left, or ``LOW`` or ``HIGH`` where no other one can change its mind."""
    change = energy.change_us + price * energy.change_noise
    to_high, to_low = energy.pulls(price)
    place = np.where(change >= to_low, HIGH, LOW).astype(np.intp)
    left = (change < to_low) & (-change <= to_high)
    place[left] = np.arange(int(left.sum()))
    return place


class _Network:
    """The network of an energy at a price."""

    def __init__(self, energy: Energy, price: float) -> None:
        self._energy, self._price, self._count = energy, price, len(energy)
        tables = ((energy.sources, price), (energy.down, 1.0), (energy.up, 1.0))
        self._nodes = self._count + sum(int((terms.sizes > 1).sum()) for terms, _ in tables) + 2
        self._source, self._sink = self._nodes - 2, self._nodes - 1
        edges, helper = [], self._count
        for terms, unit in tables:
            tails, heads, weights, helper = self._clauses(terms, helper)
            edges.append((tails, heads, unit * weights))
        edges += [(a, b, energy.bond_us) for a, b in ((energy.first, energy.second), (energy.second, energy.first))]
        self._sure_low, self._sure_high, *own = self._own()
        self._build(*(np.concatenate(column) for column in zip(*edges, *own, strict=True)))

    def _own(self) -> tuple[Any, ...]:
        """Return which variables are surely low, surely high, and the edges that stand for their own preferences.

        A variable whose preference outweighs all that can pull the other way is decided. Its preference is cut down to
        that pull, so that one large layer does not cost the small ones their digits.
        """
        change = self._energy.change_us + self._price * self._energy.change_noise
        to_high, to_low = self._energy.pulls(self._price)
        variables, ends = np.arange(self._count), np.ones(self._count, np.intp)
        from_source = (self._source * ends, variables, np.clip(-change, 0.0, to_high))
        to_sink = (variables, self._sink * ends, np.clip(change, 0.0, to_low))
        return -change > to_high, change > to_low, from_source, to_sink

    def _clauses(
        self, terms: Terms, helper: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64], int]:
        """Return edges for clauses: tails, heads, weights, and the first node that is still unused.

        A clause with several members has a helper node, which is low when any of them is. The edges to it need no
        infinite capacity: none carries more than the one behind it.
        """
        several = terms.sizes > 1
        node = np.where(several, helper + np.cumsum(several) - 1, -1)
        if not several.all():  # one member: the edge goes straight from it to the owner
            node[~several] = terms.members[terms.start[:-1][~several]]
        inner = several[terms.clause]
        tails = np.concatenate([terms.members[inner], node])
        owner = np.where(terms.owner == HIGH, self._sink, np.where(terms.owner == LOW, self._source, terms.owner))
        heads = np.concatenate([node[terms.clause][inner], owner])
        weights = np.concatenate([terms.weight[terms.clause][inner], terms.weight])
        if terms.swapped:
            tails, heads = heads, tails
        return tails, heads, weights, helper + int(several.sum())

    def _build(
        self, tails: npt.NDArray[np.intp], heads: npt.NDArray[np.intp], capacity: npt.NDArray[np.float64]
    ) -> None:
        """Lay out the edges and their reverses row by row; parallel ones are added up."""
        size = self._nodes
        forward, backward = tails * size + heads, heads * size + tails
        keys = distinct(np.concatenate([forward, backward]))
        self._capacity = summed(np.searchsorted(keys, forward), capacity, keys.size)
        self._tails, self._heads = np.divmod(keys, size)
        self._starts = np.searchsorted(self._tails, np.arange(size + 1)).astype(np.int32)
        self._columns = self._heads.astype(np.int32)

    def cut(self) -> npt.NDArray[np.bool_]:
        """Return the variables on the low side of the minimum cut."""
        capacity = self._capacity
        reached = np.zeros(self._nodes, np.bool_)
        tolerance = PRECISION * capacity[self._tails == self._source].sum()
        left = float(capacity.max(initial=0.0))
        for _ in range(_PASSES):
            if left <= tolerance:
                break
            scale = _LARGEST / left
            rounded = np.floor(np.minimum(capacity, left) * scale).astype(np.int32)
            flow = self._flow(rounded)
            capacity = np.maximum(capacity - flow / scale, 0.0)
            reached = self._reached(rounded > flow)
            # What is left on the edges of this cut is all that could still flow: the cut is so far from the optimum.
            left = float(capacity[reached[self._tails] & ~reached[self._heads]].sum())
        low: npt.NDArray[np.bool_] = (reached[: self._count] | self._sure_low) & ~self._sure_high
        return low

    def _flow(self, capacity: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        graph = csr_array((capacity, self._columns, self._starts), shape=(self._nodes, self._nodes))
        found = maximum_flow(graph, self._source, self._sink).flow
        assert found.data.size == capacity.size
        return np.asarray(found.data)

    def _reached(self, open_edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        starts = np.concatenate([[0], np.cumsum(open_edges)])[self._starts].astype(np.int32)
        graph = csr_array(
            (np.ones(starts[-1], np.int8), self._columns[open_edges], starts), shape=(self._nodes, self._nodes)
        )
        reached = np.zeros(self._nodes, np.bool_)
        reached[breadth_first_order(graph, self._source, return_predecessors=False)] = True
        return reached
