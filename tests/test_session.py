"""The Python interface from outside: open, plan, errors, latency, export, report; on the shipped samples too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from support.graphs import FLOAT16, feeds_for, model, node, nodes_of, types_of, value, weight

import explorer
from explorer.errors import ConversionError, ExplorerError, ExportError, InputError, ModelError, PlanError
from explorer.plan import Plan

SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"
SHIPPED = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
BLACKLISTS = json.loads((SAMPLES / "blacklists.json").read_text(encoding="utf-8"))

ERRORS = [
    "id", "name", "op", "scope", "format", "reason", "local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db",
    "acc_rel_l2", "acc_max_abs", "overflow", "nan", "subnormal", "flushed", "elements", "reads_beyond",
    "provenance", "note",
]  # fmt: skip
RANGES = ["id", "name", "op", "scope", "max_abs", "rms", "elements", "overflow", "subnormal", "flushed", "provenance"]
LATENCY = ["id", "name", "op", "scope", "format", "fp32_us", "fused_with", "provenance"]
OUTPUTS = ["output", "sqnr_db", "rel_l2", "max_abs", "cosine", "overflow", "nan", "elements", "provenance"]


def shipped(name, **more):
    return explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", **more)


@pytest.fixture(scope="module")
def transformer():
    return shipped("digits_transformer")


@pytest.fixture(scope="module")
def proto():
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], "encoder/mm"),
        node("Add", ["a", "b"], ["c"], "encoder/bias"),
        node("LayerNormalization", ["c", "g", "b"], ["d"], "encoder/LayerNorm"),
        node("MatMul", ["d", "w2"], ["e"], "head/mm"),
        node("Softmax", ["e"], ["y"], "head/softmax"),
    ]
    weights = [weight("w1", rng.standard_normal((4, 4))), weight("w2", rng.standard_normal((4, 4)))]
    weights += [weight("b", rng.standard_normal(4)), weight("g", np.ones(4))]
    return model(nodes, [value("x", ["batch", 4])], [value("y", ["batch", 4])], weights)


@pytest.fixture
def x(proto):
    rows = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    return explorer.open(proto, inputs={"x": rows})


# -- opening -------------------------------------------------------------------------------------------------------


def test_open_takes_path_bytes_and_proto(proto, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    feeds = feeds_for(proto)
    found = [explorer.open(source, inputs=feeds) for source in (path, str(path), path.read_bytes(), proto)]
    assert len({each.model.digest for each in found}) == 1
    assert all(each.errors().equals(found[0].errors()) for each in found[1:])
    assert found[0].model.name == "model"


def test_open_takes_an_npz_with_labels(proto, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.eye(4, dtype=np.float32), labels=np.arange(4))
    x = explorer.open(proto, inputs=path, batch_size=3)
    assert x.samples.origin == "user"
    assert x.accuracy().samples == 4


def test_random_inputs_are_not_to_be_trusted(proto):
    x = explorer.open(proto)
    assert x.samples.origin == "random"
    assert any("not to be trusted" in warning for warning in x.warnings())
    assert x.ranges()["provenance"].str.contains("not to be trusted").all()


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"z": np.ones((2, 4), np.float32)}, InputError),
        ({}, InputError),
        ({"x": np.ones((2, 5), np.float32)}, InputError),
        ({"x": np.ones((2, 4))}, InputError),
        ({"x": np.full((2, 4), np.nan, np.float32)}, InputError),
        ("missing.npz", InputError),
    ],
)
def test_samples_that_do_not_fit_are_refused(proto, inputs, kind):
    with pytest.raises(kind) as caught:
        explorer.open(proto, inputs=inputs)
    assert caught.value.fix


@pytest.mark.parametrize("source", ["missing.onnx", b"", b"no model", object()])
def test_models_that_are_none_are_refused(source):
    with pytest.raises(ModelError):
        explorer.open(source)


def test_a_torch_module_can_be_opened():
    torch = pytest.importorskip("torch", reason="torch is an optional part")
    pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    x = explorer.open(Net(), example_args=(torch.ones(2, 4),))
    assert {"first", "second"} <= {scope.split("/")[0] for scope in x.errors()["scope"]}
    assert (x.output_error()["sqnr_db"] > 40).all()


def test_a_torch_module_needs_arguments():
    torch = pytest.importorskip("torch", reason="torch is an optional part")
    with pytest.raises(InputError, match="example_args"):
        explorer.open(torch.nn.Linear(4, 2))


# -- the plan ------------------------------------------------------------------------------------------------------


def test_blocked_layers_stay_in_fp32(x):
    x.plan = x.plan.block(op_types=["Softmax"], layers=["encoder/*LayerNorm*"])
    table = x.errors().set_index("id")
    assert table.loc["head/softmax", "format"] == table.loc["encoder/LayerNorm", "format"] == "fp32"
    assert table.loc["head/mm", "format"] == "fp16"
    assert "blacklist" in table.loc["head/softmax", "reason"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (lambda: Plan().block(op_types=["Sofmax"]), "Softmax"),
        (lambda: Plan().block(layers=["encoder/nm"]), "encoder/mm"),
        (lambda: Plan().set({"head/sofmax": "fp32"}), "head/softmax"),
        (lambda: {"Softmax": "fp32"}, "Plan"),
    ],
)
def test_a_wrong_plan_is_refused_and_the_old_one_stays(x, plan, said):
    before = x.plan
    with pytest.raises(PlanError, match=said):
        x.plan = plan()
    assert x.plan is before


def test_a_format_that_the_model_cannot_have_is_refused():
    old = model([node("Relu", ["x"], ["y"])], [value("x")], [value("y")], opset=9)
    x = explorer.open(old)
    with pytest.raises(ConversionError, match="bfloat16"):
        x.plan = Plan(format="bf16")
    with pytest.raises(ConversionError, match="int8 needs opset 10"):
        x.plan = Plan(format="int8")
    assert x.plan == Plan()


def test_results_follow_the_plan(x):
    """Every figure is of the plan that is set, whatever was asked before, and the same again when it comes back."""
    full, error = x.output_error(), x.errors()
    x.plan = Plan.preset("fp32")
    assert x.output_error()["rel_l2"].eq(0).all()
    assert x.errors()["acc_rel_l2"].eq(0).all()
    assert np.isposinf(x.errors()["acc_sqnr_db"]).all()
    assert x.errors()["local_rel_l2"].gt(0).any(), "local errors do not depend on the plan"
    x.plan = Plan(format="bf16")
    assert x.output_error()["rel_l2"].iloc[0] > full["rel_l2"].iloc[0]
    assert x.errors()["provenance"].str.contains("bf16").any()
    x.plan = Plan()
    pd.testing.assert_frame_equal(x.output_error(), full)
    pd.testing.assert_frame_equal(x.errors(), error)


def test_target_decides_what_may_run_low(proto):
    anything, cuda = explorer.open(proto, target=None), explorer.open(proto)
    assert "operators allow" in anything.target_provenance
    assert "onnxruntime-cuda" in cuda.target_provenance
    with pytest.raises(ExplorerError):
        explorer.open(proto, target="abacus").decisions()


# -- tables --------------------------------------------------------------------------------------------------------


def test_errors_have_the_documented_columns(x):
    table = x.errors()
    assert list(table.columns) == ERRORS
    assert list(table["id"]) == [layer.id for layer in x.model.layers]
    for name in ("overflow", "nan", "subnormal", "flushed", "elements"):
        assert table[name].dtype == np.int64, name
    for name in ERRORS[6:12]:
        assert table[name].dtype == np.float64, name
    assert (table["reason"] != "").all()
    assert table["provenance"].str.startswith("emulated").all()


def test_the_other_tables_have_the_documented_columns(x):
    assert set(RANGES) <= set(x.ranges().columns)
    assert list(x.output_error().columns) == OUTPUTS
    assert x.ranges()["provenance"].str.startswith("measured").all()
    assert x.output_error()["provenance"].str.startswith("emulated").all()
    out = x.output_error().iloc[0]
    assert out["output"] == "y"
    assert out["elements"] == 24
    assert out["rel_l2"] == pytest.approx(10 ** (-out["sqnr_db"] / 20))
    assert 0.999 < out["cosine"] <= 1


def test_output_error_is_that_of_the_outputs(x):
    exact, planned = x.outputs()
    error = planned["y"].astype(np.float64) - exact["y"]
    out = x.output_error().iloc[0]
    assert out["rel_l2"] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(exact["y"]), rel=1e-4)
    assert out["max_abs"] == pytest.approx(np.abs(error).max())


def test_tables_are_the_callers_to_change(x):
    """Changing a table changes no later one."""
    table = x.errors()
    table.loc[:, "local_rel_l2"] = -1.0
    assert (x.errors()["local_rel_l2"] != -1.0).all()


def test_the_cpu_is_measured_in_fp32_only(x):
    """Law 2: ONNX Runtime's CPU provider has no fp16 arithmetic, so there is no fp16 column."""
    table = x.latency()
    assert set(LATENCY) <= set(table.columns)
    assert [name for name in table.columns if name.endswith("_us")] == ["fp32_us", "fp32_spread_us"]
    assert list(table["id"]) == [layer.id for layer in x.model.layers]
    assert table["provenance"].str.startswith("measured").all()
    assert "fp16" not in " ".join(table["provenance"])
    assert table["fp32_us"].sum() > 0
    missing = table[table["fp32_us"].isna()]
    assert ((missing["fused_with"] != "") | (missing["note"] != "")).all()


