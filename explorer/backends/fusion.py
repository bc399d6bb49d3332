"""Which layers each node of ONNX Runtime's optimized graph computes, and what became of the others.

ONNX Runtime fuses, renames, removes and inserts nodes before it runs a model. It keeps two traces: most values keep
their name, and so do many nodes (``fc1/MatMulAddFusion``, ``<value>_nchwc``, ``InsertedPrecisionFreeCast_<value>``).
Each optimized node is given the original values that its outputs stand for; the layers that it covers are those met
when walking in the original graph from these values backwards, until a value that another optimized node makes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

    from explorer.model import Layer

__all__ = ["FusionMap", "Group", "map_fusion"]

HEAVY_OPS = frozenset(
    (
        "Attention",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "RNN",
    )
)  # a fused group is shown at such a layer: it does the work, what is fused into it comes almost free
_PASS_THROUGH = frozenset({"Identity", "Dropout"})
_MOVERS = {
    "ReorderInput": "reorder",
    "ReorderOutput": "reorder",
    "Cast": "cast",
    "Transpose": "transpose",
    "Reshape": "reshape",
    "MemcpyFromHost": "copy",
    "MemcpyToHost": "copy",
}  # what ONNX Runtime inserts by itself: layouts of its blocked (NCHWc) kernels, types without a kernel, devices, and
# reshapes of batched MatMuls that it runs as Gemm
_CAST_PREFIXES = ("InsertedPrecisionFreeCast_", "InsertedCast_")
_BLOCKED_SUFFIX = "_nchwc"
_NUMBERED = re.compile(r"_token_\d+$")  # appended where ONNX Runtime makes a node anew under its old name
_QUANTISED = ("QLinear", "QGemm", "QAttention", "NhwcMaxPool")  # operators that store what they make in int8 themselves
_BEFORE_STORING = frozenset({"Relu", "Clip", "LeakyRelu"})  # computed by such an operator before it stores
_SUM_INPUT = 3  # com.microsoft.nchwc.Conv: X, W, B, Sum


class _Source(Protocol):
    """The part of `explorer.model.Model` that is read here."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...
    @property
    def nodes(self) -> Mapping[str, ir.Node]: ...


@dataclass(frozen=True, slots=True)
class Group:
    """One node of the optimized graph.

    Attributes:
        node: its name there.
        op: its operator type there.
        layers: ids of the layers that it computes, in execution order; empty for what ONNX Runtime inserted.
        main: the layer at which its time is shown: the one that does most of the work; None when ``layers`` is empty.
        kind: ``layer``, or for an inserted node ``reorder``, ``cast``, ``transpose``, ``copy``, ``other``.
        serves: for an inserted node, the layer whose value it moves, where that is known.
    """

    node: str
    op: str
    layers: tuple[str, ...]
    main: str | None
    kind: str
    serves: str | None = None


@dataclass(frozen=True, slots=True)
class FusionMap:
    """The groups in execution order, and a sentence on each layer that is in none of them."""

    groups: tuple[Group, ...]
    fates: Mapping[str, str]


def map_fusion(model: _Source, optimized: onnx.GraphProto) -> FusionMap:
    """Return which layers of ``model`` each node of ONNX Runtime's optimized graph computes.

    Args:
        model: the loaded model.
        optimized: the graph that ONNX Runtime wrote to ``optimized_model_filepath`` in the same environment.
    """
    return _Mapper(model, optimized).result()


