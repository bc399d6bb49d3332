"""The widget without a browser: traits, messages and answers over a comm that keeps what is sent."""

from __future__ import annotations

import json
import subprocess
import sys

import comm
import numpy as np
import onnx
import pandas as pd
import pytest
from comm.base_comm import BaseComm
from support.graphs import model, node, value
from support.protocol import Types
from view_samples import open_sample

import explorer
from explorer.errors import BackendError, InputError
from explorer.plan import Plan
from explorer.scene import decode_frame
from explorer.view.saved import checked_picture

TYPES = Types()
KINDS = {name: parts[0][1] for name, parts in TYPES.known["Requests"][1].items()}  # what goes in, what comes back
LONG_S = 30.0
PNG = "data:image/png;base64,iVBORw0KGgo="


class KeptComm(BaseComm):
    """A comm that keeps its messages."""

    def __init__(self, *args, **kwargs):
        self.sent = []
        super().__init__(*args, **kwargs)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.sent.append((msg_type, data, buffers or []))


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    monkeypatch.setattr(comm, "create_comm", KeptComm)


@pytest.fixture(scope="module")
def measured():
    x = open_sample("lenet5_digits")
    x.errors()
    return x


@pytest.fixture
def x(measured):
    return measured.fork()


@pytest.fixture
def panel(x):
    made = x.panel(gpu_model="A100")
    assert made.wait(LONG_S)
    yield made
    made.close()


def ask(panel, kind, **more):
    """Sends a request as the view does, and returns result and buffers, or the refusal."""
    number = len(panel.comm.sent) + 1000
    content = {"id": number, "kind": kind, **more}
    panel.comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert panel.wait(LONG_S)
    answers = [
        (data["content"], buffers)
        for kind_, data, buffers in panel.comm.sent
        if data and data.get("method") == "custom" and data["content"]["id"] == number
    ]
    assert len(answers) == 1, "one answer to each request"
    answer, buffers = answers[0]
    assert ("result" in answer) != ("error" in answer)
    json.dumps(answer, allow_nan=False)
    if "error" in answer:
        assert set(answer["error"]) == {"what", "why", "fix"}
        return answer["error"]
    TYPES.check(answer["result"], KINDS[kind][1], kind)
    return answer["result"], buffers


def result(panel, kind, **more):
    found = ask(panel, kind, **more)
    assert isinstance(found, tuple), found
    return found[0]


# -- traits ------------------------------------------------------------------------------------------------------------


def test_traits_hold_structure_state_and_figures(panel, x):
    structure = json.loads(panel._structure)
    TYPES.check(structure, "Structure")
    TYPES.check(panel._state, "PanelState")
    facts, columns = decode_frame(panel._figures)
    TYPES.check({**facts, **columns}, "Figures")
    wanted = x.errors()["acc_rel_l2"].to_numpy().astype(np.float32)
    np.testing.assert_array_equal(columns["acc_rel_l2"], wanted)
    assert panel.layout.height == "720px"


def test_a_tick_is_the_last_of_a_consistent_set(panel):
    panel.comm.sent.clear()
    result(panel, "edit", edit={"op": "toggle", "layers": [0]})
    updates = [data["state"] for kind, data, _ in panel.comm.sent if data and data.get("method") == "update"]
    assert updates
    assert all("_tick" in each for each in updates), "the view redraws once for each set"
    first = next(at for at, (_, data, _) in enumerate(panel.comm.sent) if data and data.get("method") == "update")
    answer = next(at for at, (_, data, _) in enumerate(panel.comm.sent) if data and data.get("method") == "custom")
    assert first < answer, "the new state comes before the answer"
    assert panel._state["revision"] == decode_frame(panel._figures)[0]["revision"] == 1


def test_two_panels_stay_in_sync(panel, x):
    other = x.panel()
    try:
        result(other, "edit", edit={"op": "block_ops", "ops": ["Conv"]})
        assert panel._state == other._state
        assert panel._figures == other._figures
        x.plan = Plan.preset("fp32")
        assert panel._state["preset"] == other._state["preset"] == "fp32"
        assert x.panel(gpu_model="L4")._state["gpu"] == panel._state["gpu"] == "L4"
    finally:
        other.close()
    x.plan = Plan()
    assert other._state["preset"] == "fp32", "a closed panel is told nothing"


def test_settings_are_checked(x):
    for height in (10, "720px", None):
        with pytest.raises(InputError):
            x.panel(height=height)
    with pytest.raises(BackendError):
        open_sample("lenet5_digits").panel(gpu_model="abacus")
    assert open_sample("lenet5_digits").panel(gpu_model="")._state["gpu"] == ""


