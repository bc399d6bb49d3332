"""A graph as the mapping of optimized nodes reads it: its layers and nodes, for converted models too.

A converted model holds the layers of its source under their ids, and between them nodes that conversion inserted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir

from explorer.model.graph import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Converted", "GraphView", "Runnable", "served_by_inserted", "shown_layers", "view_of"]


class Runnable(Protocol):
    """What can be handed to ONNX Runtime: a model, or a conversion."""

    @property
    def ir(self) -> ir.Model:
        """The graph."""
        ...


class Converted(Runnable, Protocol):
    """A conversion: a graph, and what was decided for each layer of the model it came from."""

    @property
    def decisions(self) -> Any:
        """Its ``typing.model`` is the source model."""
        ...


@dataclass(frozen=True)
class GraphView:
    """Layers in execution order, those of a body behind their container, and the node of each by its id."""

    layers: tuple[Layer, ...]
    nodes: Mapping[str, ir.Node]


def view_of(model: Runnable) -> GraphView:
    """Return the layers and nodes of a graph whose nodes have unique names."""
    if isinstance(layers := getattr(model, "layers", None), tuple):
        return GraphView(layers, {str(node.name): node for node in model.ir.graph.all_nodes()})
    found = list(_layers(model.ir.graph, None))
    return GraphView(tuple(layer for layer, _ in found), {layer.id: node for layer, node in found})


def shown_layers(model: Runnable) -> tuple[Layer, ...]:
    """Return the layers that a table of ``model`` has rows for: of a conversion, those of its source model."""
    decisions = getattr(model, "decisions", None)
    if decisions is None:
        return view_of(model).layers
    layers: tuple[Layer, ...] = decisions.typing.model.layers
    return layers


def served_by_inserted(model: Runnable) -> dict[str, str]:
    """Return, for each node that conversion inserted, the layer whose value it moves, else one that reads it."""
    known = {layer.id for layer in shown_layers(model)}
    layers = view_of(model).layers
    makers = {name: layer for layer in layers for name in layer.outputs if name}
    readers = {name: layer for layer in reversed(layers) for name in layer.inputs if name}
    found = {}
    for layer in layers:
        if layer.id in known:
            continue
        for table, side in ((makers, "inputs"), (readers, "outputs")):
            other: Layer | None = layer
            while other is not None and other.id not in known:
                names = getattr(other, side)
                other = table.get(names[0]) if names else None
            if other is not None:
                found[layer.id] = other.id
                break
    return found


def _layers(graph: ir.Graph, container: str | None) -> Iterator[tuple[Layer, ir.Node]]:
    for node in graph:
        layer = Layer(
            id=str(node.name),
            name=str(node.meta.get("name", node.name)),
            op=node.op_type,
            domain=node.domain,
            scope="",
            inputs=tuple(str(value.name) if value is not None else "" for value in node.inputs),
            outputs=tuple(str(value.name or "") for value in node.outputs),
            container=container,
        )
        yield layer, node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _layers(attribute.as_graph(), str(node.name))
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    yield from _layers(body, str(node.name))
