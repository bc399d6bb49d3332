"""Which axes of which tensors are one extent of the model, so that padding one pads them all."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from explorer.advise.slow.case import Case
    from explorer.model import Layer

__all__ = ["Axis", "Extents"]

Axis = tuple[str, int]  # a value and the position of one of its dimensions, counted from the front
_CONVOLUTIONS: Final = {"Conv": (1, 0), "ConvTranspose": (0, 1)}  # axes of the weight: channels read, channels made
_BY_CHANNEL: Final = frozenset(
    ("BatchNormalization", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
)


class Extents:
    """The extents of one model for given shapes.

    Matrix products and convolutions join the axes that their definition joins, pointwise layers the aligned ones, and
    any other layer those whose size no other axis of the same tensor has. Where that is not certain, nothing is joined:
    an extent ends there.

    Args:
        case: the model and its shapes.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._above: dict[Axis, Axis] = {}
        for layer in case.model.layers:
            for one, other in self._pairs(layer):
                self._join(one, other)
        self._members: dict[Axis, list[Axis]] = defaultdict(list)
        for axis in self._above:
            self._members[self.root(axis)].append(axis)

    def root(self, axis: Axis) -> Axis:
        """Return the axis that stands for the extent of this one."""
        above = self._above
        while above.setdefault(axis, axis) != axis:
            above[axis] = axis = above[above[axis]]
        return axis

    def _join(self, one: Axis, other: Axis) -> None:
        if self._size(one) == self._size(other) is not None:
            self._above[self.root(one)] = self.root(other)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value; nothing where it is not known."""
        spec = self._case.specs.get(name)
        return (spec.static_shape if spec is not None else None) or ()

    def _size(self, axis: Axis) -> int | None:
        shape = self.shape(axis[0])
        return shape[axis[1]] if axis[1] < len(shape) else None

    def product_axes(self, layer: Layer) -> tuple[Axis, Axis] | None:
        """Return the axes along which a product reads (k) and makes (n) what must be aligned; None for others."""
        attributes = self._case.model.attributes(layer.id)
        if layer.op in _CONVOLUTIONS and not layer.domain:
            return None if attributes.get("group", 1) != 1 else ((layer.inputs[0], 1), (layer.outputs[0], 1))
        if layer.op in ("MatMul", "Gemm") and not layer.domain:
            left, made = self.shape(layer.inputs[0]), self.shape(layer.outputs[0])
            if len(left) < 2 or len(made) < 2:
                return None
            k = 0 if attributes.get("transA", 0) else len(left) - 1
            return (layer.inputs[0], k), (layer.outputs[0], len(made) - 1)
        return None

    def _pairs(self, layer: Layer) -> Iterator[tuple[Axis, Axis]]:
        inputs, made = layer.inputs, next(iter(layer.outputs), "")
        axes = self.product_axes(layer)
        kind = self._case.costs[layer.id].kind
        if axes is not None and layer.op in _CONVOLUTIONS:
            reads, makes = _CONVOLUTIONS[layer.op]
            yield axes[0], (inputs[1], reads)
            yield axes[1], (inputs[1], makes)
            yield from ((axes[1], (name, 0)) for name in inputs[2:])
        elif axes is not None:
            yield from self._matrix_pairs(layer, axes)
        elif layer.op in _BY_CHANNEL:
            yield (inputs[0], 1), (made, 1)
            yield from (((made, 1), (name, 0)) for name in inputs[1:])
        elif kind == "elementwise":
            for name in inputs:
                yield from self._aligned(name, made)
        else:
            yield from (pair for name in inputs for result in layer.outputs for pair in self._by_size(name, result))

    def _matrix_pairs(self, layer: Layer, axes: tuple[Axis, Axis]) -> Iterator[tuple[Axis, Axis]]:
        attributes: Mapping[str, Any] = self._case.model.attributes(layer.id)
        (left, k), (made, n) = axes
        right = layer.inputs[1]
        rank = len(self.shape(right))
        if rank < 2:
            return
        turned = bool(attributes.get("transB", 0))
        yield (left, k), (right, rank - 1 if turned else rank - 2)
        yield (made, n), (right, rank - 2 if turned else rank - 1)
        rows = len(self.shape(left))
        yield (left, rows - 1 if attributes.get("transA", 0) else rows - 2), (made, n - 1)
        for name in layer.inputs[2:]:
            yield from self._aligned(name, made)

    def _aligned(self, name: str, made: str) -> Iterator[tuple[Axis, Axis]]:
        """Join the axes of two tensors from the last one on, as broadcasting does."""
        one, other = len(self.shape(name)), len(self.shape(made))
        yield from (((name, one - back), (made, other - back)) for back in range(1, min(one, other) + 1))

    def _by_size(self, name: str, made: str) -> Iterator[tuple[Axis, Axis]]:
        """Join axes of two tensors that are the only ones of their size."""
        one, other = self.shape(name), self.shape(made)
        counts, others = Counter(one), Counter(other)
        yield from (
            ((name, at), (made, other.index(size)))
            for at, size in enumerate(one)
            if size > 1 and counts[size] == 1 and others[size] == 1
        )

    def members(self, axis: Axis) -> list[Axis]:
        """Return all axes of the extent that an axis belongs to."""
        return self._members.get(self.root(axis), [axis])

    def padded(self, sizes: Mapping[Axis, int]) -> Case:
        """Return the model with some extents padded.

        Args:
            sizes: from the axis that stands for an extent to its new size.
        """
        changed: dict[str, dict[int, int]] = defaultdict(dict)
        for root, size in sizes.items():
            for name, at in self.members(root):
                changed[name][at] = size
        specs, weights = dict(self._case.specs), dict(self._case.weights)
        for name, resized in changed.items():
            if name in specs:
                specs[name] = replace(specs[name], shape=_replaced(self.shape(name), resized))
            if name in weights:
                weights[name] = replace(weights[name], shape=_replaced(weights[name].shape, resized))
        return self._case.reshaped(specs, weights)

    def touches(self, root: Axis, names: Collection[str]) -> bool:
        """Return whether an extent is one of some values' own."""
        return any(name in names for name, _ in self.members(root))


def _replaced(shape: tuple[int, ...], sizes: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sizes.get(at, size) for at, size in enumerate(shape))
