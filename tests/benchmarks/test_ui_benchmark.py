"""The arithmetic of the panel's benchmark, and the page written from its record; nothing is measured here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD, PAGE = ROOT / "benchmarks" / "results" / "ui.json", ROOT / "docs" / "benchmarks_ui.md"

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """The scripts' own packages, which are not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_a_percentile_is_a_value_that_was_measured():
    from ui.judge import percentile  # noqa: PLC0415

    values = [float(each) for each in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 50.0, 95.0, 100.0]
    assert percentile([7.0], 0.95) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_nothing_measured_is_no_zero_and_meets_no_target():
    from ui.judge import summary, target  # noqa: PLC0415

    nothing = summary([])
    assert nothing["median"] is None
    assert nothing["runs"] == 0
    assert target("it", nothing["median"], 100.0) == {
        "what": "it", "limit_ms": 100.0, "value_ms": None, "ratio": None, "met": False,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "met", "ratio"), [(17.0, True, 1.0), (17.1, False, 1.006), (8.5, True, 0.5)])
def test_a_target_is_judged_by_the_figure_beside_it(value, met, ratio):
    from ui.judge import target  # noqa: PLC0415

    judged = target("a frame", value, 17)
    assert (judged["met"], judged["ratio"]) == (met, ratio)


def test_the_large_net_is_a_valid_model():
    import onnx  # noqa: PLC0415
    from ui.scenes import LEVELS, large_net  # noqa: PLC0415

    small = large_net(units=1)
    onnx.checker.check_model(small, full_check=True)
    # 37 layers a unit, a skip for each on the way up, the stem and the head
    assert len(small.graph.node) == 2 * LEVELS * 37 + LEVELS + 2


def test_the_page_is_what_the_record_says():
    from ui.page import render  # noqa: PLC0415

    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert not record["quick"]
    assert PAGE.read_text(encoding="utf-8") == render(record)
    assert str(ROOT) not in json.dumps(record)
