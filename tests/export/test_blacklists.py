"""The blacklist in other tools' syntax: code that runs, patterns that match exactly, notes on what is left out."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.graphs import model, node, value, weight

import explorer
from explorer.convert import decide, type_layers
from explorer.errors import ExportError
from explorer.export.blacklists import TOOLS, blacklist_text
from explorer.model import load_model
from explorer.plan import Plan

SAMPLE = Path(__file__).resolve().parents[2] / "sample_models" / "digits_transformer.onnx"
NORMS = ["*norm*/Pow", "*norm*/ReduceMean_1", "*norm*/Add", "*norm*/Sqrt"]
HOSTILE = ["a,b:c*", 'it\'s "quoted"', "new\nline", "(.+)[x]", "\N{PILE OF POO}", "x" * 10_000, "$(touch hacked)"]


def decided(model, plan):
    return decide(plan, type_layers(model, plan.format, None))


def chain(names):
    """A chain of Relu nodes with these names."""
    h = onnx.helper
    ends = [f"v{index}" for index in range(len(names) + 1)]
    nodes = [h.make_node("Relu", [ends[i]], [ends[i + 1]], name=name) for i, name in enumerate(names)]
    value = [h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in (ends[0], ends[-1])]
    graph = h.make_graph(nodes, "chain", value[:1], value[1:])
    return load_model(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9).SerializeToString())


@pytest.fixture(scope="module")
def sample():
    model = load_model(SAMPLE)
    return model, decided(model, Plan().block(layers=NORMS))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("blocked", [False, True])
def test_every_text_is_valid_in_its_language(tool, blocked):
    """Hostile names break neither Python, nor JSON, nor the shell."""
    model = chain([*HOSTILE, ""])
    text, note = blacklist_text(tool, model, decided(model, Plan.preset("fp32" if blocked else "full")))
    assert text.endswith("\n")
    if tool == "olive":
        json.loads(text)
    elif tool in ("modelopt", "trtexec"):
        assert shlex.split(text)[0] in ("python", "trtexec")
    else:
        compile(text, tool, "exec")
    if blocked and tool != "torch":
        assert "no name in the source file" in note


def test_onnxruntime_snippet_keeps_exactly_these_layers(sample, tmp_path, monkeypatch):
    """Run for real: the kept nodes read and write float32, and the rest of the norms float16."""
    pytest.importorskip("onnxruntime.transformers.float16", reason="needs onnxruntime's transformers tools")
    model, decisions = sample
    monkeypatch.chdir(tmp_path)
    exec(compile(blacklist_text("onnxruntime", model, decisions)[0], "snippet", "exec"), {})
    mixed = onnx.load("digits_transformer.mixed.onnx")
    onnx.checker.check_model(mixed)
    between = {out for node in mixed.graph.node if node.op_type == "Cast" for out in node.input}
    squares = [node.output[0] for node in mixed.graph.node if node.op_type == "Pow"]
    assert not between & set(squares), "the squares must reach their mean without a cast to fp16"
    del mixed.graph.value_info[:]  # the converter leaves types of the source there
    mixed = onnx.shape_inference.infer_shapes(mixed)
    types = {info.name: info.type.tensor_type.elem_type for info in mixed.graph.value_info}
    made = {node.name: types[node.output[0]] for node in mixed.graph.node if node.output[0] in types}
    high = {name for name, kind in made.items() if kind == onnx.TensorProto.FLOAT and not name.startswith("graph_")}
    wanted = {layer.name for layer in model.layers if decisions[layer.id].format == "fp32"}
    named = {layer.name for layer in model.layers}
    assert len(wanted) == 20
    assert wanted <= high
    assert made["blocks/0/norm1/Div"] == onnx.TensorProto.FLOAT16
    assert high & named == wanted


def test_onnxconverter_common_snippet_runs(sample, tmp_path, monkeypatch):
    pytest.importorskip("onnxconverter_common", reason="onnxconverter-common is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(blacklist_text("onnxconverter-common", *sample)[0], "snippet", "exec"), {})
    onnx.checker.check_model(onnx.load("digits_transformer.mixed.onnx"))


def test_modelopt_expressions_match_exactly_the_meant_nodes():
    """Each is an anchored regular expression for one name, whatever is in it; newlines too."""
    model = chain([*HOSTILE, "aXbXcX", "new line", "xx"])
    plan = Plan().set({layer.id: "fp32" for layer in model.layers[: len(HOSTILE)]})
    words = shlex.split(blacklist_text("modelopt", model, decided(model, plan))[0])
    patterns = [re.compile(word) for word in words[words.index("--nodes_to_exclude") + 1 :]]
    matched = {layer.name for layer in model.layers if any(each.match(layer.name) for each in patterns)}
    assert matched == set(HOSTILE)


def test_modelopt_names_whole_operator_types_once(sample):
    words = shlex.split(blacklist_text("modelopt", *sample)[0])
    ops = words[words.index("--op_types_to_exclude") + 1 : words.index("--nodes_to_exclude")]
    assert set(ops) == {"Pow", "Sqrt"}


def test_trtexec_leaves_out_what_it_cannot_spell_and_says_so():
    model = chain(["plain", "a,b", "c:d", "e*"])
    text, note = blacklist_text("trtexec", model, decided(model, Plan.preset("fp32")))
    assert "--layerPrecisions=plain:fp32" in shlex.split(text)
    assert "3 layers have" in note
    assert "TensorRT 11" in note


def test_names_that_several_layers_share_are_told():
    model = chain(["same", "same", "other"])
    _, note = blacklist_text("olive", model, decided(model, Plan().set({model.layers[0].id: "fp32"})))
    assert "1 other layers share a name" in note


def test_torch_names_modules(sample):
    text, note = blacklist_text("torch", *sample)
    assert "'blocks.0.norm1'," in text
    assert "also hold layers that the plan runs low" in note


def test_bf16_is_not_promised_where_a_tool_has_only_fp16():
    model = chain(["a"])
    assert "fp16 only" in blacklist_text("olive", model, decided(model, Plan.preset("fp32", format="bf16")))[1]


def test_unknown_tool_is_refused_with_the_nearest():
    with pytest.raises(ExportError, match="trtexec"):
        blacklist_text("trtexe", chain(["a"]), decided(chain(["a"]), Plan()))
    assert explorer.ExplorerError


@pytest.mark.parametrize("tool", ["onnxconverter-common", "onnxruntime", "modelopt", "torch", "olive"])
@pytest.mark.parametrize("low_format", ["int8", "tf32", "fp8e4m3"])
def test_a_plan_in_a_format_that_a_tool_does_not_convert_to_is_refused(tool, low_format):
    nodes = [node("MatMul", ["x", "w"], ["y"], "m")]
    proto = model(nodes, [value("x")], [value("y")], [weight("w", np.eye(4))], opset=19)
    loaded = load_model(proto)
    decisions = decide(Plan(format=low_format), type_layers(loaded, low_format))
    with pytest.raises(ExportError, match=f"{tool} takes no blacklist of a plan of {low_format}"):
        blacklist_text(tool, loaded, decisions)


def test_layers_that_came_quantised_are_kept_from_converters_and_left_to_tensorrt():
    pair = [node("QuantizeLinear", ["x", "s", "z"], ["c"], "q"), node("DequantizeLinear", ["c", "s", "z"], ["d"], "dq")]
    nodes = [*pair, node("MatMul", ["d", "d"], ["m"], "quantised"), node("Exp", ["m"], ["y"], "free")]
    weights = [weight("s", np.float32(0.1)), weight("z", np.int8(0))]
    loaded = load_model(model(nodes, [value("x", (4, 4))], [value("y", (4, 4))], weights))
    decisions = decide(Plan(), type_layers(loaded, "fp16"))
    assert decisions["quantised"].format == "int8"
    assert "quantised" in blacklist_text("onnxruntime", loaded, decisions)[0]
    for tool in ("trtexec", "polygraphy"):
        assert "quantised" not in blacklist_text(tool, loaded, decisions)[0]
