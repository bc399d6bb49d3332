"""`measure --on`: the real latency of a plan, on the backend that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.cli.analysis import LOAD
from explorer.cli.document import model_document, print_document
from explorer.cli.progress import Stages
from explorer.cli.words import Facts, console, notes
from explorer.report import text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from explorer.backends.latency import LatencyResult
    from explorer.cli.engine_options import TimingOptions
    from explorer.cli.options import PlanOptions, SampleOptions
    from explorer.session import Exploration

__all__ = ["run_timing"]

_MEASURE = "measure the plan"
_NAME_WIDTH, _OTHER_WIDTH, _OPERATOR_WIDTH = 28, 52, 18  # as in explorer.cli.explore


def run_timing(
    model: Path,
    plan: PlanOptions,
    samples: SampleOptions,
    timing: TimingOptions,
    *,
    command: str,
    runs: int,
    top: int,
    as_json: bool,
) -> None:
    """Time the plan on a backend, and print it.

    Args:
        model: the model's file.
        plan: the plan.
        samples: what runs through it.
        timing: the backend and the GPU.
        command: the command line.
        runs: how many runs to take medians of.
        top: how many layers to show.
        as_json: one JSON document.
    """
    from explorer.results.measuring import measure_plan  # noqa: PLC0415 - `--help` imports no runtime

    with Stages([LOAD, _MEASURE]) as stages:
        with stages.stage(LOAD):
            x = samples.open(model, plan, command=command, progress=stages.report)
        with stages.stage(_MEASURE):
            found = measure_plan(
                x.results, x.plan, x.target, str(timing.on), device=timing.device, runs=runs,
                progress=lambda _, done, total: stages.report(_MEASURE, done, total),
            )  # fmt: skip
    if as_json:
        document = {"model": model_document(x.model), "plan": x.plan.to_dict(), "timing": found}
        print_document("measure", {**document, "warnings": x.warnings(), "seconds": stages.seconds})
        return
    screen = console()
    _show(x, found, screen)
    if top:
        _show_layers(x, found, screen, top)
    screen.print()
    notes((*found.notes, *x.warnings()), screen)


def _show(x: Exploration, found: LatencyResult, screen: Console) -> None:
    screen.print()
    title = f"{text.visible(x.model.name)}: {text.duration(found.whole_us)} on {found.backend}"
    screen.print(Text(title, style="bold green"))
    facts = Facts()
    facts.add("latency", f"{text.duration(found.whole_us)} ± {text.duration(found.whole_spread_us)}", found.provenance)
    facts.add("device", text.visible(found.device))
    facts.add("formats", found.formats)
    if moved := sum(row.median_us for row in found.inserted):
        facts.add(
            "inserted", f"{text.plural(len(found.inserted), 'node')}, {text.duration(moved)}", "casts and layouts"
        )
    screen.print(Padding(facts, (1, 0, 0, 2), expand=False))


def _show_layers(x: Exploration, found: LatencyResult, screen: Console, top: int) -> None:
    slow = sorted((row for row in found.layers if row.median_us > 0), key=lambda row: -row.median_us)[:top]
    if not slow:
        return
    decisions = x.decisions()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", no_wrap=True)
    table.add_column("operator", overflow="ellipsis", max_width=_OPERATOR_WIDTH)
    table.add_column("asked", no_wrap=True)
    ran = {layer_id: kernel.format for kernel in found.kernels for layer_id in kernel.layer_ids if kernel.format}
    if ran:
        table.add_column("ran", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("runs with", overflow="ellipsis", no_wrap=True)
    for row in slow:
        table.add_row(
            Text(text.shorten(row.layer_id, max(_NAME_WIDTH, screen.width - _OTHER_WIDTH))),
            Text(text.visible(x.model.layer(row.layer_id).op)),
            Text(decisions[row.layer_id].format),
            *([Text(ran.get(row.layer_id, ""))] if ran else []),
            Text(text.duration(row.median_us)),
            Text(text.plural(len(row.fused_with), "other layer") if row.fused_with else ""),
        )
    screen.print()
    screen.print(Text("  The slowest layers, measured", style="bold"))
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))
