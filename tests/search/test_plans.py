"""A plan says exactly which layers run low, in few words."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import explorer
from explorer.convert import decide, type_layers
from explorer.model import load_model
from explorer.search.plans import blacklist_only, blocked_layers, plan_with

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODELS = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")


@pytest.fixture(scope="module")
def typings():
    return {name: type_layers(load_model(SAMPLES / f"{name}.onnx"), "fp16", "onnxruntime-cuda") for name in MODELS}


@given(name=st.sampled_from(MODELS), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_exactly_these_layers_run_low(typings, name, seed, share):
    typing = typings[name]
    free = [layer_id for layer_id, may in typing.layers.items() if may.switchable]
    drawn = np.random.default_rng(seed).random(len(free)) < share
    low = {layer_id for layer_id, is_low in zip(free, drawn, strict=True) if is_low}
    plan, made = plan_with(low, explorer.Plan(), typing)
    assert made.low_layers == low
    assert decide(plan, typing).low_layers == low


def test_what_follows_by_itself_is_not_named(typings):
    typing = typings["digits_transformer"]
    free = {layer_id for layer_id, may in typing.layers.items() if may.switchable}
    plan, _ = plan_with(free, explorer.Plan(), typing)
    assert dict(plan.overrides) == {}
    default = decide(explorer.Plan().set({"embed/Add": "fp32"}), typing)
    plan, made = plan_with(default.low_layers, explorer.Plan(), typing)
    assert dict(plan.overrides) == {"embed/Add": "fp32"}
    assert made.low_layers == default.low_layers


def test_the_blacklist_is_kept_and_overrides_are_not(typings):
    typing = typings["lenet5_digits"]
    plan = explorer.Plan(keep_io=False).block(op_types=["Conv"]).set({"Gemm_1": "fp32"})
    assert blacklist_only(plan) == explorer.Plan(keep_io=False).block(op_types=["Conv"])
    ops = {layer.id: layer.op for layer in typing.model.layers}
    assert {ops[layer_id] for layer_id in blocked_layers(plan, typing)} == {"Conv"}
    found, made = plan_with([], plan, typing)
    assert found.rules == plan.rules
    assert not found.keep_io
    assert not made.low_layers


def test_a_plan_of_base_fp32_blocks_nothing(typings):
    assert not blocked_layers(explorer.Plan.preset("fp32"), typings["lenet5_digits"])
