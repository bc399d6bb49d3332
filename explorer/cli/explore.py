"""`explore` and `measure`: errors, latency and what to make of them; `explore` also writes the results."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.cli.advice import ICONS, show_findings
from explorer.cli.analysis import COMPUTING, LOAD, Analysis, WorstLayer, analyse
from explorer.cli.document import print_document
from explorer.cli.output import check_folder, folder
from explorer.cli.progress import Stages
from explorer.cli.words import Facts, console, decibels, notes, show_written, weight_words
from explorer.export import replacing
from explorer.report import text, write_report
from explorer.report.story import verdict

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from rich.console import Console

    from explorer.cli.options import PlanOptions, SampleOptions

__all__ = ["run_explore", "run_measure"]

_REPORT = "write the results"
_NAME_WIDTH = 28  # characters of a layer's id that fit in 80 columns beside the other columns
_OTHER_WIDTH = 52  # characters that the other columns of the table take
_OPERATOR_WIDTH = 18  # characters of the column of operators, which narrow terminals do without


def run_explore(
    model: Path,
    out: Path,
    plan: PlanOptions,
    samples: SampleOptions,
    *,
    command: str,
    runs: int,
    top: int,
    as_json: bool,
) -> None:
    """Do all, write all, and print what was found."""
    with Stages([*COMPUTING, _REPORT]) as stages:
        with stages.stage(LOAD):
            check_folder(out)
            exploration = samples.open(model, plan, command=command, progress=stages.report)
        analysis = analyse(exploration, stages, gpu_model=samples.gpu_model, runs=runs, clamp=plan.clamp)
        with stages.stage(_REPORT):
            written = _write(analysis, out)
    if as_json:
        document = {**analysis.document(), "written": written, "seconds": stages.seconds}
        print_document("explore", document)
        return
    screen = console()
    show(analysis, screen, top=top)
    show_written(written, screen, sum(stages.seconds.values()))


def run_measure(
    model: Path, plan: PlanOptions, samples: SampleOptions, *, command: str, runs: int, top: int, as_json: bool
) -> None:
    """Measure, and print it."""
    with Stages(COMPUTING) as stages:
        with stages.stage(LOAD):
            exploration = samples.open(model, plan, command=command, progress=stages.report)
        analysis = analyse(exploration, stages, gpu_model=samples.gpu_model, runs=runs, clamp=plan.clamp)
    if as_json:
        print_document("measure", {**analysis.document(), "seconds": stages.seconds})
        return
    screen = console()
    show(analysis, screen, top=top)
    show_latency(analysis, screen, top=top)


def _write(analysis: Analysis, out: Path) -> dict[str, str]:
    """Write every file whole or not at all; the model first, for it is the one that may be refused."""
    x = analysis.exploration
    paths = {
        "report": out / "report.html",
        "layers": out / "layers.csv",
        "plan": out / "plan.json",
        "model": out / f"model.{x.plan.format}.onnx",
    }
    with folder(out):
        if x.convert(clamp=analysis.clamp).refusal:
            del paths["model"]  # the warnings say why there is none
        else:
            x.export(paths["model"], clamp=analysis.clamp)
        write_report(analysis.data, paths["report"])
        with replacing(paths["layers"]) as part:
            analysis.table.to_csv(part, index=False, encoding="utf-8", errors="backslashreplace")
        with replacing(paths["plan"]) as part:
            part.write_text(x.plan.to_json() + "\n", encoding="utf-8")
    return {name: str(paths[name]) for name in ("model", "plan", "layers", "report") if name in paths}


def show(analysis: Analysis, screen: Console, *, top: int) -> None:
    """Print the summary and the worst layers."""
    screen.print()
    _show_verdict(analysis, screen)
    screen.print()
    screen.print(Padding(_summary(analysis), (0, 0, 0, 2), expand=False))
    if top:
        _show_worst(analysis, screen, top)
        show_findings(analysis.data.findings, analysis.data.plan.format, screen)
    if analysis.data.warnings:
        screen.print()
        notes(analysis.data.warnings, screen)


def _show_verdict(analysis: Analysis, screen: Console) -> None:
    found = verdict(analysis.data, analysis.rows)
    sign, style = ICONS[found.icon]
    model = analysis.exploration.model
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(sign, style=style), Text(f"{text.visible(model.name)}: {found.title}", style=style))
    grid.add_row("", Text(str(found.body.striptags())))
    screen.print(grid)


def _summary(analysis: Analysis) -> Facts:
    x, data = analysis.exploration, analysis.data
    decisions, facts = x.decisions(), Facts()
    low = data.plan.format
    emulated = x.provenance.partition(":")[0]
    for row in data.output_error.to_dict("records"):
        facts.add("output", _output_words(row), emulated)
    if data.accuracy is not None:
        found = data.accuracy
        line = f"{text.percent(found.before)} → {text.percent(found.after)} of {text.plural(found.samples, 'sample')}"
        facts.add("accuracy", line, emulated)
    counts = Counter(each.format for each in decisions)
    own, *others = analysis.rows.low_formats(low)
    named = [f"{counts[own]:,} of {len(decisions):,} in {own}", *(f"{counts[name]:,} in {name}" for name in others)]
    share = f"{text.share(x.low_share)} of those with float32 tensors"
    facts.add("layers", f"{text.join(named)} ({share})")
    facts.add("casts", f"{data.plan.casts or 0:,} inserted")
    first = x.first_nonfinite()
    if first is not None:
        facts.add("not finite", Text.assemble("first at ", (text.visible(first), "red")), emulated)
    for each in data.model_latency:
        times = ((each.fp32_us, "in fp32"), (each.plan_us, "under the plan"))
        line = ", ".join(f"{text.duration(us)} {words}" for us, words in times if us is not None)
        facts.add("latency", line, each.provenance)
    facts.add("weights", weight_words(data.weights, low))
    facts.add("samples", text.visible(data.samples.description))
    return facts


def _output_words(row: Mapping[Hashable, Any]) -> Text:
    name, db = text.shorten(str(row["output"]), 40), float(row["sqnr_db"])
    lost = [f"{text.count(row[key])} {word}" for key, word in (("overflow", "infinite"), ("nan", "NaN")) if row[key]]
    if lost:
        return Text.assemble(f"{name}: ", (f"{text.join(lost)} of {text.plural(row['elements'], 'value')}", "bold red"))
    reading = text.sqnr(db)
    known = reading.icon or math.isnan(db)
    return Text(f"{name}: {reading.text}" if known else f"{name}: {reading.text} SQNR, error {text.relative(db)}")


def _show_worst(analysis: Analysis, screen: Console, top: int) -> None:
    worst = analysis.worst(top)
    if not worst:
        return
    wide = screen.width >= _NAME_WIDTH + _OTHER_WIDTH + _OPERATOR_WIDTH
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", no_wrap=True)
    if wide:
        table.add_column("operator", overflow="ellipsis", max_width=_OPERATOR_WIDTH)
    table.add_column("alone", justify="right", no_wrap=True)
    table.add_column("in plan", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    width = max(_NAME_WIDTH, screen.width - _OTHER_WIDTH - (_OPERATOR_WIDTH if wide else 0))
    for layer in worst:
        table.add_row(
            _name(layer, width, with_op=not wide),
            *([Text(text.visible(layer.op))] if wide else []),
            decibels(layer.local_sqnr_db, finite=layer.finite_alone),
            decibels(layer.acc_sqnr_db, finite=layer.finite),
            Text(layer.why),
        )
    screen.print()
    screen.print(Text("  The layers that lose most by themselves (SQNR, emulated)", style="bold"))
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))
    breaking = analysis.breaking
    if (more := len(breaking) - sum(not layer.finite_alone for layer in worst)) > 0:
        words = text.plural(more, "more layer breaks", "more layers break")
        screen.print(Text(f"  {words} by themselves; --top {len(breaking)} shows all", style="dim"))
    if hint := _hint(analysis):
        screen.print(Padding(Text.assemble(("Try  ", "dim"), (hint, "cyan")), (1, 0, 0, 2), expand=False))


def _name(layer: WorstLayer, width: int, *, with_op: bool) -> Text:
    """Return a layer's id, its middle left out where it is too long; with its operator where that tells more."""
    op = layer.op.rpartition("::")[2]
    if not with_op or op in layer.id:
        return Text(text.shorten(layer.id, width))
    return Text.assemble(text.shorten(layer.id, max(8, width - len(op) - 1)), (f" {text.visible(op)}", "dim"))


