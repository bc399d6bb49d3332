"""Evaluates a converted model as low-precision storage demands, on a CPU that has no low-precision arithmetic.

ONNX Runtime's CPU provider runs a typed fp16 graph in fp32 and drops the casts that it inserted itself. Here the
exported model is rewritten instead, without any code of the package's own emulator: every low tensor is stored low, by
a Cast that stands in the graph, and every other node reads float32 copies of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from support.graphs import types_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
FED = "@fed"
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


def evaluate(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of the exported model by name; low ones, and low inputs, as the float32 that they hold."""
    low = faithful(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(low.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    wanted = {item.name for item in session.get_inputs()}
    fed = {name if name in wanted else f"{name}{FED}": array for name, array in feeds.items()}
    types = {item.name: item.type for item in session.get_inputs()}
    fed = {name: array.astype(np.float32) if _was_low(array, types[name]) else array for name, array in fed.items()}
    return dict(zip(names, session.run(names, fed), strict=True))


def _was_low(array: np.ndarray, kind: str) -> bool:
    """Whether the source model itself takes this input in half precision: it is float32 here, with the same values."""
    return kind == "tensor(float)" and array.dtype == np.float16


def faithful(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float32, with a pair of Casts wherever the exported one stores a tensor low.

    A low input ``x`` is fed as ``x@fed``, so that ``x`` is what the model sees of it.
    """
    low = {name: kind for name, kind in types_of(proto).items() if kind in _LOW}
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    _rewrite(result.graph, low)
    return result


def _rewrite(graph: onnx.GraphProto, low: Mapping[str, int]) -> None:
    nodes = []
    del graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type in _LOW:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in _LOW:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for info in graph.input:
        if info.name in low:
            nodes += _pair(f"{info.name}{FED}", info.name, low[info.name])
            info.name += FED
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.ByteSize():
                    _rewrite(body, low)
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _LOW:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _LOW:
                array = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
        after = []
        for index, name in enumerate(node.output):
            if name in low:
                node.output[index] = f"{name}@raw"
                after += _pair(f"{name}@raw", name, low[name])
        nodes += [node, *after]
    kept = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _pair(value: str, out: str, kind: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [value], [f"{out}@stored"], to=kind),
        helper.make_node("Cast", [f"{out}@stored"], [out], to=TensorProto.FLOAT),
    ]
