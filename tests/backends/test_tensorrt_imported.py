"""Engine layers put on the model's graph: N:M, every time once, asked against ran, and what cannot be found told."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.tensorrt_files import FILES, IDS, convnet

from explorer.backends.latency import KernelTime, LatencyResult
from explorer.backends.tensorrt.asked import format_differences
from explorer.backends.tensorrt.engine_layers import parse_engine_layers
from explorer.backends.tensorrt.imported import imported_latency
from explorer.backends.tensorrt.layer_latency import COMPUTE_OPS, with_layer_times
from explorer.backends.tensorrt.mapping import map_layers
from explorer.backends.tensorrt.mixed_model import read_mixed_model
from explorer.convert import convert, decide, type_layers
from explorer.errors import InputError
from explorer.export import save_onnx
from explorer.measure.latency import MeasuredLatency
from explorer.model import load_model
from explorer.plan import Plan

ASKED = {**dict.fromkeys(IDS, "fp16"), "soft": "fp32"}


@pytest.fixture(scope="module")
def model():
    return load_model(convnet())


def imported(model, version, asked=None, **more):
    return imported_latency(
        model, asked, FILES / f"{version}_layers.json", FILES / f"{version}_profile.json", device="A100", **more
    )


def engine_of(*rows):
    return parse_engine_layers(json.dumps({"Layers": list(rows), "Bindings": []}))


def nothing_measured():
    return LatencyResult("tensorrt", "", "measured on it", "", 0, 1, 0, 1.0, math.nan)


def times(result):
    return {row.layer_id: row.median_us for row in result.layers}


def kernels(result):
    return {each.name: each for each in result.kernels}


def test_the_time_of_a_fused_kernel_stands_once_at_what_computes(model):
    result = imported(model, "v8")
    assert times(result) == pytest.approx(
        {"conv1": 20.0, "relu1": 0.0, "pool": 6.0, "flat": 0.0, "fc": 10.0, "soft": 4.0}
    )
    assert result.layer("conv1").fused_with == ("relu1",)
    assert result.layer("relu1").fused_with == ("conv1",)
    assert "not divided" in result.layer("conv1").note
    assert "No engine layer names it" in result.layer("flat").note


@pytest.mark.parametrize("version", ["v8", "v8_int8", "v8_block", "v10", "v11"])
def test_nothing_of_the_profile_is_lost(model, version):
    """Rows of layers and rows of what was inserted add up to all that the profile tells, whatever is fused."""
    result = imported(model, version)
    told = json.loads((FILES / f"{version}_profile.json").read_text())[1:]
    total = 1000 * sum(row.get("medianMs", row["averageMs"]) for row in told)
    parts = sum(row.median_us for row in result.layers) + sum(row.median_us for row in result.inserted)
    assert parts == pytest.approx(total)
    assert result.profiled_us == pytest.approx(total)
    assert sum(each.median_us for each in result.kernels) == pytest.approx(total)
    assert [row.layer_id for row in result.layers] == list(IDS)


def test_reformats_say_what_they_serve(model):
    inserted = {row.name: (row.kind, row.serves) for row in imported(model, "v8").inserted}
    assert inserted == {
        "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1": ("cast", "conv1"),
        "reshape_after_fc": ("copy", "fc"),
        "Reformatting CopyNode for Input Tensor 0 to soft": ("cast", "soft"),
    }


@pytest.mark.parametrize("version", ["v10", "v11"])
def test_metadata_finds_what_names_do_not_tell(model, version):
    found = kernels(imported(model, version))
    assert found["__myl_Resh_myl0_0"].layer_ids == ("flat",)
    assert found["fc_myl0_1"].layer_ids == ("fc",)
    softmax = found["__myl_CastMaxSubExpSumDivMul_myl0_2"]
    assert softmax.layer_ids == ("soft",)
    assert softmax.format == ""
    assert "casts inside" in softmax.note


def test_a_cast_that_conversion_inserted_is_a_cast(model):
    cast = kernels(imported(model, "v10"))["x_cast_fp16"]
    assert (cast.kind, cast.layer_ids) == ("cast", ())


def test_a_cast_of_the_users_own_is_a_layer():
    """A Cast that stands in the model has an id; TensorRT may run it as a change of layout."""
    node = helper.make_node("Cast", ["x"], ["y"], name="mine", to=TensorProto.FLOAT16)
    values = [helper.make_tensor_value_info(name, kind, [4]) for name, kind in (("x", 1), ("y", 10))]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    engine = engine_of(
        {"Name": "__myl_Cast_myl0_0", "LayerType": "Reformat", "Origin": "CAST", "Metadata": "[ONNX Layer: mine]"},
        {"Name": "Reformatting CopyNode for Output Tensor 0 to mine", "LayerType": "Reformat",
         "Metadata": "[ONNX Layer: mine]"},
    )  # fmt: skip
    own, added = map_layers(model, engine.layers)
    assert (own.ids, own.kind) == (("mine",), "layer")
    assert (added.ids, added.kind, added.serves) == ((), "reformat", "mine")


def test_int8_names_with_weights_and_unnamed_layers_are_found(model):
    result = imported(model, "v8_int8", ASKED)
    conv, pool, fc = (each for each in result.kernels if "conv1 +" in each.name or each.name[:3] in ("poo", "fc."))
    assert (conv.layer_ids, conv.format) == (("conv1", "relu1"), "int8")
    assert (pool.layer_ids, pool.format) == (("pool",), "fp16")
    assert fc.layer_ids == ("fc",)
    assert kernels(result)["x_QuantizeLinear"].kind == "cast"
    assert "Asked fp16, ran int8: 1 layer: conv1." in result.notes


def test_a_block_of_which_the_ends_are_named_covers_what_lies_between(model):
    result = imported(model, "v8_block")
    block = kernels(result)["{ForeignNode[pool...soft]}"]
    assert block.layer_ids == ("pool", "flat", "fc", "soft")
    assert block.format == ""
    assert times(result)["fc"] == pytest.approx(30.0)
    assert set(result.layer("soft").fused_with) == {"pool", "flat", "fc"}


def test_a_block_without_useful_names_is_found_by_its_tensors(model):
    def tensor(name):
        return {"Name": name, "Dimensions": [1], "Format/Datatype": "Row major linear FP32"}

    engine = engine_of(
        {"Name": "conv1 + relu1", "LayerType": "CaskConvolution",
         "Inputs": [tensor("x")], "Outputs": [tensor("relu1_out")]},
        {"Name": "{ForeignNode[fc.w + t...a copy]}", "LayerType": "Myelin",
         "Inputs": [tensor("relu1_out")], "Outputs": [tensor("y")]},
    )  # fmt: skip
    conv, block = map_layers(model, engine.layers)
    assert conv.ids == ("conv1", "relu1")
    assert block.ids == ("pool", "flat", "fc", "soft")
    assert block.guessed


def test_an_unnamed_layer_is_found_by_the_value_that_it_writes(model):
    engine = engine_of(
        {"Name": "(Unnamed Layer* 3) [Pooling]", "LayerType": "CudaPooling", "Inputs": [],
         "Outputs": [{"Name": "pool_out", "Dimensions": [1], "Format/Datatype": "Row major linear FP32"}]},
    )  # fmt: skip
    assert map_layers(model, engine.layers)[0].ids == ("pool",)


def test_names_of_the_source_model_are_found_too():
    """An engine that was built from the user's own file names its nodes, not our ids."""
    names = ("same", "same", "p", "same", "f", "s")
    model = load_model(convnet(names))
    ids = [layer.id for layer in model.layers]
    engine = engine_of("p", "f + same_1", "s")
    assert [each.ids for each in map_layers(model, engine.layers)] == [(ids[2],), (ids[4],), (ids[5],)]


