"""The record of a run -> docs/benchmarks.md; nothing on the page comes from elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["render"]

OURS = "Precision Explorer"
TITLES = {"resnet50": "ResNet-50", "bert_base": "BERT-base", "unet_3000": "UNet-like, 3,000 layers"}
Row = dict[str, Any]


def render(record: dict[str, Any]) -> str:
    """Return the page."""
    parts = [
        _opening(record),
        _targets(record),
        _conversion(record),
        _toggle(record),
        _trap(record),
        _local(record),
        _scale(record),
        _method(record),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _opening(record: dict[str, Any]) -> str:
    machine = record["machine"]
    quick = (
        "\n!!! warning\n    A quick run, to try the script: one round, ResNet-50 only. Do not quote these figures.\n"
        if record["quick"]
        else ""
    )
    return f"""
# Benchmarks

{OURS} beside other converters, measured side by side. This page is written by the script from the run's
record, `benchmarks/results/peers.json`; edit neither by hand.
[The search beside others](benchmarks_search.md) and [the speed of the panel](benchmarks_ui.md) have pages of their own.
{quick}
- Commands: {", then ".join(f"`{command}`" for command in record["commands"])}.
- Machine: {machine["cpu"]}, {machine["threads"]} threads, {machine["memory_gb"]:.0f} GB; {machine["system"]},
  Python {machine["python"]}.
- Ours: {_versions(record["versions"]["ours"])}.
- Peers, in an environment of their own: {_versions(record["versions"]["peers"])}.

How quiet the machine was: the load average of the last minute before each part, and how many CPUs other processes kept
busy while a measurement ran. A disturbed measurement is repeated, at most twice. *Our code* is a digest of the
package's sources: figures of different digests are of different states of it.

{_loads(record["load"])}
"""


def _loads(parts: dict[str, Any]) -> str:
    rows = [
        (
            part,
            load["date"],
            load["source"],
            f"{load['minutes']:.1f}",
            f"{load['average_before']:.2f}",
            f"{load['foreign_cpus']['median']:.2f}, at worst {load['foreign_cpus']['max']:.2f}",
            str(load["repeated"]),
        )
        for part, load in parts.items()
    ]
    return _table(
        ("part", "date", "our code", "minutes", "load average before", "CPUs busy otherwise", "repeated"), rows
    )


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _targets(record: dict[str, Any]) -> str:
    rows = [
        (target["what"], target["target"], target["value"], "met" if target["met"] else "**missed**")
        for target in record["targets"]
    ]
    missed = sum(not target["met"] for target in record["targets"])
    summary = "All targets are met." if not missed else f"{missed} of {len(rows)} figures miss their target."
    return f"""
## Targets

{summary}
Each target stands against the peers with their default settings, and again with their shape inference switched off,
which is allowed where, as here, the exporter has written all shapes into the file. Peers whose result ONNX Runtime
refuses to load do not count.

{_table(("what", "target", "here", ""), rows)}
"""


def _conversion(record: dict[str, Any]) -> str:
    text = """
## Conversion, from file to file

Seconds from the source file to the saved fp16 file with float32 inputs and outputs: loading, converting, and saving.
*Start*, which is starting Python and all imports, is not in it. Ours includes its check of the result (onnx's full
check, and loading in ONNX Runtime), which the peers do not make. The source lies in the page cache; saved files are not
forced to the disk. *Peak* is the largest resident memory of the process, imports included. The last two columns judge
the saved file afterwards.
"""
    for model in _models(record["conversion"]):
        rows = [_conversion_row(row) for row in record["conversion"] if row["model"] == model]
        facts = record["models"][model]
        text += f"\n### {TITLES[model]}: {facts['model_layers']} layers, {facts['file_mb']:.0f} MB\n\n"
        head = ("tool", "seconds: median (min to max, runs)", "peak MB", "start s", "Casts", "weights in fp16")
        text += _table((*head, "full check", "ONNX Runtime"), rows) + "\n"
        ours = next((row for row in record["conversion"] if row["model"] == model and row["tool"] == OURS), {})
        if ours.get("phases"):
            total = sum(ours["phases"].values())
            shares = ", ".join(f"{name} {value:.2f} s" for name, value in ours["phases"].items())
            check = ours["phases"].get("check", 0.0)
            text += f"\nWhere ours spends its time: {shares}. The check is {check / total:.0%} of it.\n"
    return text


def _conversion_row(row: Row) -> tuple[str, ...]:
    if "seconds" not in row:
        return (row["tool"], _failure(row), *["-"] * 6)
    result = row.get("result", {})
    judged = (
        str(result.get("casts", "-")),
        f"{result['low_weights']:.0%}" if "low_weights" in result else "-",
        _cell(str(result.get("full_check", result.get("error", "-")))),
        _cell(str(result.get("loads", "-"))),
    )
    return (row["tool"], _spread(row["seconds"]), f"{row['peak_mb']['median']:.0f}", f"{row['start_s']:.1f}", *judged)


def _toggle(record: dict[str, Any]) -> str:
    text = """
