"""The search of the panel: it runs beside what follows clicks, its front is shown as it comes, plans are taken."""

from __future__ import annotations

import functools
import gc
import threading
import time

import numpy as np
import pytest
from support.protocol import Types
from view_samples import ends_in_time, open_sample

from explorer.errors import InputError
from explorer.plan import Plan
from explorer.scene import FrontColumns, decode_frame
from explorer.session import Exploration
from explorer.view.controller import Controller
from explorer.view.requests import Desk

TYPES = Types()
LONG_S = 60.0
COLUMNS = ("sensitivity_db", "saves_us", "costs")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path_factory.mktemp("noise")))
        yield


@functools.cache
def searched(name="digits_transformer"):
    """Returns an exploration with a front: as many low layers as an error allows."""
    x = open_sample(name)
    x.errors()
    x.search(gpu_model="")
    return x


@pytest.fixture
def x():
    return open_sample("digits_transformer")


@pytest.fixture
def c():
    """A controller with a front, whose figures are current; results are shared by the tests, plans are not."""
    x = searched().fork()
    made = Controller(x, gpu_model="")
    made.start()
    assert made.wait(LONG_S)
    return made


def ask(c, kind, **more):
    """Returns the answer to a request and its buffers, or the refusal."""
    answers = []
    Desk(c).answer({"id": 1, "kind": kind, **more}, lambda message, buffers: answers.append((message, buffers)))
    assert c.wait(LONG_S)
    ((message, buffers),) = answers
    if "error" in message:
        return message["error"]
    TYPES.check(message["result"], TYPES.known["Requests"][1][kind][0][1][1], kind)
    return message["result"], buffers


def result(c, kind, **more):
    found = ask(c, kind, **more)
    assert isinstance(found, tuple), found
    return found[0]


def worst(x):
    """Returns the relative error of the worst output, as Python measures it."""
    return float(x.output_error()["rel_l2"].max())


def low_of(c, frame=None):
    facts, columns = decode_frame(frame or c.figures)
    return columns["format"] == facts["formats"].index(c.x.plan.format)


# -- the search --------------------------------------------------------------------------------------------------------


def test_a_search_shows_what_it_finds_while_clicks_go_on(x):
    c, seen = Controller(x, gpu_model=""), []
    c.start()
    assert c.wait(LONG_S)
    c.listen(lambda state, _: seen.append((time.monotonic(), state)))
    assert result(c, "search") == {"call": "front = x.search(gpu_model='')"}
    assert c.state["search"]["state"] == "running"
    while len(c.state["search"]["points"]) < 2:
        assert c.state["search"]["state"] == "running", "fronts come while it searches"
        time.sleep(0.01)
    c.edit({"op": "toggle", "layers": [3]})
    assert c.wait(LONG_S)
    assert c.state["search"]["state"] == "running", "a click does not wait for the search"
    assert decode_frame(c.figures)[0]["errorsRevision"] == c.state["revision"] == 1
    assert c.searching.wait(LONG_S)
    found = c.state["search"]
    assert found["state"] == "done"
    assert len(found["points"]) > 5
    assert all(point["error"] is not None for point in found["points"]), "every plan of the front was run"
    assert found["budget"]["low"] < found["budget"]["high"]
    assert found["error_provenance"].startswith("emulated")
    assert found["summary"]
    assert found["stale"] == "", "single overrides are the search's to choose"
    assert c.x.front is x.results.front
    for _, state in seen:
        TYPES.check(state, "PanelState", "state")
    stages = list(dict.fromkeys(state["search"]["stage"] for _, state in seen if state["search"]["stage"]))
    assert stages == ["noise of each tensor", "plans of the front"]
    held_to_protocol(c)


def held_to_protocol(c):
    TYPES.check(c.state, "PanelState", "state")
    facts, columns = decode_frame(c.figures)
    TYPES.check({**facts, **columns}, "Figures", "figures")


