"""The controller from outside: figures are what Python computes, history, runs that are cancelled, panels in sync."""

from __future__ import annotations

import functools
import threading
import time

import numpy as np
import pytest
from support.graphs import model, node, value
from view_samples import ends_in_time, open_sample

import explorer
from explorer.convert import DEFAULT_TARGET
from explorer.errors import BackendError, ExplorerError, PlanError
from explorer.plan import Plan
from explorer.scene import decode_frame
from explorer.view.controller import Controller
from explorer.view.runner import Desk, Runner

ERRORS = ("local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db", "acc_rel_l2", "acc_max_abs")
LONG_S = 30.0


@functools.cache
def untouched(plan=None, target=DEFAULT_TARGET):
    """Returns an exploration that no panel ever touched, with the results of one plan."""
    x = open_sample("digits_transformer", plan=plan, target=target)
    x.errors()
    return x


@pytest.fixture
def x():
    return open_sample("digits_transformer")


@pytest.fixture
def c():
    """A controller whose first plan was measured already; what it measures is shared by the tests, plans are not."""
    made = Controller(measured().fork(), gpu_model="A100")
    made.start()
    assert made.wait(LONG_S)
    return made


@functools.cache
def measured():
    return open_sample("digits_transformer")


def columns(c):
    return decode_frame(c.figures)[1]


def facts(c):
    return decode_frame(c.figures)[0]


def same_as_python(c):
    """Holds the frame to the tables of a fresh exploration, to the last bit of float32."""
    fresh = untouched(c.x.plan, c.x.target)
    table, found = fresh.errors(), columns(c)
    for name in ERRORS:
        with np.errstate(over="ignore"):
            wanted = table[name].to_numpy().astype(np.float32)
        known = ~np.isnan(wanted)
        np.testing.assert_array_equal(found[name][known], wanted[known], err_msg=name)
    assert facts(c)["errorsRevision"] == facts(c)["revision"] == c.state["revision"]
    assert facts(c)["firstNonfinite"] == (
        -1 if fresh.first_nonfinite() is None else list(table["id"]).index(fresh.first_nonfinite())
    )
    assert c.state["outputs"][0]["rel_l2"] == fresh.output_error()["rel_l2"].iloc[0]
    assert c.state["headline"]["metric"]["value"] == fresh.accuracy().plan


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_panel_paints_before_anything_runs(x):
    c = Controller(x, gpu_model="")
    assert facts(c)["errorsRevision"] == -1
    assert np.isnan(columns(c)["acc_sqnr_db"]).all()
    assert (columns(c)["format"] > 0).any()
    assert c.state["run"]["state"] == "idle"


def test_figures_are_what_python_computes(c):
    same_as_python(c)
    table = c.x.latency(gpu_model="A100")
    np.testing.assert_array_equal(columns(c)["fp32_us"], table["fp32_us"].to_numpy().astype(np.float32))
    assert facts(c)["latencyProvenance"].startswith("predicted")


def test_results_are_published_one_after_the_other(x):
    c, seen = Controller(x, gpu_model=""), []

    def listen(_, figures):
        if figures:
            found = decode_frame(figures)[1]
            seen.append(
                tuple(bool(np.isfinite(found[name]).any()) for name in ("max_abs", "local_rel_l2", "acc_rel_l2"))
            )

    c.listen(listen)
    c.start()
    assert c.wait(LONG_S)
    ordered = list(dict.fromkeys(seen))
    assert ordered == [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]


def test_figures_follow_edits_and_stale_ones_say_so(c):
    before = columns(c)["acc_sqnr_db"]
    edit = {"op": "block", "layers": [at for at, layer in enumerate(c.x.model.layers) if "norm" in layer.id]}
    c.edit(edit)
    now = facts(c)
    assert now["revision"] == c.state["revision"] == 1
    assert now["errorsRevision"] == 0, "the errors on screen are of the plan before, and say so"
    np.testing.assert_array_equal(columns(c)["acc_sqnr_db"], before)
    assert c.state["run"]["state"] == "running"
    assert c.wait(LONG_S)
    same_as_python(c)
    assert c.state["run"]["state"] == "idle"
    assert c.state["run"]["seconds"] > 0


