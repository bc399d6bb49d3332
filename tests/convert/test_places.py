"""Casts told from where tensors are made and taken are those that conversion inserts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import BOOL, FLOAT16, INT64, graph, model, node, value, weight
from support.probing import plans_for, random_graphs

from explorer.convert import convert, decide, type_layers
from explorer.convert.places import cast_places
from explorer.model import load_model
from explorer.plan import Plan

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def assert_same_casts(loaded, plan):
    """Returns the places after holding their casts against those of the converted graph."""
    typing = type_layers(loaded, plan.format)
    decisions, places = decide(plan, typing), cast_places(typing)
    low = np.array([layer.id in decisions.low_layers for layer in loaded.layers], bool)
    down, up = places.casts(low, keep_io=plan.keep_io)
    told = {(name, plan.format) for name, cast in zip(places.names, down, strict=True) if cast}
    told |= {(name, "fp32") for name, cast in zip(places.names, up, strict=True) if cast}
    made = convert(loaded, plan, decisions=decisions)
    sources = {name for layer in loaded.layers for name in (*layer.inputs, *layer.outputs)}
    assert sources >= {name for name, _ in told}
    # Conversion renames a tensor whose cast must carry the name of an output; it names casts as it finds tensors.
    renamed = {f"{name}_{word}": name for name in sources for word in ("fp32", plan.format)}
    inserted = {(renamed.get(cast.value, cast.value) if cast.value not in sources else cast.value, cast.to)
                for cast in made.casts}  # fmt: skip
    assert inserted == told
    return places


@settings(deadline=None)
@given(st.data())
def test_random_graphs(data):
    proto = data.draw(random_graphs())
    assert_same_casts(load_model(proto), data.draw(plans_for(proto)))


@pytest.mark.parametrize("name", ["lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn"])
@pytest.mark.parametrize("keep_io", [True, False])
def test_sample_models(name, keep_io):
    loaded = load_model(SAMPLES / f"{name}.onnx")
    random = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.7, 1.0):
        high = {layer.id: "fp32" for layer in loaded.layers if random.random() < share}
        assert_same_casts(loaded, Plan(overrides=high, keep_io=keep_io))


def with_bodies():
    """A low value that a body reads and returns, one made inside of it, a Shape that reads whatever comes."""
    then = graph([node("Exp", ["a"], ["e"], "exp"), node("Neg", ["e"], ["n"], "neg")], [], [value("n")])
    other = graph([node("Identity", ["a"], ["o"], "same")], [], [value("o")])
    return model(
        [
            node("Relu", ["x"], ["a"], "relu"),
            node("Shape", ["a"], ["s"], "shape"),
            node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other),
            node("Tanh", ["y"], ["t"], "tanh"),
        ],
        [value("x"), value("c", [], BOOL)],
        [value("t"), value("s", [2], INT64)],
    )


@pytest.mark.parametrize("keep_io", [True, False])
@pytest.mark.parametrize("high", [(), ("relu",), ("exp", "neg"), ("tanh",), ("relu", "tanh", "exp", "neg", "same")])
def test_bodies(high, keep_io):
    places = assert_same_casts(load_model(with_bodies()), Plan(overrides=dict.fromkeys(high, "fp32"), keep_io=keep_io))
    inner = dict(zip(places.names, places.inner, strict=True))
    assert inner["e"]
    assert inner["n"]
    assert not inner["a"]
    assert not inner["y"]


def test_what_a_low_layer_takes_in_fp32_is_cast_back():
    """Resize keeps its region in fp32; a Shape takes what comes."""
    proto = model(
        [
            node("Relu", ["r"], ["roi"], "regions"),
            node("Relu", ["x"], ["a"], "relu"),
            node(
                "Resize", ["a", "roi", "scales"], ["y"], "resize", coordinate_transformation_mode="tf_crop_and_resize"
            ),
        ],
        [value("x", (1, 1, 4, 4)), value("r", (8,))],
        [value("y", None)],
        [weight("scales", np.float32([1, 1, 2, 2]))],
    )
    loaded = load_model(proto)
    places = assert_same_casts(loaded, Plan())
    low = np.array([True, True, True])
    _, up = places.casts(low, keep_io=True)
    assert {name for name, cast in zip(places.names, up, strict=True) if cast} == {"roi", "y"}
    _, up = places.casts(np.array([False, True, True]), keep_io=True)
    assert "roi" not in {name for name, cast in zip(places.names, up, strict=True) if cast}


def test_a_model_of_fp16_has_nothing_to_cast():
    proto = model([node("Relu", ["x"], ["y"], "relu")], [value("x", dtype=FLOAT16)], [value("y", dtype=FLOAT16)])
    typing = type_layers(load_model(proto), "fp16")
    places = cast_places(typing)
    assert places.names == ()
    assert [each.tolist() for each in places.casts(np.array([False]), keep_io=False)] == [[], []]
