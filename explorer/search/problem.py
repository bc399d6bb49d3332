"""What the search decides about a model: which layers are free, and what each choice costs in time and in error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from explorer.search.energy import HIGH, LOW, Energy, Terms

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.search.costs import CostModel
    from explorer.search.noise import NoiseModel

__all__ = ["Problem", "agreement", "build_problem", "objective"]


@dataclass(frozen=True, eq=False)
class Problem:
    """A choice of a format for each layer.

    Attributes:
        layer_ids: every layer of the model, in order.
        energy: latency and noise by layer.
        fixed: by layer, -1 free, 0 stays high, 1 stays low.
        groups: by layer, a label; layers of the same label run in the same format.
    """

    layer_ids: tuple[str, ...]
    energy: Energy
    fixed: npt.NDArray[np.int8]
    groups: npt.NDArray[np.intp]

    @cached_property
    def place(self) -> npt.NDArray[np.intp]:
        """By layer, the variable that decides about it, or ``HIGH`` or ``LOW`` where it is fixed."""
        free = self.fixed < 0
        place = np.where(self.fixed > 0, LOW, HIGH).astype(np.intp)
        place[free] = np.unique(self.groups[free], return_inverse=True)[1]
        return place

    @cached_property
    def core(self) -> Energy:
        """The energy over the free variables: groups are joined, fixed layers are constants."""
        return self.energy.restrict(self.place, int(self.place.max(initial=-1)) + 1)

    def layers(self, low: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return by layer whether it runs low, from the variables of ``core``."""
        return np.concatenate([low, [True, False]])[self.place]

    def variables(self, low: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the variables of ``core`` from a mask by layer; fixed layers do not matter."""
        free = self.place >= 0
        found = np.zeros(len(self.core), np.bool_)
        found[self.place[free]] = low[free]
        return found


def objective(problem: Problem, low: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return latency in microseconds and noise (squared relative error of the worst output, at most) of a plan.

    Args:
        problem: what is decided.
        low: by layer, whether it runs low.
    """
    return problem.energy.evaluate(low)


def build_problem(
    typing: Typing,
    noise: NoiseModel,
    costs: CostModel,
    *,
    blocked: Collection[str] = (),
    keep_io: bool = True,
    agree: Sequence[Collection[str]] = (),
) -> Problem:
    """Return what there is to decide about a model.

    A layer stays high when it may not run low, stands in a control-flow body, is blocked, breaks the model (one of its
    tensors has infinite noise), or has to agree with one that does. Where the model's inputs and outputs are low
    themselves, the noise of that is part of every plan; what no plan can avoid pins no layer.

    Args:
        typing: what each layer may be.
        noise: what rounding each tensor adds to the error.
        costs: what each layer and each cast takes.
        blocked: ids of layers that stay high.
        keep_io: whether the model's inputs and outputs stay in fp32.
        agree: groups of layers, by id, that run in one format.
    """
    layers = typing.model.layers
    count = len(layers)
    index = {layer.id: number for number, layer in enumerate(layers)}
    free = np.array([typing.layers[each.id].switchable and each.container is None for each in layers], np.bool_)
    free &= ~np.isnan(costs.low_us)
    free[[index[layer_id] for layer_id in (*blocked, *noise.pinned)]] = False

    worst = noise.noise.max(axis=1, initial=0.0)
    worst[np.isnan(worst)] = np.inf
    always = np.zeros(worst.size, np.bool_)
    if not keep_io:
        always[noise.sources.outputs] = True
    pairs = [(source, index[layer_id]) for layer_id, touched in noise.sources.touched.items() for source in touched]
    source, toucher = np.array(pairs, np.intp).reshape(-1, 2).T
    free[toucher[(worst == np.inf)[source] & ~always[source]]] = False

    groups = agreement(count, [[index[layer_id] for layer_id in group] for group in agree])
    free &= ~np.isin(groups, groups[~free])  # one that cannot run low keeps those that agree with it
    kept = ~always[source] & free[toucher]
    down, up = _casts(costs, keep_io=keep_io)
    first, second, bond_us = zip(*costs.bonds, strict=True) if costs.bonds else ((), (), ())
    energy = Energy(
        base_us=float(np.nansum(costs.high_us)),
        base_noise=float(worst[always & np.isfinite(worst)].sum()),
        change_us=np.where(free, np.nan_to_num(costs.low_us - costs.high_us), 0.0),
        change_noise=np.zeros(count),
        sources=_merged(source[kept], toucher[kept], worst),
        down=down,
        up=up,
        first=np.array(first, np.intp),
        second=np.array(second, np.intp),
        bond_us=np.array(bond_us, np.float64),
    )
    return Problem(tuple(index), energy, np.where(free, -1, 0).astype(np.int8), groups)


def agreement(count: int, groups: Sequence[Sequence[int]]) -> npt.NDArray[np.intp]:
    """Return a number by layer, the same for layers of one group; groups that share a layer are one."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    one, other = np.array(pairs, np.intp).reshape(-1, 2).T
    tied = coo_array((np.ones(one.size, np.int8), (one, other)), shape=(count, count))
    return connected_components(tied, directed=False)[1].astype(np.intp)


def _merged(source: npt.NDArray[np.intp], toucher: npt.NDArray[np.intp], noise: npt.NDArray[np.float64]) -> Terms:
    """Return the sources as clauses; those that the same layers touch are one."""
    touchers: dict[int, list[int]] = {}
    for each, layer in zip(source.tolist(), toucher.tolist(), strict=True):
        touchers.setdefault(each, []).append(layer)
    merged: dict[tuple[int, ...], float] = {}
    for each, found in touchers.items():
        key = tuple(sorted(set(found)))
        merged[key] = merged.get(key, 0.0) + float(noise[each])
    sizes = [len(key) for key in merged]
    return Terms.of(
        np.full(len(merged), HIGH, np.intp),
        np.repeat(np.arange(len(merged)), sizes),
        np.array([layer for key in merged for layer in key], np.intp),
        np.array(list(merged.values()), np.float64),
    )


def _casts(costs: CostModel, *, keep_io: bool) -> tuple[Terms, Terms]:
    """Return the casts to the low format and to fp32, by the rules of :mod:`explorer.convert.places`."""
    places = costs.places
    codes = np.array([HIGH if keep_io else LOW, HIGH])  # of AS_IO and ALWAYS_HIGH, which index them from behind

    def runs(layer: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return np.where(layer < 0, codes[np.minimum(layer, -1)], layer)

    owner = np.where(places.made_low, runs(places.maker), HIGH)
    down_us, up_us = (
        np.array([times.get(name, 0.0) for name in places.names], np.float64) for times in (costs.down_us, costs.up_us)
    )
    takes = places.taken_low
    down = Terms.of(owner, places.value[takes], runs(places.taker[takes]), down_us)
    wanted = np.where(takes, runs(places.taker), HIGH)
    return down, Terms.of(owner, places.value, wanted, up_us, swapped=True)
