"""What the report says before it shows anything: the verdict, what is wrong and where, and what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup, escape

from explorer.report import text
from explorer.report.layers import broken_outputs, saturating

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.advise import Finding as Advice
    from explorer.report.data import ReportData
    from explorer.report.layers import Layers

__all__ = ["Finding", "Speed", "WorstLayer", "findings", "speed", "verdict", "worst_layers"]

POOR_DB: Final = 20.0  # dB: an error of a tenth of the signal, 10 ** (-20 / 20)
ACCURACY_LOST: Final = 0.005  # half a point, more than a handful of samples in a thousand
WORST: Final = 6  # rows of the short table
OPS_NAMED: Final = 4  # op types spelled out in a sentence
WIDTH: Final = 90  # characters of a layer's name in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the reader should know.

    Args:
        icon: ``stop``, ``warn``, ``good`` or ``note``; also the tone.
        title: a few words.
        body: one or two sentences, HTML with every name escaped.
        command: what to add to the command line to act on it; may be empty.
        tested: of a cause that was tested: ``confirmed``, ``untested`` or ``ruled out``; else empty.
    """

    icon: str
    title: str
    body: Markup
    command: str = ""
    tested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Why the low format is not faster.

    Args:
        title: of the section.
        found: how much faster it is, and the causes that were confirmed.
        rest: the causes that could not be tested, and those that were ruled out.
        summary: how many those are, in words.
    """

    title: str
    found: tuple[Finding, ...]
    rest: tuple[Finding, ...]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstLayer:
    """One row of the short table of layers that lose most."""

    position: int
    name: str
    op: str
    format: str
    local: text.Reading
    accumulated: text.Reading
    cause: str


def verdict(data: ReportData, layers: Layers) -> Finding:
    """Return the one sentence that the report comes down to."""
    layers, total = _chosen(data, layers), len(layers.frame)
    fmt = text.join(layers.low_formats(data.plan.format))
    outputs = broken_outputs(data.output_error)
    broken_layers = int(layers.broken.sum())
    spread = _accuracy_words(data)
    if outputs.any():
        names = _names(data.output_error["output"][outputs])
        body = Markup("{} {} inf or NaN under this plan: {} of {} layers are not finite.{}").format(
            names, "holds" if outputs.sum() == 1 else "hold", broken_layers, total, spread
        )
        return Finding(icon="stop", title=f"{fmt} breaks this model", body=body)
    if not layers.low.any():
        told = next((_drawn(each) for each in data.findings if each.id == "nothing-low"), None)
        return told or Finding(
            icon="note", title=f"Nothing runs in {fmt} under this plan",
            body=Markup("All {} keep fp32, so there is no error to show.").format(text.plural(total, "layer")),
        )  # fmt: skip
    return _finite_verdict(data, layers, spread)


def _chosen(data: ReportData, layers: Layers) -> Layers:
    """Return the layers with those low that the plan made so: what came quantised says nothing for the plan."""
    given = [layer for each in data.findings if each.id == "came-quantised" for layer in each.layers]
    return replace(layers, low=layers.low & ~layers.frame["id"].isin(given).to_numpy(dtype=bool))


def _finite_verdict(data: ReportData, layers: Layers, spread: str) -> Finding:
    """Return the verdict on a plan whose outputs are finite."""
    fmt, broken_layers = text.join(layers.low_formats(data.plan.format)), int(layers.broken.sum())
    name, worst = _worst_output(data)
    kept = Markup("The worst output, <code>{}</code>, {}.{}").format(
        text.shorten(name, WIDTH), _error_words(worst), spread
    )
    every = Markup("{} layer stays finite. {}").format("Every measured" if layers.unmeasured.any() else "Every", kept)
    if data.accuracy is not None and data.accuracy.before - data.accuracy.after > ACCURACY_LOST:
        return Finding(icon="stop", title=f"{fmt} costs this model its accuracy", body=kept)
    if broken_layers:
        body = Markup("{} not finite, yet the outputs stay finite. {}").format(
            text.plural(broken_layers, "layer is", "layers are"), kept
        )
        if worst < POOR_DB:
            return Finding(icon="stop", title=f"{fmt} breaks this model", body=body)
        return Finding(icon="warn", title=f"Layers overflow in {fmt}", body=body)
    if math.isnan(worst):
        return Finding(icon="note", title="The output error was not measured", body=every)
    if worst < POOR_DB:
        return Finding(icon="warn", title=f"{fmt} leaves the outputs far off", body=every)
    return Finding(icon="good", title=f"This plan holds in {fmt}", body=every)


def findings(data: ReportData, layers: Layers) -> list[Finding]:
    """Return what is wrong and where, the gravest first: the findings of ``explorer.advise``, and all warnings."""
    found = [_drawn(each) for each in data.findings if not each.of_speed]
    found += [Finding(icon="warn", title="Warning", body=escape(text.visible(line))) for line in data.warnings]
    if not found and not layers.broken.any():
        found.append(
            Finding(icon="good", title="Nothing to warn about", body=Markup("No layer and no weight is lost."))
        )
    return found


def speed(data: ReportData) -> Speed | None:
    """Return what is known of the speed of the low format, or None where no cause was tested."""
    told = [each for each in data.findings if each.of_speed]
    if not told:
        return None
    drawn = [_drawn(each) for each in told]
    rest = tuple(each for each in drawn if each.tested in ("untested", "ruled out"))
    count = {word: sum(each.tested == word for each in rest) for word in ("untested", "ruled out")}
    still = " still" if not told[0].verdict and told[0].tone != "warn" else ""
    return Speed(
        title=f"Why {data.plan.format} is not faster{still}",
        found=tuple(each for each in drawn if each not in rest),
        rest=rest,
        summary=text.join([f"{text.plural(number, 'cause')} {word}" for word, number in count.items() if number]),
    )


def _drawn(found: Advice) -> Finding:
    """Return a finding as the page shows it; every name in it is escaped."""
    body = escape(text.visible(found.text))
    if found.evidence:
        body += Markup(' <span class="evidence">{}</span>').format(text.visible(found.evidence))
    command = found.fix.options if found.fix is not None else ""
    return Finding(icon=found.tone, title=text.visible(found.title), body=body, command=command, tested=found.verdict)


def worst_layers(layers: Layers) -> list[WorstLayer]:
    """Return the layers that lose most by themselves: those that break alone, then those with the least local SQNR."""
    local = layers.column("local_sqnr_db")
    key = np.where(layers.broken_alone, -np.inf, local)
    order = [int(row) for row in np.argsort(key, kind="stable") if layers.low[row] and key[row] < np.inf][:WORST]
    accumulated = layers.column("acc_sqnr_db")
    names, ops, formats = (layers.words(column) for column in ("name", "op", "format"))
    return [
        WorstLayer(
            position=row + 1, name=names[row], op=ops[row], format=formats[row], cause=_cause(layers, row),
            local=text.sqnr(local[row], finite=not layers.broken_alone[row]),
            accumulated=text.sqnr(accumulated[row], finite=not layers.broken[row]),
        )
        for row in order
    ]  # fmt: skip


def _cause(layers: Layers, row: int) -> str:
    """Return what is known of a layer's loss, in words."""
    share_of = layers.column("elements")[row] if "elements" in layers.frame else math.nan
    parts = []
    for column, words in (
        ("overflow", "saturate" if saturating([layers.words("format")[row]])[0] else "overflow"),
        ("nan", "become NaN"),
        ("flushed", "flush to zero"),
        ("subnormal", "go subnormal"),
    ):
        number = layers.column(column)[row]
        if number > 0:
            part = f" ({text.share(number / share_of)})" if share_of > 0 else ""
            parts.append(f"{text.plural(number, 'value')} {words}{part}")
    if reads := layers.saturates_on_reading(row):
        parts.insert(0, f"reads values beyond the range ({text.share(reads)})")
    return text.join(parts[:2]) or ("inf or NaN" if layers.broken[row] else "rounding")


