"""The emulation graphs of exact values: their ranges, the values themselves, and the local error of every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from explorer.convert.traits import PERMUTING, Kind
from explorer.convert.typing import HIGH
from explorer.probe.bands import Bands
from explorer.probe.low import LowLayers, lower_bodies
from explorer.probe.metrics import COLUMN_TYPES, Care, Parts, compare, observe, repeat
from explorer.probe.picks import EXACT, Pick, Picks
from explorer.probe.rounding import rounding_nodes
from explorer.probe.weave import EmulationGraph, Nodes, bodies, renamed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import numpy as np
    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.probe.native import NativeLayers

__all__ = ["Woven", "is_float", "low_layers", "type_of", "weave_exact", "weave_local", "weave_pickable", "weave_ranges"]


@dataclass(frozen=True)
class Woven:
    """An emulation graph, ready to be compiled.

    Attributes:
        model: serialized ONNX.
        arrays: its large weights.
        values: for each entry of the vectors of sums, the value that it measures.
        switches: for each entry of the switch vector, the layer or the model input or output that it rounds.
        fed: exact values that it takes as inputs, by name.
        picks: for each entry of the vector of picks, what it picks.
    """

    model: bytes
    arrays: dict[str, npt.NDArray[np.generic]]
    values: tuple[str, ...]
    switches: tuple[str, ...] = ()
    fed: tuple[str, ...] = ()
    picks: tuple[Pick, ...] = ()


def weave_exact(typing: Typing, values: Iterable[str]) -> Woven:
    """Return the model itself with ``values`` as its outputs."""
    graph = EmulationGraph(typing.model)
    graph.nodes.extend(graph.originals.values())
    wanted = tuple(values)
    for value in wanted:
        info = onnx.ValueInfoProto(name=value)
        info.type.CopyFrom(type_of(typing, value))
        graph.outputs.append(info)
    return Woven(*graph.finish({}), wanted)


def weave_pickable(typing: Typing, values: Collection[str]) -> Woven:
    """Return the model itself, from which a run returns those of ``values``, float32 tensors, that it picks."""
    graph = EmulationGraph(typing.model)
    picks = Picks(graph)
    for node in graph.originals.values():
        graph.nodes.append(node)
        for value in node.output:
            if value in values:
                picks.add(EXACT, value, value)
    made = picks.finish(sizes=True)
    return Woven(*graph.finish({}), tuple(value for _, value in made), picks=made)


def weave_ranges(typing: Typing, cares: Mapping[str, Care]) -> Woven:
    """Return the graph that measures where the exact values of every float32 tensor lie."""
    graph = EmulationGraph(typing.model)
    values: list[str] = []
    known: dict[str, Parts] = {}
    roots = _Roots(typing)
    for node in graph.originals.values():
        graph.nodes.append(node)
        for value in node.output:
            if not is_float(typing, value):
                continue
            values.append(value)
            root = roots.of(node, value)
            if root in known:
                repeat(graph, known[root])
            else:
                known[value] = observe(graph, value, cares.get(value, Care()), Bands.of_tensor(typing, value))
    return Woven(*graph.finish(COLUMN_TYPES), tuple(values))


def weave_local(typing: Typing, cares: Mapping[str, Care], *, native: bool = False) -> Woven:
    """Return the graph in which each layer's exact inputs also feed a low twin, whose error is summed.

    Args:
        typing: what each layer may be.
        cares: values that need care.
        native: the twins hold true low-precision operators, not emulated ones.
    """
    graph = EmulationGraph(typing.model)
    low = low_layers(graph, typing, native=native)
    values: list[str] = []
    rounded: dict[str, str] = {}
    known: dict[str, Parts] = {}  # sums of the rounding of a value itself
    roots = _Roots(typing)
    for node in graph.originals.values():
        graph.nodes.append(node)
        if typing.layers[node.name].switchable and typing.layers[node.name].kind is Kind.MOVEMENT:
            for value in node.output:
                if is_float(typing, value):
                    values.append(value)
                    root = roots.of(node, value)
                    if root in known:
                        repeat(graph, known[root])
                    else:
                        known[root] = _compare_rounded(graph, typing, root, rounded, cares.get(value, Care()))
            continue
        twin = _twin(low, node, rounded)
        if not twin:
            continue
        graph.nodes += twin
        for value in node.output:
            if is_float(typing, value):
                compare(graph, value, f"{value}::twin", cares.get(value, Care()))
                values.append(value)
    return Woven(*graph.finish(COLUMN_TYPES), tuple(values))


def low_layers(graph: EmulationGraph, typing: Typing, *, native: bool = False) -> LowLayers | NativeLayers:
    """Return what makes low copies of layers inside ``graph``: emulated, or of true low-precision operators."""
    if not native:
        return LowLayers(graph, typing)
    from explorer.probe.native import NativeLayers  # noqa: PLC0415 - emulation alone does without

    return NativeLayers(graph, typing)


class _Roots:
    """Values that hold the same elements as another one, in another shape or order, and therefore the same sums."""

    def __init__(self, typing: Typing) -> None:
        self._typing = typing
        self._root: dict[str, str] = {}

    def of(self, node: onnx.NodeProto, value: str) -> str:
        """Return the value that the result ``value`` of ``node`` holds the elements of; itself where it is new."""
        source = node.input[0] if node.input else ""
        permutes = node.op_type in PERMUTING and not node.domain and is_float(self._typing, source)
        if permutes and source not in self._typing.model.weights:
            self._root[value] = self._root.get(source, source)
        return self._root.get(value, value)


def _compare_rounded(graph: EmulationGraph, typing: Typing, value: str, rounded: dict[str, str], care: Care) -> Parts:
    """Sum the error of rounding ``value``; moving and rounding commute, so it is the local error of what moves it."""
    if value not in rounded:
        rounded[value] = f"{value}::low"
        graph.nodes += rounding_nodes(value, rounded[value], typing, value)
    return compare(graph, value, rounded[value], care)


def _twin(low: LowLayers | NativeLayers, node: onnx.NodeProto, rounded: dict[str, str]) -> Nodes:
    """Return nodes that compute ``<output>::twin`` from the layer's exact inputs with only this layer low."""
    if low.typing.layers[node.name].switchable:
        return low.nodes(node, "twin", str, lambda value: f"{value}::twin", shared=rounded)
    if bodies(node):
        copy = renamed(node, f"{node.name}::twin", str, lambda value: f"{value}::twin")
        if lower_bodies(low, copy):
            return Nodes([copy])
    return Nodes()


def is_float(typing: Typing, value: str) -> bool:
    """Return whether ``value`` is a float32 tensor."""
    return bool(value) and value in typing.types and typing.types[value].dtype == HIGH


def type_of(typing: Typing, value: str) -> onnx.TypeProto:
    """Return the type of a value without its shape."""
    dtype = typing.types[value].dtype
    inner = dtype
    wrappers: list[str] = []
    while "(" in inner:
        wrapper, _, inner = inner[:-1].partition("(")
        wrappers.append(wrapper)
    proto = onnx.TypeProto()
    here = proto
    for wrapper in wrappers:
        here = here.sequence_type.elem_type if wrapper == "seq" else here.optional_type.elem_type
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    here.tensor_type.elem_type = onnx.TensorProto.DataType.Value(names.get(inner, inner.upper()))
    return proto
