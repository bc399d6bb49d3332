"""What each layer takes in each format, and what each border between formats costs: latency as the cut can add it up.

A minimum cut needs a latency that is a sum over layers, tensors and pairs of layers. An engine's latency is not one:
layers that run as one kernel share its time, and which do depends on the plan. Here the time of a kernel is divided
among its layers so that the sum is exact for every plan that splits the kernel in at most one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.places import cast_places
from explorer.measure.latency import GpuPredictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from explorer.backends.roofline import Predictor
    from explorer.backends.roofline_fusion import Group
    from explorer.convert import Typing
    from explorer.convert.places import Places
    from explorer.model import Model

__all__ = ["CostModel", "roofline_costs"]

_HIGH: Final = "fp32"
_TF32: Final = "tf32"
_LARGEST: Final = 64  # layers of a kernel up to which every way to split it is timed; beyond, quadratic time shows


@dataclass(frozen=True)
class CostModel:
    """Latency of a model as a sum: over layers, over casts, and over kernels that a plan splits.

    Attributes:
        layer_ids: every layer of the model, in order.
        high_us: time of each layer in fp32; the layers of one kernel add up to its time, and a time that is not known
            counts as 0 in both formats.
        low_us: likewise in the low format; NaN where the layer cannot run low.
        down_us: by tensor, the time of its cast to the low format.
        up_us: by tensor, the time of its cast to fp32.
        bonds: pairs of layers of one kernel, by position, and what it costs on top of the cast when their formats
            differ: a kernel more, and the value between them written and read.
        places: who makes and who takes each tensor.
        device: that latency is of.
        provenance: how the times came to be.
        note: what the sum leaves out.
        high_splits: by bond, what of it is due to the layer in fp32, the rest being due to the one in the low format;
            empty where both have one half.
    """

    layer_ids: tuple[str, ...]
    high_us: npt.NDArray[np.float64]
    low_us: npt.NDArray[np.float64]
    down_us: Mapping[str, float]
    up_us: Mapping[str, float]
    bonds: tuple[tuple[int, int, float], ...]
    places: Places
    device: str
    provenance: str
    note: str = field(default="", compare=False)
    high_splits: tuple[float, ...] = field(default=(), compare=False)

    def total(self, low: npt.NDArray[np.bool_], *, keep_io: bool = True) -> float:
        """Return the latency in microseconds when these layers run low; one that cannot counts as in fp32.

        Args:
            low: by layer, whether it runs low.
            keep_io: whether the model's inputs and outputs stay in fp32.
        """
        down, up = self.places.casts(low, keep_io=keep_io)
        first, second, split_us = self.bond_columns
        layers = np.where(low & ~np.isnan(self.low_us), self.low_us, self.high_us).sum()
        casts = self.cast_columns[0][down].sum() + self.cast_columns[1][up].sum()
        return float(layers + casts + split_us[low[first] != low[second]].sum())

    @cached_property
    def bond_columns(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """The bonds in columns: first layers, second layers, microseconds."""
        first, second, us = zip(*self.bonds, strict=True) if self.bonds else ((), (), ())
        return np.array(first, np.intp), np.array(second, np.intp), np.array(us, np.float64)

    @property
    def high_bond_us(self) -> npt.NDArray[np.float64]:
        """By bond, what of it is due to the layer in fp32: at most the whole."""
        _, _, us = self.bond_columns
        return np.clip(np.nan_to_num(self.high_splits), 0.0, us) if self.high_splits else us / 2

    @cached_property
    def cast_columns(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Times of the casts by tensor of ``places``: to the low format, and to fp32."""
        down, up = (
            np.array([times.get(name, 0.0) for name in self.places.names], np.float64)
            for times in (self.down_us, self.up_us)
        )
        return down, up