@pytest.mark.parametrize("low_format", ["fp16", "bf16"])
def test_a_named_gpu_is_predicted(x, low_format):
    x.plan = Plan(format=low_format)
    table = x.latency(gpu_model="H100")
    assert [name for name in table.columns if name.endswith("_us")] == ["fp32_us", f"{low_format}_us"]
    assert table["provenance"].str.startswith("predicted").all()
    assert table["provenance"].str.contains("H100").all()
    assert (table[f"{low_format}_us"].dropna() >= 0).all()


def test_an_unknown_gpu_is_refused(x):
    with pytest.raises(ExplorerError, match="H100"):
        x.latency(gpu_model="H1000")


def test_representation_tells_what_to_do_next(x):
    assert "next" in repr(x)
    assert "fp16" in repr(x)


def test_accuracy_is_none_without_labels(x):
    assert x.accuracy() is None


def test_labels_that_fit_no_output_are_refused():
    flat = model([node("ReduceSum", ["x"], ["y"], keepdims=0)], [value("x", ["n", 4])], [value("y", ())])
    x = explorer.open(flat, inputs={"x": np.ones((3, 4), np.float32), "labels": np.zeros(3, np.int64)})
    with pytest.raises(InputError, match="labels"):
        x.accuracy()


# -- files ---------------------------------------------------------------------------------------------------------


