"""Latency predicted under one plan after another: casts as conversion inserts them, and fast."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support.graphs import BOOL, INT64, chain, graph, model, node, value, weight

from explorer.convert import convert, decide, type_layers
from explorer.errors import BackendError
from explorer.measure.latency import GpuPredictions, predict_gpu
from explorer.model import load_model
from explorer.plan import Plan

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
LAYERS = 10_000
MOST_SECONDS = 0.3  # a plan of so many layers; measured 0.05 s on an idle machine


def decisions_of(loaded, plan):
    return decide(plan, type_layers(loaded, plan.format))


def cast_of(result):
    return {(cast.value, cast.target) for cast in result.result.casts}


def test_shape_reads_what_comes_and_casts_nothing():
    proto = model(
        [node("Relu", ["x"], ["a"], "relu"), node("Shape", ["a"], ["s"], "shape"), node("Exp", ["a"], ["y"], "exp")],
        [value("x")],
        [value("y"), value("s", [2], INT64)],
    )
    loaded = load_model(proto)
    assert cast_of(predict_gpu(loaded, {}, decisions_of(loaded, Plan()), "T4")) == {("x", "fp16"), ("y", "fp32")}


def test_what_a_body_reads_is_cast_and_what_is_inside_is_left_out():
    then = graph([node("Exp", ["a"], ["e"], "exp"), node("Neg", ["e"], ["n"], "neg")], [], [value("n")])
    other = graph([node("Identity", ["a"], ["o"], "same")], [], [value("o")])
    proto = model(
        [node("Relu", ["x"], ["a"], "relu"), node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other)],
        [value("x"), value("c", [], BOOL)],
        [value("y")],
    )
    loaded = load_model(proto)
    high_body = Plan(overrides={"exp": "fp32", "neg": "fp32", "same": "fp32"})
    assert cast_of(predict_gpu(loaded, {}, decisions_of(loaded, high_body), "T4")) == {("x", "fp16"), ("a", "fp32")}
    mixed_body = Plan(overrides={"exp": "fp16", "neg": "fp32", "same": "fp16"})
    made = convert(loaded, mixed_body)
    assert any(cast.value == "e" for cast in made.casts)
    assert "e" not in {name for name, _ in cast_of(predict_gpu(loaded, {}, decisions_of(loaded, mixed_body), "T4"))}


def test_an_input_that_stays_fp32_in_a_low_layer_is_cast():
    proto = model(
        [
            node("Relu", ["r"], ["roi"], "regions"),
            node("Resize", ["x", "roi", "s"], ["y"], "resize", coordinate_transformation_mode="tf_crop_and_resize"),
        ],
        [value("x", (1, 1, 4, 4)), value("r", (8,))],
        [value("y", None)],
        [weight("s", np.float32([1, 1, 2, 2]))],
    )
    loaded = load_model(proto)
    found = cast_of(predict_gpu(loaded, {}, decisions_of(loaded, Plan()), "T4"))
    assert found >= {("roi", "fp32"), ("x", "fp16"), ("r", "fp16")}


@pytest.mark.parametrize("keep_io", [True, False])
def test_all_low_is_the_uniform_total(keep_io):
    """Also where only outputs are floats: a model that takes tokens returns fp16 when it may."""
    proto = model(
        [node("Gather", ["table", "tokens"], ["a"], "embed"), node("Relu", ["a"], ["y"], "relu")],
        [value("tokens", [2, 3], INT64)],
        [value("y", [2, 3, 4])],
        [weight("table", np.zeros((9, 4)))],
    )
    loaded = load_model(proto)
    found = predict_gpu(loaded, {}, decisions_of(loaded, Plan(keep_io=keep_io)), "T4").result
    assert found.plan_us == pytest.approx(found.uniform_us["fp16"])
    assert len(found.casts) == int(keep_io)


def test_predictions_of_several_plans_and_gpus_are_those_made_alone():
    loaded = load_model(SAMPLES / "digits_transformer.onnx")
    shapes = {spec.name: tuple(8 if not isinstance(dim, int) else dim for dim in spec.shape) for spec in loaded.inputs}
    together = GpuPredictions(loaded, shapes)
    for target in (None, "onnxruntime-cuda"):
        typing = type_layers(loaded, "fp16", target)
        for plan in (Plan(), Plan.preset("safe"), Plan.preset("fp32", keep_io=False), Plan()):
            decisions = decide(plan, typing)
            for gpu in ("T4", "H100"):
                assert together.predict(decisions, gpu) == predict_gpu(loaded, shapes, decisions, gpu)


def test_an_unknown_gpu_is_refused():
    loaded = load_model(chain(3))
    with pytest.raises(BackendError, match="H1000"):
        GpuPredictions(loaded, {}).predict(decisions_of(loaded, Plan()), "H1000")


def test_a_plan_of_many_layers_is_predicted_fast():
    loaded = load_model(chain(LAYERS))
    typing = type_layers(loaded, "fp16")
    predictions = GpuPredictions(loaded, {})
    predictions.predict(decide(Plan(), typing), "H100")
    random, seconds = np.random.default_rng(0), []
    for share in (0.1, 0.5, 0.3):
        high = {layer.id: "fp32" for layer in loaded.layers if random.random() < share}
        decisions = decide(Plan(overrides=high), typing)
        start = time.perf_counter()
        predictions.predict(decisions, "H100")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < MOST_SECONDS, seconds
