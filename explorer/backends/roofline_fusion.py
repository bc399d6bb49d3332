"""Which layers an optimizing engine runs as one kernel: pointwise layers join the product that feeds them.

The rules follow what TensorRT does: Conv + BatchNormalization + Add + Relu, MatMul + bias + GELU, and chains of
pointwise layers each become one kernel; views cost nothing and hide nothing. Transposes, reductions and softmax are
left alone, so a decomposed LayerNorm counts several kernels where an engine may need one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explorer.model.cost_types import SWITCHABLE, item_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from explorer.model.cost_types import Kind, LayerCost
    from explorer.model.graph import Layer, TensorSpec

__all__ = ["Fusion", "Group"]

_HEADS: frozenset[Kind] = frozenset({"conv", "elementwise", "matmul", "normalization"})
_KNOWN_A_LAYER = 16  # kernels that are kept: a layer is in that many under the plans that a user goes through
_FOLDED = "BatchNormalization"  # its scale and shift go into the weights of the product before it


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that run as one kernel, in order; the first one gives the kernel its kind.

    Attributes:
        members: their positions in the model's order.
        layers: the members.
        saved_elements: floating-point elements that stay on chip.
        saved_bytes: likewise for tensors whose size no plan changes.
    """

    members: tuple[int, ...]
    layers: tuple[Layer, ...]
    saved_elements: float = 0.0
    saved_bytes: float = 0.0


class _Graph:
    """Who makes and who reads each value, and how large it is."""

    def __init__(
        self, layers: Iterable[Layer], costs: Mapping[str, LayerCost], specs: Mapping[str, TensorSpec]
    ) -> None:
        self.costs, self.specs = costs, specs
        self.readers: dict[str, list[Layer]] = {}
        self.makers: dict[str, int] = {}
        for position, layer in enumerate(layers):
            for name in set(layer.inputs):
                self.readers.setdefault(name, []).append(layer)
            self.makers.update((name, position) for name in layer.outputs if name)
        self._joined: dict[str, bool] = {}

    def elements(self, name: str) -> int | None:
        spec = self.specs.get(name)
        shape = spec.static_shape if spec is not None else None
        return None if shape is None else math.prod(shape)

    def follows(self, layer: Layer) -> bool:
        """Whether this layer may become part of a kernel that another layer starts."""
        cost = self.costs[layer.id]
        view = cost.is_free and cost.kind == "movement"
        return cost.is_known and (view or cost.kind == "elementwise" or layer.op == _FOLDED)

    def joined(self, name: str) -> bool:
        """Whether the only reader of a value, or every one, may become part of the kernel that makes it."""
        found = self._joined.get(name)
        if found is None:
            readers = self.readers[name]
            found = self._joined[name] = len(readers) == 1 or all(self.follows(reader) for reader in readers)
        return found


