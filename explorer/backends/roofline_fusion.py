"""Which layers an optimizing engine runs as one kernel: pointwise layers join the product that feeds them.

The rules follow what TensorRT does: Conv + BatchNormalization + Add + Relu, MatMul + bias + GELU, and chains of
pointwise layers each become one kernel; views cost nothing and hide nothing. Transposes, reductions and softmax are
left alone, so a decomposed LayerNorm counts several kernels where an engine may need one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from explorer.model.cost_types import SWITCHABLE, item_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from explorer.model.cost_types import Kind, LayerCost
    from explorer.model.graph import Layer, TensorSpec

__all__ = ["Group", "fuse"]

_HEADS: frozenset[Kind] = frozenset({"conv", "elementwise", "matmul", "normalization"})
_FOLDED = "BatchNormalization"  # its scale and shift go into the weights of the product before it


@dataclass(slots=True)
class Group:
    """Layers that run as one kernel, in order; the first one gives the kernel its kind.

    Attributes:
        head: position of its first layer in the model's order.
        layers: the members.
        saved_elements: floating-point elements that stay on chip.
        saved_bytes: likewise for tensors whose size no plan changes.
    """

    head: int
    layers: list[Layer] = field(default_factory=list)
    saved_elements: float = 0.0
    saved_bytes: float = 0.0


class _Graph:
    """Who makes and who reads each value, and how large it is."""

    def __init__(
        self, layers: Iterable[Layer], costs: Mapping[str, LayerCost], specs: Mapping[str, TensorSpec]
    ) -> None:
        self.costs, self.specs = costs, specs
        self.readers: dict[str, list[Layer]] = {}
        self.makers: dict[str, Layer] = {}
        for layer in layers:
            for name in set(layer.inputs):
                self.readers.setdefault(name, []).append(layer)
            for name in layer.outputs:
                self.makers[name] = layer

    def elements(self, name: str) -> int | None:
        spec = self.specs.get(name)
        shape = spec.static_shape if spec is not None else None
        return None if shape is None else math.prod(shape)

    def follows(self, layer: Layer) -> bool:
        """Whether this layer may become part of a kernel that another layer starts."""
        cost = self.costs[layer.id]
        view = cost.is_free and cost.kind == "movement"
        return cost.is_known and (view or cost.kind == "elementwise" or layer.op == _FOLDED)


def fuse(
    layers: Iterable[Layer],
    costs: Mapping[str, LayerCost],
    specs: Mapping[str, TensorSpec],
    *,
    outputs: Collection[str],
    formats: Mapping[str, str],
) -> list[Group]:
    """Return the kernels that the layers become, each layer in exactly one.

    A layer joins the kernel of the producer that comes last, when it is pointwise (or a view, or a BatchNormalization
    behind a product), has the same size and format, and every other reader of that producer's value is pointwise too.

    Args:
        layers: in execution order.
        costs: of every layer.
        specs: of every value.
        outputs: names of the model's outputs: they are written in any case.
        formats: format of every layer; kernels have one.
    """
    ordered = tuple(layers)
    graph = _Graph(ordered, costs, specs)
    kept = frozenset(outputs)
    groups: list[Group] = []
    group_of: dict[str, Group] = {}
    for position, layer in enumerate(ordered):
        group = _host(layer, graph, group_of, kept, formats)
        if group is None:
            group = Group(position)
            groups.append(group)
        group.layers.append(layer)
        group_of[layer.id] = group
    for group in groups:
        _count_savings(group, graph, kept)
    return groups


def _host(
    layer: Layer, graph: _Graph, group_of: Mapping[str, Group], kept: frozenset[str], formats: Mapping[str, str]
) -> Group | None:
    """The kernel that this layer joins, else None."""
    if not graph.follows(layer) or not layer.outputs:
        return None
    made = [(group_of[graph.makers[name].id], name) for name in layer.inputs if name in graph.makers]
    if not made:
        return None
    # The latest kernel: no other input can depend on it, so joining it makes no cycle.
    group, value = max(made, key=lambda pair: pair[0].head)
    first = group.layers[0]
    same = first.container == layer.container and formats[first.id] == formats[layer.id]
    if not same or not _leads(graph.costs[first.id], layer):
        return None
    readers = graph.readers[value]
    if value in kept or not (len(readers) == 1 or all(graph.follows(reader) for reader in readers)):
        return None
    size = graph.elements(value)
    return group if size is not None and size == graph.elements(layer.outputs[0]) else None


def _leads(head: LayerCost, layer: Layer) -> bool:
    """Whether a kernel with this head can take the layer in."""
    if layer.op == _FOLDED and head.gemm is None:
        return False
    return head.kind in _HEADS and head.is_known and not head.is_free


def _count_savings(group: Group, graph: _Graph, kept: frozenset[str]) -> None:
    """Values that only this kernel reads are not written, and what it reads twice is read once."""
    members = {layer.id for layer in group.layers}
    root: dict[str, str] = {}  # a view inside the kernel only renames a value
    reads: dict[str, int] = {}
    written: set[str] = set()
    needed: set[str] = set()
    for layer in group.layers:
        free = graph.costs[layer.id].is_free
        for name in {name for name in layer.inputs if name} if not free else ():
            origin = root.get(name, name)
            reads[origin] = reads.get(origin, 0) + 1
        for name in layer.outputs:
            root[name] = root.get(layer.inputs[0], layer.inputs[0]) if free and layer.inputs else name
            written |= set() if free else {name}
            if name in kept or any(reader.id not in members for reader in graph.readers.get(name, ())):
                needed.add(root[name])
    for name in reads.keys() | written:
        times = reads.get(name, 0) + (name not in needed) if name in written else reads[name] - 1
        _save(group, graph, name, times)


def _save(group: Group, graph: _Graph, name: str, times: int) -> None:
    size, spec = graph.elements(name), graph.specs.get(name)
    if not times or size is None or spec is None:
        return
    if spec.dtype in SWITCHABLE:
        group.saved_elements += times * size
    else:
        group.saved_bytes += times * size * item_bytes(spec.dtype)
