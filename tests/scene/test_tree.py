"""The tree of scopes: complete, readable, free of circles, whatever the names and the edges are."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_graphs import assert_tree, groups_of, unet
from support.graphs import BOOL, INT64, chain, graph, model, node, value, weight

from explorer.model import load_model
from explorer.scene import structure

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SHIPPED = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
GENERATED = ("resnet50", "unet_3000", pytest.param("bert_base", marks=pytest.mark.slow))  # the last has 0.4 GB
MOST_SECONDS = 0.9  # of CPU, for 10,000 layers; measured 0.12


def loaded(name: str):
    path = SAMPLES / f"{name}.onnx" if name in SHIPPED else SAMPLES / "generated" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not generated: python sample_models/make.py")
    return load_model(path)


def nameless(name: str):
    """The sample without names and without what the exporter tells of scopes."""
    proto = loaded(name).proto()
    for each in proto.graph.node:
        each.name = ""
        del each.metadata_props[:]
    return load_model(proto)


def labels(made: dict, number: int = 0) -> list[str]:
    groups = groups_of(made)
    return [groups[child]["label"] for child in groups[number]["groups"]]


@pytest.mark.parametrize("name", [*SHIPPED, *GENERATED])
def test_samples_have_readable_trees(name):
    assert_tree(structure(loaded(name)))


@pytest.mark.parametrize("name", [*SHIPPED, *GENERATED])
def test_samples_without_names_have_readable_trees(name):
    made = structure(nameless(name))
    assert_tree(made)
    assert {group["kind"] for group in groups_of(made)[1:]} <= {"segment"}


def test_resnet_without_names_is_cut_into_its_blocks():
    """The stem, sixteen bottlenecks of which four have a projection, and the head with the last of them."""
    made = structure(nameless("resnet50"))
    sizes = [len(group["layers"]) for group in groups_of(made)[1:]]
    assert sizes == [3, 8, 7, 7, 8, 7, 7, 7, 8, 7, 7, 7, 7, 7, 8, 7, 10]
    assert labels(made)[1] == "2 · Conv → Relu (8 layers)"


@pytest.mark.slow
def test_transformer_without_names_is_cut_into_attention_and_mlp():
    """The mask that every block takes stays alive all along, and separates nothing."""
    sizes = [len(group["layers"]) for group in groups_of(structure(nameless("bert_base")))[1:]]
    assert sizes == [10, *[23, 11] * 11, 23, 14]


def test_unet_without_names_is_cut_into_its_units():
    """Skip connections keep tensors alive from one end to the other: 45 units of about 66 layers all the same."""
    made = structure(nameless("unet_3000"))
    found = labels(made)
    assert len(found) == 45
    assert sum("(65 layers)" in label or "(67 layers)" in label for label in found) >= 36


def test_transformer_follows_its_modules():
    made = structure(loaded("digits_transformer"))
    assert labels(made) == ["embed", "blocks.0", "blocks.1", "norm"]
    groups = groups_of(made)
    block = next(number for number, group in enumerate(groups) if group["path"] == "blocks.0")
    assert set(labels(made, block)) == {"norm1", "attention", "norm2", "mlp"} & set(labels(made, block))
    assert {"norm1", "attention"} <= set(labels(made, block))


def in_scopes(*scopes: str):
    """A chain with one layer in each scope."""
    names = ["x", *(f"v{index}" for index in range(len(scopes)))]
    nodes = [node("Relu", [names[i]], [names[i + 1]], f"{scope}/Relu_{i}") for i, scope in enumerate(scopes)]
    return structure(load_model(model(nodes, [value("x")], [value(names[-1])])))


def test_chain_of_single_children_is_one_group():
    made = in_scopes("a/b/c", "a/b/c", "d", "e")
    assert labels(made) == ["a/b/c"]
    assert made["groups"]["path"] == ["", "a/b/c"]
    assert made["layers"]["group"] == [1, 1, 0, 0], "a scope of one layer is no group"


def test_what_all_share_is_not_a_level():
    made = in_scopes("net/a", "net/a", "net/b", "net/b")
    assert labels(made) == ["a", "b"]
    assert made["groups"]["path"] == ["", "net/a", "net/b"]


def test_scope_that_is_entered_again_is_drawn_as_parts():
    made = in_scopes("act", "act", "conv", "act", "act", "head", "head")
    assert labels(made) == ["act · part 1", "act · part 2", "head"]
    assert made["groups"]["path"] == ["", "act", "act", "head"]
    assert_tree(made)


def test_module_that_is_called_twice_for_one_layer_is_no_group():
    made = in_scopes("conv1", "act", "conv2", "act", "head")
    assert labels(made) == []


def test_branches_of_one_scope_stay_one_group():
    """Two branches whose layers take turns in the execution order: neither feeds itself."""
    nodes = [
        node("Relu", [f"{side}{index}" if index else "x"], [f"{side}{index + 1}"], f"{side}/R{index}")
        for index in range(4)
        for side in "ab"
    ]
    nodes.append(node("Add", ["a4", "b4"], ["y"], "Add"))
    made = structure(load_model(model(nodes, [value("x")], [value("y")])))
    assert labels(made) == ["a", "b"]


def test_layer_that_lost_its_scope_is_drawn_among_its_neighbours():
    made = in_scopes("a", "a", "", "a", "b", "b")
    assert labels(made) == ["a", "b"]
    assert made["layers"]["group"][2] == made["layers"]["group"][0]


def test_layer_between_two_scopes_stays_outside():
    made = in_scopes("a", "a", "", "b", "b")
    assert made["layers"]["group"][2] == 0


def test_long_chain_is_cut_evenly():
    made = structure(load_model(chain(1000)))  # scopes of ten: a hundred children
    assert_tree(made)
    made = structure(load_model(chain(70, ops=("Relu",))))
    assert_tree(made)


def if_model(condition_scope: str = ""):
    """An If whose branches take a value from outside, one of them with a Loop inside."""
    then = graph([node("Mul", ["a", "w"], ["t0"], "m"), node("Exp", ["t0"], ["t1"], "e")], [], [value("t1")], name="t")
    other = graph([node("Sqrt", ["a"], ["o1"], "s")], [], [value("o1")], name="o")
    nodes = [
        node("Abs", ["x"], ["a"], f"{condition_scope}abs"),
        node("If", ["c"], ["i"], f"{condition_scope}if", then_branch=then, else_branch=other),
        node("Relu", ["i"], ["y"], f"{condition_scope}relu"),
    ]
    return model(nodes, [value("x"), value("c", [], BOOL)], [value("y")], [weight("w", [2.0])])


def test_bodies_are_groups_beside_their_layer():
    made = structure(load_model(if_model()))
    assert set(labels(made)) == {"If · then branch", "If · else branch"}
    ids, groups = made["layers"]["id"], made["layers"]["group"]
    where = dict(zip(ids, groups, strict=True))
    container = dict(zip(ids, made["layers"]["container"], strict=True))
    assert where["abs"] == where["if"] == where["relu"] == 0
    assert where["m"] == where["e"] != where["s"]
    assert container["m"] == container["s"] == ids.index("if")
    assert container["if"] == -1
    edges = {
        (ids[source], ids[target])
        for source, target in zip(made["edges"]["from"], made["edges"]["to"], strict=True)
        if source < len(ids) and target < len(ids)
    }
    assert edges == {("abs", "m"), ("abs", "s"), ("m", "e"), ("if", "relu")}
    assert_tree(made)


def test_bodies_inside_of_bodies():
    """A Loop of a hundred layers in a branch: its group hangs in the branch's, and is cut like any other."""
    steps = [node("Relu", [f"r{i}" if i else "s"], [f"r{i + 1}"], f"deep/r{i}") for i in range(100)]
    keep = node("Identity", ["more"], ["more_out"], "keep")
    body = graph(
        [keep, *steps],
        [value("i", [], INT64), value("more", [], BOOL), value("s")],
        [value("more_out", [], BOOL), value("r100")],
        name="b",
    )
    loop = node("Loop", ["n", "", "a"], ["l"], "loop", body=body)
    then = graph([loop], [], [value("l")], name="t")
    other = graph([node("Exp", ["a"], ["e"], "e")], [], [value("e")], name="o")
    nodes = [node("Abs", ["x"], ["a"], "abs"), node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other)]
    proto = model(nodes, [value("x"), value("c", [], BOOL)], [value("y")], [weight("n", np.int64(3))])
    made = structure(load_model(proto))
    assert_tree(made)
    assert set(labels(made)) == {"If · then branch", "If · else branch"}
    groups = groups_of(made)
    branch = next(number for number, group in enumerate(groups) if group["label"] == "If · then branch")
    assert labels(made, branch) == ["Loop · body"]
    loop_body = next(number for number, group in enumerate(groups) if group["label"] == "Loop · body")
    assert "deep" in {groups[child]["label"] for child in groups[loop_body]["groups"]}
    deep = next(group for group in groups if group["label"] == "deep")
    assert len(deep["groups"]) == 10
    assert not deep["layers"]


