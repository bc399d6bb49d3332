"""Graphs in which single tensors can be rounded, whole or from some node on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import onnx

from explorer.convert.typing import HIGH
from explorer.probe.graphs import type_of
from explorer.probe.rounding import STORED, reads_rounded, rounded_weight, rounding_nodes
from explorer.probe.weave import EmulationGraph, Nodes, captures, renamed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.probe.sources import Sources

__all__ = ["SWITCHES", "NoiseGraph", "Part", "noisy"]

SWITCHES = "::noise"
_ALL = "::all"  # stands for every layer, and for the model's user


def noisy(output: str) -> str:
    """Return the name of a model output in these graphs."""
    return f"{output}::noisy"


@dataclass(frozen=True)
class Part:
    """The nodes from one position on.

    Attributes:
        start: position of the first node.
        fed: values that nodes before it make and that it, or nodes behind it, read.
        model: serialized ONNX.
        arrays: its large weights.
        switches: the sources that can be rounded in it, in the order of its switches.
    """

    start: int
    fed: tuple[str, ...]
    model: bytes
    arrays: dict[str, npt.NDArray[np.generic]]
    switches: tuple[int, ...]


class NoiseGraph:
    """Every source has a switch where it is made; what reads it then sees it rounded.

    Args:
        typing: what each layer may be; its format is rounded to.
        sources: the tensors.
    """

    def __init__(self, typing: Typing, sources: Sources) -> None:
        self.typing, self.sources = typing, sources
        self.outputs = tuple(dict.fromkeys(spec.name for spec in typing.model.outputs if spec.dtype == HIGH))
        self._graph = EmulationGraph(typing.model)
        self._nodes = list(self._graph.originals.values())
        self._seen_by = None if typing.format in STORED else _readers_of_rounded(typing)
        self._weights: dict[int, npt.NDArray[np.float32]] = {}  # int8 weights by source, as their readers see them
        self._number = {name: index for index, name in enumerate(sources.names) if index not in sources.single}
        self._made = {value: place for place, node in enumerate(self._nodes) for value in node.output if value}
        first: dict[str, int] = {}
        for place, node in enumerate(self._nodes):
            for name in captures(node):
                first.setdefault(name, place)
        where = {str(node.name): place for place, node in enumerate(self._nodes)}
        self.place = tuple(
            where[sources.single[index][1]] if index in sources.single else self._made.get(name, first.get(name, 0))
            for index, name in enumerate(sources.names)
        )

    def starts(self, parts: int) -> list[int]:
        """Return positions at which the graph can be cut into about so many parts of as many nodes; 0 is the first."""
        wanted = [len(self._nodes) * part // parts for part in range(parts)]
        return [start for start in dict.fromkeys(wanted) if all(map(self._is_tensor, self.border(start)))] or [0]

    def _is_tensor(self, value: str) -> bool:
        dtype = self.typing.types[value].dtype if value in self.typing.types else ""
        return bool(dtype) and "(" not in dtype and dtype not in ("string", "map")

    def border(self, start: int) -> list[str]:
        """Return the values that nodes before ``start`` make and that others, or the model's user, read."""
        read = {name for node in self._nodes[start:] for name in captures(node)} | set(self.outputs)
        return [value for value, place in self._made.items() if place < start and value in read]

    def part(self, start: int, also: tuple[str, ...] = ()) -> Part:
        """Return the nodes from ``start`` on.

        Args:
            start: position of the first node.
            also: exact values that it returns, too.
        """
        graph = EmulationGraph(self.typing.model)
        fed = self.border(start)
        for value in fed:
            graph.inputs.append(self._info(value))
        switches = tuple(index for index, place in enumerate(self.place) if place >= start)
        switch = {index: f"{SWITCHES}::{number}" for number, index in enumerate(switches)}
        named = {index: f"{self.sources.names[index]}::rounded" for index in switches}
        rounded = {
            self.sources.tensor(index): name for index, name in named.items() if index not in self.sources.single
        }
        alone = {self.sources.single[index]: name for index, name in named.items() if index in self.sources.single}

        def read(name: str, layer_id: str = "") -> str:
            if not self._sees(layer_id, name):
                return name
            return alone.get((name, layer_id)) or rounded.get(name, name)

        for index, name in named.items():
            if self.sources.tensor(index) not in self._made:
                graph.nodes += self._switched_source(graph, index, name, switch[index])
        for node in self._nodes[start:]:
            graph.nodes.append(renamed(node, node.name, partial(read, layer_id=str(node.name)), str))
            for value in (each for each in node.output if each in rounded):
                source = self._number[value]
                graph.nodes += self._switched_source(graph, source, rounded[value], switch[source])
        for name in self.outputs:
            graph.nodes.add("Identity", [read(name)], noisy(name))
            graph.outputs.append(self._info(name, noisy(name)))
        graph.outputs += [self._info(value) for value in also]
        if switches:
            graph.split_input(SWITCHES, len(switches), onnx.TensorProto.BOOL)
        return Part(start, tuple(fed), *graph.finish({}), switches)

    def _info(self, value: str, name: str = "") -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto(name=name or value)
        info.type.CopyFrom(type_of(self.typing, value))
        return info

    def _sees(self, layer_id: str, name: str) -> bool:
        """Return whether a layer, or with no id the model's user, may see a tensor rounded."""
        seen_by = None if self._seen_by is None else self._seen_by.get(name)
        return seen_by is None or layer_id in seen_by or _ALL in seen_by

    def _switched_source(self, graph: EmulationGraph, source: int, out: str, switch: str) -> Nodes:
        """Return nodes for ``out`` = the tensor of a source, rounded when the switch is on."""
        value, made = self.sources.tensor(source), f"{out}::if_low"
        if self.typing.format == "int8" and source in self.sources.single:
            nodes = Nodes()
            nodes.add("Identity", [graph.weight(f"{out}::weight", self._weight(source))], made)
            return self._switched(value, out, switch, nodes)
        return self._switched(value, out, switch, rounding_nodes(value, made, self.typing, value))

    def _weight(self, source: int) -> npt.NDArray[np.float32]:
        """Return an int8 weight as its reader sees it, rounded once for all parts."""
        if source not in self._weights:
            name, layer_id = self.sources.single[source]
            layer = self.typing.model.layer(layer_id)
            tensor = self.typing.model.ir.graph.initializers[name].const_value
            assert tensor is not None
            self._weights[source] = rounded_weight(tensor.numpy(), self.typing, layer, layer.inputs.index(name))
        return self._weights[source]

    @staticmethod
    def _switched(value: str, out: str, switch: str, low: Nodes) -> Nodes:
        """Return nodes for ``out`` = ``value``, or what ``low`` makes when the switch is on."""
        high = [onnx.helper.make_node("Identity", [value], [f"{out}::if_high"], name=f"{out}::if_high")]
        branches = {}
        for branch, nodes, name in (("then_branch", low, f"{out}::if_low"), ("else_branch", high, f"{out}::if_high")):
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            branches[branch] = onnx.helper.make_graph(nodes, "branch", [], [info])
        return Nodes([onnx.helper.make_node("If", [switch], [out], name=out, **branches)])


def _readers_of_rounded(typing: Typing) -> dict[str, set[str]]:
    """Return for each tensor who may see it rounded: all where it is stored so, else the layers that round it."""
    found: dict[str, set[str]] = {}
    for layer in typing.model.layers:
        may = typing.layers[layer.id]
        for name, low in zip(layer.inputs, reads_rounded(typing, layer), strict=True):
            found.setdefault(name, set()).update({layer.id} if low else ())
        found |= {name: {_ALL} for name, low in zip(layer.outputs, may.low_outputs, strict=True) if low}
    return found
