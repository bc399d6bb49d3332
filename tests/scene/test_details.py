"""Details of a layer and the scene of a report: what they say is what the model holds, whatever the names are."""

from __future__ import annotations

import base64
import gzip
import json

import numpy as np
import pytest
from scene_graphs import assert_tree, unet
from support.graphs import FLOAT16, INT64, model, node, value, weight
from test_tree import if_model, loaded

from explorer.convert import decide, type_layers
from explorer.errors import ModelError
from explorer.model import load_model
from explorer.plan import Plan
from explorer.scene import decode_frame, encode, figures, layer_details, num, read_only_scene, structure

STACK = "pkg.torch.onnx.stack_trace"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\nb\tc\r\0",
    "\"quoted\" 'twice' \\ `${x}`",
    "🙂 \u202e rtl",
    "x" * 10_000,
    "../../../etc/passwd",
    "//",
    ".",
    "\u2028",
)


@pytest.fixture
def small():
    table = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    given = np.array([[np.inf, -7e4, 1e-6, 1e-9], [0, 0, 1, 3]], np.float32)
    conv = node("Gemm", ["x", "w", ""], ["a"], "scope/gemm", alpha=0.1, transB=1)
    entry = conv.metadata_props.add()
    entry.key, entry.value = STACK, 'File "net.py", line 3, in forward\n    x = self.fc(x)  # <b>'
    nodes = [
        conv,
        node("Cast", ["a"], ["h"], "cast", to=FLOAT16),
        node("Gather", ["table", "i"], ["g"], "gather"),
        node("Constant", [], ["unused"], "constant", value=weight("c", np.zeros(3))),
    ]
    weights = [weight("w", given), weight("table", table), weight("i", np.array([1, 0], np.int64))]
    proto = model(nodes, [value("x", ["batch", 4])], [value("h", dtype=FLOAT16), value("g", [2, 3, 4])], weights)
    return load_model(proto)


def test_details_tell_attributes_tensors_and_source(small):
    found = layer_details(small, "scope/gemm", "fp16")
    assert found["layer"] == 0
    assert (found["name"], found["scope"], found["domain"]) == ("scope/gemm", "scope", "")
    assert {item["name"]: item["value"] for item in found["attributes"]} == {"alpha": "0.1", "transB": "1"}
    assert found["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": "batch×4", "kind": "input"},
        {"name": "w", "dtype": "float32", "shape": "2×4", "kind": "weight"},
        {"name": "", "dtype": "", "shape": "", "kind": "absent"},
    ]
    assert found["outputs"] == [{"name": "a", "dtype": "float32", "shape": "batch×2", "kind": "value"}]
    assert (found["source"], found["code"]) == ("net.py:3", "x = self.fc(x)  # <b>")
    cast = layer_details(small, "cast", "fp16")
    assert cast["attributes"] == [{"name": "to", "value": "float16"}]
    assert cast["outputs"][0]["kind"] == "output"
    assert cast["weights"] == []


def test_shapes_are_concrete_where_the_inputs_are(small):
    found = layer_details(small, "scope/gemm", "fp16", {"x": (5, 4)})
    assert found["inputs"][0]["shape"] == "5×4"
    made = structure(small, {"x": (5, 4)})
    assert made["tensors"]["shape"][made["tensors"]["name"].index("a")] == "5×2"


def test_weights_are_counted_in_the_format(small):
    (found,) = layer_details(small, "scope/gemm", "fp16")["weights"]
    assert found == {
        "name": "w", "dtype": "float32", "shape": "2×4", "elements": 8, "bytes": 32,
        "min": -7e4, "max": "inf", "mean": "inf", "std": "nan", "zeros": 2,
        "overflow": 1, "subnormal": 1, "flushed": 1,
    }  # fmt: skip
    (wide,) = layer_details(small, "scope/gemm", "bf16")["weights"]
    assert (wide["overflow"], wide["subnormal"], wide["flushed"]) == (0, 0, 0)
    table, indices = layer_details(small, "gather", "fp16")["weights"]
    assert (table["min"], table["max"], table["mean"]) == (0, 23, 11.5)
    assert table["std"] == pytest.approx(np.arange(24).std())
    assert (indices["dtype"], indices["min"], indices["max"]) == ("int64", 0, 1)


def test_statistics_of_a_large_weight_equal_numpys():
    values = np.random.default_rng(0).normal(3, 2, (700, 1000)).astype(np.float32)
    loaded_model = load_model(
        model(
            [node("MatMul", ["x", "w"], ["y"], "m")],
            [value("x", [1, 700])],
            [value("y", [1, 1000])],
            [weight("w", values)],
        )
    )
    (found,) = layer_details(loaded_model, "m", "fp16")["weights"]
    assert found["mean"] == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert found["std"] == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    assert (found["min"], found["max"]) == (float(values.min()), float(values.max()))