def test_progress_is_told_ten_times_a_second_at_most(x, monkeypatch):
    c, told = Controller(x, gpu_model=""), []

    def chatty(_, *, progress, **more):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            progress("noise of each tensor", 1, 10, 2.5)

    monkeypatch.setattr(Exploration, "search", chatty)
    c.listen(lambda state, _: told.append(state["search"]))
    c.searching.start()
    assert c.searching.wait(LONG_S)
    heard = [each for each in told if each["stage"]]
    assert 2 <= len(heard) <= 6
    assert (heard[0]["done"], heard[0]["total"], heard[0]["seconds_left"]) == (1, 10, 2.5)


def test_cancel_and_go_on(x):
    c = Controller(x, gpu_model="")
    result(c, "search")
    while not c.state["search"]["points"]:
        time.sleep(0.01)
    result(c, "stop_search")
    assert c.state["search"]["state"] == "cancelled"
    assert c.searching.wait(LONG_S)
    assert c.state["search"]["state"] == "cancelled"
    assert c.state["search"]["points"], "what was found stays"
    result(c, "search")
    result(c, "stop_search")
    result(c, "search")
    assert c.state["search"]["state"] == "running"
    assert c.searching.wait(LONG_S)
    assert c.state["search"]["state"] == "done"


def test_a_second_search_for_the_same_is_the_first(x, monkeypatch):
    runs, go = [], threading.Event()

    def slow(_, **more):
        runs.append(more["gpu_model"])
        go.wait(LONG_S)

    monkeypatch.setattr(Exploration, "search", slow)
    c = Controller(x, gpu_model="A100")
    calls = [c.searching.start(), c.searching.start()]
    go.set()
    assert c.searching.wait(LONG_S)
    assert runs == [c.gpu_model]
    assert calls == [f"front = x.search(gpu_model={c.gpu_model!r})"] * 2
    assert c.state["calls"] == calls[:1]


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (
            InputError("No output can be compared.", fix="Cut the model."),
            "No output can be compared.",
            "Cut the model.",
        ),
        (ZeroDivisionError("zero"), "ZeroDivisionError: zero", "Please report it"),
    ],
)
def test_a_search_that_fails_says_why_in_words(x, monkeypatch, error, what, fix):
    def fail(_, **more):
        raise error

    c = Controller(x, gpu_model="")
    monkeypatch.setattr(Exploration, "search", fail)
    c.searching.start()
    assert c.searching.wait(LONG_S)
    assert c.state["search"]["state"] == "failed"
    assert c.state["search"]["error"]["what"] == what
    assert fix in c.state["search"]["error"]["fix"]
    held_to_protocol(c)
    monkeypatch.setattr(Exploration, "search", lambda _, **more: None)
    c.searching.start()
    assert c.state["search"]["error"] is None
    assert c.searching.wait(LONG_S)


def test_a_front_that_a_cell_finds_is_shown_too(x):
    c = Controller(x, gpu_model="")
    assert c.state["search"]["points"] == []
    assert c.state["search"]["budget"] is None
    front = x.search(gpu_model="")
    assert c.wait(LONG_S)
    assert c.state["search"]["state"] == "done"
    assert [point["error"] for point in c.state["search"]["points"]] == [point.error for point in front.points]
    later = Controller(x, gpu_model="")
    assert later.wait(LONG_S)
    assert later.state["search"]["points"] == c.state["search"]["points"]
    assert later.state["search"]["state"] == "done"


def test_fronts_are_shown_only_where_a_panel_lives(x):
    """Results outlive the forks that share them, and must not keep their panels."""
    watchers = len(x.results._front_watchers)
    Controller(x.fork(), gpu_model="")
    gc.collect()
    x.results.front = searched().front
    assert len(x.results._front_watchers) == watchers


@pytest.mark.parametrize("moment", [0.6, 1.0])
def test_the_interpreter_ends_while_a_search_is_under_way(moment, monkeypatch, tmp_path):
    """Whatever the search is at: a thread inside the runtime must not bring the process down."""
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))
    assert ends_in_time(f"c.searching.start(); time.sleep({moment})", "search")


# -- plans of the front ------------------------------------------------------------------------------------------------


