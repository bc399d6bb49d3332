"""The record of a run -> docs/benchmarks_search.md; nothing on the page comes from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.verdict import FACTOR, SAME, alters, at_budget, margins, our_plans, targets, within

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["render"]

OURS = "**Precision Explorer**"
TITLES = {
    "lenet5_digits": "LeNet-5",
    "digits_transformer": "Digits transformer",
    "digits_transformer_mask": "Digits transformer with a mask",
    "resnet50": "ResNet-50",
    "bert_base": "BERT-base",
}
SHOWN_FAILURE = 160  # characters
Row = dict[str, Any]


def render(record: Row) -> str:
    """Return the page."""
    models = [_model(name, model, record) for name, model in record["models"].items()]
    parts = [_opening(record), _targets(record), _how(record), *models, _fidelity(record)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _opening(record: Row) -> str:
    machine = record["machine"]
    quick = ""
    if record["quick"]:
        quick = "\n!!! warning\n    A quick run, to try the script. Do not quote these figures.\n"
    peers = {name: record["versions"]["peers"].get(name, "?") for name in ("onnxconverter-common", "nvidia-modelopt")}
    return f"""
# The search beside others

Latency of the plans that different searches find for the same error, and how long they take. This page is written by
the script from the run's record, `benchmarks/results/search.json`; edit neither by hand.
{quick}
- Commands: {", then ".join(f"`{command}`" for command in record["commands"])}.
- Machine: {machine["cpu"]}, {machine["threads"]} threads, {machine["memory_gb"]:.0f} GB; {machine["system"]},
  Python {machine["python"]}.
- Ours: {_versions(record["versions"]["ours"])}.
- Peers, in an environment of their own: {_versions(peers)}.

How quiet the machine was: the load average of the last minute before each model, and how many CPUs other processes kept
busy while the searches were timed. *Our code* is a digest of the package's sources.

{_runs_of(record)}
"""


def _runs_of(record: Row) -> str:
    rows = []
    for name, model in record["models"].items():
        run = model["run"]
        busy = f"{run['foreign_cpus']['median']:.2f}, at worst {run['foreign_cpus']['max']:.2f}"
        told = (run["date"], run["source"], f"{run['minutes']:.1f}", f"{run['average_before']:.2f}", busy)
        rows.append((TITLES.get(name, name), *told))
    return _table(("model", "date", "our code", "minutes", "load average before", "CPUs busy otherwise"), rows)


def _versions(found: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    short = text if len(text) <= SHOWN_FAILURE else f"{text[:SHOWN_FAILURE].rstrip()} ..."
    return short.replace("|", "\\|").replace("\n", " ")


def _targets(record: Row) -> str:
    judged = targets(record)
    missed = sum(not target["met"] for target in judged)
    summary = "All targets are met." if not missed else f"{missed} of {len(judged)} figures miss their target."
    rows = [
        (_cell(each["what"]), each["target"], _cell(each["value"]), "met" if each["met"] else "**missed**")
        for each in judged
    ]
    return f"""
## Targets

{summary} Where auto_convert_mixed_precision takes its first attempt, all in fp16, it has not searched, and its time is
no target; nor where that attempt is no valid model. The tables below have its times.

{_table(("what", "target", "here", ""), rows)}
"""


def _how(record: Row) -> str:
    budgets = ", ".join(f"{budget:g}" for budget in record["budgets"])
    return f"""
## What is compared

Every search is told the error that may be spent, the relative L2 error of the model's worst output: {budgets}. Every
plan that comes out is judged alike: its **error** is emulated (fp16 storage rounding, fp32 accumulation), its
**latency** predicted by the roofline of the named GPU, casts included.

- **auto_convert_mixed_precision** of onnxconverter-common is run as it is, and asked to keep the same error. It
  validates on ONNX Runtime's CPU provider, which computes fp16 layers in float32: what it believes to have kept is not
  what fp16 gives. What it makes is mapped back to the layers of the source model, and judged with the weights that it
  clamped. A plan that holds only by changed weights is one of another model: it is shown, and does not count.
- **AutoCast** of ModelOpt is run with its defaults. It is given no budget and runs no converted model; it keeps layers
  in fp32 by their operators and the sizes of their values. Mapped back and judged likewise.
- **Prefix bisection** follows `polygraphy debug precision`: keep the first (forward) or the last (reverse) layers in
  fp32, and bisect how many.
- **Halving segments** is the rule of auto_convert_mixed_precision with our emulation as its judge: what it would find
  if it saw the error of fp16.
- **Greedy**: start with all layers in fp16, and raise the worst until the budget holds; the worst by local error, or
  by the error of the outputs when that layer alone runs in fp16. At most 100 steps: on large models several at a time.

