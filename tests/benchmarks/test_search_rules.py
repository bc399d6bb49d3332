"""The other tools' search rules, on judges whose best answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [f"layer{index}" for index in range(13)]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture
def rules(monkeypatch):
    """The rules, which are a script's own package and not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from search import rules  # noqa: PLC0415

    return rules


def additive(noise):
    """A judge whose error is the sum over the layers that are not high; each run takes a second."""
    return lambda high: (sum(value for layer, value in noise.items() if layer not in high), 1.0)


@pytest.mark.parametrize("wanted", range(1, 14))
@pytest.mark.parametrize("forward", [True, False])
def test_bisection_finds_the_smallest_end_where_more_never_harms(rules, wanted, forward):
    ends = LAYERS if forward else LAYERS[::-1]
    needed = frozenset(ends[:wanted])
    asking = rules.Asking(lambda high: (0.0 if needed <= high else 1.0, 0.1), budget=0.5)
    assert rules.bisect(LAYERS, asking, forward=forward) == needed
    assert asking.runs <= 2 + math.ceil(math.log2(len(LAYERS) + 1))


def test_bisection_takes_the_model_that_needs_nothing(rules):
    asking = rules.Asking(additive(dict.fromkeys(LAYERS, 0.01)), budget=1.0)
    assert rules.bisect(LAYERS, asking, forward=True) == frozenset()
    assert asking.runs == 1


def test_bisection_finds_nothing_where_fp32_breaks_the_budget(rules):
    asking = rules.Asking(lambda _: (1.0, 0.1), budget=0.5)
    assert rules.bisect(LAYERS, asking, forward=True) is None


def test_bisection_believes_in_order_and_misses_what_breaks_it(rules):
    """Two layers that cancel each other: no prefix between the first and the last of them holds."""
    asking = rules.Asking(lambda high: (float(("layer2" in high) != ("layer9" in high)), 0.1), budget=0.5)
    assert rules.bisect(LAYERS, asking, forward=True) == frozenset()
    asking = rules.Asking(lambda high: (float(len(high) in (0, 6, 7)), 0.1), budget=0.5)
    assert len(rules.bisect(LAYERS, asking, forward=True)) == 8  # one layer alone would do


def test_halving_lowers_all_but_the_layers_that_break_it(rules):
    noise = dict.fromkeys(LAYERS, 0.0) | {"layer3": 1.0, "layer11": 1.0}
    asking = rules.Asking(additive(noise), budget=0.5)
    assert rules.halve(LAYERS, asking) == {"layer3", "layer11"}
    assert asking.runs < 2 * len(LAYERS)


def test_halving_keeps_the_budget_when_every_layer_takes_a_share(rules):
    asking = rules.Asking(additive(dict.fromkeys(LAYERS, 1.0)), budget=6.5)
    high = rules.halve(LAYERS, asking)
    assert len(LAYERS) - len(high) == 6
    assert asking.holding == high


def test_halving_finds_nothing_where_fp32_breaks_the_budget(rules):
    assert rules.halve(LAYERS, rules.Asking(lambda _: (1.0, 0.1), budget=0.5)) is None


def test_greedy_raises_the_worst_first_and_stops_when_it_holds(rules):
    noise = {layer: float(index) for index, layer in enumerate(LAYERS)}
    order = rules.order_by(noise)
    assert order == LAYERS[::-1]
    asking = rules.Asking(additive(noise), budget=sum(range(11)))
    assert rules.raise_in_order(order, asking) == {"layer12", "layer11"}
    assert asking.runs == 3


def test_greedy_by_steps_takes_whole_steps(rules):
    noise = dict.fromkeys(LAYERS, 1.0)
    assert len(rules.raise_in_order(LAYERS, rules.Asking(additive(noise), budget=8.5), step=4)) == 8
    assert rules.raise_in_order(LAYERS, rules.Asking(additive(noise), budget=0.5), step=4) == frozenset(LAYERS)


def test_what_is_no_number_is_worse_than_all(rules):
    assert rules.order_by({"a": 1.0, "b": math.nan, "c": math.inf})[0] == "b"
    asking = rules.Asking(lambda _: (math.nan, 0.1), budget=math.inf)
    assert not asking.holds(frozenset())


def test_a_search_that_is_stopped_returns_what_it_had(rules):
    noise = dict.fromkeys(LAYERS, 1.0)
    found = rules.searched(lambda asking: rules.halve(LAYERS, asking), rules.Asking(additive(noise), 6.5, limit_s=4.5))
    assert found.stopped
    assert found.runs == 5
    assert found.high is not None
    assert additive(noise)(found.high)[0] <= 6.5
    found = rules.searched(
        lambda asking: rules.raise_in_order(LAYERS, asking), rules.Asking(additive(noise), 0.5, limit_s=4.5)
    )
    assert found.stopped
    assert found.high is None
