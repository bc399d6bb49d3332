"""The report as one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from explorer.export.files import replacing
from explorer.report import palette, text
from explorer.report.layers import Layers
from explorer.report.story import findings, speed, verdict, worst_layers
from explorer.report.table import layer_table, script_json
from explorer.report.tiles import tiles

if TYPE_CHECKING:
    import os

    from jinja2 import Environment

    from explorer.report.chart import Chart
    from explorer.report.data import ReportData, TensorLike

__all__ = ["render", "write_report"]

PACKED_FROM: Final = 200_000  # characters of a chart's JSON; below it, packing saves less than it is worth
REASONS_SHOWN: Final = 12  # rows of the summary of decisions
TENSORS_SHOWN: Final = 12  # inputs or outputs named in the header; the rest is counted
RANDOM_NOTE: Final = "Random inputs: do not trust these ranges"


def render(data: ReportData) -> str:
    """Return the report as the text of one HTML file.

    The page works offline and runs no script but its own: its content security policy names each by its hash.

    Args:
        data: what to show.

    Raises:
        PlanError: the plan's format is no known number format.
    """
    # plotly takes most of a second to import, and only a report needs it
    from explorer.report.error_figure import error_along_network  # noqa: PLC0415
    from explorer.report.latency_figure import latency_by_op  # noqa: PLC0415
    from explorer.report.range_figure import value_ranges  # noqa: PLC0415

    layers = Layers.of(data)
    charts = [
        error_along_network(layers),
        value_ranges(layers, data.plan.format),
        *latency_by_op(data.latency, data.plan.format),
    ]
    shown = [chart for chart in charts if chart is not None]
    scripts = [_static("plotly-basic.min.js"), _static("charts.js"), _static("table.js")]
    if data.scene:
        scripts.append(_panel("page.js"))
    return _templates().get_template("report.html.j2").render(
        data=data,
        verdict=verdict(data, layers),
        tiles=tiles(data, layers),
        findings=findings(data, layers),
        speed=speed(data),
        worst=worst_layers(layers),
        charts=shown,
        layers=layers,
        chart_json={chart.key: Markup(_figure_json(chart)) for chart in shown},  # noqa: S704 - script_json escapes
        table_json=Markup(script_json(layer_table(layers, data.plan.format))),  # noqa: S704 - script_json escapes
        dark_json=Markup(script_json(palette.DARK)),  # noqa: S704 - script_json escapes
        reasons=_reasons(layers),
        tensors={"Inputs": _tensors(data.model.inputs), "Outputs": _tensors(data.model.outputs)},
        random_note=RANDOM_NOTE if data.samples.random else "",
        scene_json=Markup(_packed(data.scene)) if data.scene else "",  # noqa: S704 - it is base64
        css=Markup(_template_text("report.css")),  # noqa: S704 - our own file
        panel_css=Markup(_panel("page.css")) if data.scene else "",  # noqa: S704 - our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own files
        policy=_policy(scripts),
        text=text,
    )  # fmt: skip


def write_report(data: ReportData, path: str | os.PathLike[str]) -> Path:
    """Write the report and return its path; a crash or a full disk leaves the file that stood there untouched.

    Args:
        data: what to show.
        path: the HTML file to write; its folder must exist.

    Raises:
        ExportError: the file cannot be written.
        PlanError: the plan's format is no known number format.
    """
    page = render(data).encode("utf-8", errors="backslashreplace")
    with replacing(path) as part:
        part.write_bytes(page)
    return Path(path)


def _figure_json(chart: Chart) -> str:
    """Return a figure as JSON; arrays stay in plotly's base64 form."""
    made = script_json(json.loads(chart.figure.to_json()) | {"by_layer": chart.by_layer})
    return made if len(made) < PACKED_FROM else _packed(made.encode("utf-8", errors="backslashreplace"))


def _packed(content: bytes) -> str:
    """Return JSON packed, as the page's scripts unpack it: the graph of 10,000 layers has megabytes of it."""
    packed = gzip.compress(content, mtime=0)  # no time in it: the same data give the same bytes
    return script_json({"gzip": base64.b64encode(packed).decode("ascii")})


def _policy(scripts: list[str]) -> str:
    """Return a content security policy under which nothing runs or loads but the page's own scripts."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _reasons(layers: Layers) -> dict[str, Any]:
    """Return how many layers have which format for which reason, the most frequent first."""
    counts = Counter(zip(layers.words("format"), layers.words("reason"), strict=True)).most_common()
    rest = counts[REASONS_SHOWN:]
    return {
        "rows": [(fmt, reason or "no reason given", number) for (fmt, reason), number in counts[:REASONS_SHOWN]],
        "more": len(rest),
        "more_layers": sum(number for _, number in rest),
    }


def _tensors(tensors: Any) -> list[tuple[str, str]]:
    listed = [(text.shorten(str(tensor.name)), _tensor_type(tensor)) for tensor in tensors[:TENSORS_SHOWN]]
    more = len(tensors) - len(listed)
    return [*listed, (f"and {more} more", "")] if more > 0 else listed


def _tensor_type(tensor: TensorLike) -> str:
    if tensor.shape is None:
        return f"{tensor.dtype}, unknown rank"
    return f"{tensor.dtype} [{', '.join('?' if size is None else text.shorten(str(size)) for size in tensor.shape)}]"


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only a report needs it

    return Environment(
        loader=PackageLoader("explorer.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


@cache
def _static(name: str) -> str:
    return files("explorer.report").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _panel(name: str) -> str:
    """Return a part of the panel's front end as js/build.mjs made it."""
    return files("explorer.scene").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _template_text(name: str) -> str:
    return files("explorer.report").joinpath("templates", name).read_text(encoding="utf-8")
