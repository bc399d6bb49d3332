"""Hand a graph to ONNX Runtime without serializing its weights: small bytes, and the weights by their address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LENDABLE", "lend_weights"]

LEND_BYTES = 1024  # smaller ones stay inside: shape inference reads them, and ONNX Runtime stores them inline anyway
LENDABLE = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)  # types whose memory in numpy is the memory that ONNX Runtime computes on


def lend_weights(model: ir.Model) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Return the serialized graph without its large weights, and those weights by name.

    Both go to `explorer.backends.runtime.create_session`. Nothing is limited to protobuf's 2 GB, and a weight in
    memory, or mapped from a file, is not copied here.

    Args:
        model: a graph whose functions may be local; it is not changed.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name or "")
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    graph, source = proto.graph, model.graph
    graph.name = source.name or "graph"
    graph.node.extend(ir.serde.serialize_node(node) for node in source)
    graph.input.extend(ir.serde.serialize_value(value) for value in source.inputs)
    graph.output.extend(ir.serde.serialize_value(value) for value in source.outputs)
    weights: dict[str, NDArray[Any]] = {}
    inputs = {value.name for value in source.inputs}
    for name, value in source.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        stored = graph.initializer.add()
        if name in inputs or tensor.nbytes < LEND_BYTES or tensor.dtype not in LENDABLE:
            # an initializer that is also an input is only a default: ONNX Runtime does not accept it from outside
            inner = ir.Tensor(tensor.numpy(), dtype=tensor.dtype) if isinstance(tensor, ir.ExternalTensor) else tensor
            stored.CopyFrom(ir.serde.serialize_tensor(inner))
            stored.name = name
            continue
        stored.name, stored.data_type = name, int(tensor.dtype)
        stored.dims.extend(int(dim) for dim in tensor.shape.numpy())
        stored.data_location = onnx.TensorProto.EXTERNAL
        weights[name] = tensor.numpy()
    return proto.SerializeToString(), weights