def test_a_layer_in_two_kernels_has_the_time_of_both(model):
    rows = [{"Name": f"k{number}", "LayerType": "kgen", "Metadata": "[ONNX Layer: soft]"} for number in range(2)]
    result = with_layer_times(nothing_measured(), model, engine_of(*rows), {"k0": [3.0], "k1": [5.0]})
    assert times(result)["soft"] == pytest.approx(8.0)
    assert [each.layer_ids for each in result.kernels] == [("soft",), ("soft",)]


def test_times_of_runs_give_medians_and_spreads(model):
    row = {"Name": "k", "LayerType": "kgen", "Metadata": "[ONNX Layer: soft]"}
    result = with_layer_times(nothing_measured(), model, engine_of(row), {"k": [1.0, 2.0, 3.0, 4.0, 100.0]})
    assert (result.layer("soft").median_us, result.layer("soft").spread_us) == (3.0, 2.0)


def test_what_the_model_does_not_have_is_listed_with_its_share(model):
    engine = engine_of("fc", "mystery", "riddle")
    result = with_layer_times(nothing_measured(), model, engine, {"fc": [10.0], "mystery": [60.0], "riddle": [30.0]})
    assert any("2 engine layers could not be found in the model (90.0 % of the time): 'mystery', 'riddle'." in each
               for each in result.notes)  # fmt: skip
    assert {row.kind for row in result.inserted} == {"other"}


