"""Engines built for the panel: emulated figures wait for no build, a newer plan stops it, and the bar tells of both."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
from support.tensorrt_here import LONG_S, Here
from view_samples import open_sample

from explorer.backends.runtime import RunCancelled
from explorer.scene import decode_frame
from explorer.view.controller import Controller
from explorer.view.devices import THIS_CPU
from explorer.view.runner import Runner

CONV, FC = 0, 7


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))
    yield Here(monkeypatch, "11.4.0")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture
def c():
    made = Controller(open_sample("lenet5_digits"), gpu_model="")
    made.start()
    assert made.wait(LONG_S)
    return made


class Seen:
    """What a panel is told, and a way to wait for it."""

    def __init__(self, c):
        self.c, self.states, self._came = c, [], threading.Condition()
        c.listen(self.told)

    def told(self, state, _figures):
        with self._came:
            self.states.append(state)
            self._came.notify_all()

    def until(self, holds):
        with self._came:
            assert self._came.wait_for(lambda: holds(self.states[-1]), LONG_S), self.states[-1]["run"]
        return self.states[-1]


@pytest.fixture
def seen(c):
    return Seen(c)


def current(c):
    """Tells whether the errors on screen are of the plan that is set."""
    facts, _ = decode_frame(c.figures)
    return facts["errorsRevision"] == facts["revision"] == c.revision


def measured(c):
    return c.x.results.latencies.known_measured(c.x.plan, c.x.target, "tensorrt")


def test_a_toggle_during_a_build_has_its_emulated_figures_while_the_build_goes_on(here, c, seen):
    held = here.held()
    c.set_gpu("tensorrt")
    older = held.wait(0)
    before = c.x.plan
    c.edit({"op": "toggle", "layers": [CONV]})
    seen.until(lambda state: state["revision"] == c.revision and current(c))
    assert not older.is_set(), "the builder is still in its step"
    assert c.state["headline"]["latency"] is None or "until the plan is measured" in str(c.state["headline"]["latency"])
    older.set()
    held.wait(1).set()
    assert c.wait(LONG_S)
    assert c.x.results.latencies.known_measured(before, c.x.target, "tensorrt") is None, "the older build was cancelled"
    assert c.state["measured"]["whole_us"] == measured(c).result.whole_us
    assert c.state["run"]["state"] == "idle"


def test_a_cell_has_its_errors_during_a_build(here, c):
    held = here.held()
    c.set_gpu("tensorrt")
    may_go = held.wait(0)
    fork = c.x.fork()
    fork.plan = fork.plan.block(op_types=["MaxPool"])
    assert not fork.errors().empty
    assert not may_go.is_set()
    with c.way(patience_s=0.01):
        assert c.timing.run.state == "running", "a build stops for no look at values"
    may_go.set()
    assert c.wait(LONG_S)
    assert here.builds == 1
    assert measured(c) is not None


def test_the_bar_tells_of_the_emulation_and_then_of_the_build(here, c, seen):
    held = here.held()
    c.set_gpu("tensorrt")
    older = held.wait(0)
    assert c.state["run"]["state"] == "running"
    c.edit({"op": "toggle", "layers": [CONV]})
    seen.until(lambda state: current(c))
    older.set()
    held.wait(1).set()
    seen.until(lambda state: state["run"]["stage"] in ("Building", "Timing tactics", "time the engine"))
    assert c.wait(LONG_S)
    states = [each["run"] for each in seen.states if each["revision"] == c.revision]
    kinds = [each["state"] for each in states]
    assert kinds == ["running"] * (len(kinds) - kinds.count("idle")) + ["idle"] * kinds.count("idle")
    assert c.state["run"]["error"] is None


def test_a_build_can_be_cancelled_and_begun_again(here, c, seen):
    held = here.held()
    c.set_gpu("tensorrt")
    first = held.wait(0)
    c.cancel()
    assert c.state["run"]["state"] == "cancelled"
    first.set()
    assert c.wait(LONG_S)
    assert c.state["run"]["state"] == "cancelled"
    assert measured(c) is None
    assert current(c), "the errors are there all the same"
    c.start()
    held.wait(1).set()
    assert c.wait(LONG_S)
    assert measured(c) is not None
    assert c.state["run"]["state"] == "idle"


def test_another_run_of_the_same_plan_leaves_its_build_alone(here, c):
    held = here.held()
    c.set_gpu("tensorrt")
    may_go = held.wait(0)
    c.start()
    assert c._runner.wait(LONG_S)
    assert c.state["run"]["state"] == "running"
    may_go.set()
    assert c.wait(LONG_S)
    assert here.builds == 1


def test_another_device_stops_a_build(here, c):
    held = here.held()
    c.set_gpu("tensorrt")
    may_go = held.wait(0)
    c.set_gpu("A100")
    assert c._runner.wait(LONG_S)
    assert c.state["run"]["state"] == "idle"
    assert c.state["headline"]["latency"]["provenance"].startswith("predicted")
    may_go.set()
    assert c.wait(LONG_S)
    assert measured(c) is None


def test_a_build_that_fails_is_told_as_why_and_one_that_breaks_as_a_failure(here, c, monkeypatch):
    here.fake.faults["build"] = "no tactic fits"
    c.set_gpu("tensorrt")
    assert c.wait(LONG_S)
    assert "no tactic fits" in c.state["measured"]["refused"]
    assert c.state["run"]["state"] == "idle"
    monkeypatch.setattr(c.x.results.latencies, "measure", lambda *_, **__: 1 / 0)
    c.start()
    assert c.wait(LONG_S)
    assert c.state["run"]["state"] == "failed"
    assert "ZeroDivisionError" in c.state["run"]["error"]["what"]
    c.edit({"op": "toggle", "layers": [FC]})
    assert c.state["run"]["state"] == "running"
    assert c.wait(LONG_S)


def test_what_stands_aside_and_is_cancelled_meanwhile_stays_stopped():
    begun = []

    def work(token):
        begun.append(token)
        started.set()
        while not token.cancelled:
            time.sleep(0.002)

    started, runner = threading.Event(), Runner(work, quiet_s=0)
    runner.request()
    assert started.wait(LONG_S)
    with runner.aside(patience_s=0):
        assert runner.wanted
        runner.cancel()
        assert not runner.wanted
    assert runner.wait(LONG_S)
    assert len(begun) == 1


def test_what_is_timed_on_this_cpu_stops_for_a_look_at_values_and_begins_again(c, monkeypatch):
    """Nothing else may run beside it: its times would be of two things."""
    begun, may_end, results = [], threading.Event(), c.x.results
    came = threading.Condition()

    def cpu(**_):
        with results.running() as (token, _):
            with came:
                begun.append(token)
                came.notify_all()
            while not token.cancelled and not may_end.wait(0.002):
                pass
        token.check()
        monkeypatch.undo()
        return results.latencies.cpu()

    monkeypatch.setattr(results.latencies, "cpu", cpu)
    c.set_gpu(THIS_CPU)
    with came:
        assert came.wait_for(lambda: begun, LONG_S)
    with c.way(patience_s=0.01), results.turn(type(begun[0])()):
        assert c.state["run"]["state"] == "running", "it will go on"
    may_end.set()
    assert c.wait(LONG_S)
    assert len(begun) == 2
    assert begun[0].cancelled
    assert c.state["run"]["state"] == "idle"
    assert c.state["headline"]["latency"]["provenance"].startswith("measured")
    with pytest.raises(RunCancelled):
        begun[0].check()
