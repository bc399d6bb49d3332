"""`search`: the best plans, and with a budget the best one, exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.cli.analysis import LOAD, LOCAL, RANGES
from explorer.cli.document import print_document
from explorer.cli.output import check_folder, folder
from explorer.cli.progress import Stages
from explorer.cli.words import Facts, console, notes, show_written
from explorer.export import replacing
from explorer.report import text
from explorer.search.formats import CPU, asked_formats
from explorer.search.search import MEASURING, VERIFYING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from explorer.cli.budget import BudgetOptions
    from explorer.cli.options import PlanOptions, SampleOptions
    from explorer.search.front import Front
    from explorer.search.point import FrontPoint
    from explorer.session import Exploration

__all__ = ["run_search"]

_TAKE, _WRITE = "the plan within the budget", "write the results"


@dataclass(frozen=True)
class _Found:
    """What a search gave."""

    x: Exploration
    front: Front
    taken: FrontPoint | None
    metric: str | None


def run_search(
    model: Path,
    out: Path,
    plan: PlanOptions,
    samples: SampleOptions,
    budget: BudgetOptions,
    *,
    command: str,
    as_json: bool,
) -> None:
    """Search, write the front, and with a budget the plan and the model too."""
    budget.check(samples.gpu_model)
    with Stages([LOAD, RANGES, LOCAL, MEASURING, VERIFYING, *([_TAKE] if budget.given else []), _WRITE]) as stages:
        with stages.stage(LOAD):
            check_folder(out)
            named = replace(samples, gpu_model=None) if samples.gpu_model == CPU else samples  # no GPU to look up
            formats = asked_formats(plan.plan(), budget.formats)
            x = named.open(model, plan, command=command, progress=stages.report, formats=formats)
            data = budget.labelled(samples.inputs)
        front = x.search(
            formats=formats,
            metric=budget.metric,
            data=data,
            max_drop=budget.max_drop,
            gpu_model="" if budget.count_layers else samples.gpu_model,
            seconds=budget.seconds,
            resume=budget.resume,
            progress=lambda stage, done, total, _: stages.report(stage, done, total),
        )
        taken = None
        if budget.given:
            with stages.stage(_TAKE):
                taken = front.take(
                    max_error=budget.max_error, max_latency_us=budget.max_latency_us, max_drop=budget.max_drop
                )
                x.plan = taken.plan
        with stages.stage(_WRITE):
            found = _Found(x, front, taken, budget.metric)
            written = _write(found, out, clamp=plan.clamp)
    if as_json:
        print_document("search", {**_document(found), "written": written, "seconds": stages.seconds})
        return
    screen = console()
    _show(found, screen)
    show_written(written, screen, sum(stages.seconds.values()))


def _write(found: _Found, out: Path, *, clamp: bool) -> dict[str, str]:
    x, paths = found.x, {"front": out / "front.csv"}
    if found.taken is not None:
        paths = {"model": out / f"model.{'-'.join(x.plan.formats)}.onnx", "plan": out / "plan.json", **paths}
    with folder(out):
        if found.taken is not None:
            x.export(paths["model"], clamp=clamp)
            with replacing(paths["plan"]) as part:
                part.write_text(x.plan.to_json() + "\n", encoding="utf-8")
        with replacing(paths["front"]) as part:
            found.front.table().to_csv(part, index=False)
    return {name: str(path) for name, path in paths.items()}


def _document(found: _Found) -> dict[str, Any]:
    front, taken = found.front, found.taken
    return {
        "device": front.device,
        "error_provenance": front.error_provenance,
        "latency_provenance": front.latency_provenance,
        "summary": front.summary,
        "pinned": front.pinned,
        "metric": found.metric,
        "exact_metric": front.judge.exact_score,
        "formats": list(front.formats),
        "points": [_point(point, front) for point in front.points],
        "taken": None if taken is None else {**_point(taken, front), "plan": taken.plan.to_dict()},
        "warnings": found.x.warnings(),
    }


def _point(point: FrontPoint, front: Front) -> dict[str, Any]:
    return {
        "error": point.error,
        "predicted_error": point.predicted_error,
        "latency_us": point.latency_us,
        "metric": point.metric,
        "low_layers": point.low,
        "low_share": point.low_share,
        "layers": dict(_counts(point, front)),
    }


def _counts(point: FrontPoint, front: Front) -> list[tuple[str, int]]:
    """Return how many layers run in each low format."""
    return [(name, int((point.choice == label).sum())) for label, name in enumerate(front.formats) if label]


def _show(found: _Found, screen: Console) -> None:
    front, taken = found.front, found.taken
    screen.print()
    count = text.plural(len(front.points), "best plan")
    of = f"latency on {front.device}" if front.device else "most layers low"
    screen.print(Text(f"{text.visible(found.x.model.name)}: {count}, {of}", style="bold"))
    screen.print(Padding(_table(found), (1, 0, 0, 2), expand=False))
    facts = Facts()
    facts.add("error", "relative L2 of the worst output", front.error_provenance)
    if front.device:
        facts.add("latency", "of the whole model", front.latency_provenance)
    facts.add("basis", front.summary)
    screen.print(Padding(facts, (1, 0, 0, 2), expand=False))
    if len(front.points) == 1 and front.device:
        hint = "--count-layers finds the most layers that can run low, whatever the latency."
        screen.print(Padding(Text.assemble(("Try  ", "dim"), (hint, "cyan")), (1, 0, 0, 2), expand=False))
    if taken is not None:
        screen.print()
        high = sum(each == "fp32" for each in taken.plan.overrides.values())
        named = f"{text.plural(high, 'layer')} named to stay in fp32"
        time = f"{text.duration(taken.latency_us)}, " if front.device else ""
        words = f"Taken: error {_error(taken.worst)}, {time}{named}"
        screen.print(Text(words, style="bold green"))
    if warnings := found.x.warnings():
        screen.print()
        notes(warnings, screen)


def _table(found: _Found) -> Table:
    front = found.front
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    more = [*([found.metric] if found.metric else []), *(["latency"] if front.device else [])]
    several = len(front.formats) > 2  # fp32 and more than one low format
    for name in ("", "error", "predicted", *more, *(front.formats[1:] if several else ["low layers"]), "share"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    taken = None if found.taken is None else found.taken.plan
    rows = list(front.points)
    if found.taken is not None and all(point.plan != taken for point in rows):
        rows = sorted([*rows, found.taken], key=lambda point: point.worst)
    for point in rows:
        metric = [] if not found.metric else ["" if point.metric is None else text.percent(point.metric)]
        table.add_row(
            "→" if point.plan == taken else "",
            _error(point.error),
            _error(point.predicted_error),
            *metric,
            *([text.duration(point.latency_us)] if front.device else []),
            *(f"{count:,}" for _, count in _counts(point, front)),
            text.share(point.low_share),
            style="bold green" if point.plan == taken else None,
        )
    return table


def _error(error: float | None) -> str:
    if error is None or np.isnan(error):
        return "not run"
    return "none" if error == 0 else f"{error:.1e}"