def test_a_layer_that_only_the_profile_has_is_told_and_counted(model):
    result = with_layer_times(nothing_measured(), model, engine_of("fc"), {"fc": [10.0], "pool": [5.0]})
    assert times(result)["pool"] == pytest.approx(5.0)
    assert any("not among the engine's layers" in each for each in result.notes)


def test_files_of_two_engines_are_refused(model):
    with pytest.raises(InputError, match="Both files must be of one engine"):
        with_layer_times(nothing_measured(), model, engine_of("fc"), {"other": [1.0]})


def test_an_engine_of_another_model_is_refused():
    other = load_model(convnet(("a", "b", "d", "e", "g", "h"), suffix="_value"))
    with pytest.raises(InputError, match="names a layer of"):
        imported_latency(other, None, FILES / "v10_names_layers.json", FILES / "v8_profile.json")


def test_the_whole_is_the_sum_of_layers_unless_its_times_are_given(model):
    alone = imported(model, "v11")
    assert alone.whole_us == pytest.approx(50.0)
    assert "whole: the sum of its profiled layers" in alone.provenance
    assert math.isnan(alone.whole_spread_us)
    told = imported(model, "v11", times_path=FILES / "v11_times.json")
    assert told.whole_us == pytest.approx(40.0)
    assert "sum of its" not in told.provenance
    assert any("25.0 % more" in each for each in told.notes)
    assert told.provenance.startswith("measured on A100 by trtexec, imported from v11_layers.json, v11_profile.json")


def test_names_alone_give_times_but_no_formats(model):
    result = imported_latency(model, ASKED, FILES / "v10_names_layers.json", FILES / "v8_profile.json")
    assert times(result)["conv1"] == pytest.approx(20.0)
    assert all(each.format == "" for each in result.kernels)
    assert not any(each.startswith("Asked") for each in result.notes)
    assert any("profilingVerbosity=detailed" in each for each in result.notes)


def test_what_was_asked_is_compared_with_what_ran(model):
    agrees = imported(model, "v8", ASKED)
    assert not any(each.startswith("Asked") for each in agrees.notes)
    asked = {**ASKED, "fc": "fp32", "soft": "fp16"}
    notes = imported(model, "v8", asked).notes
    assert "Asked fp32, ran fp16: 1 layer: fc." in notes
    assert "Asked fp16, ran fp32: 1 layer: soft." in notes


def test_only_what_a_kernel_tells_of_is_judged():
    """A fused matrix kernel tells of its products alone; one that does not tell its format, of nothing."""
    ops = {"conv": "Conv", "add": "Add", "soft": "Softmax", "shape": "Reshape", "norm": "Mul"}
    ran = [
        KernelTime("a", ("conv", "add"), 1.0, 0.0, "layer", "int8"),
        KernelTime("b", ("soft", "shape"), 1.0, 0.0, "layer", ""),
        KernelTime("c", ("shape", "norm"), 1.0, 0.0, "layer", "fp16"),
        KernelTime("d", ("norm",), 9.0, 0.0, "layer", "fp32"),
    ]
    asked = dict.fromkeys(ops, "fp32") | {"conv": "fp16"}
    found = format_differences(ran, asked, ops, COMPUTE_OPS)
    assert [(each.layer_id, each.asked, each.ran) for each in found] == [("conv", "fp16", "int8")]


