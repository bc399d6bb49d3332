"""The switchable graph: one compile, then every plan is a run with other switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx

from explorer.convert.traits import Kind
from explorer.convert.typing import HIGH
from explorer.errors import PlanError
from explorer.probe.graphs import Woven, is_float, low_layers, type_of
from explorer.probe.low import LowLayers, adds_value
from explorer.probe.metrics import COLUMN_TYPES, OUTPUT_SUMS, Care, compare
from explorer.probe.picks import EXACT, PLAN, Picks
from explorer.probe.rounding import STORED, rounding_nodes
from explorer.probe.weave import EmulationGraph, Nodes, Rename, bodies, captures, renamed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from explorer.convert import Decisions, Typing
    from explorer.probe.native import NativeLayers

__all__ = ["SWITCHES", "switch_vector", "weave_switchable"]

SWITCHES = "::switches"
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def weave_switchable(
    typing: Typing,
    cares: Mapping[str, Care],
    *,
    exact_fed: bool = False,
    pickable: bool = False,
    int8: Typing | None = None,
    native: bool = False,
) -> Woven:
    """Return the graph that runs a plan, a vector of switches, against the exact model.

    Args:
        typing: what each layer may be.
        cares: values that need care.
        exact_fed: take the exact values as inputs instead of computing them beside the plan.
        pickable: let a run return single tensors: of each layer's result under the plan, and the exact one unless fed.
        int8: what each layer may be in int8, so that plans may ask for that too.
        native: layers that run low hold true low-precision operators; those in int8 are emulated all the same.
    """
    graph = EmulationGraph(typing.model)
    ways = [_Way(typing, low_layers(graph, typing, native=native), "low", str)]
    if int8 is not None:
        ways.append(_Way(int8, LowLayers(graph, int8), "int8", int8_switch))
    return _Switchable(graph, ways, cares, pickable=pickable).woven(exact_fed=exact_fed)


@dataclass(frozen=True)
class _Way:
    """One way in which layers may run instead of in fp32.

    Attributes:
        typing: which layers may.
        layers: makes the nodes.
        tag: goes into the names of what is made.
        subject: from the id of a layer to the subject of its switch.
    """

    typing: Typing
    layers: LowLayers | NativeLayers
    tag: str
    subject: Callable[[str], str]


class _Switchable:
    """Every layer of the plan's path is an If on its switch: as it is, or with rounded inputs, weights and results.

    Where a layer may run in another format too, its else branch is another If.
    """

    def __init__(
        self, graph: EmulationGraph, ways: Sequence[_Way], cares: Mapping[str, Care], *, pickable: bool
    ) -> None:
        self.graph, self.ways, self.cares = graph, ways, cares
        self.typing = ways[0].typing
        self.picks = Picks(self.graph) if pickable else None
        self.switches: list[str] = []
        self.changed: set[str] = set()  # values that differ between the two paths

    def woven(self, *, exact_fed: bool) -> Woven:
        values: list[str] = []
        fed: list[str] = []
        for spec in self.typing.model.inputs:
            if spec.dtype == HIGH and self.typing.format in STORED:
                self.graph.nodes += self._rounded(spec.name, f"{spec.name}::plan", input_switch(spec.name))
                self.changed.add(spec.name)
        for node in self.graph.originals.values():
            planned = self._planned(node)
            once = bool(planned) or _draws(node)
            if exact_fed and once and all(_is_tensor(self.typing, value) for value in node.output if value):
                fed += [value for value in node.output if value]
            else:
                self.graph.nodes.append(node)
                self._let_pick(node, EXACT, "")
            self.graph.nodes += planned
            if planned:
                self._let_pick(node, PLAN, "::plan")
            for value in node.output if planned else ():
                if is_float(self.typing, value):
                    compare(self.graph, value, f"{value}::plan", self.cares.get(value, Care()))
                    values.append(value)
        self._add_outputs(set(fed))
        if self.switches:
            self.graph.split_input(SWITCHES, len(self.switches), onnx.TensorProto.BOOL)
        picks = self.picks.finish() if self.picks is not None else ()
        fed = self._feed(fed)
        return Woven(*self.graph.finish(COLUMN_TYPES), tuple(values), tuple(self.switches), tuple(fed), picks)

    def _feed(self, candidates: list[str]) -> list[str]:
        """Make inputs of the exact values that the graph reads or that one may want to see, and return them."""
        read = {name for node in self.graph.nodes for name in captures(node)}
        fed = [value for value in candidates if value in read or is_float(self.typing, value)]
        for value in fed:
            info = onnx.ValueInfoProto(name=value)
            info.type.CopyFrom(type_of(self.typing, value))
            self.graph.inputs.append(info)
        return fed

    def _let_pick(self, node: onnx.NodeProto, output: str, suffix: str) -> None:
        for value in node.output:
            if self.picks is not None and is_float(self.typing, value):
                self.picks.add(output, value, f"{value}{suffix}")

    def _path(self, value: str) -> str:
        return f"{value}::plan" if value in self.changed else value

    def _switch(self, subject: str) -> str:
        """Return the name of a new switch, a bool tensor of one element."""
        self.switches.append(subject)
        return f"{SWITCHES}::{len(self.switches) - 1}"

    def _planned(self, node: onnx.NodeProto) -> Nodes:
        """Return the node on the plan's path; nothing when no switch can change what it computes."""
        switchable = bool(self._ways_of(node.name))
        if _draws(node):
            return Nodes()
        if not switchable and not any(name in self.changed for name in captures(node)) and not self._holds_switch(node):
            return Nodes()
        if switchable:
            nodes = Nodes([self._switched(node, self._path, lambda value: f"{value}::plan")])
        else:
            copy = renamed(node, f"{node.name}::plan", self._path, lambda value: f"{value}::plan")
            self._switch_bodies(copy)
            nodes = Nodes([copy])
        self.changed.update(value for value in node.output if value)
        return nodes

    def _holds_switch(self, node: onnx.NodeProto) -> bool:
        return any(
            self._holds_switch(inner) or bool(self._ways_of(inner.name)) for body in bodies(node) for inner in body.node
        )

    def _ways_of(self, layer_id: str) -> list[_Way]:
        """Return the ways in which a layer may run low."""
        found = ((way, way.typing.layers.get(layer_id)) for way in self.ways)
        return [way for way, may in found if may is not None and may.switchable]

    def _switched(self, node: onnx.NodeProto, inputs: Rename, outputs: Rename) -> onnx.NodeProto:
        """Return an If that computes the outputs of ``node`` as it is, or low when a switch of it is on."""
        outs = [value for value in node.output if value]

        def named(tag: str) -> Rename:
            return lambda value: f"{outputs(value)}::if_{tag}"

        nodes, tag = [renamed(node, f"{node.name}::high", inputs, named("high"))], "high"
        ways = self._ways_of(node.name)
        for way in ways:
            last = way is ways[-1]
            results = outputs if last else named(f"not_{ways[-1].tag}")
            low = way.layers.nodes(node, way.tag, inputs, named(way.tag))
            choice = onnx.helper.make_node(
                "If",
                [self._switch(way.subject(node.name))],
                [results(value) for value in outs],
                name=f"{node.name}::plan" if last else f"{node.name}::{way.tag}_or_high",
                then_branch=self._branch(low, outs, named(way.tag)),
                else_branch=self._branch(nodes, outs, named(tag)),
            )
            nodes, tag = [choice], f"not_{ways[-1].tag}"
        return nodes[0]

    def _branch(self, nodes: list[onnx.NodeProto], outs: list[str], names: Rename) -> onnx.GraphProto:
        infos = [
            onnx.helper.make_tensor_value_info(names(value), _element_type(self.typing, value), None) for value in outs
        ]
        return onnx.helper.make_graph(nodes, "branch", [], infos)

    def _switch_bodies(self, node: onnx.NodeProto) -> None:
        """Make the layers inside the bodies of ``node`` switchable, in place; bodies see the switches from outside."""
        for body in bodies(node):
            made = Nodes()
            for inner in list(body.node):
                self._switch_bodies(inner)
                made.append(self._switched(inner, str, str) if self._ways_of(inner.name) else inner)
            del body.node[:]
            body.node.extend(made)

    def _rounded(self, value: str, out: str, subject: str) -> Nodes:
        """Return nodes for ``out`` = ``value``, rounded when the switch of ``subject`` is on."""
        low = rounding_nodes(value, f"{out}::if_low", self.typing, value)
        high = [onnx.helper.make_node("Identity", [value], [f"{out}::if_high"], name=f"{out}::if_high")]
        branches = {}
        for branch, nodes, name in (("then_branch", low, f"{out}::if_low"), ("else_branch", high, f"{out}::if_high")):
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            branches[branch] = onnx.helper.make_graph(nodes, "branch", [], [info])
        return Nodes([onnx.helper.make_node("If", [self._switch(subject)], [out], name=out, **branches)])

    def _add_outputs(self, fed: Collection[str]) -> None:
        """Round the model's outputs where the plan changes their type, sum their errors, expose what is computed."""
        for spec in dict.fromkeys(self.typing.model.outputs):
            planned = self._path(spec.name)
            if spec.dtype == HIGH:
                final = f"{spec.name}::planned"
                if self.typing.format in STORED:
                    self.graph.nodes += self._rounded(planned, final, output_switch(spec.name))
                else:
                    self.graph.nodes.add("Identity", [planned], final)
                care = self.cares.get(spec.name, Care())
                compare(self.graph, spec.name, final, care, prefix=OUTPUT_SUMS, with_norm=True)
                planned = final
            for name in dict.fromkeys((spec.name, planned)):
                if name in fed:
                    continue
                info = onnx.ValueInfoProto(name=name)
                info.type.CopyFrom(type_of(self.typing, spec.name))
                self.graph.outputs.append(info)