def budgets(c, count):
    found = c.state["search"]["budget"]
    return np.geomspace(found["low"], found["high"], count).tolist()


def test_a_drag_of_fifty_budgets_changes_nothing_and_takes_no_time(c):
    desk, told, shares = Desk(c), [], []
    c.listen(lambda state, _: told.append(state))
    del told[:]
    wanted = budgets(c, 50)
    start = time.thread_time()  # others share the machine
    for budget in wanted:
        desk.answer({"id": 1, "kind": "budget", "error": budget}, lambda *answer: shares.append(answer))
    assert len(shares) == 50, "answered at once"
    assert time.thread_time() - start < 5, "measured 1 s"
    assert told == []
    assert c.x.plan == Plan()
    formats = decode_frame(c.figures)[1]["format"]
    for budget, (message, (buffer,)) in zip(wanted, shares, strict=True):
        found = message["result"]
        TYPES.check(found, "BudgetPreview")
        assert found["predicted_error"] <= budget * (1 + 1e-9)
        preview = np.frombuffer(buffer, np.uint8)
        assert len(preview) == len(formats)
        np.testing.assert_array_equal(preview == 0, formats == 0, err_msg="layers without a format have none")
        np.testing.assert_array_equal(preview == 2, c.x.front.preview(budget).low)
    share = [message["result"]["low_share"] for message, _ in shares]
    assert share[0] < share[-1]


def test_a_plan_that_is_taken_keeps_its_budget_and_is_an_edit_like_any(c):
    budget = budgets(c, 5)[3]
    call = result(c, "take", error=budget)["call"]
    assert call == f"x.plan = x.front.best(max_error={budget!r})" == c.state["calls"][-1]
    assert decode_frame(c.figures)[0]["errorsRevision"] == c.state["revision"]
    assert 0 < worst(c.x) <= budget
    assert c.state["search"]["chosen"] == budget
    assert [point["current"] for point in c.state["search"]["points"]].count(True) == 1
    current = next(point for point in c.state["search"]["points"] if point["current"])
    assert current["error"] == pytest.approx(worst(c.x), rel=1e-6)
    assert current["low"] == low_of(c).sum()
    assert (c.state["undo"], c.state["redo"]) == (1, 0)
    code: dict = {}
    exec(c.state["code"].replace("x.errors()", ""), code)
    assert code["x"].plan == c.x.plan
    taken = c.x.plan
    c.edit({"op": "undo"})
    assert c.x.plan == Plan()
    assert c.state["search"]["chosen"] is None
    assert c.state["search"]["stale"] == ""
    c.edit({"op": "redo"})
    assert c.x.plan == taken
    assert c.state["search"]["chosen"] == budget, "and the budget is known again"
    c.edit({"op": "toggle", "layers": [int(np.flatnonzero(low_of(c))[0])]})
    assert c.state["search"]["chosen"] is None
    c.wait(LONG_S)


def test_a_blacklist_stays(c):
    shared = c.x.front
    c.edit({"op": "block_ops", "ops": ["Softmax"]})
    result(c, "search")
    assert c.searching.wait(LONG_S)
    budget = budgets(c, 3)[2]
    result(c, "take", error=budget)
    assert c.x.plan.rules == Plan().block(op_types=["Softmax"]).rules
    assert worst(c.x) <= budget
    c.x.results.front = shared


def test_a_point_of_the_front_is_taken(c):
    points = c.state["search"]["points"]
    at = len(points) // 2
    result(c, "take", point=at)
    assert c.state["search"]["points"][at]["current"]
    assert c.state["search"]["chosen"] == points[at]["error"]
    assert worst(c.x) == pytest.approx(points[at]["error"], rel=1e-6)
    twin = c.x.fork()
    exec(c.state["calls"][-1], {"x": twin})
    assert twin.plan == c.x.plan
    for wrong in (99, -1, "0", None, True):
        assert "no plan number" in ask(c, "take", point=wrong)["what"]


@pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf"), "1e-3", None, True])
def test_what_is_no_budget_is_refused_in_words(c, budget):
    for kind in ("budget", "take"):
        refused = ask(c, kind, error=budget)
        assert refused["what"]
        assert refused["fix"]
    assert c.x.plan == Plan()


def test_nothing_is_taken_where_there_is_no_front(x):
    c = Controller(x, gpu_model="")
    for kind in ("budget", "take"):
        assert ask(c, kind, error=1e-3)["what"] == "There is no front yet."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"op": "format", "name": "bf16"}, "the format is bf16 now"),
        ({"op": "keep_io", "value": False}, "keep-I/O changed"),
        ({"op": "block_ops", "ops": ["Softmax"]}, "the blacklist changed"),
    ],
)
def test_a_front_that_does_not_fit_says_so(c, change, words):
    c.edit(change)
    assert c.state["search"]["stale"] == words
    plan = c.x.plan
    for kind in ("budget", "take"):
        assert words in ask(c, kind, error=1e-3)["what"]
    assert c.x.plan == plan
    held_to_protocol(c)
    c.edit({"op": "undo"})
    assert c.state["search"]["stale"] == ""


def test_backend_and_device_make_a_front_stale_too(c):
    c.set_target("onnxruntime-cpu")
    assert c.state["search"]["stale"] == "the backend changed"
    assert not c.state["search"]["points"][0]["current"]
    c.edit({"op": "undo"})
    c.set_gpu("H100")
    assert c.state["search"]["stale"]
    c.set_gpu("this CPU")
    assert c.state["search"]["stale"] == ""
    c.cancel()


def test_only_the_last_of_several_wishes_is_set(c, monkeypatch):
    """A slider that is let go again and again: what was wished for before stops at once."""
    front, begun, stopped = c.searching.shown.front, threading.Event(), []
    best = front.best

    def slow(*, max_error, cancel):
        if max_error == 1e-5:
            begun.set()
            while not cancel.cancelled:
                time.sleep(0.002)
            stopped.append(max_error)
            cancel.check()
        return best(max_error=max_error, cancel=cancel)

    monkeypatch.setattr(front, "best", slow)
    answers, desk, last = [], Desk(c), budgets(c, 3)[1]
    desk.answer({"id": 1, "kind": "take", "error": 1e-5}, lambda message, _: answers.append(message))
    assert begun.wait(LONG_S)
    desk.answer({"id": 2, "kind": "take", "error": last}, lambda message, _: answers.append(message))
    assert c.wait(LONG_S)
    assert stopped == [1e-5]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["result"]["call"] == "x.plan", "which is so already"
    assert c.state["search"]["chosen"] == last
    assert c.state["undo"] == 1


@pytest.mark.parametrize("how", ["edit", "cancel", "cell"])
def test_an_edit_while_a_plan_is_being_found_is_what_counts(c, monkeypatch, how):
    begun = threading.Event()

    def endless(*, max_error, cancel):
        begun.set()
        while True:
            time.sleep(0.002)
            cancel.check()

    monkeypatch.setattr(c.searching.shown.front, "best", endless)
    answers = []
    Desk(c).answer({"id": 1, "kind": "take", "error": 1e-3}, lambda message, _: answers.append(message))
    assert begun.wait(LONG_S)
    assert c.state["run"]["state"] == "running", "it can be seen, and stopped"
    assert "within the budget" in c.state["run"]["stage"]
    if how == "edit":
        c.edit({"op": "toggle", "layers": [3]})
    elif how == "cell":
        c.x.plan = c.x.plan.block(op_types=["Softmax"])
    else:
        c.cancel()
    plan = c.x.plan
    assert c.wait(LONG_S)
    assert "not set" in answers[0]["error"]["what"]
    assert c.x.plan == plan
    assert c.state["search"]["chosen"] is None
    assert c.state["run"]["state"] == "idle"


# -- what if -----------------------------------------------------------------------------------------------------------