# -- requests ----------------------------------------------------------------------------------------------------------


def test_every_request_of_the_protocol_is_known(panel):
    for kind in KINDS:
        found = ask(panel, kind)
        assert isinstance(found, tuple) or "no request" not in found["what"], kind
    assert "no request" in ask(panel, "explode")["what"]


def test_messages_that_are_no_requests_are_left_alone(panel):
    panel.comm.sent.clear()
    for content in ({}, {"id": "1"}, {"id": True, "kind": 3}, [], None, "x"):
        panel.comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert panel.wait(LONG_S)
    answers = [data["content"] for _, data, _ in panel.comm.sent if data and data.get("method") == "custom"]
    assert all("error" in answer for answer in answers)


def test_an_edit_answers_with_its_call(panel, x):
    layer = x.model.layers[0].id
    assert result(panel, "edit", edit={"op": "toggle", "layers": [0]})["call"] == (
        f"x.plan = x.plan.set({{{layer!r}: 'fp32'}})"
    )
    assert dict(x.plan.overrides) == {layer: "fp32"}
    refused = ask(panel, "edit", edit={"op": "toggle", "layers": [999]})
    assert refused["what"]
    assert refused["fix"]
    assert dict(x.plan.overrides) == {layer: "fp32"}
    assert ask(panel, "edit")["what"]


def test_target_gpu_run_and_cancel(panel, x):
    assert result(panel, "target", name="onnxruntime-cpu")["call"] == "x.target = 'onnxruntime-cpu'"
    assert x.target == "onnxruntime-cpu"
    assert "T4" in result(panel, "gpu", name="T4")["call"]
    assert panel._state["gpu"] == "T4"
    assert result(panel, "run") == result(panel, "cancel") == {}
    assert ask(panel, "target", name="abacus")["what"]
    assert ask(panel, "gpu", name=3)["what"]


def test_details_and_values_of_a_layer(panel, x):
    details = result(panel, "layer", layer=0)
    assert details["layer"] == 0
    found, buffers = ask(panel, "values", layer=0, output=0)
    exact, plan = (np.frombuffer(buffers[found["scatter"][name]["$buffer"]], "<f4") for name in ("exact", "plan"))
    assert len(exact) == len(plan) > 100
    assert np.abs(plan - exact).max() > 0
    assert sum(found["histogram"]["exact"]) + found["histogram"]["exact_zeros"] == found["scatter"]["total"]
    for wrong in ({"layer": 999}, {"layer": -1}, {"layer": "0"}, {}):
        assert ask(panel, "layer", **wrong)["what"]
        assert ask(panel, "values", output=0, **wrong)["what"]
    assert ask(panel, "values", layer=0, output=9)["what"]


def test_plotly_is_the_one_of_the_report(panel):
    assert "plotly" in result(panel, "plotly")["script"][:400]


def test_a_finding_has_a_fix_that_helps():
    x = open_sample("digits_transformer")
    panel = x.panel(gpu_model="")
    assert panel.wait(LONG_S)
    finding = next(each for each in panel._state["findings"] if each["fix"])
    twin = x.fork()
    exec(finding["code"], {"x": twin, "explorer": explorer})
    result(panel, "edit", edit={"op": "fix", "finding": finding["id"]})
    assert x.plan == twin.plan
    assert x.accuracy().plan > 0.9
    assert ask(panel, "edit", edit={"op": "fix", "finding": "nothing"})["fix"]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "name"), [("onnx", "model.onnx"), ("plan", "plan.json"), ("report", "r.html"), ("csv", "layers.csv")]
)
def test_exports(panel, x, tmp_path, monkeypatch, what, name):
    """A path is relative to the folder of the kernel; the answer is absolute, with the call that does the same."""
    monkeypatch.chdir(tmp_path)
    x.plan = x.plan.set({x.model.layers[0].id: "fp32"})
    written = result(panel, "export", what=what, path=name)
    path = tmp_path / name
    assert written["path"] == str(path)
    content = path.read_bytes()
    if what == "onnx":
        onnx.checker.check_model(onnx.load(path), full_check=True)
    elif what == "plan":
        assert Plan.load(path) == x.plan
    elif what == "csv":
        assert list(pd.read_csv(path)["id"]) == [layer.id for layer in x.model.layers]
    refused = ask(panel, "export", what=what, path=name)
    assert "exists" in refused["what"]
    assert path.read_bytes() == content
    path.unlink()
    exec(written["call"], {"x": x, "explorer": explorer})
    if what != "report":  # it tells when it was made
        assert path.read_bytes() == content
    assert result(panel, "export", what=what, path=name, overwrite=True)["path"] == str(path)


