"""A model that another tool converted, as a choice of layers of the source model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array

import explorer
from explorer.convert import convert, type_layers
from explorer.model import load_model
from explorer.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
IDS = ("product", "shift", "relu", "back", "scale")

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """The scripts' own packages, which are not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def source(epsilon=0.5):
    """A product, a sum, a Relu, a Reshape, and a product with a constant."""
    generator = np.random.default_rng(0)
    nodes = [
        make_node("MatMul", ["x", "matrix"], ["a"], name="product"),
        make_node("Add", ["a", "epsilon"], ["b"], name="shift"),
        make_node("Relu", ["b"], ["c"], name="relu"),
        make_node("Reshape", ["c", "sizes"], ["d"], name="back"),
        make_node("Mul", ["d", "epsilon"], ["y"], name="scale"),
    ]
    weights = [
        from_array(generator.normal(0, 1, (8, 8)).astype(np.float32), "matrix"),
        from_array(np.array([epsilon], np.float32), "epsilon"),
        from_array(np.array([4, 8], np.int64), "sizes"),
    ]
    graph = make_graph(
        nodes,
        "small",
        [make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        weights,
    )
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def typed(proto):
    return type_layers(load_model(proto), "fp16", None)


def ours(proto, low):
    """What our own conversion makes of a choice of layers."""
    plan = Plan(base="fp32").set({layer: "fp16" if layer in low else "fp32" for layer in IDS})
    return convert(load_model(proto), plan, backend=None).proto


@pytest.mark.parametrize("low", [(), ("product",), ("product", "relu", "scale"), ("shift", "back"), IDS])
def test_our_own_conversions_map_back_to_what_they_were_made_from(low):
    from search.mapping import map_back  # noqa: PLC0415

    proto = source()
    mapped = map_back(ours(proto, low), typed(proto))
    assert mapped.low == set(low)
    assert (mapped.merged, mapped.lost, dict(mapped.weights)) == ((), (), {})


def test_wrong_types_that_a_tool_leaves_behind_do_not_count():
    from search.mapping import map_back  # noqa: PLC0415

    proto = source()
    made = ours(proto, IDS)
    del made.graph.value_info[:]
    made.graph.value_info.append(make_tensor_value_info("b", TensorProto.FLOAT, [4, 8]))
    assert map_back(made, typed(proto)).low == set(IDS)


def test_layers_are_found_by_their_tensors_where_a_tool_renames_them():
    from search.mapping import map_back  # noqa: PLC0415

    proto = source()
    made = ours(proto, ("product", "shift"))
    for node in made.graph.node:
        node.name = f"renamed {node.name}"
    assert map_back(made, typed(proto)).low == {"product", "shift"}


def test_a_layer_that_was_removed_counts_as_what_took_it_up():
    from search.mapping import map_back  # noqa: PLC0415

    proto = source()
    made = ours(proto, IDS)
    gone = next(node for node in made.graph.node if node.name == "relu")
    behind = next(node for node in made.graph.node if gone.output[0] in node.input)
    behind.input[0] = gone.input[0]
    made.graph.node.remove(gone)
    mapped = map_back(made, typed(proto))
    assert mapped.merged == ("relu",)
    assert mapped.low == set(IDS)


def test_a_layer_of_which_nothing_can_be_told_counts_as_fp32():
    from search.mapping import map_back  # noqa: PLC0415

    proto = source()
    made = ours(proto, IDS)
    del made.graph.node[:]
    mapped = map_back(made, typed(proto))
    assert mapped.low == frozenset()
    assert set(mapped.lost) == set(IDS)


def test_weights_that_a_tool_clamps_are_seen_and_used():
    """One tool raises what fp16 would flush to zero: the error of its model is judged with its value."""
    from search.mapping import map_back, with_weights  # noqa: PLC0415

    proto = source(epsilon=1e-9)
    made = ours(proto, ("shift", "scale"))
    changed = [tensor for tensor in made.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    assert [to_array(tensor)[0] for tensor in changed] == [0]
    changed[0].CopyFrom(from_array(np.array([6e-8], np.float16), changed[0].name))
    weights = map_back(made, typed(proto)).weights
    assert sorted(weights) == [("scale", 1), ("shift", 1)]
    other = with_weights(proto, weights)
    assert [node.input[1] for node in other.graph.node if node.name == "scale"] != ["epsilon"]
    assert [node.input[1] for node in proto.graph.node if node.name == "scale"] == ["epsilon"]
    x = explorer.open(other, inputs={"x": np.ones((4, 8), np.float32)})
    assert x.outputs()[0]["y"].max() > 1e-8


def test_the_judge_runs_exactly_the_layers_that_were_converted(tmp_path):
    from search.judge import Judge  # noqa: PLC0415

    proto = source()
    onnx.save(proto, tmp_path / "m.onnx")
    onnx.save(ours(proto, ("product", "shift")), tmp_path / "made.onnx")
    np.savez(tmp_path / "m.npz", x=np.random.default_rng(1).normal(0, 1, (4, 8)).astype(np.float32))
    judge = Judge(tmp_path / "m.onnx", tmp_path / "m.npz", rows=4, gpu="H100", batch_size=4)
    found = judge.converted(tmp_path / "made.onnx")
    assert found == judge.figures(judge.plan_of(["product", "shift"])) | {
        "merged": 0, "lost": 0, "weights_changed": 0, "refused": 0,
    }  # fmt: skip
    assert 1e-5 < found["error"] < 1e-3
    assert judge.error(Plan.preset("fp32"))[0] == 0
    assert judge.latency_us(Plan.preset("fp32")) > 0
    assert judge.local_errors().keys() == set(judge.switchable)


def test_the_judge_uses_the_weights_of_the_converted_model(tmp_path):
    from search.judge import Judge  # noqa: PLC0415

    proto = source(epsilon=1e-9)
    onnx.save(proto, tmp_path / "m.onnx")
    made = ours(proto, ("scale",))
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(from_array(np.array([6e-8], np.float16), tensor.name))
    onnx.save(made, tmp_path / "made.onnx")
    np.savez(tmp_path / "m.npz", x=np.ones((4, 8), np.float32))
    judge = Judge(tmp_path / "m.onnx", tmp_path / "m.npz", rows=4, gpu="H100", batch_size=4)
    found = judge.converted(tmp_path / "made.onnx")
    assert found["weights_changed"] == 1
    assert found["error_of_plan"] == pytest.approx(1.0)  # 1e-9 is zero in fp16, and so is the result
    assert found["error"] > 10  # 6e-8 is sixty times too much