def _draws(node: onnx.NodeProto) -> bool:
    """Return whether a layer draws at random: another draw is no error, so both paths see the same numbers."""
    return node.op_type in _RANDOM and not node.domain


def _is_tensor(typing: Typing, value: str) -> bool:
    dtype = typing.types[value].dtype if value in typing.types else ""
    return bool(dtype) and "(" not in dtype and dtype not in ("string", "map")


def _element_type(typing: Typing, value: str) -> int:
    return int(type_of(typing, value).tensor_type.elem_type)


def input_switch(name: str) -> str:
    """Return the subject of the switch that rounds a model input."""
    return f"::input::{name}"


def output_switch(name: str) -> str:
    """Return the subject of the switch that rounds a model output."""
    return f"::output::{name}"


def int8_switch(layer_id: str) -> str:
    """Return the subject of the switch that lets a layer run in int8 in a plan of another format."""
    return f"::int8::{layer_id}"


def switch_vector(woven: Woven, decisions: Decisions) -> npt.NDArray[np.bool_]:
    """Return the switches of one plan, in the order of ``woven.switches``.

    Raises:
        PlanError: the plan runs layers in int8, and the graph has no such switches.
    """
    typing = decisions.typing
    low = _rounding_layers(typing, decisions.low_layers, decisions.low_values)
    if not decisions.plan.keep_io:
        low |= {input_switch(spec.name) for spec in typing.model.inputs}
        low |= {output_switch(spec.name) for spec in typing.model.outputs}
    if decisions.int8 is not None and decisions.int8_layers:
        mixed = set(map(int8_switch, _rounding_layers(decisions.int8, decisions.int8_layers, decisions.int8_values)))
        if not mixed.issubset(woven.switches):
            raise PlanError(
                f"The plan runs {len(decisions.int8_layers)} layers in int8, and this emulator knows {typing.format}.",
                fix="Give it what each layer may be in int8: Emulator(typing, samples, int8=...).",
            )
        low |= mixed
    return np.array([subject in low for subject in woven.switches], dtype=bool)


def _rounding_layers(typing: Typing, layers: Collection[str], values: Collection[str]) -> set[str]:
    """Return those of some low layers that round anything, ``values`` being stored low already."""
    return {layer_id for layer_id in layers if not _has_nothing_to_round(typing, values, layer_id)}


def _has_nothing_to_round(typing: Typing, values: Collection[str], layer_id: str) -> bool:
    """Return whether a layer only moves values that are rounded already."""
    may = typing.layers[layer_id]
    layer = typing.model.layer(layer_id)
    if may.kind is not Kind.MOVEMENT or adds_value(layer.op, typing.model.opset):
        return False
    return all(name in values for name, low in zip(layer.inputs, may.low_inputs, strict=True) if low and name)