class _Mapper:
    """The state of one mapping; see the module's docstring for the method."""

    def __init__(self, model: _Source, optimized: onnx.GraphProto) -> None:
        self.model = model
        self.nodes = list(optimized.node)
        self.layers = [layer for layer in model.layers if layer.container is None]
        self.by_id = {layer.id: layer for layer in self.layers}
        self.position = {layer.id: index for index, layer in enumerate(self.layers)}
        self.producer = {name: layer for layer in self.layers for name in layer.outputs if name}
        self.readers: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.layers:
            for name in layer.inputs:
                self.readers[name].append(layer)
        self.constants = _constant_values(model, self.layers)
        self.alias: dict[str, str] = {}  # value of the optimized graph -> value of the original one
        self.behind_movers = self._behind_movers()
        self.landmarks: list[tuple[str, ...]] = [self._landmarks(node) for node in self.nodes]
        self.available = {name for names in self.landmarks for name in names}
        self.claimed: dict[str, int] = {}  # layer id -> index of the optimized node
        self.fates: dict[str, str] = {}
        self.twins = self._find_twins()

    def result(self) -> FusionMap:
        kinds = [self._kind(node) for node in self.nodes]
        members = [self._claim(index) if kind == "layer" else () for index, kind in enumerate(kinds)]
        mains = [self._main(node, layers) for node, layers in zip(self.nodes, members, strict=True)]
        consumers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in node.input:
                consumers[name].append(index)
        groups = []
        for index, (node, kind, layers, main) in enumerate(zip(self.nodes, kinds, members, mains, strict=True)):
            shown = "other" if kind == "layer" and main is None else kind
            serves = self._served(node, index, consumers, mains) if main is None else None
            groups.append(Group(node.name, node.op_type, layers, main, shown, serves))
        return FusionMap(tuple(groups), self._fates())

    def _behind_movers(self) -> dict[str, str]:
        """Return the values that an inserted node turns into an original value: they stand for it already."""
        found: dict[str, str] = {}
        for node in reversed(self.nodes):
            if self._kind(node) == "layer" or not node.input:
                continue
            original = self._original_value(node.output[0]) or found.get(node.output[0])
            if original is not None and node.input[0] not in self.producer:
                found[node.input[0]] = original
        return found

    def _landmarks(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the original values that the node's outputs stand for, and remember them as aliases."""
        found = []
        for index, name in enumerate(node.output):
            original = self._original_value(name) or self.behind_movers.get(name)
            if original is None and self._kind(node) != "layer" and node.input:
                self.alias[name] = self.alias.get(node.input[0], node.input[0])
                continue
            original = original or self._value_by_node_name(node, index)
            if original:
                self.alias[name] = original
                found.append(original)
        return tuple(found)

    def _value_by_node_name(self, node: onnx.NodeProto, index: int) -> str | None:
        """Return the value that an output stands for by the name of its node, where its own name says nothing."""
        plain = _NUMBERED.sub("", node.name).removesuffix(_BLOCKED_SUFFIX)
        original = self._original_value(plain) if index == 0 else None
        named = self._layer_named(plain)
        if original is None and named is not None and index < len(named.outputs):
            original = named.outputs[index]
        return self._after_tail(node, original) if original and index == 0 else original

    def _after_tail(self, node: onnx.NodeProto, value: str) -> str:
        """Return the value that a node really makes which kept an earlier name.

        A blocked Conv is named before the Add and the activation behind it are fused into it, and a quantized operator
        before the QuantizeLinear.
        """
        activation = next((item.s.decode() for item in node.attribute if item.name == "activation"), "")
        tail = ["Add"] if node.op_type == "Conv" and len(node.input) > _SUM_INPUT and node.input[_SUM_INPUT] else []
        tail += [activation] if activation else []
        if node.op_type.startswith(_QUANTISED):
            return self._stored(value)
        for op in tail:
            if self.producer[value].op not in {op, tail[-1]}:
                following = next((item for item in self.readers[value] if item.op == op), None)
                value = following.outputs[0] if following else value
        return value

    def _stored(self, value: str) -> str:
        """Return the int8 value that a quantized operator makes of what its layer makes, an activation between them."""
        readers = self.readers[value]
        if len(readers) == 1 and readers[0].op in _BEFORE_STORING:
            readers = self.readers[readers[0].outputs[0]]
        stored = next((item for item in readers if item.op == "QuantizeLinear"), None)
        return stored.outputs[0] if stored else value

    def _original_value(self, name: str) -> str | None:
        for prefix in ("", *_CAST_PREFIXES):
            if name.startswith(prefix) and name.removeprefix(prefix) in self.producer:
                return name.removeprefix(prefix)
        return None

    def _layer_named(self, name: str) -> Layer | None:
        """Return the layer whose id the node still carries, whole or before a suffix such as ``/MatMulAddFusion``."""
        while name:
            if name in self.by_id:
                return self.by_id[name]
            name = name.rpartition("/")[0]
        return None

    def _kind(self, node: onnx.NodeProto) -> str:
        """Return ``layer``, or what the node is if ONNX Runtime inserted it."""
        kind = _MOVERS.get(node.op_type)
        if kind is None or node.name in self.by_id:
            return "layer"
        made = self.producer.get(node.output[0])
        return "layer" if made is not None and made.op == node.op_type else kind

    def _claim(self, index: int) -> tuple[str, ...]:
        """Walk back from the node's values and claim the layers that no other node computes."""
        members: list[str] = []
        pending = list(self.landmarks[index])
        while pending:
            name = pending.pop()
            layer = self.producer[name]
            if layer.id in self.claimed or layer.id in self.fates:
                continue
            absent = self._removed(layer, self.nodes[index])
            if absent:
                self.fates[layer.id] = absent
            else:
                self.claimed[layer.id] = index
                members.append(layer.id)
            pending.extend(value for value in layer.inputs if self._inside(value))
        return tuple(sorted(members, key=self.position.__getitem__))

    @staticmethod
    def _removed(layer: Layer, node: onnx.NodeProto) -> str:
        """Say why a layer on the way is not computed by ``node`` but by nothing; empty where ``node`` computes it."""
        if layer.id == node.name or layer.op == node.op_type:
            return ""
        if layer.op in _PASS_THROUGH:
            return "Removed by the optimizer: it passes its input through."
        if layer.op == "Transpose" and not any(name in node.op_type for name in ("MatMul", "Gemm", "Attention")):
            return "Removed by the optimizer: cancelled against another transpose, or moved elsewhere."
        return ""

    def _inside(self, value: str) -> bool:
        """Return whether a value exists only inside a fused node."""
        if value not in self.producer or value in self.available or value in self.constants:
            return False
        twin = self.twins.get(self.producer[value].id)
        if twin is None:
            return True
        self.fates[self.producer[value].id] = f"Same computation as '{twin}': done once."
        return False

    def _main(self, node: onnx.NodeProto, members: Sequence[str]) -> str | None:
        if not members:
            return None
        same_name = [layer for layer in members if layer == node.name]
        heavy = [layer for layer in members if self.by_id[layer].op in HEAVY_OPS]
        same_op = [layer for layer in members if self.by_id[layer].op == node.op_type]
        return (heavy or same_name or same_op or list(members[-1:]))[0]

    def _served(
        self, node: onnx.NodeProto, index: int, consumers: Mapping[str, list[int]], mains: Sequence[str | None]
    ) -> str | None:
        """Return the layer whose output an inserted node moves, else the first layer that reads what it moves."""
        for name in (*node.output, *node.input):
            made = self.producer.get(self.alias.get(name, name))
            if made is not None:
                owner = self.claimed.get(made.id)
                return made.id if owner is None or owner == index else mains[owner]
        readers = [mains[reader] for name in node.output for reader in consumers[name]]
        return next((reader for reader in readers if reader is not None), None)

    def _find_twins(self) -> dict[str, str]:
        """Return the layers whose computation another layer, which is still there, does as well."""
        groups: dict[tuple[object, ...], list[Layer]] = defaultdict(list)
        same: dict[str, str] = {}  # value -> value of the first layer that computes it
        kept: dict[str, str] = {}  # value of that first layer -> layer whose value is still there
        for layer in self.layers:
            key = (layer.domain, layer.op, tuple(same.get(name, name) for name in layer.inputs), len(layer.outputs))
            first = next((item for item in groups[key] if self._same_attributes(item, layer)), layer)
            if first is layer:
                groups[key].append(layer)
            same.update(zip(layer.outputs, first.outputs, strict=True))
            kept.update((same[name], layer.id) for name in layer.outputs if name in self.available)
        return {
            self.producer[name].id: kept[original]
            for name, original in same.items()
            if name and original in kept and name not in self.available
        }

    def _same_attributes(self, one: Layer, other: Layer) -> bool:
        mine, theirs = (_attributes(self.model.nodes[layer.id]) for layer in (one, other))
        return mine == theirs

    def _fates(self) -> dict[str, str]:
        """Say what became of every layer that no node computes."""
        fates = dict(self.fates)
        for layer in self.model.layers:
            if layer.container is not None:
                fates[layer.id] = f"Inside '{layer.container}': its time is part of that layer's."
            elif layer.id in self.claimed or layer.id in fates:
                continue
            elif any(name in self.constants for name in layer.outputs):
                fates[layer.id] = "Folded into a constant when the session was created: costs nothing in a run."
            else:
                fates[layer.id] = "Removed by the optimizer: it has no node of its own in the graph that runs."
        return fates


def _constant_values(model: _Source, layers: Iterable[Layer]) -> frozenset[str]:
    """Return the values that depend on weights alone."""
    produced: dict[str, Layer] = {name: layer for layer in layers for name in layer.outputs if name}
    varying: set[str] = set()
    for layer in layers:
        node = model.nodes[layer.id]
        fed = any(
            name and name not in produced and not _is_weight(node, index) for index, name in enumerate(layer.inputs)
        )
        bodies = any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        random = layer.op.startswith(("Random", "Multinomial", "Bernoulli"))
        if fed or bodies or random or any(name in varying for name in layer.inputs):
            varying.update(layer.outputs)
    return frozenset(produced.keys() - varying)


def _is_weight(node: ir.Node, index: int) -> bool:
    value = node.inputs[index]
    return value is not None and value.is_initializer() and not value.is_graph_input()


def _attributes(node: ir.Node) -> bytes:
    proto = ir.serde.serialize_node(node)
    return b"".join(sorted(attribute.SerializeToString(deterministic=True) for attribute in proto.attribute))
