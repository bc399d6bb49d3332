"""The record of a run -> docs/benchmarks_ui.md; nothing on the page comes from elsewhere."""

from __future__ import annotations

from typing import Any

__all__ = ["render"]

TITLES = {"digits_transformer": "digits transformer", "resnet50": "ResNet-50", "bert_base": "BERT-base"}


def render(record: dict[str, Any]) -> str:
    """Return the page."""
    parts = [_opening(record), _targets(record), _paint(record), _frames(record), _click(record), _lab(record)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _opening(record: dict[str, Any]) -> str:
    machine, quick = record["machine"], ""
    if record["quick"]:
        quick = "\n!!! warning\n    A quick run, to try the script. Do not quote these figures.\n"
    skipped = "".join(f"- Not measured: {each}\n" for each in record["skipped"])
    return f"""
# Speed of the panel

How fast the panel is in headless Chromium. This page is written by the script from the run's record,
`benchmarks/results/ui.json`; edit neither by hand.
{quick}
- Command: `{record["command"]}`; {record["date"]}, our code {record["source"]}, front end {record["front_end"]}.
- Machine: {machine["cpu"]}, {machine["threads"]} threads, {machine["memory_gb"]:.0f} GB; {machine["system"]},
  Python {machine["python"]}; Chromium {record["browser"]}, drawing on the CPU.
- Load average of the last minute: {record["load"]["before"]:.2f} before the run, {record["load"]["after"]:.2f} at its
  end (the run itself keeps the machine busy).
{skipped}
All times are in milliseconds.
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _spread(times: dict[str, Any]) -> str:
    if not times["runs"]:
        return "-"
    return f"{_number(times['median'])} ({_number(times['min'])} to {_number(times['max'])}, {times['runs']})"


def _targets(record: dict[str, Any]) -> str:
    targets = record["targets"]
    missed = sum(not each["met"] for each in targets)
    rows = [
        [
            each["what"],
            f"{each['limit_ms']:g}",
            _number(each["value_ms"]),
            "-" if each["ratio"] is None else f"{each['ratio']:.2f}",
            "met" if each["met"] else "**not measured**" if each["value_ms"] is None else "**missed**",
        ]
        for each in targets
    ]
    head = ["what", "target: at most", "here", "here / target", ""]
    return f"## Targets\n\n{missed} of {len(targets)} targets are missed or not measured.\n\n{_table(head, rows)}"


def _paint(record: dict[str, Any]) -> str:
    rows = [
        [each["scene"], str(each["layers"]), _spread(each["paint"]), _spread(each["mount"])]
        for each in record["first_paint"]
    ]
    return f"""
## First paint

From the moment when the bytes are in the browser to the end of the first frame with boxes, in a fresh page each time:
parsing, layout, all parts of the panel, and drawing. *Mounting* is the part before that frame.
Median (smallest to largest, runs).

{_table(["model", "layers", "first paint", "of it mounting"], rows)}
"""


def _frames(record: dict[str, Any]) -> str:
    rows = []
    for each in [*record["moving"], *record["plotly"]]:
        shown = "Plotly, all boxes" if "boxes" in each else "all unfolded" if each["unfolded"] else "as it opens"
        frames = each["frames"]
        cells = (_number(frames[key]) for key in ("median", "p95", "max"))
        rows.append([each["scene"], shown, each["gesture"], *cells, str(frames["runs"])])
    return f"""
## Pan and zoom

Real events of a mouse that drags the graph in circles, or turns the wheel with ctrl. A frame counts when it had an
event to show; it lasts until the next frame. A screen of 60 frames a second cannot do better than 16.7.
*Plotly* draws the same boxes at the same places as one trace of markers, without texts, and the edges as one trace of
straight lines, which is less than the panel draws, in the same browser in the same run.

{_table(["model", "shown", "gesture", "median", "95th percentile", "longest", "frames"], rows)}
"""


def _click(record: dict[str, Any]) -> str:
    rows = [
        [each["scene"], "all unfolded" if each["unfolded"] else "as it opens", _spread(each["repaint"])]
        for each in record["click"]
    ]
    return f"""
## Click to repaint

From the press of the mouse on a layer's badge to the end of the frame that shows the new format, while the kernel has
not answered yet.

{_table(["model", "shown", "milliseconds"], rows)}
"""


def _lab(record: dict[str, Any]) -> str:
    if not record["lab"]:
        return ""
    rows = [
        [TITLES.get(each["model"], each["model"]), *(_spread(each[key]) for key in ("click", "emulator", "over"))]
        for each in record["lab"]
    ]
    return f"""
## Click to new figures

In a real JupyterLab: from the press of the mouse on a badge to the end of the frame with the new errors of all layers.
After each click the same kernel runs the emulator alone, once, for the same plan.

{_table(["model", "click to new figures", "emulator alone", "difference"], rows)}
"""