def test_exports_that_cannot_be(panel, tmp_path):
    for path in ("", "  ", str(tmp_path), str(tmp_path / "no" / "where.json"), "a\0b"):
        assert ask(panel, "export", what="plan", path=path)["what"]
    assert ask(panel, "export", what="secrets", path=str(tmp_path / "x"))["fix"]
    assert not list(tmp_path.iterdir())


def test_blacklists_of_other_tools(panel, x, tmp_path):
    x.plan = x.plan.set({x.model.layers[0].id: "fp32"})
    tools = result(panel, "tools")["tools"]
    assert len(tools) > 3
    for tool in tools:
        text = result(panel, "blacklist", tool=tool["name"])["text"]
        assert text
        path = tmp_path / tool["name"]
        written = result(panel, "export", what="blacklist", path=str(path), tool=tool["name"])
        assert path.read_text(encoding="utf-8") == text
        path.unlink()
        exec(written["call"], {"x": x})
        assert path.read_text(encoding="utf-8") == text
    assert ask(panel, "blacklist", tool="abacus")["what"]


# -- saved notebooks ---------------------------------------------------------------------------------------------------


def test_a_saved_notebook_holds_figures_and_picture(panel, x):
    page = panel._saved.html()
    assert x.model.name in page
    assert "dB" in page
    assert "img" not in page
    result(panel, "picture", png=PNG)
    assert f'<img src="{PNG}"' in panel._saved.html()


@pytest.mark.parametrize(
    "url",
    [None, 3, "", PNG.replace("png", "svg+xml"), PNG + '" onerror="x', PNG + "\n", PNG[:22] + "A" * 5_000_000],
)
def test_pictures_are_checked(panel, url):
    with pytest.raises(InputError):
        checked_picture(url)
    assert ask(panel, "picture", png=url)["what"]


def test_names_do_not_run_in_a_saved_notebook(tmp_path):
    proto = model([node("Relu", ["x"], ["y"], "<script>alert(1)</script>")], [value("x", [4])], [value("y", [4])])
    path = tmp_path / "<img src=x onerror=alert(1)>.onnx"
    onnx.save(proto, path)
    x = explorer.open(path)
    x.plan = x.plan.set({"<script>alert(1)</script>": "fp32"})
    panel = x.panel()
    page = panel._saved.html()
    assert "<script" not in page
    assert "<img" not in page
    assert panel.wait(LONG_S)


# -- hosts -------------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_the_text(x):
    with pytest.raises(NotImplementedError):
        x._ipython_display_()
    assert repr(x).startswith("Exploration of")


def test_a_notebook_shows_page_and_panel(x, monkeypatch):
    """Two outputs: what a saved notebook shows, and the widget; the same widget when it is shown again."""
    shown = []
    monkeypatch.setattr("explorer.view.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    monkeypatch.setattr("IPython.display.update_display", lambda data, **more: shown.append((data, more)))
    x._ipython_display_()
    x._ipython_display_()
    assert x.shown.wait(LONG_S)
    page, widget, _, again = shown[:4]
    assert "text/html" in page[0]
    assert page[0]["text/plain"] == repr(x)
    assert page[1]["display_id"]
    mime = "application/vnd.jupyter.widget-view+json"
    assert widget[0][mime]["model_id"] == again[0][mime]["model_id"]
    x.plan = Plan.preset("fp32")
    assert x.shown.wait(LONG_S)
    assert shown[-1][1]["display_id"] == page[1]["display_id"]
    assert "exact" in shown[-1][0]["text/html"]
    x.shown.close()
    x._ipython_display_()
    assert shown[-1][0][mime]["model_id"] != widget[0][mime]["model_id"], "a closed panel is not shown again"


def test_without_the_packages_for_notebooks():
    """`x.panel()` says what to install; showing `x` falls back to the text; nothing else is touched."""
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import explorer, explorer.view, onnx\n"
        "from onnx import helper as h\n"
        "v = lambda n: h.make_tensor_value_info(n, 1, [2])\n"
        "m = h.make_model(h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', [v('x')], [v('y')]),"
        " opset_imports=[h.make_opsetid('', 17)], ir_version=8)\n"
        "x = explorer.open(m)\n"
        "assert 'ipywidgets' not in sys.modules\n"
        "try: x.panel()\n"
        "except explorer.ExplorerError as e: print(type(e).__name__, e)\n"
        "explorer.view.in_notebook = lambda: True\n"
        "try: x._ipython_display_()\n"
        "except NotImplementedError: print('text')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("MissingDependency")
    assert "precision-explorer[lab]" in done.stdout
    assert done.stdout.endswith("text\n")