def roofline_costs(
    model: Model,
    shapes: Mapping[str, tuple[int, ...]],
    typing: Typing,
    gpu: str,
    *,
    predictions: GpuPredictions | None = None,
) -> CostModel:
    """Return the latency predicted for a GPU, as a sum.

    It follows :meth:`GpuPredictions.predict` within a few percent under any plan, and equals it when each kernel is
    split in at most one place.

    Args:
        model: the model.
        shapes: concrete shapes of its inputs.
        typing: what each layer may be.
        gpu: name of the GPU.
        predictions: of the model with these shapes, where there are some already.

    Raises:
        BackendError: the GPU is not known; the nearest names are told.
    """
    predictor = (predictions or GpuPredictions(model, shapes)).predictor(gpu, typing.format)
    place = [number for number, layer in enumerate(model.layers) if layer.container is None]
    count = len(model.layers)
    high, low = np.zeros((2, count))
    bonds: list[tuple[int, int, float]] = []
    high_splits: list[float] = []
    divider = _Divider(predictor, typing.format)
    for group in predictor.fusion.groups([""] * len(predictor.layers)):
        where = [place[position] for position in group.members]
        (high[where], low[where]), split_us, high_us = divider.divide(group)
        high_splits += high_us
        parents = predictor.fusion.parents(group)
        bonds += [
            (where[parent], where[child], us)
            for child, (parent, us) in enumerate(zip(parents, split_us, strict=True), 1)
        ]
    unknown = np.isnan(high) | np.isnan(low)
    high[unknown] = low[unknown] = 0.0
    low[[not typing.layers[each.id].switchable or each.container is not None for each in model.layers]] = np.nan
    places = cast_places(typing)
    down_us, up_us = (
        dict(_cast_times(predictor, places, *formats)) for formats in ((_HIGH, typing.format), (typing.format, _HIGH))
    )
    return CostModel(
        tuple(layer.id for layer in model.layers),
        high,
        low,
        down_us,
        up_us,
        tuple(bonds),
        places,
        predictor.gpu.name,
        predictor.provenance,
        _note(int(unknown.sum()), count - len(place), count),
        tuple(high_splits),
    )


def _cast_times(predictor: Predictor, places: Places, source: str, target: str) -> Iterator[tuple[str, float]]:
    for name, inner in zip(places.names, places.inner, strict=True):
        us = 0.0 if inner else predictor.cast_us(name, source, target)
        yield name, 0.0 if np.isnan(us) else us


def _note(unknown: int, inner: int, count: int) -> str:
    parts = []
    if unknown:
        parts.append(f"{unknown} of {count} layers have no prediction and count as equally fast in both formats")
    if inner:
        parts.append(f"{inner} of {count} layers are in control-flow bodies and have no prediction")
    return "; ".join(parts)


class _Divider:
    """Divides the time of a kernel among its layers.

    Each layer but the first hangs on the layer whose value it takes, so a kernel is a tree. Cut at one of its edges, it
    falls into the upper part and the branch below. With T the time of a part in a format,

        branch's share in a format = (T(branch) + T(whole) - T(upper part)) / 2
        cost of the split          = the mean over both formats of T(upper part) + T(branch) - T(whole)

    is the one division under which both plans that split the kernel there, and both that do not, sum up to what they
    take: a branch is charged half by what it takes alone, half by what it adds to the rest.
    """

    def __init__(self, predictor: Predictor, low_format: str) -> None:
        self._fusion, self._predictor, self._formats = predictor.fusion, predictor, (_HIGH, low_format)
        self._below = [False] * len(predictor.layers)

    def divide(self, group: Group) -> tuple[npt.NDArray[np.float64], list[float], list[float]]:
        """Return the time of each layer in each format (2 x layers), and for each but the first its split's cost.

        That comes in all, and the part of it that is due to the side in fp32.
        """
        whole = self._times([group])
        shares = np.zeros((2, len(group.members)))
        shares[:, 0] = whole
        if self._formats[1] == _TF32:  # it is stored as fp32, and the layers that may be in it are heads of kernels
            none = [0.0] * (len(group.members) - 1)
            return shares, none, none
        if len(group.members) > _LARGEST:
            launch_us = [self._predictor.gpu.launch_us] * (len(group.members) - 1)
            return shares, launch_us, [us / 2 for us in launch_us]
        parents = self._fusion.parents(group)
        split_us, high_us = [], []
        for child, branch in enumerate(_branches(parents), 1):
            upper, lower = self._parts(group, branch)
            share = (lower + whole - upper) / 2
            shares[:, child] += share
            shares[:, parents[child - 1]] -= share
            split = (upper + lower - whole) / 2
            split_us.append(max(0.0, float(split.sum())))
            high_us.append(float(split[0]))
        return shares, split_us, high_us

    def _parts(self, group: Group, branch: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the times of the upper part and of the branch when they run in different formats."""
        below = self._below
        for index in branch:
            below[group.members[index]] = True
        parts = self._fusion.groups(below, group.members)
        times = [self._times(part for part in parts if below[part.members[0]] is side) for side in (False, True)]
        for index in branch:
            below[group.members[index]] = False
        return times[0], times[1]

    def _times(self, groups: Iterable[Group]) -> npt.NDArray[np.float64]:
        found = list(groups)
        return np.array([sum(self._predictor.kernel(group, fmt).us for group in found) for fmt in self._formats])


def _branches(parents: Sequence[int]) -> list[list[int]]:
    """Return for each node of a tree but the first the nodes of its branch, itself among them."""
    branches: list[list[int]] = [[] for _ in range(len(parents) + 1)]
    for node in range(1, len(parents) + 1):
        above = node
        while above:
            branches[above].append(node)
            above = parents[above - 1]
    return branches[1:]