@pytest.mark.parametrize("edit", [{"op": "format", "name": "bf16"}, {"op": "keep_io", "value": False}])
def test_other_formats_and_io(c, edit):
    c.edit(edit)
    assert c.wait(LONG_S)
    same_as_python(c)


def test_another_target(c):
    assert c.set_target("onnxruntime-cpu") == "x.target = 'onnxruntime-cpu'"
    assert c.state["target"] == "onnxruntime-cpu"
    assert c.wait(LONG_S)
    same_as_python(c)
    assert c.set_target("") == "x.target = None"
    assert c.state["target"] == ""
    with pytest.raises(ExplorerError):
        c.set_target("abacus")
    assert c.x.target is None


def test_another_gpu(c):
    assert "H200" in c.set_gpu("h200")
    assert c.wait(LONG_S)
    assert "H200" in c.state["headline"]["latency"]["provenance"]
    assert all("H200" in each["latency_provenance"] for each in c.state["tried"])
    c.set_gpu("")
    assert c.state["headline"]["latency"] is None
    assert c.state["tried"][0]["latency_us"] is None
    with pytest.raises(BackendError):
        c.set_gpu("abacus")


def test_latency_measured_here(c):
    """On this CPU the fp32 model is measured; nothing is said of the low format, and shares are of what is known."""
    assert c.set_gpu("this CPU") == "x.latency()"
    assert c.wait(LONG_S)
    headline = c.state["headline"]["latency"]
    assert headline["text"].endswith(" in fp32")
    assert headline["provenance"].startswith("measured")
    assert facts(c)["latencyProvenance"].startswith("measured")
    table = c.x.latency()
    shown = columns(c)
    np.testing.assert_array_equal(shown["latency_us"], table.fp32_us.to_numpy(np.float32))
    assert np.isnan(shown["plan_us"]).all()  # every layer runs low, and this CPU has no fp16 arithmetic
    assert c.state["tried"][0]["latency_us"] is None
    c.set_gpu("H100")
    assert c.wait(LONG_S)
    assert facts(c)["latencyProvenance"].startswith("predicted")


def test_headline_says_what_is_so(c):
    headline = c.state["headline"]
    assert headline["metric"]["text"].replace("\xa0", " ") == "98.9 % → 9.7 %"
    assert headline["casts"]["value"] == len(c.x.convert().casts)
    assert headline["low_share"]["value"] == 1.0
    assert headline["output_error"]["provenance"].startswith("emulated")
    assert c.state["ops"][0]["count"] == max(each["count"] for each in c.state["ops"])
    c.edit({"op": "block_ops", "ops": ["Softmax"]})
    assert [each["low"] for each in c.state["ops"] if each["blocked"]] == [0]


# -- history -----------------------------------------------------------------------------------------------------------


def test_undo_and_redo_without_end(c):
    plans = [c.x.plan]
    for layer in range(1, 13):
        c.edit({"op": "toggle", "layers": [layer]})
        plans.append(c.x.plan)
    for plan in reversed(plans[:-1]):
        c.edit({"op": "undo"})
        assert c.x.plan == plan
    with pytest.raises(PlanError, match="nothing to undo"):
        c.edit({"op": "undo"})
    assert (c.state["undo"], c.state["redo"]) == (0, 12)
    for plan in plans[1:]:
        c.edit({"op": "redo"})
        assert c.x.plan == plan
    c.edit({"op": "undo"})
    c.edit({"op": "preset", "name": "fp32"})
    assert c.state["redo"] == 0, "a new edit ends what could be done again"
    c.wait(LONG_S)


