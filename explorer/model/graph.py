"""The loaded model: an immutable view of one ONNX graph with a stable id for every layer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from explorer.errors import ModelError, nearest
from explorer.model.weights import Weight
from explorer.model.wire import graph_without_weights, model_without_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["SMALL_WEIGHT_BYTES", "Layer", "Model", "TensorSpec", "WeightInfo"]

SMALL_WEIGHT_BYTES = 1024  # weights up to here stay in the skeleton: shape inference reads shapes, axes and scalars
_FLOAT_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of the function-inlined graph.

    Attributes:
        id: unique in the model and kept from load to export, where it is the node's name.
        name: the node's name in the source model; may be empty or shared there.
        op: operator type, such as ``Conv``.
        domain: operator domain; empty for the standard one.
        scope: where the layer stands in the source model, ``/``-separated; empty at the top.
        inputs: names of the input values, in order; empty where an optional input is absent.
        outputs: names of the output values, likewise.
        container: id of the If, Loop or Scan layer whose body holds this layer, else None.
        source: the line of source code that made it (``file.py:12``), where the exporter tells.
    """

    id: str
    name: str
    op: str
    domain: str
    scope: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    container: str | None = None
    source: str = ""

    @property
    def qualified_op(self) -> str:
        """Operator type with its domain where that is not the standard one."""
        return f"{self.domain}::{self.op}" if self.domain else self.op


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a value.

    Attributes:
        dtype: numpy's name (``float32``, ``int64``, ``bool``); ``seq(float32)``, ``optional(...)`` for such types;
            empty when unknown.
        shape: an int per known dimension, its name for a symbolic one, None for an unnamed unknown one; None when
            not even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape when every dimension is known, else None."""
        if self.shape is None or not all(isinstance(dim, int) for dim in self.shape):
            return None
        return tuple(dim for dim in self.shape if isinstance(dim, int))

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype or 'unknown'}[{dims}]"


@dataclass(frozen=True, slots=True)
class WeightInfo:
    """Name, shape and dtype of one initializer; ``bytes`` is its size in storage."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for dim in self.shape:
            count *= dim
        return count


def dtype_name(dtype: ir.DataType | None) -> str:
    """Return numpy's name of an ONNX tensor type, such as ``float32``; empty for none.

    >>> dtype_name(ir.DataType.FLOAT)
    'float32'
    """
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return ""
    name = dtype.name.lower()
    return _FLOAT_NAMES.get(name, name)


