"""A cancelled measurement leaves an emulator that measures as if nothing had been."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.graphs import model, node, value, weight
from support.probing import Bench, entries

from explorer.backends.runtime import Cancel, RunCancelled

WIDTH = 192


def uncounted(found):
    """Without the counts of what is lost, which are there only if local errors were measured first."""
    return {
        name: {key: number for key, number in sums.items() if key not in ("nan", "infinite")}
        for name, sums in found.items()
    }


CALLS = {
    "ranges": lambda bench: entries(bench.emulator.ranges()),
    "local": lambda bench: entries(bench.emulator.local()),
    "accumulated": lambda bench: uncounted(entries(bench.accumulated())),
    "values": lambda bench: bench.emulator.values(bench.decisions(), "mm1").plan,
    "histograms": lambda bench: bench.emulator.histograms(),
}
BATCHES = 6


def chain(batches=BATCHES) -> Bench:
    """A mask of minus infinity, so that ranges and local errors both need a second pass."""
    rng = np.random.default_rng(0)
    nodes = [node("Add", ["x", "m"], ["a"], "mask"), node("Softmax", ["a"], ["v0"], "soft", axis=1)]
    nodes += [node("MatMul", [f"v{i}", "w"], [f"v{i + 1}"], f"mm{i}") for i in range(4)]
    nodes += [node("Mul", ["v4", "big"], ["y"], "overflow")]
    mask = np.where(np.arange(WIDTH) % 7, 0, -np.inf).astype(np.float32)
    weights = [
        weight("m", mask),
        weight("w", rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)),
        weight("big", np.float32([1e7])),
    ]
    proto = model(nodes, [value("x", ["n", WIDTH])], [value("y", ["n", WIDTH])], weights)
    return Bench.of(proto, {"x": rng.standard_normal((batches, WIDTH)).astype(np.float32)}, batch_size=1)


@pytest.fixture(scope="module")
def wanted():
    return {name: call(chain()) for name, call in CALLS.items()}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", [1, 3, BATCHES, BATCHES + 1, 2 * BATCHES + 2])
def test_a_cancelled_measurement_can_be_made_again(name, after, wanted):
    """Cancelled after any number of batches, of whatever pass; a new token, and all results are what they were."""
    bench = chain()
    told = []

    def tell(stage, done, _count):
        told.append((stage, done))
        if len(told) == after:
            bench.emulator.cancel.cancel()

    bench.emulator._runs._progress = tell
    try:
        CALLS[name](bench)
        stopped = False
    except RunCancelled:
        stopped = True
    bench.emulator._runs._progress = lambda *_: None
    assert stopped or len(told) <= after, "it ran on"
    assert len(told) <= after + 2, "what was in the making may end; nothing new begins"
    if stopped:
        with pytest.raises(RunCancelled):  # the token stays as it is
            CALLS[name](bench)
    bench.emulator.cancel = Cancel()
    for each, call in CALLS.items():
        assert_equal(call(bench), wanted[each])


def assert_equal(found, expected):
    """Equal, NaN to NaN; which batch ends first does not matter, as sums are merged in order."""
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("stage", ["ranges", "local", "switchable", "exact", "pickable"])
def test_cancelled_while_it_compiles(monkeypatch, stage, wanted):
    """The compile that is cancelled leaves nothing half made."""
    from explorer.probe import emulator as module  # noqa: PLC0415

    bench = chain()
    weave = {"switchable": "weave_switchable", "pickable": "weave_switchable"}.get(stage, f"weave_{stage}")
    real = getattr(module, weave)

    def woven(*args, **settings):
        if stage != "pickable" or settings["pickable"]:
            bench.emulator.cancel.cancel()
        return real(*args, **settings)

    if stage == "pickable":
        bench.accumulated()
    monkeypatch.setattr(module, weave, woven)
    name = {"switchable": "accumulated", "exact": "accumulated", "pickable": "values"}.get(stage, stage)
    with pytest.raises(RunCancelled):
        CALLS[name](bench)
    monkeypatch.setattr(module, weave, real)
    bench.emulator.cancel = Cancel()
    for each, call in CALLS.items():
        assert_equal(call(bench), wanted[each])


def test_a_newer_run_takes_over(wanted):
    """The panel's way: cancel the token, set a new one and ask at once, while the older run still unwinds."""
    bench = chain()
    bench.accumulated()
    for _ in range(20):
        old = bench.emulator.cancel = Cancel()
        begun, ended = threading.Event(), []
        bench.emulator._runs._progress = lambda *_, begun=begun: begun.set()

        def older(ended=ended):
            try:
                bench.accumulated()
                ended.append("done")
            except RunCancelled:
                ended.append("cancelled")

        thread = threading.Thread(target=older)
        thread.start()
        begun.wait(10)
        old.cancel()
        bench.emulator.cancel = Cancel()
        assert_equal(CALLS["accumulated"](bench), wanted["accumulated"])
        thread.join(10)
        assert ended in (["cancelled"], ["done"])


def test_a_new_token_does_not_free_what_runs_under_the_old_one():
    """Setting a new token is no pardon: what began with the old one stops all the same."""
    bench = chain()
    old = bench.emulator.cancel
    told = []

    def tell(*_):
        told.append(1)
        bench.emulator.cancel = Cancel()
        old.cancel()

    bench.emulator._runs._progress = tell
    with pytest.raises(RunCancelled):
        bench.emulator.local()
    assert len(told) <= 2


def test_a_waiting_measurement_can_be_cancelled():
    """Cancelled while another runs: it stops as its turn comes, without a run."""
    bench = chain()
    first, second = bench.emulator.cancel, Cancel()
    go_on = threading.Event()
    begun = threading.Event()

    def tell(*_):
        begun.set()
        go_on.wait(10)

    bench.emulator._runs._progress = tell
    thread = threading.Thread(target=bench.emulator.ranges)
    thread.start()
    begun.wait(10)
    bench.emulator.cancel = second
    found = []

    def waiter():
        try:
            bench.emulator.local()
        except RunCancelled:
            found.append("cancelled")

    waiting = threading.Thread(target=waiter)
    waiting.start()
    second.cancel()
    go_on.set()
    thread.join(10)
    waiting.join(10)
    assert found == ["cancelled"]
    assert not first.cancelled
    assert bench.emulator._ranges is not None
    assert bench.emulator._local is None