def test_export_writes_the_converted_model(x, tmp_path):
    path = tmp_path / "model.fp16.onnx"
    x.plan = x.plan.block(op_types=["Softmax"])
    conversion = x.export(path)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert {each.layer_id: each.format for each in conversion.decisions} == dict(
        zip(x.errors()["id"], x.errors()["format"], strict=True)
    )
    kinds = types_of(written)
    assert kinds["y"] == kinds["x"] == 1
    assert FLOAT16 in set(kinds.values())
    assert not list(tmp_path.glob("*.part*")), "no half-written file is left"


def test_export_where_nothing_can_be_written(x, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError):
        x.export(tmp_path / "file" / "model.onnx")
    assert (tmp_path / "file").read_text() == "in the way"


def test_report_is_one_offline_file(x, tmp_path):
    path = x.report(tmp_path / "report.html", gpu_model="A100-SXM-80GB")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    for wanted in ("encoder/LayerNorm", "head/softmax", "predicted", "emulated"):
        assert wanted in text
    assert 'src="http' not in text
    assert "<link" not in text or 'href="http' not in text


# -- the one-call form ---------------------------------------------------------------------------------------------


def formats_of(conversion):
    return {each.layer_id: each.format for each in conversion.decisions}


def test_one_call_converts_a_file(proto, tmp_path):
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(proto, source)
    before = source.read_bytes()
    conversion = explorer.convert_to_mixed_precision(
        source, target, precision="fp16", backend="onnxruntime-cuda", keep_io_types=True,
        black_list={"Softmax", "encoder/mm", "head/*"}, white_list=("head/mm",),
    )  # fmt: skip
    assert formats_of(conversion) == {
        "encoder/mm": "fp32",
        "encoder/bias": "fp16",
        "encoder/LayerNorm": "fp16",
        "head/mm": "fp16",
        "head/softmax": "fp32",
    }
    assert all(each.reason for each in conversion.decisions)
    assert {cast.to for cast in conversion.casts} == {"fp16", "fp32"}
    assert len(nodes_of(onnx.load(target), "Cast")) == len(conversion.casts)
    assert conversion.weights is not None
    assert source.read_bytes() == before


