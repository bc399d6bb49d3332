"""What Python sends is what js/src/protocol.ts says, to the last key: the two cannot drift apart."""

from __future__ import annotations

import json

import pytest
from support.protocol import Types
from view_samples import open_sample

from explorer.scene import decode_frame
from explorer.view.answers import structure_json
from explorer.view.controller import Controller

TYPES = Types()


def test_the_reader_of_types_complains():
    """The check itself finds missing, unknown and wrong members."""
    types = Types('/** A. */\nexport interface A { a: number; b?: "x" | null; c: { d: string }[] } // end')
    types.check({"a": 1, "c": []}, "A")
    types.check({"a": 1.5, "b": "x", "c": [{"d": ""}]}, "A")
    for wrong in ({"c": []}, {"a": 1, "c": [], "e": 1}, {"a": True, "c": []}, {"a": 1, "b": "y", "c": []},
                  {"a": 1, "c": [{"d": 1}]}, {"a": 1, "c": {}}, None):  # fmt: skip
        with pytest.raises(AssertionError):
            types.check(wrong, "A")


@pytest.fixture(scope="module", params=["lenet5_digits", "digits_transformer"])
def controller(request):
    c = Controller(open_sample(request.param), gpu_model="A100")
    c.start()
    assert c.wait(30)
    return c


def held_to_protocol(controller):
    TYPES.check(controller.state, "PanelState", "state")
    json.dumps(controller.state, allow_nan=False)
    facts, columns = decode_frame(controller.figures)
    TYPES.check({**facts, **columns}, "Figures", "figures")


def test_state_and_figures_before_anything_ran():
    controller = Controller(open_sample("lenet5_digits"), gpu_model="")
    held_to_protocol(controller)
    assert controller.state["headline"]["output_error"] is None
    assert controller.state["headline"]["latency"] is None
    assert decode_frame(controller.figures)[0]["errorsRevision"] == -1


def test_state_and_figures_after_a_run(controller):
    held_to_protocol(controller)
    for name in ("output_error", "metric", "casts", "latency"):
        found = controller.state["headline"][name]
        assert found["text"]
        assert found["provenance"]


def test_structure(controller):
    structure = json.loads(structure_json(controller.x))
    TYPES.check(structure, "Structure")
    assert structure["layers"]["id"] == [layer.id for layer in controller.x.model.layers]


def test_state_and_figures_after_edits(controller):
    for edit in ({"op": "toggle", "layers": [1]}, {"op": "block_ops", "ops": [controller.state["ops"][0]["op"]]},
                 {"op": "preset", "name": "safe"}, {"op": "keep_io", "value": False}):  # fmt: skip
        controller.edit(edit)
        held_to_protocol(controller)
    assert controller.wait(30)
    held_to_protocol(controller)
    while controller.state["undo"]:
        controller.edit({"op": "undo"})
    assert controller.wait(30)
    held_to_protocol(controller)