def _worst_output(data: ReportData) -> tuple[str, float]:
    """Return the name and SQNR of the output with the least SQNR; NaN when none was measured."""
    table = data.output_error
    ratios = table["sqnr_db"].to_numpy(dtype=np.float64, na_value=np.nan)
    if not len(ratios) or np.isnan(ratios).all():
        return (str(table["output"].iloc[0]) if len(table) else "", math.nan)
    row = int(np.nanargmin(ratios))
    return str(table["output"].iloc[row]), float(ratios[row])


def _error_words(db: float) -> str:
    if math.isnan(db):
        return "was not measured"
    if math.isinf(db):
        return "equals the fp32 output exactly"
    return f"keeps {text.decibel(db)} SQNR, a relative error of {text.relative(db)}"


def _accuracy_words(data: ReportData) -> str:
    if data.accuracy is None:
        return ""
    before, after = data.accuracy.before, data.accuracy.after
    if before == after:
        return f" {data.accuracy.metric.capitalize()} stays at {text.percent(before)}."
    verb = "falls" if after < before else "goes"
    return f" {data.accuracy.metric.capitalize()} {verb} from {text.percent(before)} to {text.percent(after)}."


def _names(values: Iterable[object]) -> Markup:
    words = [Markup("<code>{}</code>").format(text.shorten(str(value), WIDTH)) for value in values]
    shown = words[:OPS_NAMED]
    more = f" and {len(words) - len(shown)} more outputs" if len(words) > len(shown) else ""
    return Markup("Output {}{}").format(Markup(", ").join(shown), more)
