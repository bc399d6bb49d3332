"""Python that makes a plan again: evaluated, it is that plan, whatever the names are."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import explorer
from explorer.export.python_code import WIDTH, plan_calls, session_code
from explorer.plan import Plan, Rule

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
        "a'b.onnx", plan, inputs="in.npz", target=None, gpu_model="H100", export="m.onnx", report="r.html", clamp=True
    )
    ast.parse(text)
    assert "x = explorer.open(\"a'b.onnx\", inputs='in.npz', target=None)" in text
    assert "x.export('m.onnx', clamp=True)" in text
    assert "x.report('r.html', gpu_model='H100', clamp=True)" in text