## The toggle loop: change one layer, see the error of every layer

What happens between a click on a layer and the new errors of all layers.

- **Ours**: decide the formats of all layers, then run the switchable graph, compiled before, and merge the sums of all
  samples. *Once* is what that takes before the first toggle: loading, ranges of the exact values, compiling, first run.
- **Peers**: copy the loaded model (AutoCast loads the file itself), convert it with that layer blocked, mark all
  tensors as outputs, create a session, run it, and compare every tensor with the fp32 run in numpy (squared and largest
  error only). *Once* is the fp32 run. Their sessions run without graph optimization: it is faster, nothing can fuse
  anyway.
- *Pays off after*: the number of toggles from which on ours took less in all, *once* included.

The peers' errors do not even contain the rounding of fp16: see the next section.
"""
    for model in _models(record["toggle"]):
        for samples in dict.fromkeys(row["samples"] for row in record["toggle"]):
            rows = [row for row in record["toggle"] if row["model"] == model and row["samples"] == samples]
            ours = next((row for row in rows if row["tool"] == OURS), {})
            text += f"\n### {TITLES[model]}, {_count(samples)}\n\n"
            head = ("tool", "seconds a toggle: median (min to max, runs)", "ours is faster", "once s", "pays off after")
            text += _table((*head, "tensors", "peak MB"), [_toggle_row(row, ours) for row in rows]) + "\n"
            notes = [_split_up(row) for row in rows if row.get("phases")]
            if "table_seconds" in ours:
                notes.insert(
                    0,
                    f"Ours with everything that a user sees, `x.plan = ...; x.errors()` up to the finished table: "
                    f"{_spread(ours['table_seconds'])} s.",
                )
            if "once" in ours:
                steps = ", ".join(f"{name} {value:.2f}" for name, value in ours["once"].items())
                notes.insert(1, f"Ours once: {steps} s.")
            text += "".join(f"\n- {note}" for note in notes) + "\n"
    return text


def _toggle_row(row: Row, ours: Row) -> tuple[str, ...]:
    if "seconds" not in row:
        return (row["tool"], _failure(row), *["-"] * 5)
    once, seconds = sum(row["once"].values()), row["seconds"]["median"]
    faster = pays = "-"
    if row["tool"] != OURS and "seconds" in ours:
        faster = f"{seconds / ours['seconds']['median']:.1f} times"
        gain = seconds - ours["seconds"]["median"]
        ahead = max(0.0, sum(ours["once"].values()) - once)
        pays = f"{max(1, math.ceil(ahead / gain))}" if gain > 0 else "never"
    compared, peak = str(row["compared"]), f"{row['peak_mb']:.0f}"
    return (row["tool"], _spread(row["seconds"]), faster, f"{once:.1f}", pays, compared, peak)


def _split_up(row: Row) -> str:
    return f"{row['tool']}: " + ", ".join(f"{name} {value:.2f}" for name, value in row["phases"].items()) + " s."


def _trap(record: dict[str, Any]) -> str:
    rows = [
        (row["tool"], f"{row['relative_error']:.2g}" if "relative_error" in row else _failure(row))
        for row in record["trap"]
    ]
    return f"""