def test_tf32_that_was_not_asked_for_is_told_with_its_switch(model):
    row = {"Name": "fc", "LayerType": "gemm", "TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32"}
    result = with_layer_times(
        nothing_measured(), model, engine_of(row), {"fc": [1.0]}, asked=dict.fromkeys(IDS, "fp32")
    )
    assert any(each.startswith("Asked fp32, ran tf32: 1 layer: fc.") and "--noTF32" in each for each in result.notes)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_fusion_keeps_every_time_and_every_row(model, data):
    """However layers are grouped into kernels, rows and sums hold, and fused_with is mutual."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(IDS) - 1))))
    groups = [IDS[a:b] for a, b in zip([0, *cuts], [*cuts, len(IDS)], strict=True)]
    rows = [
        {"Name": f"k{number}", "LayerType": "kgen", "Metadata": "\x1e".join(f"[ONNX Layer: {each}]" for each in group)}
        for number, group in enumerate(groups)
    ]
    us = {f"k{number}": [data.draw(st.floats(0, 1e6))] for number in range(len(groups))}
    result = with_layer_times(nothing_measured(), model, engine_of(*rows), us)
    assert sum(row.median_us for row in result.layers) == pytest.approx(sum(each[0] for each in us.values()))
    assert [row.layer_id for row in result.layers] == list(IDS)
    for group in groups:
        for layer_id in group:
            assert set(result.layer(layer_id).fused_with) == set(group) - {layer_id}


def test_the_table_of_a_plan_tells_kernels_and_formats_that_ran(model):
    plan = Plan().block(layers=["soft"])
    decisions = decide(plan, type_layers(model, "fp16"))
    table = MeasuredLatency(imported(model, "v8"), "fp16").table(model.layers, decisions).set_index("id")
    assert table.loc["conv1", ["plan_us", "ran", "kernel"]].tolist() == [20.0, "fp16", "conv1 + relu1"]
    assert table.loc["relu1", "shares_kernel_with"] == "conv1"
    assert table["fp32_us"].isna().all()
    assert table["fp16_us"].tolist() == table["plan_us"].tolist()
    assert table.loc["soft", "ran"] == "fp32"


def test_the_table_of_an_fp32_plan_is_of_fp32(model):
    decisions = decide(Plan.preset("fp32"), type_layers(model, "fp16"))
    table = MeasuredLatency(imported(model, "v8"), "fp16").table(model.layers, decisions)
    assert table["fp32_us"].tolist() == table["plan_us"].tolist()
    assert "fp16_us" not in table


def test_a_converted_model_tells_formats_and_casts(tmp_path, model):
    plan = Plan().block(layers=["soft"])
    conversion = convert(model, plan)
    save_onnx(conversion, model, tmp_path / "mixed.onnx")
    mixed = read_mixed_model(tmp_path / "mixed.onnx", model)
    assert mixed.formats == ASKED
    assert set(mixed.inserted) == {cast.name for cast in conversion.casts}


def test_a_converted_model_of_another_model_is_refused(tmp_path, model):
    other = load_model(convnet(("a", "b", "d", "e", "g", "h")))
    save_onnx(convert(other, Plan()), other, tmp_path / "mixed.onnx")
    with pytest.raises(InputError, match="none of the layers"):
        read_mixed_model(tmp_path / "mixed.onnx", model)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="no ONNX model"):
        read_mixed_model(tmp_path / "text.onnx", model)


def test_a_block_of_thousands_of_layers_stays_small():
    """Rows of a large block name its main layer alone: all pairs would be millions of names."""
    nodes = [
        helper.make_node("Relu", [f"v{number}"], [f"v{number + 1}"], name=f"relu_{number}") for number in range(2000)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v0", "v2000")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    name = "{ForeignNode[relu_0...relu_1999]}"
    result = with_layer_times(nothing_measured(), model, engine_of(name), {name: [7.0]})
    assert result.layer("relu_0").median_us == 7.0
    assert len(result.layer("relu_0").fused_with) == 1999
    assert result.layer("relu_1000").fused_with == ("relu_0",)
    assert any("one block of 2,000 layers (100.0 % of the time)" in each for each in result.notes)
    decisions = decide(Plan(), type_layers(model, "fp16"))
    table = MeasuredLatency(result, "fp16").table(model.layers, decisions)
    assert table["shares_kernel_with"].str.len().max() < 1000
