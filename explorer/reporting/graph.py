"""The graph of a report: its scene, with the state that the panel shows where nothing can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.plan import PRESETS
from explorer.probe.values import Bands
from explorer.report.tiles import tiles
from explorer.scene import (
    FrontColumns,
    ShownFront,
    figures,
    findings_json,
    known_accuracy,
    num,
    ops_json,
    outputs_json,
    plan_json,
    read_only_scene,
    search_json,
)
from explorer.search.plans import blacklist_only
from explorer.search.point import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.backends.latency import LatencyResult
    from explorer.measure import Histogram
    from explorer.report import ReportData
    from explorer.report.layers import Layers
    from explorer.session import Exploration

__all__ = ["graph_scene"]

Json = dict[str, Any]

_MOST_HISTOGRAMS: Final = 2000  # layers; beyond it histograms would outweigh the rest of the page, and take a long run
_FIGURES: Final = {"output-error": "output_error", "accuracy": "metric", "share": "low_share", "casts": "casts"}


def graph_scene(
    exploration: Exploration, data: ReportData, layers: Layers, *, measured: LatencyResult | None = None
) -> bytes:
    """Return the scene of the graph as a report carries it.

    Args:
        exploration: with its plan.
        data: what else the report shows; the graph shows the same figures.
        layers: its tables, joined.
        measured: the latency of the plan where it was measured.
    """
    model, decisions = exploration.model, exploration.decisions()
    frame = figures(
        model,
        decisions,
        errors=data.errors,
        ranges=data.ranges,
        latency=data.latency,
        measured=measured,
        first_nonfinite=exploration.first_nonfinite(),
        front=FrontColumns.of(exploration.front, decisions, exploration.target),
        errors_revision=0,
    )
    found = exploration.histograms() if len(model.layers) <= _MOST_HISTOGRAMS else {}
    return read_only_scene(
        model,
        _state(exploration, data, layers),
        frame,
        low_format=exploration.plan.format,
        formats=dict.fromkeys(decisions.int8_layers, "int8"),
        shapes=exploration.samples.shapes,
        values=_values(exploration, found),
    )


def _values(exploration: Exploration, found: Mapping[str, Histogram]) -> dict[int, Json]:
    """Return `LayerValues` of js/src/protocol.ts by layer: the exact values alone."""
    plan, target = exploration.plan, exploration.target
    typings = {name: exploration.results.ready(name, target) for name in plan.formats}
    decisions, made = exploration.decisions(), {}
    for number, layer in enumerate(exploration.model.layers):
        histogram = found.get(layer.id)
        if histogram is None:
            continue
        ran = decisions[layer.id].format
        low = ran if ran in typings else plan.format
        bands = Bands.of_tensor(typings[low], layer.outputs[0])
        made[number] = {
            "layer": number,
            "revision": 0,
            "output": layer.outputs[0],
            "outputs": [layer.outputs[0]],
            "format": low,
            "histogram": {
                "first": histogram.first,
                "exact": list(histogram.counts),
                "plan": None,
                "exact_zeros": histogram.zeros,
                "plan_zeros": None,
                "exact_nonfinite": histogram.nonfinite,
                "plan_nonfinite": None,
            },
            "bands": bands.shown(),
            "scatter": None,
            "provenance": exploration.range_provenance,
            "note": "",
        }
    return made


def _state(exploration: Exploration, data: ReportData, layers: Layers) -> Json:
    """Return `PanelState` of js/src/protocol.ts: what can be chosen in a notebook is empty here."""
    plan, target = exploration.plan, exploration.target or ""
    preset = plan.preset_name
    return {
        "revision": 0,
        "format": plan.format,
        "formats": [{"name": plan.format, "about": "", "off": ""}],
        "uses": list(plan.formats),
        "preset": preset,
        "presets": [{"name": name, "label": name} for name in PRESETS],
        "keep_io": plan.keep_io,
        "io_choice": False,
        "plan": plan_json(plan),
        "target": target,
        "targets": [{"name": target, "label": target or "ONNX alone", "ready": True, "missing": "", "kernels": ""}],
        "gpu": "",
        "devices": [],
        "measured": None,
        "calibration": _calibration(exploration),
        "run": {"state": "idle", "stage": "", "done": 0, "total": 0, "seconds": None, "error": None},
        "undo": 0,
        "redo": 0,
        "ops": ops_json(exploration.decisions()),
        "headline": _headline(data, layers),
        "outputs": outputs_json(data.output_error),
        "tried": _tried(exploration),
        "findings": findings_json(data.findings, exploration.model),
        "search": _search(exploration),
        "warnings": [],  # the page tells them itself
        "samples": data.samples.description,
        "random": data.samples.random,
        "calls": [],
        "code": data.python,
        "created": data.created,
    }


def _calibration(exploration: Exploration) -> Json:
    """Return `CalibrationState` of js/src/protocol.ts; nothing can be calibrated anew here."""
    known, decisions = exploration.calibration, exploration.decisions()
    return {
        "wanted": bool(decisions.low_layers if decisions.plan.format == "int8" else decisions.int8_layers),
        "method": "" if known is None else known.method,
        "methods": [],
        "text": "" if known is None else known.description,
        "notes": [] if known is None else list(known.warnings),
    }


def _headline(data: ReportData, layers: Layers) -> Json:
    """Return the figures of the report's tiles: the same words in both places."""
    known: Json = dict.fromkeys((*_FIGURES.values(), "latency"))
    for tile in tiles(data, layers):
        key = _FIGURES.get(tile.key, tile.key)
        if known.get(key) is not None:
            continue  # the first device is the most telling
        words = f"{tile.before} → {tile.value}" if tile.before else tile.value
        source = tile.provenance or tile.detail
        # No figure of the plan: it must not pass for one.
        if key == "latency" and not tile.before and data.model_latency[0].fp32_us is not None:
            words, source = f"{words} in fp32", f"{source}; {tile.detail}"
        known[key] = {"value": None, "text": words, "provenance": source}
    known["output_error"]["value"] = num(_worst_db(data))
    return known


def _worst_db(data: ReportData) -> float | None:
    ratios = data.output_error["sqnr_db"].to_numpy(np.float64, na_value=np.nan)
    if ratios.size == 0:
        return None
    return float("-inf") if np.isnan(ratios).any() else float(ratios.min())


def _search(exploration: Exploration) -> Json:
    """Return what a search found, with which nothing can be started here."""
    front, plan, target = exploration.front, exploration.plan, exploration.target
    run = {"stage": "", "done": 0, "total": 0, "seconds_left": None, "error": None}
    if front is None:
        return search_json(None, exploration.decisions(), target, {**run, "state": "idle"})
    settings = Settings(blacklist_only(plan), target, front.settings.gpu_model)
    return search_json(
        ShownFront.of(front, known_accuracy(exploration.results)),
        exploration.decisions(),
        target,
        {**run, "state": "done"},
        stale=front.differs(settings),
    )


def _tried(exploration: Exploration) -> list[Json]:
    here = (exploration.plan, exploration.target)
    return [
        {
            "index": index,
            "label": each.label,
            "sqnr_db": num(each.sqnr_db),
            "metric": num(each.accuracy),
            "latency_us": num(each.latency_us),
            "low_share": each.low_share,
            "casts": None,
            "error_provenance": each.error_provenance,
            "latency_provenance": each.latency_provenance,
            "current": (each.plan, each.target) == here,
        }
        for index, each in enumerate(exploration.tried)
    ]