def _hint(analysis: Analysis) -> str:
    """Return the options that mend what breaks, as the findings propose it; empty where they propose nothing."""
    grave = (each for each in analysis.data.findings if each.tone in ("stop", "warn") and not each.of_speed)
    fixes = (each.fix for each in grave if each.fix is not None)
    return next((fix.options for fix in fixes if fix.options), "")


def show_latency(analysis: Analysis, screen: Console, *, top: int) -> None:
    """Print the slowest layers, measured and predicted apart."""
    table, low = analysis.table, analysis.data.plan.format
    for device in ("cpu", "gpu"):
        if f"{device}_fp32_us" not in table or not top:
            continue
        columns = [column for column in ("fp32", low) if f"{device}_{column}_us" in table]
        slow = table.sort_values(f"{device}_fp32_us", ascending=False, kind="stable").head(top)
        slow = slow[slow[f"{device}_fp32_us"] > 0]
        shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        shown.add_column("layer", no_wrap=True)
        shown.add_column("operator", overflow="ellipsis", max_width=_OPERATOR_WIDTH)
        for column in columns:
            shown.add_column(column, justify="right", no_wrap=True)
        shown.add_column("runs with", overflow="ellipsis", no_wrap=True)
        for row in slow.to_dict("records"):
            fused = [name for name in str(row[f"{device}_fused_with"]).split(", ") if name]
            shown.add_row(
                Text(text.shorten(str(row["id"]), max(_NAME_WIDTH, screen.width - _OTHER_WIDTH))),
                Text(text.visible(str(row["op"]))),
                *(Text(text.duration(float(row[f"{device}_{column}_us"]))) for column in columns),
                Text(f"{text.plural(len(fused), 'other layer')}" if fused else ""),
            )
        provenance = str(slow[f"{device}_provenance"].iloc[0]) if len(slow) else ""
        screen.print()
        screen.print(Padding(Text.assemble(("The slowest layers  ", "bold"), (provenance, "dim")), (0, 0, 0, 2)))
        screen.print(Padding(shown, (0, 0, 0, 2), expand=False))