def test_a_step_back_needs_no_run(c):
    c.edit({"op": "toggle", "layers": [3]})
    assert c.wait(LONG_S)
    c.edit({"op": "undo"})
    assert facts(c)["errorsRevision"] == facts(c)["revision"] == 2
    assert c.state["run"]["state"] == "idle"
    assert c.wait(LONG_S)
    assert c.state["run"]["seconds"] is None, "what was known took no run, and no milliseconds of one"
    same_as_python(c)


def test_plans_tried_can_be_gone_back_to(x):
    c = Controller(x, gpu_model="A100")
    c.start()
    assert c.wait(LONG_S)
    c.edit({"op": "preset", "name": "fp32"})
    assert c.wait(LONG_S)
    c.set_target("")
    assert c.wait(LONG_S)
    tried = c.state["tried"]
    assert [each["label"] for each in tried[:2]] == ["full fp16", "fp32"]
    assert tried[1]["sqnr_db"] == "inf"
    assert [each["current"] for each in tried] == [False, False, True]
    assert tried[0]["casts"] == 2
    assert tried[0]["latency_us"] > 0
    assert c.edit({"op": "goto", "tried": 0}) == "x.change(explorer.Plan(), 'onnxruntime-cuda')"
    assert (c.x.plan, c.x.target) == (Plan(), "onnxruntime-cuda")
    assert c.x.tried[1].plan == Plan.preset("fp32")
    for wrong in (99, -1, "0", None):
        with pytest.raises(PlanError):
            c.edit({"op": "goto", "tried": wrong})


def test_calls_reproduce_the_state(c):
    for edit in (
        {"op": "toggle", "layers": [3, 4]},
        {"op": "block_ops", "ops": ["Softmax"]},
        {"op": "undo"},
        {"op": "redo"},
        {"op": "preset", "name": "safe"},
        {"op": "block_scope", "path": "blocks.0"},
    ):
        c.edit(edit)
    c.set_target("")
    twin = open_sample("digits_transformer")
    for call in c.state["calls"]:
        exec(call, {"x": twin, "explorer": explorer})
    assert (twin.plan, twin.target) == (c.x.plan, c.x.target)
    code: dict = {}
    exec(c.state["code"].replace("x.errors()", ""), code)
    assert (code["x"].plan, code["x"].target) == (c.x.plan, c.x.target)


# -- the notebook ------------------------------------------------------------------------------------------------------


def test_a_plan_that_a_cell_sets_reaches_every_panel(c):
    told = []
    c.listen(lambda state, figures: told.append((state["revision"], figures is not None)))
    c.x.plan = c.x.plan.block(op_types=["Softmax"])
    assert told[-1] == (1, True)
    assert c.state["undo"] == 1
    c.edit({"op": "undo"})
    assert c.x.plan == Plan()
    c.x.plan = Plan()
    assert c.state["revision"] == 2, "the same plan again is no change"


def test_errors_asked_in_a_cell_while_a_run_is_under_way(x):
    c = Controller(x, gpu_model="")
    c.start()
    for layer in range(3, 8):
        c.edit({"op": "toggle", "layers": [layer]})
        table = x.errors()
        assert (table["format"] == "fp32").sum() == layer - 2
    assert c.wait(LONG_S)
    same_as_python(c)


def test_explorations_share_nothing_but_results(x):
    fork = x.fork()
    fork.plan = Plan.preset("fp32")
    assert x.plan == Plan()
    assert fork.output_error()["rel_l2"].eq(0).all()
    assert len(x.tried) == 1


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_newer_edit_cancels_the_run(x, monkeypatch):
    c, begun, stopped = Controller(x, gpu_model=""), threading.Event(), []
    errors = x.results.errors

    def slow(plan, target):
        if dict(plan.overrides) and len(plan.overrides) < 2:
            begun.set()
            token = x.results._run[0]
            while not token.cancelled:
                time.sleep(0.002)
            stopped.append(plan)
            token.check()
        return errors(plan, target)

    c.start()
    assert c.wait(LONG_S)
    monkeypatch.setattr(x.results, "errors", slow)
    c.edit({"op": "toggle", "layers": [3]})
    assert begun.wait(LONG_S)
    c.edit({"op": "toggle", "layers": [4]})
    assert c.wait(LONG_S)
    assert len(stopped) == 1
    assert c.state["run"]["state"] == "idle"
    same_as_python(c)