def test_one_call_takes_patterns_of_operators_and_layers(proto, tmp_path):
    conversion = explorer.convert_to_mixed_precision(proto, tmp_path / "b.onnx", black_list=["Layer*", "head/*"])
    high = {name for name, fmt in formats_of(conversion).items() if fmt == "fp32"}
    assert high == {"encoder/LayerNorm", "head/mm", "head/softmax"}


def test_one_call_without_io_types(proto, tmp_path):
    explorer.convert_to_mixed_precision(proto, tmp_path / "b.onnx", precision="bf16", keep_io_types=False, backend=None)
    written = onnx.load(tmp_path / "b.onnx")
    assert written.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
    assert written.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"black_list": ["Sofmax"]}, PlanError, "Softmax"),
        ({"white_list": ["encoder/nm"]}, PlanError, "encoder/mm"),
        ({"black_list": "Softmax"}, PlanError, "single string"),
        ({"precision": "fp17"}, PlanError, "fp1"),
        ({"backend": "abacus"}, ExplorerError, "abacus"),
    ],
)
def test_one_call_refuses_in_words(proto, tmp_path, settings, kind, said):
    with pytest.raises(kind, match=said):
        explorer.convert_to_mixed_precision(proto, tmp_path / "b.onnx", **settings)
    assert not (tmp_path / "b.onnx").exists()


# -- the shipped samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_samples_have_the_accuracy_that_they_are_for(name):
    """fp16 is harmless, or makes accuracy collapse; the sample's blacklist restores every prediction."""
    x = shipped(name)
    before = x.accuracy()
    assert before.exact > 0.95
    assert before.samples == 360
    harmless = not BLACKLISTS[name]
    assert before.plan == before.exact if harmless else before.plan < 0.15
    assert before.agreement == 1.0 if harmless else before.agreement < 0.2
    assert (x.first_nonfinite() is None) == harmless
    if not harmless:
        x.plan = x.plan.block(layers=BLACKLISTS[name])
        after = x.accuracy()
        assert after.plan == after.exact == before.exact
        assert after.agreement == 1.0
        assert x.output_error()["sqnr_db"].iloc[0] > 20
        assert x.first_nonfinite() is None


def test_the_tables_show_exactly_what_overflows_in_the_transformer(transformer):
    """Only the squares of LayerNorm, and what averages them, leave fp16's range."""
    table = transformer.errors().set_index("id")
    lost = set(table.index[table["overflow"] > 0])
    assert lost
    assert all("norm" in layer for layer in lost)
    assert {layer.rpartition("/")[2] for layer in lost} == {"Pow", "ReduceMean_1", "Add"}
    roots = {layer.replace("/Add", "/Sqrt") for layer in lost if layer.endswith("/Add")}  # they take what overflowed
    assert set(table.index[table["local_sqnr_db"] == -np.inf]) == lost | roots
    assert transformer.first_nonfinite() == "blocks/0/norm1/Pow"
    assert set(transformer.ranges().query("overflow > 0")["id"]) == lost, "known before anything is converted"


def test_a_blacklist_costs_few_layers(transformer):
    plan = transformer.plan
    try:
        transformer.plan = plan.block(layers=BLACKLISTS["digits_transformer"])
        assert transformer.low_share > 0.6
    finally:
        transformer.plan = plan


# -- real sizes ----------------------------------------------------------------------------------------------------


GENERATED = {path.stem: path for path in sorted((SAMPLES / "generated").glob("*.onnx"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "bert_base", "unet_3000"])
def test_real_sizes(name):
    """Every layer of a large model is measured, errors are small, and the fp32 plan is the identity."""
    if name not in GENERATED:
        pytest.skip(f"sample_models/generated/{name}.onnx is not there: python sample_models/make.py {name}")
    inputs = GENERATED[name].with_suffix(".npz")
    x = explorer.open(GENERATED[name], inputs=inputs if inputs.exists() else None)
    table = x.errors()
    assert list(table["id"]) == [layer.id for layer in x.model.layers]
    low = table[(table["format"] == "fp16") & (table["elements"] > 0)]
    assert len(low) > 0.5 * len(table)
    assert (low["local_rel_l2"] < 0.1).mean() > 0.95
    assert (table.loc[table["local_rel_l2"].isna() & (table["nan"] == 0), "note"] != "").all()
    assert x.output_error()["sqnr_db"].gt(10).all()
    x.plan = Plan.preset("fp32")
    assert x.errors()["acc_rel_l2"].fillna(0).eq(0).all()
    assert x.output_error()["rel_l2"].eq(0).all()