The last four are written here, on our emulation (the originals need a GPU); layers that only move data follow their
input. After {record["rule_limit_s"]:.0f} s of runs they are stopped, and what they had counts.
*Seconds*: of the others for one budget, of ours for the whole front, from the file on. Those of the last four are our
emulator's: compiling it once, and each run that the search asks for.
"""


def _model(name: str, model: Row, record: Row) -> str:
    facts, settings = model["facts"], model["settings"]
    batch = settings["batch_size"] or 1
    lines = [f"## {TITLES.get(name, name)}", ""]
    if facts:
        full, exact = facts["full"], facts["fp32"]
        lines.append(
            f"{facts['layers']} layers, {facts['switchable']} of which can run in fp16. Latency: predicted, "
            f"{settings['gpu']}, batch {batch}. All in fp32: {exact['latency_us']:.1f} us. All in fp16: "
            f"{full['latency_us']:.1f} us, {_error(full['error'])}.\n"
        )
    budgets = record["budgets"]
    head = ("latency in us for an error of", *(f"{budget:g}" for budget in budgets), "seconds", "plans run")
    lines += [_table(head, _rows(model, budgets)), ""]
    lines += [f"- {note}" for note in _notes(model)]
    if beside := _beside(model):
        lines += ["", beside]
    return "\n".join(lines)


def _error(error: float | None) -> str:
    return "its outputs are not finite" if error is None else f"error {error:.1e}"


def _rows(model: Row, budgets: list[float]) -> list[list[str]]:
    ours, rows = model["ours"], []
    best = {budget: at_budget(our_plans(model), budget) for budget in budgets}
    told = [f"**{row['latency_us']:.1f}**" if (row := best[budget]) else "-" for budget in budgets]
    seconds = f"{model['time']['seconds']['median']:.1f}, whole front" if model["time"] else "-"
    rows.append([OURS, *told, seconds, str(model["time"].get("noise_runs", "-"))])
    if "points" not in ours:
        rows[0] = [OURS, _cell(f"failed: {ours.get('failure')}"), *["-"] * (len(budgets) + 1)]
    for tool in dict.fromkeys(row["tool"] for row in (*model["peers"], *model["rules"])):
        found = [row for row in (*model["peers"], *model["rules"]) if row["tool"] == tool]
        by_budget = {row.get("budget"): row for row in found}
        cells = [_latency(by_budget.get(budget, by_budget.get(None)), budget) for budget in budgets]
        rows.append([tool, *cells, _range([_seconds(row) for row in found]), _range([_runs(row) for row in found])])
    return rows


def _latency(row: Row | None, budget: float) -> str:
    if row is None:
        return "not run"
    if row.get("failure"):
        return "stopped" if row.get("stopped") else "failed"
    if "latency_us" not in row:
        return "finds none"
    if row["error"] is None:
        return "not finite"
    if row["error"] > budget * (1 + SAME):
        return f"breaks it: {row['error']:.1e}"
    return f"{row['latency_us']:.1f}"


def _seconds(row: Row) -> float | None:
    seconds = row.get("seconds")
    return seconds["median"] if isinstance(seconds, dict) else seconds


def _runs(row: Row) -> float | None:
    return row.get("attempts", row.get("runs"))


def _range(values: Iterable[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "-"
    ends = [f"{value:d}" if isinstance(value, int) else f"{value:.1f}" for value in (known[0], known[-1])]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _notes(model: Row) -> list[str]:
    said: dict[str, list[Row]] = {}
    for row in model["peers"]:
        if row.get("failure") or "latency_us" in row:
            said.setdefault(f"{row['tool']}{{asked}}{_result(row)}", []).append(row)
    found = []
    for words, rows in said.items():
        asked = ", ".join(f"{row['budget']:g}" for row in rows if row.get("budget") is not None)
        found.append(words.replace("{asked}", f", asked for {asked}" if asked else ""))
    stopped = [f"{row['tool']} at {row['budget']:g}" for row in model["rules"] if row.get("stopped")]
    if stopped:
        found.append(f"Stopped when their time was up: {', '.join(stopped)}.")
    return found


def _result(row: Row) -> str:
    if row.get("failure"):
        return f" fails: {_cell(row['failure'])}"
    words = f": {_error(row['error'])}, {row['latency_us']:.1f} us, {row['low']} layers in fp16"
    if row.get("own_error") is not None:
        words += f"; by its own measure {row['own_error']:.1e}"
    if row.get("weights_changed"):
        count = "a weight" if row["weights_changed"] == 1 else f"{row['weights_changed']} weights"
        words += f"; it changed {count} of the model ({_error(row['error_of_plan'])} without that)"
    if row.get("merged"):
        count = "a layer" if row["merged"] == 1 else f"{row['merged']} layers"
        words += f"; it removed or merged {count}, counted as what stands behind"
    return f"{words}."


def _beside(model: Row) -> str:
    """Return the table of the best plans of all others, and what ours takes for the very error that each has."""
    if "points" not in model["ours"]:
        return ""
    rows = []
    for row in margins(model):
        theirs, ours = row["latency_us"], row["ours_us"]
        if ours is None:
            told = ["none", "**beaten**"]
        else:
            gain = theirs / ours - 1
            same = "the same" if abs(gain) < SAME else f"{gain:.1%} faster" if gain > 0 else "**beaten**"
            if gain <= -SAME and alters(row):
                same = "beaten, by other weights"
            told = [f"{ours:.1f}", same]
        error = f"{row['error']:.2e}" if row["error"] else "0"
        rows.append([error, row["tool"], f"{theirs:.1f}", *told])
    head = ("its error", "best plans of all others", "its latency us", "ours within that error us", "ours is")
    return _table(head, rows)


def _fidelity(record: Row) -> str:
    rows = []
    for name, model in record["models"].items():
        pairs = model["ours"].get("fidelity", {}).get("pairs", [])
        share = within(pairs)
        if share is None:
            continue
        ratios = sorted(one / other for one, other in pairs if one and other)
        lost = sum(other is None for _, other in pairs)
        rows.append(
            [
                TITLES.get(name, name),
                str(len(ratios)),
                f"{share:.0%}",
                f"{ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                str(lost),
                str(model["ours"]["fidelity"]["pinned"]),
            ]
        )
    if not rows:
        return ""
    head = ("model", "plans", f"within a factor {FACTOR:g}", "median (least to most)", "not finite", "layers pinned")
    return f"""
## How well the error is predicted

Random plans, each layer in fp16 with a probability that is drawn for each plan between 0.05 and 0.95; layers that the
search pins in fp32 stay there. Predicted by the noise model against emulated; above 1 the prediction is too
large. Plans that are not finite, or have no error, do not count as predicted.

{_table(head, rows)}
"""
