"""Python that makes a plan again: evaluated, it is that plan, whatever the names are."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import explorer
from explorer.export.python_code import WIDTH, plan_calls, session_code
from explorer.model import Samples, load_model, load_samples
from explorer.plan import Plan, Rule

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NASTY = [
    "a'b",
    'q"uote',
    "line\nbreak",
    "back\\slash",
    "<script>",
    "\N{PILE OF POO}",
    "\ud800",
    "x" * 10_000,
    "*[?]",
    "{}",
]
names = st.one_of(st.text(min_size=1, max_size=30), st.sampled_from(NASTY))
formats = st.sampled_from(["fp32", "low"])


@st.composite
def plans(draw):
    low = draw(st.sampled_from(["fp16", "bf16"]))
    plan = Plan.preset(draw(st.sampled_from(["full", "safe", "fp32"])), format=low, keep_io=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 4))):
        change = plan.block if draw(st.booleans()) else plan.allow
        few = st.lists(names, max_size=3)
        plan = change(op_types=draw(few), layers=draw(few), scopes=draw(few))
    chosen = draw(st.dictionaries(names, formats, max_size=4))
    return plan.set({key: low if value == "low" else value for key, value in chosen.items()})


def made(text):
    return eval(text, {"explorer": explorer})


@given(plans())
def test_evaluated_code_is_the_plan(plan):
    assert made(plan_calls(plan)) == plan


def test_reads_as_a_person_would_write_it():
    assert plan_calls(Plan()) == "explorer.Plan()"
    assert plan_calls(Plan.preset("safe", format="bf16")) == "explorer.Plan.preset('safe', format='bf16')"
    plan = Plan().block(op_types=["Pow"], layers=["*norm*/Sqrt"]).allow(scopes=["head"]).set({"conv1": "fp32"})
    assert plan_calls(plan, "Plan").startswith("Plan().block(op_types=['Pow'], layers=['*norm*/Sqrt']).allow(")


def test_many_layers_are_wrapped():
    plan = Plan().block(layers=[f"encoder/layer.{index}/attention/Softmax" for index in range(40)])
    text = plan_calls(plan)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert made(text) == plan


@pytest.mark.parametrize("rules", [(Rule("op", "Exp", "fp32"), Rule("op", "Exp", "fp16"))])
def test_plan_that_no_calls_make_is_read_from_json(rules):
    """A rule that names the same twice comes only from a file."""
    plan = Plan(rules=rules)
    assert made(plan_calls(plan)) == plan


def test_script_tells_all_that_was_chosen():
    plan = Plan.preset("safe").set({"it's": "fp32"})
    text = session_code(
        "a'b.onnx",
        plan,
        inputs=Samples((), 1, "user", name="in.npz"),
        target=None,
        gpu_model="H100",
        export="m.onnx",
        report="r.html",
        clamp=True,
    )
    ast.parse(text)
    assert "x = explorer.open(\"a'b.onnx\", inputs='in.npz', target=None)" in text
    assert "x.export('m.onnx', clamp=True)" in text
    assert "x.report('r.html', gpu_model='H100', clamp=True)" in text


def test_script_of_what_is_in_memory_says_what_to_save():
    lenet = load_model(SAMPLES / "lenet5_digits.onnx")
    text = session_code(None, Plan(), inputs=load_samples(lenet, {"image": np.ones((2, 1, 8, 8), np.float32)}))
    ast.parse(text)
    assert "onnx.save" in text
    assert "numpy.savez" in text
    assert "x = explorer.open('model.onnx', inputs='inputs.npz')" in text


@pytest.mark.parametrize("ask", ["data", "fewer", "saved", "tensorrt", "default"])
def test_script_makes_the_same_calibration_again(tmp_path, monkeypatch, ask):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "lenet5_digits.onnx", "net.onnx")
    with np.load(SAMPLES / "lenet5_digits.npz") as held:
        np.savez("in.npz", image=held["image"][:64])
        np.savez("train.npz", image=held["image"][64:128])
    x = explorer.open("net.onnx", inputs="in.npz")
    x.plan = Plan(format="int8")
    if ask == "data":
        x.calibrate("train.npz", method="entropy", cache=False)
    elif ask == "fewer":
        x.calibrate(percentile=90, samples=32, cache=False)
    elif ask == "saved":
        x.calibrate("train.npz", cache=False).save("scales.json")
        x.calibration = explorer.Calibration.load("scales.json")
    elif ask == "tensorrt":
        explorer.write_tensorrt_cache(x.calibrate("train.npz", cache=False), "scales.cache")
        x.calibration = explorer.read_tensorrt_cache("scales.cache", x.model)
    else:
        x.calibrate(cache=False)
    code = session_code(x.model.path, x.plan, inputs=x.samples, calibration=x.calibration)
    assert ("calibrat" in code) == (ask != "default")
    again = {}
    exec(code, again)
    x.errors()
    assert again["x"].calibration == x.calibration
