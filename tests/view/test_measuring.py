"""Formats of the panel and what is measured of them: scales, latency, kernels, and the Python that repeats it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from view_samples import SAMPLES, open_sample

import explorer
from explorer.backends.latency import KernelTime, LatencyResult, LayerTime
from explorer.errors import BackendError, InputError, PlanError
from explorer.measure.latency import MeasuredLatency
from explorer.plan import Plan
from explorer.scene import decode_frame
from explorer.view.controller import Controller
from explorer.view.devices import IMPORTED, THIS_CPU

LONG_S = 60.0
CONV, RELU, FC = 0, 1, 7


@pytest.fixture
def x(tmp_path):
    """An exploration of files of its own: a calibration is kept beside the model."""
    for kind in ("onnx", "npz"):
        shutil.copy(SAMPLES / f"lenet5_digits.{kind}", tmp_path)
    made = explorer.open(tmp_path / "lenet5_digits.onnx", inputs=tmp_path / "lenet5_digits.npz")
    made.calibrate(cache=False)
    return made


def run(x, gpu_model=""):
    c = Controller(x, gpu_model=gpu_model)
    c.start()
    assert c.wait(LONG_S)
    return c


def done(c, edit):
    call = c.edit(edit)
    assert c.wait(LONG_S)
    assert c.state["run"]["error"] is None
    return call


def shown(c):
    facts, columns = decode_frame(c.figures)
    return facts, columns


def result(x, *, kernels=(), backend="tensorrt", us=3.0):
    rows = tuple(LayerTime(layer.id, us, 0.1) for layer in x.model.layers)
    return LatencyResult(
        backend=backend, device="a GPU", provenance="measured on a GPU elsewhere", formats="as typed", threads=1,
        runs=9, warmup_runs=1, whole_us=40.0, whole_spread_us=0.5, layers=rows, kernels=tuple(kernels),
    )  # fmt: skip


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["int8", "tf32", "fp8e4m3", "fp8e5m2", "bf16"])
def test_every_format_runs_in_the_panel_with_the_errors_of_python(x, name):
    c = run(x)
    done(c, {"op": "format", "name": name})
    twin = open_sample("lenet5_digits", plan=Plan(format=name))
    twin.calibration = x.calibration
    facts, columns = shown(c)
    table = twin.errors()
    np.testing.assert_array_equal(columns["acc_sqnr_db"], table["acc_sqnr_db"].to_numpy(np.float32))
    assert [facts["formats"][at] for at in columns["format"]] == list(table["format"])
    assert name in c.state["headline"]["output_error"]["provenance"]
    if name == "int8":
        assert x.calibration.description in c.state["headline"]["output_error"]["provenance"]


def test_formats_say_what_they_need_and_the_model_refuses_those_that_it_cannot_have(x):
    c = run(x)
    found = {each["name"]: each for each in c.state["formats"]}
    assert set(found) == {"fp16", "bf16", "int8", "tf32", "fp8e4m3", "fp8e5m2"}
    assert all(each["about"] for each in found.values())
    assert "calibration" in found["int8"]["about"]
    assert "opset 19" in found["fp8e4m3"]["about"], "the sample has 18: no file could hold it"
    assert found["bf16"]["off"] == ""


def test_a_format_that_cannot_be_io_sets_keep_io_back(x):
    c = run(x)
    c.edit({"op": "keep_io", "value": False})
    assert c.state["io_choice"]
    call = c.edit({"op": "format", "name": "int8"})
    assert x.plan == Plan(format="int8")
    assert (c.state["keep_io"], c.state["io_choice"]) == (True, False)
    twin = x.fork()
    twin.plan = Plan(keep_io=False)
    exec(call, {"x": twin, "explorer": explorer})
    assert twin.plan == x.plan
    with pytest.raises(PlanError, match="cannot be int8"):
        c.edit({"op": "keep_io", "value": False})


def test_one_layer_in_int8_takes_its_activation_along_and_undo_takes_it_back(x):
    c = run(x)
    call = done(c, {"op": "use", "format": "int8", "layers": [CONV]})
    assert call == "x.plan = x.plan.set({'features/conv1/Conv': 'int8'})"
    facts, columns = shown(c)
    formats = [facts["formats"][at] for at in columns["format"]]
    assert facts["formats"] == ["none", "fp32", "fp16", "int8"]
    assert (formats[CONV], formats[RELU], formats[FC]) == ("int8", "int8", "fp16")
    assert columns["switchable"][CONV] == 3
    share = c.state["headline"]["low_share"]["text"].replace("\xa0", " ").replace("\u202f", " ")
    assert share == "100 %: 75 % fp16, 25 % int8"
    assert c.state["headline"]["casts"]["value"] == len(x.convert().casts)
    c.edit({"op": "undo"})
    assert x.plan == Plan()
    c.edit({"op": "redo"})
    done(c, {"op": "toggle", "layers": [CONV]})
    assert x.decisions()["features/conv1/Conv"].format == "fp32"


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        ({"op": "use_ops", "format": "int8", "ops": ["Conv"]}, Plan().use("int8", op_types=["Conv"])),
        ({"op": "use_scope", "format": "int8", "path": "features"}, Plan().use("int8", scopes=["features"])),
    ],
)
def test_operator_types_and_scopes_in_int8(x, edit, wanted):
    c = run(x)
    before = x.plan
    call = c.edit(edit)
    assert x.plan == wanted
    twin = x.fork()
    twin.plan = before
    exec(call, {"x": twin, "explorer": explorer})
    assert twin.plan == wanted
    again = {}
    exec(c.state["code"].replace("x.errors()", ""), again)
    assert again["x"].plan == wanted


def test_what_cannot_run_in_a_format_is_refused_with_the_reason(x):
    c = run(x)
    with pytest.raises(PlanError, match="'fp8e4m3'"):
        c.edit({"op": "use", "format": "fp8e4m3", "layers": [CONV]})
    c.edit({"op": "format", "name": "tf32"})
    with pytest.raises(PlanError, match="'int8'"):
        c.edit({"op": "use", "format": "int8", "layers": [CONV]})
    with pytest.raises(PlanError, match=r"cannot switch|cannot run"):
        c.edit({"op": "use", "format": "tf32", "layers": [RELU]})


# -- calibration -------------------------------------------------------------------------------------------------------


def test_another_calibration_gives_other_scales_and_figures_and_can_be_repeated(x):
    c = run(x)
    done(c, {"op": "format", "name": "int8"})
    before, revision = c.state["headline"]["output_error"]["value"], c.state["revision"]
    assert c.state["calibration"]["wanted"]
    assert c.measuring.calibrate("minmax") == "x.calibrate(method='minmax')"
    assert c.wait(LONG_S)
    assert c.state["calibration"]["method"] == "minmax"
    assert x.calibration.method == "minmax"
    assert c.state["headline"]["output_error"]["value"] != before
    facts, _ = shown(c)
    assert facts["errorsRevision"] == facts["revision"] == c.state["revision"] > revision
    assert "x.calibrate(method='minmax')" in c.state["code"]
    with pytest.raises(InputError):
        c.measuring.calibrate("guess")


# -- measured latency --------------------------------------------------------------------------------------------------


def test_an_int8_plan_is_measured_on_this_cpu(x):
    c = run(x, THIS_CPU)
    assert c.state["headline"]["latency"]["text"].endswith("in fp32")
    assert "fp16" in c.state["measured"]["refused"]
    done(c, {"op": "format", "name": "int8"})
    found = x.results.latencies.known_measured(x.plan, x.target, "onnxruntime-cpu").result
    facts, columns = shown(c)
    assert c.state["headline"]["latency"]["value"] == c.state["measured"]["whole_us"] == found.whole_us
    assert facts["latencyProvenance"] == found.provenance
    assert not facts["latencyStandsIn"]
    np.testing.assert_array_equal(columns["plan_us"], np.array([row.median_us for row in found.layers], np.float32))
    assert (columns["fp32_us"] > 0).any()
    assert columns["plan_us"][CONV] > 0
    assert any({CONV, RELU} <= set(kernel["layers"]) for kernel in facts["kernels"])
    assert any(kernel["kind"] == "cast" for kernel in facts["kernels"]), "the pair on the input is no layer"
    tried = {each["label"]: each["latency_us"] for each in c.state["tried"]}
    assert tried == {"full fp16": None, "full int8": found.whole_us}


def test_a_device_that_is_not_here_says_so_once_and_predictions_stand_in(x, monkeypatch):
    asked = []

    def measure(plan, target, backend, **_):
        asked.append(backend)
        raise BackendError("There is no TensorRT here.", fix="pip install tensorrt")

    monkeypatch.setattr(x.results.latencies, "measure", measure)
    c = run(x, "tensorrt")
    assert c.state["gpu"] == "tensorrt"
    assert "no TensorRT" in c.state["measured"]["refused"]
    device = next(each for each in c.state["devices"] if each["name"] == "tensorrt")
    assert (device["ready"], device["group"]) == (False, "measured here")
    assert device["missing"]
    done(c, {"op": "toggle", "layers": [CONV]})
    done(c, {"op": "undo"})
    assert asked == ["tensorrt", "tensorrt"], "one refusal a plan is enough"
    c.start()
    assert c.wait(LONG_S)
    assert len(asked) == 3, "until the user asks again"


def test_while_a_plan_is_being_measured_what_is_known_stands_in(x, monkeypatch):
    seen = []
    kernel = KernelTime("myelin_1", (x.model.layers[CONV].id, x.model.layers[RELU].id), 7.0, 0.1, "layer", "fp32", "")
    copy = KernelTime("reformat_1", (x.model.layers[FC].id,), 1.0, 0.1, "reformat", "fp16", "")

    def measure(plan, target, backend, **_):
        facts, _ = shown(c)
        seen.append((facts["latencyStandsIn"], c.state["headline"]["latency"]))
        found = MeasuredLatency(result(x, kernels=[kernel, copy]), plan.format)
        return x.results.latencies.take(plan, target, backend, found)

    monkeypatch.setattr(x.results.latencies, "measure", measure)
    c = run(x)
    assert c.set_gpu("tensorrt") == "x.measure('tensorrt')"
    assert c.wait(LONG_S)
    assert seen[0][0] is True
    facts, columns = shown(c)
    assert facts["latencyStandsIn"] is False
    assert facts["kernels"] == [
        {"name": "myelin_1", "layers": [CONV, RELU], "us": 7.0, "kind": "layer", "format": "fp32", "note": ""},
        {"name": "reformat_1", "layers": [FC], "us": 1.0, "kind": "reformat", "format": "fp16", "note": ""},
    ]
    assert (columns["plan_us"] == 3.0).all()
    assert c.state["headline"]["latency"]["provenance"].startswith("measured on a GPU elsewhere")
    assert c.state["measured"]["layers_us"] == 3.0 * len(x.model.layers) != c.state["measured"]["whole_us"]


def test_an_imported_profile_is_shown_for_its_plan_alone(x):
    c = run(x)
    missing = next(each for each in c.state["devices"] if each["name"] == IMPORTED)
    assert not missing["ready"]
    assert "import_profile" in missing["missing"]
    x.results.latencies.take(x.plan, x.target, IMPORTED, MeasuredLatency(result(x), "fp16"))
    c.set_gpu(IMPORTED)
    assert c.wait(LONG_S)
    assert next(each for each in c.state["devices"] if each["name"] == IMPORTED)["ready"]
    assert c.state["headline"]["latency"]["value"] == 40.0
    done(c, {"op": "toggle", "layers": [CONV]})
    assert c.state["headline"]["latency"] is None
    assert shown(c)[0]["latencyProvenance"] == ""


def test_what_a_cell_imports_is_shown_at_once(x):
    """The panel need not be touched: whoever reads a profile beside it sees it on the graph."""
    c = run(x)
    c.set_gpu(IMPORTED)
    assert c.wait(LONG_S)
    assert c.state["headline"]["latency"] is None
    told = []
    c.listen(lambda state, _: told.append(state))
    x.results.latencies.take(x.plan, x.target, IMPORTED, MeasuredLatency(result(x), "fp16"))
    assert told[-1]["headline"]["latency"]["value"] == 40.0
    assert c.state is told[-1]
