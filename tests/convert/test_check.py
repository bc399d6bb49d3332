"""The gate: what it finds, also in graphs too large to load whole, and what it says when it cannot look."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.graphs import BFLOAT16, chain, feeds_for, model, node, run, value

from explorer.convert import convert
from explorer.convert.check import _load
from explorer.convert.specimen import specimen
from explorer.errors import ConversionError, ModelError
from explorer.export import save_onnx
from explorer.model import load_model
from explorer.plan import Plan


def inferred(proto):
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def test_a_specimen_holds_one_node_of_each_sort():
    small = specimen(inferred(convert(load_model(chain(700)), Plan().block(op_types=["Relu"])).proto))
    assert sorted(each.op_type for each in small.graph.node) == ["Add", "Cast", "Cast", "MatMul", "Mul", "Relu"]
    onnx.checker.check_model(small, full_check=True)
    _load(small)


def test_a_specimen_tells_types_attributes_and_bodies_apart():
    then = onnx.helper.make_graph([node("Neg", ["a"], ["t"])], "then", [], [value("t")])
    other = onnx.helper.make_graph([node("Abs", ["a"], ["e"])], "else", [], [value("e")])
    nodes = [
        node("Softmax", ["x"], ["a"], axis=0),
        node("Softmax", ["a"], ["b"], axis=1),
        node("Softmax", ["b"], ["d"], axis=1),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    whole = model(nodes, [value("x"), value("c", (), onnx.TensorProto.BOOL)], [value("y"), value("d")])
    small = specimen(inferred(whole))
    assert [each.op_type for each in small.graph.node] == ["Softmax", "Softmax", "If"]
    onnx.checker.check_model(small, full_check=True)


def test_what_onnxruntime_refuses_in_a_large_graph_is_found():
    """Clip of opset 13 takes bfloat16 by its schema, and its definition does not: only a runtime notices."""
    nodes, previous = [], "x"
    for index in range(700):
        clips = index == 400
        nodes.append(node("Clip" if clips else "Relu", [previous, "low"] if clips else [previous], [f"v{index}"]))
        previous = f"v{index}"
    bound = onnx.helper.make_tensor("low", BFLOAT16, [], [0.0])
    source = model(nodes, [value("x", dtype=BFLOAT16)], [value(previous, dtype=BFLOAT16)], [bound], opset=14)
    broken = inferred(source)
    with pytest.raises(ModelError):
        _load(broken)


def test_a_source_that_onnx_itself_cannot_check_is_converted_with_a_note():
    source = model(
        [node("MeanVarianceNormalization", ["x"], ["y"])],
        [value("x", (1, 2, 3, 4))],
        [value("y", (1, 2, 3, 4))],
        opset=13,
    )
    got = convert(load_model(source), Plan())
    assert "refuses the source model too" in got.notes[0]


def test_what_a_notebook_shows_of_a_conversion_is_a_few_lines():
    got = repr(convert(load_model(chain(700)), Plan().block(op_types=["Relu"])))
    assert len(got) < 1000
    assert "of 700 layers in fp16" in got
    assert "casts" in got
    assert "go subnormal" in got


def test_a_defect_of_ours_is_refused_and_asks_for_a_report(monkeypatch):
    monkeypatch.setattr("explorer.convert.insert._Weaver.fitting", lambda _self, value, *, low: value)
    with pytest.raises(ConversionError, match="please report it") as caught:
        convert(load_model(chain(4)), Plan().block(op_types=["Relu"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("beside", [False, True])
def test_written_models_give_what_converted_ones_give(tmp_path, beside):
    source = chain(12)
    path = tmp_path / "in.onnx"
    copy = onnx.ModelProto.FromString(source.SerializeToString())
    onnx.save_model(copy, path, save_as_external_data=beside, location="in.bin", size_threshold=0)
    loaded = load_model(path)
    conversion = convert(loaded, Plan().block(op_types=["Relu"]))
    files = save_onnx(conversion, loaded, tmp_path / "out.onnx")
    assert len(files) == 1 + beside
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    feeds = feeds_for(source)
    written = onnx.load(tmp_path / "out.onnx")
    np.testing.assert_array_equal(run(written, feeds)[0], run(conversion.proto, feeds)[0])
    assert load_model(tmp_path / "out.onnx").digest == load_model(conversion.proto).digest
