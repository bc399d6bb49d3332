"""The verdicts of the search benchmark, and the page written from its record; nothing is measured here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD, PAGE = ROOT / "benchmarks" / "results" / "search.json", ROOT / "docs" / "benchmarks_search.md"

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """The scripts' own packages, which are not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def plan(tool, error, latency_us, **more):
    return {"tool": tool, "error": error, "latency_us": latency_us, "low": 3, **more}


@pytest.fixture
def model():
    """A model on which another search finds one plan that ours does not match."""
    seconds = {"median": 20.0, "min": 20.0, "max": 20.0, "runs": 1}
    auto = "onnxconverter-common auto_convert_mixed_precision"
    return {
        "settings": {"gpu": "H100", "rows": 4, "batch_size": 4},
        "facts": {
            "layers": 9,
            "switchable": 8,
            "full": plan("", None, 80.0),
            "fp32": plan("", 0.0, 100.0),
            "setup_s": 1.0,
        },
        "peers": [
            plan("ModelOpt AutoCast", 3e-3, 95.0, budget=None, seconds=seconds, weights_changed=2, error_of_plan=None),
            {
                "tool": auto,
                "budget": 1e-3,
                "failure": "it | broke",
                "seconds": seconds,
                "attempts": 40,
                "stopped": True,
            },
        ],
        "rules": [
            plan("greedy by local error", 9e-4, 91.0, budget=1e-3, runs=5, seconds=3.0, stopped=False),
            {"tool": "greedy by local error", "budget": 2e-4, "runs": 9, "seconds": 4.0, "stopped": True},
        ],
        "time": {"seconds": {**seconds, "median": 4.0}, "noise_runs": 17},
        "run": {
            "date": "2026-01-02",
            "source": "0123456789",
            "minutes": 1.0,
            "average_before": 0.1,
            "foreign_cpus": {"median": 0.0, "max": 0.1, "min": 0.0, "runs": 2},
        },
        "ours": {
            "points": [plan("", 0.0, 100.0), plan("", 5e-4, 90.0)],
            "rows": [plan("", 5e-4, 90.0, budget=1e-3), plan("", 0.0, 100.0, budget=2e-4)],
            "at_errors": [],
            "fidelity": {"pairs": [[1e-3, 1.2e-3], [1e-3, 9e-4], [1e-3, 2e-3], [1e-3, None], [0.0, 0.0]], "pinned": 1},
        },
    }


@pytest.fixture
def record(model):
    """A record of a run over one model."""
    return {
        "quick": False,
        "commands": ["python benchmarks/search_against_peers.py"],
        "machine": {"cpu": "a CPU", "threads": 2, "memory_gb": 8.0, "system": "Linux", "python": "3.11.0"},
        "versions": {"ours": {"precision-explorer": "1"}, "peers": {"nvidia-modelopt": "2"}},
        "budgets": [1e-3, 2e-4],
        "rule_limit_s": 30.0,
        "models": {"resnet50": model},
    }


def test_a_front_with_a_plan_as_good_as_each_is_not_beaten(model):
    from search.verdict import dominated  # noqa: PLC0415

    assert dominated(model) == []


def test_a_plan_that_none_of_ours_matches_beats_us(model):
    from search.verdict import dominated, targets  # noqa: PLC0415

    model["rules"].append(plan("clever", 4e-4, 99.0, budget=2e-3))
    assert dominated(model) == ["clever: error 4.00e-04 in 99.0 us"]
    judged = targets({"models": {"resnet50": model}})
    assert [each["met"] for each in judged if "beat" in each["what"]] == [False]


def test_our_answer_within_a_budget_must_be_as_fast_as_theirs(model):
    """A front that has the plan does not help when it answers with a slower one."""
    from search.verdict import dominated  # noqa: PLC0415

    model["ours"]["points"].append(plan("", 5e-4, 85.0))
    model["rules"].append(plan("clever", 5e-4, 85.0, budget=1e-3))
    assert dominated(model) == ["clever within 0.001: 85.0 us"]