def test_cancel_and_run_again(x, monkeypatch):
    c, begun = Controller(x, gpu_model=""), threading.Event()
    ranges = x.results.ranges

    def endless(*key):
        begun.set()
        while not x.results._run[0].cancelled:
            time.sleep(0.002)
        x.results._run[0].check()
        return ranges(*key)

    monkeypatch.setattr(x.results, "ranges", endless)
    c.start()
    assert begun.wait(LONG_S)
    c.cancel()
    assert c.wait(LONG_S)
    assert c.state["run"]["state"] == "cancelled"
    assert facts(c)["errorsRevision"] == -1
    monkeypatch.undo()
    c.start()
    assert c.wait(LONG_S)
    same_as_python(c)


def test_a_run_that_fails_says_why_and_the_panel_lives_on(x, monkeypatch):
    c = Controller(x, gpu_model="")
    monkeypatch.setattr(x.results, "ranges", lambda *_: 1 / 0)
    c.start()
    assert c.wait(LONG_S)
    assert c.state["run"]["state"] == "failed"
    assert "ZeroDivisionError" in c.state["run"]["error"]["what"]
    monkeypatch.undo()
    c.edit({"op": "toggle", "layers": [3]})
    assert c.wait(LONG_S)
    assert c.state["run"]["error"] is None
    same_as_python(c)


def test_a_model_that_does_not_run_says_so():
    nodes = [node("Reshape", ["x", "s"], ["y"], "bad")]
    x = explorer.open(
        model(nodes, [value("x", [2, 3]), value("s", [1], 7)], [value("y", ["n"])]),
        inputs={"x": np.ones((2, 3), np.float32), "s": np.array([5])},
        batch_size=2,
    )
    c = Controller(x, gpu_model="")
    c.start()
    assert c.wait(LONG_S)
    assert c.state["run"]["state"] == "failed"
    assert "does not run in fp32" in c.state["run"]["error"]["what"]


def test_a_burst_of_requests_is_one_run():
    runs = []
    runner = Runner(lambda token: runs.append(token.cancelled), quiet_s=0.03)
    for _ in range(10):
        runner.request()
    assert runner.wait(5)
    assert runs == [False]
    assert not [each for each in threading.enumerate() if each.name == "precision-explorer"], "no thread stays"


def test_the_desk_works_in_order():
    desk, done = Desk(), []
    for number in range(20):
        desk.put(lambda number=number: done.append(number))
    assert desk.wait(5)
    assert done == list(range(20))


def test_values_do_not_wait_for_a_long_run(x, monkeypatch):
    """A long run gives way once, and then is not disturbed again until it could end."""
    c, begun, may_end = Controller(x, gpu_model=""), [], threading.Event()
    local = x.results.local

    def slow(*key):
        if x.results.known_figures(x.plan, x.target)[1] is not None:
            return local(*key)
        begun.append(key)
        while not x.results._run[0].cancelled and not may_end.is_set():
            time.sleep(0.002)
        x.results._run[0].check()
        return local(*key)

    monkeypatch.setattr(x.results, "local", slow)
    c.start()
    while not begun:
        time.sleep(0.002)
    with c.way(patience_s=0.01):
        assert c.state["run"]["state"] == "running", "it will go on"
        assert x.ranges() is not None
    while len(begun) < 2:
        time.sleep(0.002)
    with c.way(patience_s=0.01):
        pass
    may_end.set()
    assert c.wait(LONG_S)
    assert len(begun) == 2
    same_as_python(c)


def test_the_interpreter_ends_while_a_run_is_under_way():
    assert ends_in_time("c.start(); time.sleep(0.4)", "run")