def test_a_trial_tells_both_sides_and_sets_nothing(c):
    softmax = next(at for at, layer in enumerate(c.x.model.layers) if layer.op == "Softmax")
    tried = len(c.state["tried"])
    found = result(c, "trial", edit={"op": "preset", "name": "fp32"})
    assert found["before"]["error"] == pytest.approx(worst(c.x)) or found["before"]["error"] == "inf"
    assert found["after"]["error"] == 0
    assert found["after"]["latency_us"] is None
    assert "emulated" in found["text"]
    result(c, "trial", edit={"op": "toggle", "layers": [softmax]})
    assert c.x.plan == Plan()
    assert len(c.x.tried) == tried
    fix = next(each for each in c.state["findings"] if each["fix"])
    result(c, "trial", edit={"op": "fix", "finding": fix["id"]})
    assert c.x.plan == Plan()
    for wrong in (None, {"op": "explode"}, {"op": "toggle", "layers": [999]}, {"op": "fix", "finding": "none"}):
        assert ask(c, "trial", edit=wrong)["what"]


def test_a_trial_tells_latency_where_a_gpu_is_chosen(x):
    c = Controller(x, gpu_model="A100")
    found = result(c, "trial", edit={"op": "preset", "name": "fp32"})
    assert found["before"]["latency_us"] != found["after"]["latency_us"] > 0
    assert "predicted" in found["text"]


# -- columns -----------------------------------------------------------------------------------------------------------


def columns(c):
    return {name: decode_frame(c.figures)[1][name] for name in COLUMNS}


def test_columns_are_those_of_the_front_under_the_plan(c):
    for edit in (None, {"op": "preset", "name": "fp32"}, {"op": "toggle", "layers": [3]}):
        if edit:
            c.edit(edit)
        found, front = columns(c), c.x.front
        wanted = front.explain(c.x.decisions())
        np.testing.assert_array_equal(found["costs"], wanted.costs.astype(np.float32))
        np.testing.assert_array_equal(found["sensitivity_db"], front.sensitivity_db.astype(np.float32))
        assert len(found["saves_us"]) == 0, "layers are counted here, and those are no microseconds"
    c.wait(LONG_S)


def test_columns_tell_microseconds_of_the_device_that_is_shown():
    x = open_sample("lenet5_digits")
    front = x.search(gpu_model="A100")
    c = Controller(x, gpu_model="A100")
    assert c.wait(LONG_S)
    np.testing.assert_array_equal(columns(c)["saves_us"], front.explain(x.decisions()).saves_us.astype(np.float32))
    c.set_gpu("T4")
    assert len(columns(c)["saves_us"]) == 0
    assert len(columns(c)["costs"]) == len(x.model.layers)
    c.wait(LONG_S)


@pytest.mark.parametrize(
    ("change", "left"),
    [({"op": "format", "name": "bf16"}, ()), ({"op": "keep_io", "value": False}, ("sensitivity_db",))],
)
def test_columns_that_tell_nothing_of_what_is_set_are_empty(c, change, left):
    c.edit(change)
    assert tuple(name for name, column in columns(c).items() if len(column)) == left
    c.edit({"op": "undo"})
    assert len(columns(c)["costs"])
    c.wait(LONG_S)


def test_a_click_does_not_wait_for_columns_that_take_long(c, monkeypatch):
    of, may_end, begun = FrontColumns.of, threading.Event(), []

    def slow(*args):
        begun.append(args)
        if len(begun) == 1:
            time.sleep(0.3)  # what a click finds out not to wait for
        else:
            assert may_end.wait(LONG_S)
        return of(*args)

    monkeypatch.setattr("explorer.view.searching.FrontColumns.of", slow)
    c.searching.looker.request()
    assert c.wait(LONG_S)
    before = columns(c)["costs"]
    c.edit({"op": "preset", "name": "fp32"})
    np.testing.assert_array_equal(columns(c)["costs"], before)
    may_end.set()
    assert c.wait(LONG_S)
    wanted = c.x.front.explain(c.x.decisions()).costs
    np.testing.assert_array_equal(columns(c)["costs"], wanted.astype(np.float32))
    assert not np.array_equal(before, columns(c)["costs"])
