"""Quantised models that TensorRT's parser would refuse are refused before a build, with their nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import fake_tensorrt

from explorer.backends.tensorrt.pairs import check_pairs
from explorer.errors import BackendError


def quantised(stored, *, weight=True):
    """Returns a model with one DequantizeLinear: of a weight, or behind a QuantizeLinear."""
    codes = numpy_helper.from_array(np.zeros(3, stored), "codes")
    scale = numpy_helper.from_array(np.float32(0.5), "scale")
    zero = numpy_helper.from_array(np.zeros((), stored), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["codes" if weight else "q", "scale", "zero"], ["w"], name="widen"),
        helper.make_node("Add", ["x", "w"], ["y"], name="add"),
    ][1 if weight else 0 :]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])], [codes, scale, zero],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("weight", [True, False])
def test_signed_int8_is_taken(weight):
    check_pairs(quantised(np.int8, weight=weight))


@pytest.mark.parametrize(("stored", "weight"), [(np.int32, True), (np.uint8, True), (np.uint8, False)])
def test_int32_biases_and_unsigned_activations_are_refused_by_name(stored, weight):
    with pytest.raises(BackendError, match="'widen'") as caught:
        check_pairs(quantised(stored, weight=weight))
    assert np.dtype(stored).name in caught.value.what
    assert "--backend tensorrt" in caught.value.fix


def quantised_by_onnxruntime(tmp_path, how):
    """Returns MatMul, Add, Relu, MatMul as ONNX Runtime's own tools quantise it."""
    tools = pytest.importorskip("onnxruntime.quantization", reason="needs onnxruntime's quantisation tools")
    source, target = tmp_path / "source.onnx", tmp_path / "quantised.onnx"
    source.write_bytes(fake_tensorrt.dense_model(batch=2)[0])
    if how == "dynamic":
        tools.quantize_dynamic(source, target)
    else:

        class Samples(tools.CalibrationDataReader):
            def __init__(self):
                self.feeds = iter([{"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}])

            def get_next(self):
                return next(self.feeds, None)

        tools.quantize_static(source, target, Samples(), quant_format=tools.QuantFormat.QOperator)
    return ir.load(target)


@pytest.mark.filterwarnings("ignore")  # of the tools
@pytest.mark.parametrize(
    ("how", "operators"), [("dynamic", "DynamicQuantizeLinear MatMulInteger"), ("static", "QLinearMatMul QLinearAdd")]
)
def test_operators_on_codes_are_refused_by_name(tmp_path, how, operators):
    """TensorRT's parser knows none of them: a recipe, or minutes of a build, would be for nothing."""
    with pytest.raises(BackendError, match="TensorRT has none of these quantised operators") as caught:
        check_pairs(quantised_by_onnxruntime(tmp_path, how))
    assert all(f"({each})" in caught.value.what for each in operators.split())
    assert "before it was quantised" in caught.value.fix


def test_a_model_without_pairs_is_taken():
    model = quantised(np.int8)
    model.graph.remove([node for node in model.graph if node.op_type == "DequantizeLinear"])
    check_pairs(model)
