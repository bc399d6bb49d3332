"""Edits: what a click makes of the plan, in as few overrides as it takes, and the Python call that does the same."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import model, node, value, weight
from view_samples import open_sample

import explorer
from explorer.errors import ExplorerError, PlanError
from explorer.plan import Plan, Rule
from explorer.view.calls import change_call
from explorer.view.edits import edited

NAMES = ["mm", "flip", "soft", "mm2", "shape"]


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], "enc/mm"),
        node("Transpose", ["a"], ["b"], "enc/flip"),
        node("Softmax", ["b"], ["c"], "enc/att/soft"),
        node("MatMul", ["c", "w2"], ["y"], "head/mm2"),
        node("Shape", ["c"], ["s"], "head/shape"),
    ]
    weights = [weight("w1", rng.standard_normal((4, 4))), weight("w2", rng.standard_normal((4, 4)))]
    graph = model(nodes, [value("x", [4, 4])], [value("y", [4, 4]), value("s", [2], 7)], weights)
    return explorer.open(graph, inputs={"x": np.eye(4, dtype=np.float32)}, batch_size=4)


def index(x, name):
    return next(at for at, layer in enumerate(x.model.layers) if layer.id.endswith(name))


def after(x, **edit):
    before = x.plan
    made = edited(edit, x.decisions())
    code = change_call((before, x.target), (made, x.target))
    x.plan = made
    if made != before:
        twin = x.fork()
        twin.plan = before
        exec(code, {"x": twin, "explorer": explorer})
        assert twin.plan == made, code
    return made


def formats(x):
    return {layer.id.rpartition("/")[2]: x.decisions()[layer.id].format for layer in x.model.layers}


def test_a_toggle_overrides_one_layer_and_back_again_nothing(x):
    plan = after(x, op="toggle", layers=[index(x, "soft")])
    assert dict(plan.overrides) == {"enc/att/soft": "fp32"}
    assert formats(x)["soft"] == "fp32"
    assert after(x, op="toggle", layers=[index(x, "soft")]) == Plan()


def test_a_toggle_of_many_goes_to_fp32_if_any_runs_low(x):
    x.plan = x.plan.set({"enc/mm": "fp32"})
    many = [index(x, "enc/mm"), index(x, "soft"), index(x, "mm2")]
    after(x, op="toggle", layers=many)
    assert {formats(x)[name] for name in ("mm", "soft", "mm2")} == {"fp32"}
    assert after(x, op="toggle", layers=many) == Plan()


def test_a_layer_that_follows_others_is_overridden_only_when_needed(x):
    """Transpose takes the format of what it moves: toggled with its source, it needs no override of its own."""
    plan = after(x, op="toggle", layers=[index(x, "enc/mm"), index(x, "flip")])
    assert dict(plan.overrides) == {"enc/mm": "fp32"}
    plan = after(x, op="toggle", layers=[index(x, "flip")])
    assert dict(plan.overrides) == {"enc/mm": "fp32", "enc/flip": "fp16"}
    assert formats(x)["flip"] == "fp16"


def test_a_toggle_under_a_rule_overrides_it(x):
    x.plan = x.plan.block(op_types=["Softmax"])
    plan = after(x, op="toggle", layers=[index(x, "soft")])
    assert dict(plan.overrides) == {"enc/att/soft": "fp16"}
    assert not dict(after(x, op="toggle", layers=[index(x, "soft")]).overrides)


def test_block_and_allow(x):
    plan = after(x, op="block", layers=[index(x, "flip"), index(x, "soft")])
    assert dict(plan.overrides) == {"enc/flip": "fp32", "enc/att/soft": "fp32"}
    assert after(x, op="block", layers=[index(x, "soft")]) == plan
    assert after(x, op="allow", layers=[index(x, "flip"), index(x, "soft")]) == Plan()
    x.plan = x.plan.block(op_types=["Softmax"])
    assert not after(x, op="block", layers=[index(x, "soft")]).overrides, "the rule holds it already"


def test_operator_types(x):
    assert after(x, op="block_ops", ops=["MatMul", "Softmax"]) == Plan().block(op_types=["MatMul", "Softmax"])
    assert after(x, op="unblock_ops", ops=["MatMul"]) == Plan().block(op_types=["Softmax"])
    x.plan = Plan.preset("fp32")
    after(x, op="unblock_ops", ops=["MatMul"])
    assert formats(x)["mm"] == "fp16", "nothing blocks it, but the base does: it is allowed"
    x.plan = Plan.preset("safe")
    after(x, op="unblock_ops", ops=["Softmax"])
    assert formats(x)["soft"] == "fp16"


def test_scopes(x):
    plan = after(x, op="block_scope", path="enc")
    assert plan.rules == (Rule("scope", "enc", "fp32"),)
    assert after(x, op="unblock_scope", path="enc/att").rules[-1] == Rule("scope", "enc/att", "fp16")
    assert formats(x)["soft"] == "fp16"
    assert after(x, op="unblock_scope", path="enc").rules == (Rule("scope", "enc/att", "fp16"),)


def test_a_scope_is_named_to_the_letter():
    nodes = [node("Relu", ["x"], ["a"], "b[0]*/r"), node("Relu", ["a"], ["y"], "b0x/r")]
    x = explorer.open(model(nodes, [value("x", [4])], [value("y", [4])]))
    after(x, op="block_scope", path="b[0]*")
    assert [each.format for each in x.decisions()] == ["fp32", "fp16"]


def test_presets_formats_and_io(x):
    assert after(x, op="preset", name="safe") == Plan.preset("safe")
    assert after(x, op="keep_io", value=False) == Plan.preset("safe", keep_io=False)
    assert after(x, op="format", name="bf16") == Plan.preset("safe", keep_io=False, format="bf16")
    x.plan = Plan().set({"enc/mm": "fp32"}).allow(op_types=["Softmax"])
    plan = after(x, op="format", name="bf16")
    assert plan.rules == (Rule("op", "Softmax", "bf16"),)
    assert dict(plan.overrides) == {"enc/mm": "fp32"}


@pytest.mark.parametrize(
    "edit",
    [
        {"op": "toggle", "layers": []},
        {"op": "toggle", "layers": [99]},
        {"op": "toggle", "layers": [-1]},
        {"op": "toggle", "layers": [True]},
        {"op": "toggle", "layers": ["a"]},
        {"op": "toggle"},
        {"op": "block_ops", "ops": ["Sofmax"]},
        {"op": "block_ops", "ops": []},
        {"op": "block_scope", "path": "nowhere"},
        {"op": "block_scope", "path": ""},
        {"op": "preset", "name": "fast"},
        {"op": "format", "name": "int9"},
        {"op": "format"},
        {"op": "explode"},
        {},
    ],
)
def test_what_cannot_be_is_refused(x, edit):
    with pytest.raises(ExplorerError):
        edited(edit, x.decisions())


def test_a_layer_that_cannot_switch_is_refused_with_its_reason(x):
    at = index(x, "shape")
    with pytest.raises(PlanError, match=r"cannot switch: .*shape"):
        edited({"op": "toggle", "layers": [at]}, x.decisions())
    plan = edited({"op": "toggle", "layers": [at, index(x, "soft")]}, x.decisions())
    assert dict(plan.overrides) == {"enc/att/soft": "fp32"}, "with others it is left out"


PLANS = [
    Plan(),
    Plan.preset("safe"),
    Plan.preset("fp32", format="bf16", keep_io=False),
    Plan().block(op_types=["Relu"], layers=["*"], scopes=['it\'s "quoted"\n']).allow(op_types=["Conv"]),
    Plan.preset("safe").allow(op_types=["Softmax"]).set({"a'b\\": "fp16", "\N{PILE OF POO}<b>": "fp32"}),
    Plan(rules=(Rule("op", "A", "fp16"), Rule("op", "A", "fp32"))),
    Plan(rules=(Rule("scope", "s", "fp32"), Rule("op", "A", "fp32"))),
]


@pytest.mark.parametrize("old", PLANS)
@pytest.mark.parametrize("new", PLANS)
def test_every_change_is_one_python_call(old, new):
    class Stand:
        plan, target = old, "onnxruntime-cuda"

        def change(self, plan, target):
            self.plan, self.target = plan, target

    for target in ("onnxruntime-cuda", None):
        x = Stand()
        if (new, target) != (old, x.target):
            exec(change_call((old, x.target), (new, target)), {"x": x, "explorer": explorer})
        assert (x.plan, x.target) == (new, target)


def test_a_large_selection_of_a_real_model():
    x = open_sample("digits_transformer")
    everything = list(range(len(x.model.layers)))
    plan = after(x, op="toggle", layers=everything)
    assert not x.decisions().low_layers
    assert after(x, op="toggle", layers=everything) == Plan()
    assert plan != Plan()
