"""`import-profile`: latencies that trtexec measured on another machine, by layer of the model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.backends.tensorrt.asked import FormatDifference, format_differences
from explorer.backends.tensorrt.imported import imported_latency
from explorer.backends.tensorrt.layer_latency import COMPUTE_OPS
from explorer.backends.tensorrt.mixed_model import MixedModel, read_mixed_model
from explorer.cli.analysis import CONVERT, LOAD, LOCAL, PLANNED, RANGES
from explorer.cli.document import model_document, print_document
from explorer.cli.options import PlanOptions
from explorer.cli.output import check_folder, folder
from explorer.cli.progress import Stages
from explorer.cli.words import Facts, console, notes, show_written
from explorer.export import replacing
from explorer.measure.latency import MeasuredLatency
from explorer.plan import NO_FORMAT, Plan
from explorer.report import text, write_report
from explorer.reporting import report_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd
    from rich.console import Console

    from explorer.backends.latency import LatencyResult
    from explorer.cli.options import SampleOptions
    from explorer.cli.profile_options import ProfileOptions
    from explorer.session import Exploration

__all__ = ["run_import_profile"]

_READ, _WRITE = "read what trtexec wrote", "write the results"
_FP32, _TF32, _INT8 = "fp32", "tf32", "int8"
_MIXED = ("fp16", "bf16")  # plans of these may name int8 too
_NAME_WIDTH, _OTHER_WIDTH = 24, 56  # characters: the least of a kernel's name, and what the other columns take
_DIFFERENCES = 5  # rows of the list of layers that ran in another format
_AS_RAN = (
    "No plan was named (--plan, --mixed-model): what was asked for is not known. The formats that ran are taken for it."
)


@dataclass(frozen=True)
class _Imported:
    """What was read, and what it was compared with."""

    x: Exploration
    result: LatencyResult
    table: pd.DataFrame
    differences: tuple[FormatDifference, ...]
    has_plan: bool
    warnings: tuple[str, ...]

    @property
    def latency(self) -> MeasuredLatency:
        return MeasuredLatency(self.result, self.x.plan.format)


def run_import_profile(
    model: Path,
    out: Path,
    plan: PlanOptions,
    samples: SampleOptions,
    files: ProfileOptions,
    *,
    command: str,
    top: int,
    as_json: bool,
) -> None:
    """Read the files, print the latencies, and write the table and the report."""
    has_plan = dataclasses.replace(plan, backend=PlanOptions().backend, clamp=False) != PlanOptions()
    files.check(has_plan=has_plan)
    with Stages([LOAD, _READ, RANGES, LOCAL, PLANNED, CONVERT, _WRITE]) as stages:
        with stages.stage(LOAD):
            check_folder(out)
            x = samples.open(model, plan, command=command, progress=stages.report)
        with stages.stage(_READ):
            found = _imported(x, files, has_plan=has_plan)
        with stages.stage(RANGES):
            x.ranges()
        with stages.stage(LOCAL):  # and the errors of the plan, as the session reports
            x.errors()
        with stages.stage(CONVERT):
            x.convert(clamp=plan.clamp)
            data = report_data(x, clamp=plan.clamp, measured=found.latency)
        with stages.stage(_WRITE):
            data = dataclasses.replace(data, warnings=tuple(dict.fromkeys((*found.warnings, *data.warnings))))
            paths = {"layers": out / "latency.csv", "report": out / "report.html"}
            with folder(out):
                with replacing(paths["layers"]) as part:
                    found.table.to_csv(part, index=False, encoding="utf-8", errors="backslashreplace")
                write_report(data, paths["report"])
            written = {name: str(path) for name, path in paths.items()}
    if as_json:
        print_document("import-profile", {**_document(found), "written": written, "seconds": stages.seconds})
        return
    screen = console()
    _show(found, screen)
    if top:
        _show_kernels(found, screen, top)
        _show_differences(found, screen)
    screen.print()
    notes((*found.warnings, *found.result.notes), screen)
    show_written(written, screen, sum(stages.seconds.values()))


def _imported(x: Exploration, files: ProfileOptions, *, has_plan: bool) -> _Imported:
    mixed = None if files.mixed_model is None else read_mixed_model(files.mixed_model, x.model)
    asked = None
    if mixed is not None:
        x.plan = _plan_of(mixed.formats)
        asked = mixed.formats
    elif has_plan:
        asked = {item.layer_id: item.format for item in x.decisions()}
    result = _read(x, files, asked, mixed)
    if asked is None:
        x.plan = _plan_of(_ran(result))
    ops = {layer.id: layer.op for layer in x.model.layers}
    return _Imported(
        x,
        result,
        MeasuredLatency(result, x.plan.format).table(x.model.layers, x.decisions()),
        format_differences(result.kernels, asked or {}, ops, COMPUTE_OPS),
        asked is not None,
        (*([_AS_RAN] if asked is None else []), *x.warnings()),
    )


def _read(
    x: Exploration, files: ProfileOptions, asked: Mapping[str, str] | None, mixed: MixedModel | None
) -> LatencyResult:
    return imported_latency(
        x.model,
        asked,
        files.layers,
        files.profile,
        device=files.device,
        times_path=files.times,
        inserted=None if mixed is None else mixed.inserted,
    )


def _ran(result: LatencyResult) -> dict[str, str]:
    """Return the format that each layer ran in, by its slowest kernel; a layer of which it is not told is left out."""
    told = sorted((each for each in result.kernels if each.format), key=lambda each: each.median_us)
    return {layer_id: each.format for each in told for layer_id in each.layer_ids}


def _plan_of(formats: Mapping[str, str]) -> Plan:
    """Return the plan that asks for these formats, by layer id; layers that are not named run low if they can."""
    wanted = {layer_id: _FP32 if each == _TF32 else each for layer_id, each in formats.items() if each != NO_FORMAT}
    counts = Counter(each for each in wanted.values() if each != _FP32)
    if not counts:
        return Plan.preset("fp32")
    low = next((each for each in _MIXED if each in counts), counts.most_common(1)[0][0])
    allowed = (_FP32, *((_INT8,) if low in _MIXED else ()))
    others = {layer_id: each for layer_id, each in wanted.items() if each != low}
    return Plan(format=low).set({layer_id: each if each in allowed else _FP32 for layer_id, each in others.items()})


def _document(found: _Imported) -> dict[str, Any]:
    return {
        "model": model_document(found.x.model),
        "plan": found.x.plan.to_dict(),
        "latency": found.result,
        "layers": found.table,
        "differences": found.differences,
        "warnings": found.warnings,
    }


def _show(found: _Imported, screen: Console) -> None:
    result = found.result
    screen.print()
    title = f"{text.visible(found.x.model.name)}: {text.duration(result.whole_us)} on {text.visible(result.device)}"
    screen.print(Text(title, style="bold green"))
    facts = Facts()
    spread = f" ± {text.duration(result.whole_spread_us)}" if result.whole_spread_us > 0 else ""
    facts.add("latency", f"{text.duration(result.whole_us)}{spread}", text.visible(result.provenance))
    facts.add("formats", result.formats)
    for kinds, label, aside in (
        (("reformat",), "reformats", "changes of layout"),
        (("cast",), "casts", "changes of type"),
        (("copy", "other"), "others", "added by TensorRT, or not found in the model"),
    ):
        them = [each for each in result.kernels if each.kind in kinds]
        if them:
            us = sum(each.median_us for each in them)
            share = text.share(us / result.profiled_us) if result.profiled_us else "none"
            facts.add(label, f"{len(them):,}, {text.duration(us)}, {share} of the layers' time", aside)
    if found.differences:
        words = text.plural(len(found.differences), "layer")
        facts.add("precision", Text(f"{words} ran in another format than was asked for", style="yellow"))
    screen.print(Padding(facts, (1, 0, 0, 2), expand=False))


def _show_kernels(found: _Imported, screen: Console, top: int) -> None:
    slow = sorted((each for each in found.result.kernels if each.median_us > 0), key=lambda each: -each.median_us)[:top]
    if not slow:
        return
    asked_column = [("asked", "left")] if found.has_plan else []
    ends = [("ran", "left"), ("time", "right"), ("share", "right")]
    table = _columns(("engine layer", "left"), ("computes", "right"), *asked_column, *ends)
    decisions, total = found.x.decisions(), found.result.profiled_us or 1.0
    for each in slow:
        asked = dict.fromkeys(decisions[layer_id].format for layer_id in each.layer_ids)
        table.add_row(
            Text(text.shorten(each.name, max(_NAME_WIDTH, screen.width - _OTHER_WIDTH))),
            Text(text.plural(len(each.layer_ids), "layer") if each.layer_ids else each.kind, style="dim"),
            *([Text(", ".join(name for name in asked if name != NO_FORMAT))] if found.has_plan else []),
            Text(each.format or "not told"),
            Text(text.duration(each.median_us)),
            Text(text.share(each.median_us / total)),
        )
    screen.print()
    screen.print(Text("  The slowest engine layers, measured", style="bold"))
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))


def _show_differences(found: _Imported, screen: Console) -> None:
    if not found.differences:
        return
    rows: Iterable[FormatDifference] = found.differences[:_DIFFERENCES]
    table = _columns(("layer", "left"), ("asked", "left"), ("ran", "left"))
    for each in rows:
        name = Text(text.shorten(each.layer_id, max(_NAME_WIDTH, screen.width - _OTHER_WIDTH)))
        table.add_row(name, Text(each.asked), Text(each.ran, style="yellow"))
    screen.print()
    screen.print(Text("  Layers that ran in another format than was asked for", style="bold"))
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))
    if (more := len(found.differences) - _DIFFERENCES) > 0:
        screen.print(Text(f"  and {more:,} more: the table has all (format, ran)", style="dim"))


def _columns(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    return table