## What the peers' toggle loop does not see

`(x + 65504) - 65504` with x of about 1: in fp16 nothing of x is left, a relative error of 1. ONNX Runtime's CPU
provider computes the converted model in float32 between casts, and removes its casts in pairs. So an error that is
measured by running a converted model on the CPU is not the error of fp16. (onnxconverter-common by default clamps
weights to 10,000: it measures the error of another graph.)

{_table(("tool", "relative error that it measures; the truth is 1"), rows)}
"""


def _local(record: dict[str, Any]) -> str:
    rows = []
    for row in record["local"]:
        name = f"{TITLES[row['model']]}, {_count(row['samples'])}"
        if "passes" not in row:
            rows.append((name, _failure(row), *["-"] * 5))
            continue
        rows.append(
            (
                name,
                _spread(row["forward"], 3),
                _spread(row["local"], 3),
                _spread(row["passes"]),
                f"{row['compile_s']:.2f}",
                f"{row['ranges_s']:.2f}, of it {row['ranges_compile_s']:.2f} compiling",
                f"{row['measured']:.0f}",
            )
        )
    head = (
        "model",
        "plain forward pass s",
        "all local errors s",
        "forward passes",
        "compile s, once",
        "ranges s, once",
    )
    return f"""
## All local errors in one run

The error of every layer when only that layer runs low, all of them from one run, against a plain forward pass of the
fp32 model with ONNX Runtime's default settings on the same samples (all at once or one by one, whichever is faster).
Medians of warm runs within a process, then over fresh processes in turns; the number of forward passes is the median
over the rounds. Weaving and compiling are told apart, and so are the ranges of the exact values, measured before, once.

{_table((*head, "tensors"), rows)}
"""


def _scale(record: dict[str, Any]) -> str:
    text = """
## Many layers

Small tensors, so that the time is that of the tool and not of the arithmetic. One run each; what takes too long is
stopped (ours after 60 s, a peer's conversion after 20 s, with its imports). Ours is checked, the peers' are not.
"""
    for model in _models(record["scale"]):
        rows = [row for row in record["scale"] if row["model"] == model]
        ours = next((row for row in rows if row["tool"] == OURS), {})
        title = TITLES.get(model, f"Chain of {int(model.rpartition('_')[2]):,} layers" if "_" in model else model)
        steps = [(f"{OURS}: {name}", f"{value:.2f}") for name, value in ours.get("phases", {}).items()]
        if ours.get("error"):
            steps.append((f"{OURS}: what comes next", _failure(ours)))
        for row in rows:
            if row["tool"] != OURS:
                shown = f"{row['seconds']:.2f}" if "seconds" in row else _failure(row)
                steps.append((f"{row['tool']}: load, convert and save", shown))
        text += f"\n### {title}\n\n{_table(('step', 'seconds'), steps)}\n"
    return text


def _method(record: dict[str, Any]) -> str:
    return f"""
## How it is measured

Every figure comes from a fresh process, and the tools take turns (A B C A B C). A tool that takes long gets fewer
rounds; the number of runs stands beside each figure. Files are flushed to the disk between measurements. `onnxruntime`
is the same version for all. ModelOpt asks for an older `onnxruntime-gpu`, which is not installed: it would overwrite
`onnxruntime`. AutoCast is called with its default settings, `convert_to_mixed_precision` with random calibration data,
which it runs once; `convert_to_f16` is its converter without that. All keep float32 inputs and outputs.

To repeat: `python sample_models/make.py resnet50 bert_base unet_3000`, then `{record["commands"][0]}`.
"""


def _models(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def _count(samples: int) -> str:
    return "1 sample" if samples == 1 else f"{samples} samples"


def _spread(found: dict[str, Any], digits: int = 2) -> str:
    low, high = f"{found['min']:.{digits}f}", f"{found['max']:.{digits}f}"
    return f"{found['median']:.{digits}f} ({low} to {high}, {found['runs']})"


def _failure(row: Row) -> str:
    return _cell(f"failed: {row['error']}" if row.get("error") else "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