class Fusion:
    """Tells for one plan after another which layers run as one kernel; what no plan changes is read once.

    A layer joins the kernel of the producer that comes last, when it is pointwise (or a view, or a BatchNormalization
    behind a product), has the same size and format, and every other reader of that producer's value is pointwise too.

    Args:
        layers: in execution order.
        costs: of every layer.
        specs: of every value.
        outputs: names of the model's outputs: they are written in any case.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        costs: Mapping[str, LayerCost],
        specs: Mapping[str, TensorSpec],
        *,
        outputs: Collection[str],
    ) -> None:
        self.layers = tuple(layers)
        self._graph = _Graph(self.layers, costs, specs)
        self._kept = frozenset(outputs)
        self._offers = [self._offered(layer) for layer in self.layers]
        self._takes = [self._taken(costs[layer.id]) for layer in self.layers]
        self._folded = [layer.op == _FOLDED for layer in self.layers]
        self._known: dict[tuple[int, ...], Group] = {}

    def groups(self, formats: Sequence[Hashable], among: Iterable[int] | None = None) -> list[Group]:
        """Return the kernels that the layers become, each layer in exactly one.

        Args:
            formats: format of every layer, in order; kernels have one.
            among: positions of the layers to tell of, in order, as if there were no others; None tells of all.
        """
        members: dict[int, list[int]] = {}
        head_of: dict[int, int] = {}
        for position in range(len(self.layers)) if among is None else among:
            head = self._host(position, head_of, formats)
            head_of[position] = head
            members.setdefault(head, []).append(position)
        return [self.group(tuple(each)) for each in members.values()]

    def group(self, members: tuple[int, ...]) -> Group:
        """Return the kernel that these layers are, by position in order."""
        found = self._known.get(members)
        if found is None:
            if len(self._known) > _KNOWN_A_LAYER * len(self.layers):
                self._known.clear()
            found = self._known[members] = self._saving(members)
        return found

    def parents(self, group: Group) -> list[int]:
        """Return for each member but the first the member whose value it takes, as an index into the members.

        Where it takes several, that is the one made last: the kernel breaks there first.
        """
        place = {position: index for index, position in enumerate(group.members)}
        return [
            max(place[maker] for maker, _ in self._offers[position] if maker in place) for position in group.members[1:]
        ]

    def _offered(self, layer: Layer) -> tuple[tuple[int, bool], ...]:
        """Return who makes each input, and whether the layer may join its kernel; empty for one that joins none."""
        graph = self._graph
        if not graph.follows(layer) or not layer.outputs:
            return ()
        size = graph.elements(layer.outputs[0])
        found = []
        for name in layer.inputs:
            if name in graph.makers:
                fits = size is not None and graph.elements(name) == size
                found.append((graph.makers[name], fits and name not in self._kept and graph.joined(name)))
        return tuple(found)

    @staticmethod
    def _taken(head: LayerCost) -> tuple[bool, bool]:
        """Return whether a kernel with this head can take a layer in, and a BatchNormalization."""
        takes = head.kind in _HEADS and head.is_known and not head.is_free
        return takes, takes and head.gemm is not None

    def _host(self, position: int, head_of: Mapping[int, int], formats: Sequence[Hashable]) -> int:
        """Return the head of the kernel that this layer joins, else the layer itself."""
        # The latest kernel: no other input can depend on it, so joining it makes no cycle.
        latest, joins = -1, False
        for maker, fits in self._offers[position]:
            head = head_of.get(maker, -1)
            if head > latest:
                latest, joins = head, fits
        if not joins or formats[latest] != formats[position] or not self._takes[latest][self._folded[position]]:
            return position
        return latest if self.layers[latest].container == self.layers[position].container else position

    def _saving(self, members: tuple[int, ...]) -> Group:
        """Values that only this kernel reads are not written, and what it reads twice is read once."""
        layers, graph = tuple(self.layers[position] for position in members), self._graph
        ids = {layer.id for layer in layers}
        root: dict[str, str] = {}  # a view inside the kernel only renames a value
        reads: dict[str, int] = {}
        written: set[str] = set()
        needed: set[str] = set()
        for layer in layers:
            free = graph.costs[layer.id].is_free
            for name in {name for name in layer.inputs if name} if not free else ():
                origin = root.get(name, name)
                reads[origin] = reads.get(origin, 0) + 1
            for name in layer.outputs:
                root[name] = root.get(layer.inputs[0], layer.inputs[0]) if free and layer.inputs else name
                written |= set() if free else {name}
                if name in self._kept or any(reader.id not in ids for reader in graph.readers.get(name, ())):
                    needed.add(root[name])
        elements = fixed = 0.0
        for name in reads.keys() | written:
            times = reads.get(name, 0) + (name not in needed) if name in written else reads[name] - 1
            more, more_fixed = self._saved(name, times)
            elements, fixed = elements + more, fixed + more_fixed
        return Group(members, layers, elements, fixed)

    def _saved(self, name: str, times: int) -> tuple[float, float]:
        """Return the floating-point elements and the other bytes of a value that does not travel so many times."""
        size, spec = self._graph.elements(name), self._graph.specs.get(name)
        if not times or size is None or spec is None:
            return 0.0, 0.0
        return (times * size, 0.0) if spec.dtype in SWITCHABLE else (0.0, times * size * item_bytes(spec.dtype))
