"""Plans: rules and overrides, their order, their text form, and what they refuse."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import chain, model, node, value

from explorer.errors import PlanError
from explorer.model import load_model
from explorer.plan import PRESETS, Decision, Plan, Rule

NAMES = st.text(min_size=1, max_size=8)
FORMATS = st.sampled_from(["fp32", "fp16"])


@pytest.fixture(scope="module")
def loaded():
    return load_model(chain(40))


def asked(plan, loaded):
    return {layer_id: wish.format for layer_id, wish in plan.wishes(loaded).items()}


@given(
    st.sampled_from(["fp16", "fp32"]),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["op", "layer", "scope"]), NAMES, FORMATS), max_size=4),
    st.dictionaries(NAMES, FORMATS, max_size=4),
)
def test_json_round_trip(base, keep_io, rules, overrides):
    plan = Plan("fp16", base, keep_io, tuple(Rule(*rule) for rule in rules), overrides)
    assert Plan.from_json(plan.to_json()) == plan
    assert hash(Plan.from_json(plan.to_json())) == hash(plan)


def test_a_plan_in_a_file(tmp_path):
    plan = Plan().block(scopes=["block.1"])
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    assert Plan.load(path) == plan
    with pytest.raises(PlanError, match="cannot be read"):
        Plan.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "3", '{"version": 1}', '{"version": 2}', "null"],
)
def test_text_that_is_no_plan(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_a_rule_of_an_unknown_kind_or_format_is_refused():
    data = Plan().block(op_types=["Relu"]).to_dict()
    data["rules"][0]["kind"] = "colour"
    with pytest.raises(PlanError, match="colour"):
        Plan.from_json(json.dumps(data))
    with pytest.raises(PlanError, match="bf16"):
        Plan().set({"a": "bf16"})
    with pytest.raises(PlanError, match="no low format"):
        Plan(format="fp32")
    with pytest.raises(PlanError, match="fp16"):
        Plan(format="fp61")


def test_plans_are_immutable():
    plan = Plan().set({"a": "fp32"})
    with pytest.raises(TypeError):
        plan.overrides["b"] = "fp32"
    with pytest.raises(AttributeError):
        plan.keep_io = False
    assert Plan().block(op_types=["Relu"]) != Plan()
    assert plan.set({"a": None}) == Plan()


def test_a_single_string_instead_of_a_list_is_refused():
    with pytest.raises(PlanError, match=r"op_types=\['Softmax'\]"):
        Plan().block(op_types="Softmax")


def test_later_rules_win_and_overrides_win_over_all(loaded):
    plan = Plan().block(op_types=["Relu"]).allow(layers=["*Relu_1"]).set({"/block.0/Relu_1": "fp32"})
    formats = asked(plan, loaded)
    assert formats["/block.0/Relu_1"] == "fp32"
    assert formats["/block.0/Relu_5"] == "fp32"
    plan = plan.set({"/block.0/Relu_1": None})
    assert asked(plan, loaded)["/block.0/Relu_1"] == "fp16"
    again = plan.block(op_types=["Relu"])
    assert asked(again, loaded)["/block.0/Relu_1"] == "fp32", "a rule given again counts as new"
    assert len(again.rules) == len(plan.rules)


def test_scopes_mean_everything_below_and_nothing_beside(loaded):
    blocked = {name for name, wanted in asked(Plan().block(scopes=["block.1"]), loaded).items() if wanted == "fp32"}
    assert blocked == {layer.id for layer in loaded.layers if layer.scope == "block.1"}
    assert len(blocked) == 10
    assert asked(Plan().block(scopes=["block*"]), loaded) == dict.fromkeys(
        (layer.id for layer in loaded.layers), "fp32"
    )


@pytest.mark.parametrize("pattern", ["/block.0/Relu_1", "block.0/Relu_1", "*/Relu_1", "block.0/Relu*", "*Relu_[0-4]"])
def test_layers_are_known_by_id_name_and_scope(loaded, pattern):
    formats = asked(Plan().block(layers=[pattern]), loaded)
    assert formats["/block.0/Relu_1"] == "fp32"
    assert formats["/block.0/Add_0"] == "fp16"


@pytest.mark.parametrize("name", ["layer[1]", "layer?", "l*"])
def test_an_id_means_its_layer_alone_before_it_is_a_pattern(name):
    nodes = [node("Relu", ["x"], ["a"], name), node("Relu", ["a"], ["y"], "layer1")]
    loaded = load_model(model(nodes, [value("x")], [value("y")]))
    assert asked(Plan().block(layers=[name]), loaded) == {name: "fp32", "layer1": "fp16"}


@pytest.mark.parametrize(
    ("plan", "wrong", "nearest"),
    [
        (Plan().block(op_types=["Rellu"]), "operator type 'Rellu'", "'Relu'"),
        (Plan().block(op_types=["MATMUL"]), "operator type 'MATMUL'", "'MatMul'"),
        (Plan().block(layers=["/block.0/Relu_11"]), "layer '/block.0/Relu_11'", "/block.0/Relu_1'"),
        (Plan().block(scopes=["blok.1"]), "scope 'blok.1'", "'block.1'"),
        (Plan().set({"/block.0/Add_00": "fp32"}), "'/block.0/Add_00'", "/block.0/Add_0'"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(loaded, plan, wrong, nearest):
    with pytest.raises(PlanError) as caught:
        plan.check(loaded)
    assert wrong in str(caught.value)
    assert nearest in str(caught.value)


def test_presets(loaded):
    for name in PRESETS:
        Plan.preset(name).check(loaded)
    assert set(asked(Plan.preset("fp32"), loaded).values()) == {"fp32"}
    assert set(asked(Plan.preset("full"), loaded).values()) == {"fp16"}
    with pytest.raises(PlanError, match="safe"):
        Plan.preset("save")


def test_reasons_name_the_rule(loaded):
    wishes = Plan().block(op_types=["Relu"], layers=["*Add_4"], scopes=["block.2"]).wishes(loaded)
    assert "Relu is on the blacklist" in wishes["/block.0/Relu_1"].reason
    assert "*Add_4" in wishes["/block.0/Add_4"].reason
    assert "block.2" in wishes["/block.2/Add_20"].reason
    assert wishes["/block.0/Add_0"].by == "default"


def test_a_decision_knows_when_it_overrules():
    assert Decision("a", "fp32", "no kernel", "fp16").overruled
    assert not Decision("a", "none", "integers", "fp16").overruled
    assert not Decision("a", "fp16", "", "fp16").overruled


def test_a_plan_reads_as_a_sentence():
    text = str(Plan().block(op_types=["Softmax"]).set({"conv": "fp32"}))
    assert text == "fp16 plan: base fp16; I/O kept; operator Softmax in fp32; conv in fp32"