class Model:
    """An ONNX model, normalised and never modified.

    Normalised means: local functions are inlined, ``Constant`` nodes are initializers of the main graph, every node
    has a unique name (its layer id) and every value a name that is unique over all graphs.

    Do not construct it directly: :func:`explorer.model.load_model` does.

    Attributes:
        ir: the graph in onnx-ir form; treat as read-only (use :meth:`clone` to change it).
        layers: every layer in execution order, the layers of a body right after their container.
        path: the file it came from, else None.
        notes: what loading had to change to make the model usable, in words.
    """

    def __init__(
        self, graph_model: ir.Model, layers: tuple[Layer, ...], *, path: Path | None, notes: tuple[str, ...]
    ) -> None:
        self.ir = graph_model
        self.layers = layers
        self.path = path
        self.notes = notes
        self._by_id = {layer.id: layer for layer in layers}

    def __repr__(self) -> str:
        return f"<Model {self.name}: {len(self.layers)} layers, opset {self.opset}>"

    @property
    def name(self) -> str:
        """File name without suffix, else the graph's own name, else ``model``."""
        return self.path.stem if self.path else (self.ir.graph.name or "model")

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return int(self.ir.opset_imports.get("", 1))

    def layer(self, layer_id: str) -> Layer:
        """Return the layer with this id.

        Raises:
            ModelError: there is none; the nearest ids are named.
        """
        try:
            return self._by_id[layer_id]
        except KeyError:
            raise ModelError(
                f"The model has no layer '{layer_id}'.", fix=nearest(layer_id, self._by_id) or "See model.layers."
            ) from None

    def __contains__(self, layer_id: object) -> bool:
        return layer_id in self._by_id

    @cached_property
    def nodes(self) -> dict[str, ir.Node]:
        """The onnx-ir node of every layer, by layer id; read-only."""
        return {str(node.name): node for node in self.ir.graph.all_nodes()}

    def attributes(self, layer_id: str) -> dict[str, Any]:
        """Return the layer's attributes as Python values; tensors as numpy arrays, bodies left out."""
        self.layer(layer_id)
        values: dict[str, Any] = {}
        for name, attribute in self.nodes[layer_id].attributes.items():
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                continue
            value = attribute.value
            values[name] = value.numpy() if attribute.type == ir.AttributeType.TENSOR else value
        return values

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the user must feed: graph inputs without a default value."""
        return tuple(_spec(value) for value in self.ir.graph.inputs if value.name not in self.ir.graph.initializers)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model returns; dtypes and shapes inferred where the file leaves them open."""
        inferred = self.types
        return tuple(
            _spec(value) if value.shape is not None and value.dtype is not None else inferred[str(value.name)]
            for value in self.ir.graph.outputs
        )

    @cached_property
    def weights(self) -> dict[str, WeightInfo]:
        """Every initializer by name."""
        found = {}
        for name, value in self.ir.graph.initializers.items():
            tensor = value.const_value
            if tensor is not None:
                shape = tuple(int(dim) for dim in tensor.shape.numpy())
                found[name] = WeightInfo(name, shape, dtype_name(tensor.dtype), int(tensor.nbytes))
        return found

    @cached_property
    def types(self) -> dict[str, TensorSpec]:
        """Dtype and (possibly symbolic) shape of every value, bodies included."""
        return self.infer()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of structure and weights, the same for the same model wherever it lies."""
        sha = hashlib.sha256(self.skeleton().SerializeToString(deterministic=True))
        for name, value in self.ir.graph.initializers.items():
            sha.update(name.encode())
            if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING:
                sha.update(value.const_value.tobytes())
        return sha.hexdigest()

    def clone(self) -> ir.Model:
        """Return a copy of the graph that may be changed; weights are shared, not copied."""
        return self.ir.clone()

    def proto(self) -> onnx.ModelProto:
        """Return the whole normalised model, weights inside.

        Raises:
            ModelError: it is over protobuf's limit of 2 GB; use ``skeleton()`` and ``weights`` then.
        """
        return ir.to_proto(self.ir)

    def skeleton(self, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> onnx.ModelProto:
        """Return the model with every large weight declared as a graph input: small, and of the same types."""
        return skeleton(self.ir, input_shapes)

    def infer(self, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, TensorSpec]:
        """Return dtype and shape of every value, bodies included.

        Args:
            input_shapes: concrete shapes of graph inputs; with them most shapes come out concrete.

        Raises:
            ModelError: the graph's types contradict each other.
        """
        try:
            inferred = onnx.shape_inference.infer_shapes(self.skeleton(input_shapes), check_type=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise ModelError(
                f"Shape inference failed on {self.name}: {first_line(error)}",
                why="Without types no layer can be given a format.",
                fix="Check the model with onnx.checker.check_model(model, full_check=True).",
            ) from error
        specs: dict[str, TensorSpec] = {}
        for graph in _graphs(inferred.graph):
            for info in (*graph.input, *graph.output, *graph.value_info):
                known = specs.get(info.name)
                if known is None or not known.dtype or known.shape is None:
                    specs[info.name] = _proto_spec(info)
            for tensor in graph.initializer:
                specs[tensor.name] = TensorSpec(
                    tensor.name, dtype_name(ir.DataType(tensor.data_type)), tuple(tensor.dims)
                )
        for layer in self.layers:
            for name in layer.outputs:
                specs.setdefault(name, TensorSpec(name, "", None))
        return specs


def skeleton(model: ir.Model, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> onnx.ModelProto:
    """Return ``model`` with every large weight declared as a graph input instead of stored."""
    proto = model_without_graph(model)
    target = proto.graph
    graph_without_weights(model.graph, target)
    target.name = target.name or "graph"
    declared = {info.name for info in target.input}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= SMALL_WEIGHT_BYTES:
            target.initializer.append(named_tensor(tensor, name))
        elif name not in declared:
            target.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy()))
    if input_shapes:
        # Shapes that the exporter wrote down hold for its symbolic dimensions; concrete inputs give better ones.
        _forget_shapes(target)
        for info in target.input:
            if info.name in input_shapes:
                info.type.tensor_type.shape.Clear()
                for size in input_shapes[info.name]:
                    info.type.tensor_type.shape.dim.add().dim_value = size
    return proto


def check_structure(proto: onnx.ModelProto) -> None:
    """Run onnx's checker; an input or output of unknown rank passes, as it does in every runtime.

    Raises:
        onnx.checker.ValidationError: the model is invalid.
    """
    if any(map(_lacks_shape, (*proto.graph.input, *proto.graph.output))):
        given, proto = proto, onnx.ModelProto()
        proto.CopyFrom(given)
        for info in filter(_lacks_shape, (*proto.graph.input, *proto.graph.output)):
            info.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(proto)


def _lacks_shape(info: onnx.ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape")


def named_tensor(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    """Return the tensor as a proto called ``name``, its data inside, wherever it was stored."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor = Weight(tensor.numpy(), tensor.dtype, name)
    proto = ir.serde.serialize_tensor(tensor)
    proto.name = name
    return proto


def _forget_shapes(graph: onnx.GraphProto) -> None:
    for each in _graphs(graph):
        infos = each.value_info if each is not graph else [*each.value_info, *each.output]
        for info in infos:
            if info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error's text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for body in attribute.graphs:
                    yield from _graphs(body)


def _spec(value: ir.Value) -> TensorSpec:
    shape: tuple[int | str | None, ...] | None = None
    if value.shape is not None:
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return TensorSpec(str(value.name), _type_name(value.type), shape)


def _type_name(kind: Any) -> str:
    if kind is None:
        return ""
    if isinstance(kind, ir.SequenceType):
        return f"seq({_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_name(kind.elem_type)})"
    return dtype_name(kind.dtype)


def _proto_spec(info: onnx.ValueInfoProto) -> TensorSpec:
    kind = info.type
    shape: tuple[int | str | None, ...] | None = None
    if kind.HasField("tensor_type") and kind.tensor_type.HasField("shape"):
        shape = tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)
    return TensorSpec(info.name, _proto_type_name(kind), shape)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _proto_type_name(kind: onnx.TypeProto) -> str:
    if kind.HasField("tensor_type"):
        return dtype_name(ir.DataType(kind.tensor_type.elem_type))
    if kind.HasField("sequence_type"):
        return f"seq({_proto_type_name(kind.sequence_type.elem_type)})"
    if kind.HasField("optional_type"):
        return f"optional({_proto_type_name(kind.optional_type.elem_type)})"
    if kind.HasField("sparse_tensor_type"):
        return f"sparse({dtype_name(ir.DataType(kind.sparse_tensor_type.elem_type))})"
    return "map" if kind.HasField("map_type") else ""