def test_a_plan_whose_outputs_are_not_finite_beats_nobody(model):
    from search.verdict import dominated  # noqa: PLC0415

    model["rules"].append(plan("careless", None, 1.0, budget=1e-3))
    model["rules"].append(plan("careless", math.inf, 1.0, budget=1e-3))
    assert dominated(model) == []


def test_a_plan_that_needs_other_weights_is_shown_and_told_apart(model, record):
    from search.page import render  # noqa: PLC0415
    from search.verdict import altered, dominated  # noqa: PLC0415

    model["peers"][0] |= {"error": 4e-4, "latency_us": 85.0}
    assert dominated(model) == []
    assert altered(model) == ["ModelOpt AutoCast: error 4.00e-04 in 85.0 us"]
    page = render(record)
    assert "with changed weights: ModelOpt AutoCast" in page
    assert "beaten, by other weights" in page
    model["peers"][0]["error_of_plan"] = 4e-4  # the change does it no good: it is as good without
    assert dominated(model)[0].startswith("ModelOpt AutoCast")


def test_outputs_worse_than_zeros_are_no_plan(model):
    from search.verdict import dominated  # noqa: PLC0415

    model["rules"].append(plan("blind", 1.0011, 1.0, budget=1e-3))
    assert dominated(model) == []


def test_only_plans_that_no_other_beats_are_compared(model):
    from search.verdict import margins, pareto  # noqa: PLC0415

    rows = [plan("a", 1e-3, 90.0), plan("b", 2e-3, 95.0), plan("c", 1e-4, 99.0), plan("d", 1e-3, 90.0)]
    assert [row["tool"] for row in pareto(rows)] == ["c", "a"]
    assert [(row["tool"], row["ours_us"]) for row in margins(model)] == [("greedy by local error", 90.0)]


def test_the_share_within_the_factor_counts_what_can_be_counted():
    from search.verdict import within  # noqa: PLC0415

    assert within([[1.0, 1.5], [1.5, 1.0], [1.0, 1.6], [1.0, None], [0.0, 0.0], [1.0, math.inf]]) == pytest.approx(
        2 / 3
    )
    assert within([[0.0, 0.0]]) is None


def test_speed_is_judged_by_the_measured_seconds(model):
    from search.verdict import targets  # noqa: PLC0415

    speed = [each for each in targets({"models": {"m": model}}) if "faster" in each["what"]]
    assert [each["met"] for each in speed] == [False]
    assert speed[0]["value"] == ">= 5.0 times (its 40 attempts, stopped)"
    model["peers"][1]["attempts"] = 1
    assert not [each for each in targets({"models": {"m": model}}) if "faster" in each["what"]]


def test_failures_and_broken_budgets_stand_on_the_page(record):
    from search.page import render  # noqa: PLC0415

    page = render(record)
    assert "it \\| broke" in page
    assert "breaks it: 3.0e-03" in page
    assert "| finds none |" in page
    assert "changed 2 weights of the model (its outputs are not finite without that)" in page
    assert "| 67% |" in page


def test_a_search_of_ours_that_fails_is_told(record):
    from search.page import render  # noqa: PLC0415

    record["models"]["resnet50"]["ours"] = {"failure": "it broke"}
    record["models"]["resnet50"]["time"] = {}
    assert "failed: it broke" in render(record)


def test_errors_of_outputs_are_the_worst_and_never_nan():
    from search.judge import worst_error  # noqa: PLC0415
    from search.theirs import error_of  # noqa: PLC0415

    exact, low = [np.ones(4), np.ones(2)], [np.full(4, 1.1), np.array([1.0, 1.0])]
    assert error_of(exact, low) == pytest.approx(0.1)
    assert error_of(exact, [np.full(4, np.nan), np.ones(2)]) == math.inf
    named = [dict(zip("ab", arrays, strict=True)) for arrays in (exact, low)]
    assert worst_error(*named) == pytest.approx(0.1)


@pytest.mark.skipif(not RECORD.exists(), reason="the benchmark has not been run in this checkout")
def test_the_page_is_what_the_record_says():
    from search.page import render  # noqa: PLC0415

    found = json.loads(RECORD.read_text(encoding="utf-8"))
    assert not found["quick"]
    assert PAGE.read_text(encoding="utf-8") == render(found)
    assert str(ROOT) not in json.dumps(found)