def test_model_without_layers():
    made = structure(load_model(model([], [value("x")], [value("x")])))
    assert made["layers"]["id"] == []
    assert made["groups"]["parent"] == [-1]
    assert (made["edges"]["from"], made["edges"]["to"]) == ([0], [1])


@pytest.mark.parametrize("scoped", [True, False])
def test_unet_of_a_thousand_layers(scoped):
    made = structure(load_model(unet(3, scoped=scoped)))
    assert_tree(made)
    if scoped:
        assert labels(made) == ["time", "down.0", "down.1", "down.2", "up.0", "up.1", "up.2"]


@pytest.mark.slow
@pytest.mark.parametrize("scoped", [True, False])
def test_ten_thousand_layers_in_a_moment(scoped):
    loaded_model = load_model(unet(31, scoped=scoped))
    assert len(loaded_model.layers) > 10_000
    assert loaded_model.types
    assert loaded_model.digest
    start = time.thread_time()
    made = structure(loaded_model)
    assert time.thread_time() - start < MOST_SECONDS
    assert_tree(made)


@pytest.mark.slow
def test_ten_thousand_layers_in_tangled_scopes():
    """Scopes that take turns at every layer, which no module tree gives, cost no more than seconds."""
    made = in_scopes(*(f"s{index % 97}/t{index % 7}" for index in range(10_000)))
    assert_tree(made)


def test_scopes_as_deep_as_names_can_say():
    assert_tree(in_scopes(*("/".join("a" * depth) for depth in range(1, 1200, 8))))


_PARTS = st.lists(st.sampled_from(["a", "b", "c", "<img src=x>", "é\n", "0"]), max_size=4).map("/".join)


@st.composite
def random_graphs(draw):
    """Layers in any scopes, each fed by any two values before it."""
    count = draw(st.integers(1, 40)) * draw(st.sampled_from([1, 1, 4]))
    scopes = draw(st.lists(_PARTS, min_size=1, max_size=12))
    random = draw(st.randoms(use_true_random=False))
    values, nodes = ["x"], []
    for index in range(count):
        near = values[-draw(st.sampled_from([1, 3, 1000])) :]
        takes = [random.choice(near), random.choice(values)]
        nodes.append(node("Add", takes, [f"v{index}"], f"{random.choice(scopes)}/n{index}"))
        values.append(f"v{index}")
    return model(nodes, [value("x")], [value(values[-1])])


@settings(max_examples=150, deadline=None)
@given(random_graphs())
def test_any_graph_has_a_readable_tree(proto):
    assert_tree(structure(load_model(proto)))
