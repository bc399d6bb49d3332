"""What a report is given of an exploration: its graph shows the same figures as its tables."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from scene_samples import with_graph
from support.graphs import chain, model, node, value, weight

import explorer
from explorer.reporting import graph, report_data
from explorer.scene import decode_frame
from explorer.view.controller import Controller

SAMPLES = Path(__file__).parents[2] / "sample_models"


@pytest.fixture(scope="module")
def told():
    """Returns an exploration of a model that breaks, and what its report shows."""
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")
    x.plan = x.plan.block(op_types=["Conv"])
    data = report_data(x, runs=1)
    return x, data, json.loads(data.scene)


def test_the_graph_has_every_layer_with_the_errors_of_the_table(told):
    x, data, scene = told
    assert scene["structure"]["layers"]["id"] == [layer.id for layer in x.model.layers]
    facts, columns = decode_frame(base64.b64decode(scene["figures"]))
    assert facts["revision"] == facts["errorsRevision"] == scene["state"]["revision"]
    np.testing.assert_allclose(columns["local_rel_l2"], data.errors["local_rel_l2"].to_numpy(np.float32))
    assert facts["errorProvenance"] == x.provenance


def test_each_layer_has_its_details_and_the_histogram_of_its_exact_values(told):
    x, _, scene = told
    assert len(scene["details"]) == len(x.model.layers)
    for number, layer in enumerate(x.model.layers):
        assert scene["details"][number]["name"] == layer.name
    exact = x.histograms()
    assert len(scene["values"]) == len(exact)
    number, first = next((at, layer.id) for at, layer in enumerate(x.model.layers) if layer.id in exact)
    shown = scene["values"][str(number)]
    assert shown["histogram"]["exact"] == list(exact[first].counts)
    assert shown["histogram"]["plan"] is None
    assert shown["provenance"] == x.range_provenance


def test_the_headline_repeats_the_tiles_with_their_provenance(told):
    x, data, scene = told
    headline = scene["state"]["headline"]
    assert headline["output_error"]["value"] == pytest.approx(data.output_error["sqnr_db"].min())
    assert headline["output_error"]["provenance"] == x.provenance
    assert "→" in headline["metric"]["text"]
    assert headline["latency"]["provenance"].startswith("measured")
    assert headline["latency"]["text"].endswith(" in fp32")  # the CPU tells nothing of fp16


def test_the_state_says_what_the_plan_is_and_offers_nothing(told):
    _, data, scene = told
    state = scene["state"]
    assert [op["op"] for op in state["ops"] if op["blocked"]] == ["Conv"]
    assert state["created"] == data.created
    assert (state["devices"], state["undo"], state["redo"], state["calls"]) == ([], 0, 0, [])
    assert [each["title"] for each in state["findings"]] == [each.title for each in data.findings]
    assert sum(each["current"] for each in state["tried"]) == 1


def test_an_output_of_nan_alone_is_not_finite_in_report_and_panel():
    nodes = [
        node("Mul", ["x", "s"], ["a"], "scale"),
        node("Mul", ["a", "a"], ["b"], "square"),
        node("Mul", ["a", "a"], ["b2"], "square2"),
        node("Sub", ["b", "b2"], ["y"], "zero"),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("s", [1e3])])
    x = explorer.open(proto, inputs={"x": np.linspace(1, 2, 8, dtype=np.float32).reshape(2, 4)})
    assert x.output_error()[["sqnr_db", "rel_l2", "max_abs"]].isna().all(axis=None)
    known = {"name": "y", "sqnr_db": "-inf", "rel_l2": "inf", "max_abs": "inf", "overflow": 0, "nan": 8}
    assert json.loads(report_data(x, runs=1).scene)["state"]["outputs"] == [known]
    assert Controller(x, gpu_model="").state["outputs"] == [known]


def test_a_large_model_carries_no_histograms(monkeypatch):
    monkeypatch.setattr(graph, "_MOST_HISTOGRAMS", 3)
    scene = json.loads(report_data(explorer.open(chain(4)), runs=1).scene)
    assert scene["values"] == {}
    assert scene["state"]["random"] is True


def shape_of(scene):
    """Which keys stand where: of the state, of one layer's details and values, of the frame's facts and columns."""
    facts, columns = decode_frame(base64.b64decode(scene["figures"]))
    state = scene["state"]
    return {
        "structure": set(scene["structure"]),
        "state": set(state),
        **{key: set(state[key]) for key in ("headline", "search", "run", "calibration")},
        "formats": set(state["formats"][0]),
        "details": set(scene["details"][0]),
        "values": set(next(iter(scene["values"].values()))),
        "facts": set(facts),
        "columns": set(columns),
    }


def test_the_pages_that_browser_tests_open_have_what_a_real_report_has(told):
    """A key that only one side has leaves the page blank, which is found by a browser alone, and late."""
    _, _, real = told
    assert shape_of(json.loads(with_graph(20).scene)) == shape_of(real)
