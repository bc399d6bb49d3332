"""docs/benchmarks.md says what the record of the benchmark says; nothing is measured here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD, PAGE = ROOT / "benchmarks" / "results" / "peers.json", ROOT / "docs" / "benchmarks.md"

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture
def record():
    """The record that the page is written from."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.fixture
def render(monkeypatch):
    """The function that writes the page."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from peers.page import render  # noqa: PLC0415 - a script's own package, not installed

    return render


def test_the_page_is_what_the_record_says(record, render):
    """Nobody has edited a figure by hand, or changed the script without writing the page again."""
    assert PAGE.read_text(encoding="utf-8") == render(record)


def test_the_record_is_of_a_whole_run(record):
    """A quick run, which is there to try the script, is not what we publish."""
    assert not record["quick"]
    assert {row["model"] for row in record["conversion"]} >= {"resnet50", "bert_base"}


def test_targets_are_judged_by_the_measured_figures(record):
    """A target counts as met exactly when the medians in the record say so."""
    local = {(row["model"], row["samples"]): row["passes"]["median"] for row in record["local"] if "passes" in row}
    said = [target["met"] for target in record["targets"] if target["what"].startswith("all local errors")]
    assert said == [passes <= 2.5 for passes in local.values()]


def test_a_failure_is_shown_as_a_failure(record, render):
    """A peer that could not do it stands in the table with its error, not with a blank."""
    row = next(row for row in record["toggle"] if row["tool"] != "Precision Explorer")
    row.pop("seconds", None)
    row["error"] = "it | broke"
    assert "failed: it \\| broke" in render(record)


def test_the_record_names_no_folder_of_the_machine(record):
    """The record is published: it tells versions and figures, not where somebody's files lie."""
    assert "/home/" not in json.dumps(record)
    assert str(ROOT) not in json.dumps(record)
