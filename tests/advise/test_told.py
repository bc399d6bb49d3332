"""Findings as terminal, report and panel show them: verdicts are seen, and what was not confirmed drowns nobody."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import explorer
from explorer.advise import Finding, Fix
from explorer.cli.advice import findings_document, show_findings
from explorer.report import write_report
from explorer.report.story import speed
from explorer.reporting import report_data
from explorer.scene import findings_json

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
FIX = Fix(label="Let inputs and outputs be fp16", keep_io=False)
TOLD = [
    Finding(id="holds", tone="good", title="Nothing breaks", text="All is well."),
    Finding(id="speed", tone="warn", title="fp16 is no faster", text="See."),
    Finding(id="slow-casts", tone="warn", verdict="confirmed", title="Casts <b>", text="They cost.", fix=FIX),
    Finding(id="slow-host", tone="note", verdict="untested", title="The CPU", text="Not seen here."),
    Finding(id="slow-small", tone="note", verdict="ruled out", title="Too small", text="It is not."),
]


@pytest.fixture(scope="module")
def lenet():
    return explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")


def printed(findings, width=100):
    screen = Console(file=io.StringIO(), width=width)
    show_findings(findings, "fp16", screen)
    return screen.file.getvalue()


def test_terminal_tells_confirmed_causes_and_lists_the_others():
    text = printed(TOLD)
    assert "Why fp16 is not faster\n" in text
    assert "[confirmed] Casts <b>" in text
    assert "They cost." in text
    assert "--no-keep-io" in text
    assert "[untested]  The CPU" in text
    assert "[ruled out] Too small" in text
    assert "Not seen here." not in text
    assert text.index("Nothing breaks") < text.index("fp16 is no faster") < text.index("[confirmed]")


def test_terminal_has_no_section_of_speed_without_causes():
    assert "faster" not in printed(TOLD[:1])


def test_names_are_never_taken_for_markup():
    hostile = Finding(id="slow-x", tone="warn", verdict="confirmed", title="[red]a\x1b[31m", text="[/]")
    assert "[red]a" in printed([hostile])
    assert "\x1b" not in printed([hostile])


def test_json_has_the_verdict(lenet):
    for made in (findings_document(TOLD), findings_json(TOLD, lenet.model)):
        assert [each["verdict"] for each in made] == ["", "", "confirmed", "untested", "ruled out"]
    assert findings_document(TOLD)[2]["options"] == "--no-keep-io"


def test_report_has_a_section_of_speed_apart_from_what_breaks(lenet, tmp_path):
    data = report_data(lenet, gpu_model="H100", runs=5)
    told = speed(data)
    assert told.title == "Why fp16 is not faster"
    assert {each.tested for each in told.rest} == {"untested", "ruled out"}
    assert {each.tested for each in told.found} == {"", "confirmed"}
    assert len(told.found) + len(told.rest) == sum(each.of_speed for each in data.findings)
    page = write_report(data, tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="speed"' in page
    assert "ruled out</summary>" in page
    assert page.count("no faster on H100") + page.count("slower on H100") == 1


def test_report_without_a_gpu_tells_of_the_cpu(lenet):
    told = speed(report_data(lenet, runs=5))
    assert told.title == "Why fp16 is not faster"
    assert "ONNX Runtime computes in fp32 on this CPU" in [each.title for each in told.found]