def test_empty_and_textual_weights_have_no_statistics():
    nodes = [node("Concat", ["x", "e"], ["y"], "c", axis=0), node("Identity", ["s"], ["t"], "words")]
    words = np.array(["a", "b"], object)
    proto = model(
        nodes,
        [value("x")],
        [value("y", [2, 4]), value("t", [2], 8)],
        [weight("e", np.zeros((0, 4))), weight("s", words)],
    )
    loaded_model = load_model(proto)
    for layer in ("c", "words"):
        (found,) = layer_details(loaded_model, layer, "fp16")["weights"]
        assert found["min"] is found["max"] is found["mean"] is found["std"] is None


def test_long_attributes_are_cut_and_say_so():
    nodes = [
        node("Squeeze", ["x"], ["a"], "s"),
        node("TfIdfVectorizer", ["i"], ["y"], "v", max_gram_length=1, max_skip_count=0, min_gram_length=1, mode="TF",
             ngram_counts=[0], ngram_indexes=list(range(5000)), pool_int64s=list(range(5000))),
    ]  # fmt: skip
    loaded_model = load_model(model(nodes, [value("x"), value("i", [4], INT64)], [value("y", [5000]), value("a")]))
    found = {item["name"]: item["value"] for item in layer_details(loaded_model, "v", "fp16")["attributes"]}
    assert found["ngram_indexes"] == "[0, 1, 2, 3, 4, 5, … 5,000 in all]"
    assert found["mode"] == "TF"


def test_bodies_are_told_by_their_size():
    found = layer_details(load_model(if_model()), "if", "fp16")
    assert {item["name"]: item["value"] for item in found["attributes"]} == {
        "then_branch": "a graph of 2 nodes",
        "else_branch": "a graph of 1 node",
    }


def test_unknown_layer_is_refused(small):
    with pytest.raises(ModelError, match="no layer 'gem'"):
        layer_details(small, "gem", "fp16")


def test_code_of_a_real_export():
    found = layer_details(loaded("digits_transformer"), "embed/project/Conv", "fp16")
    assert found["source"] == "sample_models/digits_transformer.py:55"
    assert found["code"].startswith("return self.project(image)")


def scene_of(loaded_model, **more) -> dict:
    frame = figures(loaded_model, decide(Plan(), type_layers(loaded_model, "fp16")))
    return json.loads(read_only_scene(loaded_model, {"format": "fp16"}, frame, low_format="fp16", **more))


def test_scene_of_a_report_holds_all_that_the_page_asks_for():
    loaded_model = loaded("digits_transformer")
    scene = scene_of(loaded_model, values={3: {"layer": 3}})
    assert set(scene) == {"structure", "state", "figures", "details", "values"}
    assert scene["structure"] == structure(loaded_model)
    assert decode_frame(base64.b64decode(scene["figures"]))[0]["formats"] == ["none", "fp32", "fp16", "int8"]
    assert [found["layer"] for found in scene["details"]] == list(range(len(loaded_model.layers)))
    assert scene["values"] == {"3": {"layer": 3}}


def test_huge_models_carry_no_details(monkeypatch):
    monkeypatch.setattr("explorer.scene.page._MOST_DETAILS", 2)
    assert scene_of(load_model(if_model()))["details"] == []


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_stay_data(name):
    """Names go through as they are: whoever draws them must not run them, and JSON holds all of them."""
    nodes = [
        node("Relu", ["x"], [f"{name}v"], f"{name}/{name}"),
        node("Exp", [f"{name}v"], ["u"], f"{name}/{name}"),
        node("Neg", ["u"], [f"{name}y"], name),
    ]
    loaded_model = load_model(model(nodes, [value("x")], [value(f"{name}y")]))
    made = json.loads(encode(structure(loaded_model)))
    assert_tree(made)
    assert made["layers"]["id"] == [layer.id for layer in loaded_model.layers]
    assert made["outputs"]["name"] == [f"{name}y"]
    scene = scene_of(loaded_model)
    assert scene["details"][1]["inputs"][0]["name"] == f"{name}v"
    assert scene["structure"] == made


def test_half_a_surrogate_pair_is_escaped():
    assert json.loads(encode({"a": "\ud800"})) == {"a": "\ud800"}
    assert encode({"a": "é"}) == '{"a":"é"}'.encode()


def test_num_holds_what_json_cannot():
    assert [num(each) for each in (1, 0.5, np.float32(2), np.inf, -np.inf, np.nan, None)] == [
        1, 0.5, 2.0, "inf", "-inf", "nan", None,
    ]  # fmt: skip


@pytest.mark.slow
def test_scene_of_ten_thousand_layers_packs_small():
    """What a report of a 10,000-layer model adds to its page: measured 0.2 MB packed."""
    loaded_model = load_model(unet(31))
    frame = figures(loaded_model, decide(Plan(), type_layers(loaded_model, "fp16")))
    packed = gzip.compress(read_only_scene(loaded_model, {}, frame, low_format="fp16"), mtime=0)
    assert len(packed) < 600_000
