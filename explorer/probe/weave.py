"""What the emulation graphs are woven with: copies of layers under other names, their weights, vectors of sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from explorer.backends.lend import LENDABLE
from explorer.model.graph import SMALL_WEIGHT_BYTES, named_tensor

if TYPE_CHECKING:
    from explorer.model import Model

__all__ = ["CONTRIB", "EmulationGraph", "Nodes", "Rename", "bodies", "number", "renamed"]

Rename = Callable[[str], str]
_FLOAT = onnx.TensorProto.FLOAT
_SPLIT_TAKES_SIZES = 13  # Split: sizes are an input from this opset on, an attribute before
_OLDEST_IR = 8  # initializers need not be inputs (IR 4), and every opset that ONNX Runtime runs is allowed
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
_NUMBER = "::number"
_NUMBERS = {"float32": float, "int8": int, "uint8": int}  # types of numbers, and how their text is read


def number(value: float, dtype: str = "float32") -> str:
    """Return the name under which every emulation graph has this number, a tensor without dimensions.

    Args:
        value: exactly of the type.
        dtype: ``float32``, ``int8`` or ``uint8``.
    """
    return f"{_NUMBER}::{dtype}::{_NUMBERS[dtype](value)!r}"


def renamed(node: onnx.NodeProto, name: str, inputs: Rename, outputs: Rename) -> onnx.NodeProto:
    """Return a copy of ``node`` with other value names; what its bodies capture is renamed like its inputs."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    copy.input[:] = [inputs(value) if value else "" for value in node.input]
    copy.output[:] = [outputs(value) if value else "" for value in node.output]
    for body in bodies(copy):
        _rename_captures(body, inputs)
    return copy


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a control-flow node holds."""
    found = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def captures(node: onnx.NodeProto) -> Iterable[str]:
    """Yield every name that the node reads: its inputs, and all names in its bodies."""
    yield from node.input
    for body in bodies(node):
        for inner in body.node:
            yield from captures(inner)
        yield from (info.name for info in body.output)


def _rename_captures(body: onnx.GraphProto, inputs: Rename) -> None:
    """Rename in place; value names are unique over all graphs, so no name of the body itself is a captured one."""
    for node in body.node:
        node.input[:] = [inputs(value) if value else "" for value in node.input]
        for inner in bodies(node):
            _rename_captures(inner, inputs)
    for output in body.output:
        output.name = inputs(output.name)


class Nodes(list[onnx.NodeProto]):
    """Nodes in execution order."""

    def add(self, op: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        """Append a node with one output of the same name, and return that name."""
        self.append(onnx.helper.make_node(op, inputs, [out], name=out, **attributes))
        return out


@dataclass
class EmulationGraph:
    """A graph in the making, with the model's inputs, opset and weights.

    Attributes:
        model: the model that it emulates.
        nodes: in execution order.
        inputs: the model's, and what a graph adds.
        outputs: beside the vectors of sums.
        columns: for each vector of sums, the one-element tensors that it is made of.
        arrays: large weights, handed to the runtime by address.
        small: the other weights and constants.
    """

    model: Model
    nodes: Nodes = field(default_factory=Nodes)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    small: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inputs += [ir.serde.serialize_value(value) for value in self.model.ir.graph.inputs]
        self.originals = {str(node.name): ir.serde.serialize_node(node) for node in self.model.ir.graph}
        for name, value in self.model.ir.graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                continue
            if tensor.nbytes <= SMALL_WEIGHT_BYTES or tensor.dtype not in LENDABLE:
                self.small[name] = named_tensor(tensor, name)
            else:
                self.arrays[name] = tensor.numpy()

    def weight(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Add a weight, and return its name."""
        if values.nbytes <= SMALL_WEIGHT_BYTES:
            self.small[name] = onnx.numpy_helper.from_array(values, name)
        else:
            self.arrays[name] = values
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Make sure of a constant, and return its name."""
        if name not in self.small:
            self.small[name] = onnx.numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def column(self, name: str, part: str) -> None:
        """Append a one-element tensor to the vector ``name``."""
        self.columns.setdefault(name, []).append(part)

    def split_input(self, name: str, count: int, element_type: int) -> None:
        """Add an input vector of ``count`` elements, split into ``<name>::0`` and so on, of one element each."""
        outs = [f"{name}::{index}" for index in range(count)]
        self.inputs.append(onnx.helper.make_tensor_value_info(name, element_type, [count]))
        if self.model.opset >= _SPLIT_TAKES_SIZES:
            sizes = self.constant(f"{name}::ones", np.ones(count), np.int64)
            split = onnx.helper.make_node("Split", [name, sizes], outs, name=name, axis=0)
        else:
            split = onnx.helper.make_node("Split", [name], outs, name=name, axis=0, split=[1] * count)
        self.nodes.insert(0, split)

    def finish(self, types: Mapping[str, int]) -> tuple[bytes, dict[str, npt.NDArray[np.generic]]]:
        """Return the serialized model and the arrays of its large weights.

        Its outputs are the vectors of sums, then ``outputs``.

        Args:
            types: ONNX element type of the vectors that are not float32.
        """
        vectors = []
        for name, parts in self.columns.items():
            self.nodes.append(onnx.helper.make_node("Concat", parts, [name], name=name, axis=0))
            vectors.append(onnx.helper.make_tensor_value_info(name, types.get(name, _FLOAT), [len(parts)]))
        graph = onnx.GraphProto(name="emulation")
        graph.node.extend(self.nodes)
        graph.input.extend(self.inputs)
        graph.output.extend([*vectors, *self.outputs])
        used = {name for node in self.nodes for name in captures(node)}
        used |= {info.name for info in (*self.inputs, *self.outputs)}
        graph.initializer.extend(tensor for name, tensor in self.small.items() if name in used)
        graph.initializer.extend(_number_tensor(name) for name in sorted(used) if name.startswith(_NUMBER))
        arrays = {name: array for name, array in self.arrays.items() if name in used}
        for name, array in arrays.items():
            tensor = graph.initializer.add(name=name, data_type=int(ir.DataType.from_numpy(array.dtype)))
            tensor.dims.extend(array.shape)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="in memory")
        proto = onnx.ModelProto(ir_version=max(self.model.ir.ir_version, _OLDEST_IR), graph=graph)
        for domain, version in self.model.ir.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        if CONTRIB not in self.model.ir.opset_imports:
            proto.opset_import.add(domain=CONTRIB, version=1)
        return proto.SerializeToString(), arrays


def _number_tensor(name: str) -> onnx.TensorProto:
    _, _, dtype, text = name.split("::")
    return onnx.numpy_helper.from_array(np.asarray(_NUMBERS[dtype](text), dtype), name)
