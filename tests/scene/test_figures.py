"""Frames hold what the tables hold, column by column; what was not measured is NaN."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scene_graphs import unet
from support.graphs import model, node, value, weight
from test_tree import SAMPLES, if_model

import explorer
from explorer.convert import decide, type_layers
from explorer.model import load_model
from explorer.plan import Plan
from explorer.scene import NEVER, decode_frame, encode_frame, figures
from explorer.scene.wiring import wiring

FIXTURE = Path(__file__).resolve().parents[2] / "js" / "src" / "frame.fixture.json"
COLUMNS = {
    "u1": ("format", "asked", "blacklisted", "switchable", "cast"),
    "u2": ("reason",),
    "f4": ("local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db", "acc_rel_l2", "acc_max_abs",
           "sensitivity_db", "saves_us", "costs", "max_abs", "rms", "fp32_us", "plan_us", "latency_us"),
    "f8": ("overflow", "nan", "subnormal", "flushed", "elements"),
}  # fmt: skip
FACTS = {
    "revision", "errorsRevision", "formats", "reasons", "errorProvenance", "rangeProvenance", "latencyProvenance",
    "latencyStandsIn", "kernels", "firstNonfinite",
}  # fmt: skip


@pytest.fixture(scope="module")
def broken():
    """An exploration of a model whose square overflows, and whose difference of overflows is NaN."""
    nodes = [
        node("Mul", ["x", "s"], ["a"], "scale"),
        node("Mul", ["a", "a"], ["b"], "square"),
        node("Sub", ["b", "b2"], ["c"], "zero"),
        node("Shape", ["a"], ["n"], "shape"),
        node("Div", ["b", "big"], ["y"], "y"),
        node("Mul", ["a", "a"], ["b2"], "square2"),
    ]
    order = [0, 1, 5, 2, 3, 4]
    proto = model(
        [nodes[index] for index in order],
        [value("x")],
        [value("y"), value("c"), value("n", [2], 7)],
        [weight("s", [1e3]), weight("big", [1e6])],
    )
    return explorer.open(proto, inputs={"x": np.linspace(1, 2, 8, dtype=np.float32).reshape(2, 4)})


def test_frame_holds_the_tables(broken):
    x = broken
    errors, ranges, latency = x.errors(), x.ranges(), x.latency(gpu_model="H100")
    facts, columns = decode_frame(
        figures(
            x.model, x.decisions(), errors=errors, ranges=ranges, latency=latency,
            first_nonfinite=x.first_nonfinite(), revision=4, errors_revision=3,
        )
    )  # fmt: skip
    assert set(facts) == FACTS
    assert (facts["revision"], facts["errorsRevision"]) == (4, 3)
    assert facts["errorProvenance"] == x.provenance
    assert facts["rangeProvenance"] == x.range_provenance
    assert "H100" in facts["latencyProvenance"]
    np.testing.assert_array_equal(columns["latency_us"], columns["plan_us"])
    assert {name: column.dtype.str[1:] for name, column in columns.items()} == {
        name: dtype for dtype, names in COLUMNS.items() for name in names
    }
    assert [facts["formats"][at] for at in columns["format"]] == list(errors["format"])
    assert [facts["reasons"][at] for at in columns["reason"]] == list(errors["reason"])
    ids = list(errors["id"])
    assert ids[facts["firstNonfinite"]] == x.first_nonfinite() == "square"
    np.testing.assert_array_equal(columns["max_abs"], ranges["max_abs"].to_numpy(np.float32))
    at = {layer: number for number, layer in enumerate(ids)}
    assert columns["local_sqnr_db"][at["square"]] == -np.inf
    assert columns["acc_sqnr_db"][at["square"]] == columns["acc_sqnr_db"][at["zero"]] == -np.inf, "NaN is no unknown"
    for name in ("local_rel_l2", "local_max_abs", "acc_rel_l2", "acc_max_abs"):
        expected = errors[name].fillna(np.inf).to_numpy(np.float32)
        assert np.isnan(errors[name].iloc[at["zero"]])
        expected[at["shape"]] = np.nan
        np.testing.assert_array_equal(columns[name], expected, err_msg=f"{name}: NaN only where nothing was measured")
    assert np.isnan(columns["local_sqnr_db"][at["shape"]])
    assert np.isnan(columns["elements"][at["shape"]]), "nothing was counted there, which is not zero"
    assert columns["overflow"][at["square"]] == 8
    np.testing.assert_array_equal(columns["plan_us"], latency["fp16_us"].to_numpy(np.float32), err_msg="all run low")
    assert len(columns["cast"]) == len(wiring(x.model).carried)


def test_nothing_measured_is_unknown(broken):
    facts, columns = decode_frame(figures(broken.model, broken.decisions(), revision=7))
    assert facts["errorsRevision"] == NEVER == -1
    assert facts["firstNonfinite"] == -1
    assert facts["errorProvenance"] == facts["rangeProvenance"] == facts["latencyProvenance"] == ""
    for name in (*COLUMNS["f4"], *COLUMNS["f8"]):
        assert np.isnan(columns[name]).all(), name
    for name in ("sensitivity_db", "saves_us", "costs"):
        assert len(columns[name]) == 0


def test_local_errors_without_any_run_of_a_plan(broken):
    errors = broken.errors().drop(columns=["acc_sqnr_db", "acc_rel_l2", "acc_max_abs"])
    _, columns = decode_frame(figures(broken.model, broken.decisions(), errors=errors))
    assert np.isnan(columns["acc_sqnr_db"]).all()
    assert not np.isnan(columns["local_sqnr_db"]).all()


def test_latency_of_the_cpu_says_nothing_of_low_layers(broken):
    latency = broken.latency()
    _, columns = decode_frame(figures(broken.model, broken.decisions(), latency=latency))
    low = columns["format"] == 2
    assert np.isnan(columns["plan_us"][low]).all()
    assert not np.isnan(columns["fp32_us"]).all()


def test_blacklisted_is_what_the_user_asked_for_not_the_base():
    loaded_model = load_model(if_model())
    typing = type_layers(loaded_model, "fp16")

    def blocked(plan: Plan) -> set[str]:
        _, columns = decode_frame(figures(loaded_model, decide(plan, typing)))
        return {layer.id for layer, flag in zip(loaded_model.layers, columns["blacklisted"], strict=True) if flag}

    assert blocked(Plan()) == blocked(Plan.preset("fp32")) == set()
    assert blocked(Plan().block(op_types=["Exp"]).set({"m": "fp32"})) == {"e", "m"}
    assert blocked(Plan.preset("fp32").block(layers=["abs"])) == {"abs"}
    assert blocked(Plan().block(op_types=["Exp"]).set({"e": "fp16"})) == set()


def test_more_reasons_than_the_column_tells_apart(broken, monkeypatch):
    monkeypatch.setattr(sys.modules[figures.__module__], "_MOST_REASONS", 2)
    facts, columns = decode_frame(figures(broken.model, decide(Plan().block(layers=["y"]), broken.decisions().typing)))
    assert len(facts["reasons"]) == 2
    assert columns["reason"].max() == 1
    assert "too many" in facts["reasons"][1]


def test_columns_are_aligned_whatever_the_header():
    for letters in range(9):
        frame = encode_frame({"text": "é" * letters}, {"a": np.uint8([1, 2, 3]), "b": np.float64([np.nan, np.inf])})
        facts, columns = decode_frame(frame)
        assert facts == {"text": "é" * letters}
        assert columns["a"].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(columns["b"], [np.nan, np.inf])
        assert len(frame) % 8 == 0


def test_lone_surrogates_in_a_reason_do_not_break_the_frame():
    facts, _ = decode_frame(encode_frame({"reasons": ["\ud800 <b>"]}, {}))
    assert facts == {"reasons": ["\ud800 <b>"]}


def made_frame() -> dict:
    """A frame and what it holds, for js/src/frame.test.ts."""
    columns = {
        "format": np.uint8([2, 1, 0]),
        "reason": np.uint16([0, 65535, 1]),
        "local_sqnr_db": np.float32([41.5, -np.inf, np.nan]),
        "overflow": np.float64([0, 2.0**40, np.nan]),
        "cast": np.uint8([0, 1, 2, 0, 0]),
        "sensitivity_db": np.float32([]),
        "saves_us": np.float32([1.25, -0.5, np.nan]),
        "costs": np.float32([2.0**-10, 0, np.inf]),
    }
    facts = {"revision": 3, "errorsRevision": -1, "formats": ["none", "fp32", "fp16"], "reasons": ['<b>\n"é" 🙂']}
    return {"frame": base64.b64encode(encode_frame(facts, columns)).decode(), "facts": facts}


def test_the_front_end_is_tested_with_this_frame():
    """js/src/frame.test.ts decodes the committed frame; it is the one that is written here."""
    assert json.loads(FIXTURE.read_text(encoding="utf-8")) == made_frame()


@pytest.mark.slow
def test_ten_thousand_layers_make_a_frame_in_a_moment():
    loaded_model = load_model(unet(31))
    typing = type_layers(loaded_model, "fp16")
    figures(loaded_model, decide(Plan(), typing))
    decisions = decide(Plan().block(op_types=["Softmax"]), typing)
    start = time.thread_time()
    figures(loaded_model, decisions)
    assert time.thread_time() - start < 0.15, "seconds of CPU; measured 0.02 s at 10,699 layers"


def test_real_sample_has_the_first_overflow():
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    facts, columns = decode_frame(
        figures(x.model, x.decisions(), errors=x.errors(), ranges=x.ranges(), first_nonfinite=x.first_nonfinite())
    )
    first = facts["firstNonfinite"]
    assert columns["acc_sqnr_db"][first] == -np.inf
    assert columns["overflow"][first] > 0
