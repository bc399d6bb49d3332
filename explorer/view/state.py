"""The panel's state, as `PanelState` of js/src/protocol.ts: what bar and inspector show beside the figures."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from explorer.backends.kernels import kernel_support
from explorer.backends.status import backend_status
from explorer.errors import InputError
from explorer.plan import NO_FORMAT, PRESETS
from explorer.report import text
from explorer.results import Accuracy
from explorer.scene import cast_count, findings_json, num, ops_json, outputs_json, pair_count, plan_json, search_json
from explorer.view.answers import python_code
from explorer.view.calls import IO_FORMATS
from explorer.view.edits import low_formats
from explorer.view.formats import formats_json
from explorer.view.words import figure, sqnr_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.results import TriedPlan
    from explorer.view.controller import Controller

__all__ = ["panel_state", "run_state", "search_state", "shares_text"]

Json = dict[str, Any]

_HIGH = "fp32"
_PRESETS = {"full": "everything low", "safe": "safe operators low", "fp32": "nothing low"}
_TARGETS = {
    "onnxruntime-cuda": "ONNX Runtime, CUDA",
    "tensorrt": "TensorRT",
    "onnxruntime-cpu": "ONNX Runtime, CPU",
}
_NO_TARGET = {
    "name": "",
    "label": "ONNX alone",
    "ready": True,
    "missing": "",
    "kernels": "No backend is asked: what ONNX's operators allow.",
}


def panel_state(c: Controller) -> Json:
    """Return the state as it is now; to be called under the controller's lock."""
    x, plan = c.x, c.x.plan
    decisions = x.decisions()
    shown = c.shown.errors if c.shown else None
    # The choice of the backend tells whose kernels were asked; it is a warning only where there are none to ask.
    asked = bool(x.target) and kernel_support(str(x.target)).known
    warnings = [each for each in x.warnings() if not (asked and each == x.target_note)]
    if shown is not None and isinstance(shown.accuracy, InputError):
        warnings.append(str(shown.accuracy))
    if c.trouble:
        warnings.append(c.trouble)
    return {
        "revision": c.revision,
        "format": plan.format,
        "formats": formats_json(x.model),
        "uses": list(low_formats(plan)),
        "preset": plan.preset_name,
        "presets": [{"name": name, "label": _PRESETS.get(name, name)} for name in PRESETS],
        "keep_io": plan.keep_io,
        "io_choice": plan.format in IO_FORMATS,
        "plan": plan_json(plan),
        "target": x.target or "",
        "targets": list(_targets()),
        "gpu": c.gpu,
        "devices": c.measuring.devices(),
        "measured": c.measuring.state(),
        "calibration": c.measuring.calibration(),
        "run": run_state(c),
        "undo": len(c.undo),
        "redo": len(c.redo),
        "ops": ops_json(decisions),
        "headline": _headline(c, decisions),
        "outputs": outputs_json(c.shown.outputs) if c.shown else [],
        "tried": [_tried(c, index, each) for index, each in enumerate(x.tried)],
        "findings": findings_json(c.findings, x.model),
        "search": search_state(c),
        "warnings": warnings,
        "samples": x.samples.describe(),
        "random": x.samples.origin == "random",
        "calls": list(c.calls),
        "code": python_code(x),
        "created": "",
    }


def run_state(c: Controller) -> Json:
    """Return what runs as `RunState` of js/src/protocol.ts.

    It is what finds a plan, what emulates the one that is set, or else what measures its latency.
    """
    run = c.searching.finding or (c.timing.run if c.run.state == "idle" != c.timing.run.state else c.run)
    return {name: getattr(run, name) for name in ("state", "stage", "done", "total", "seconds", "error")}


def search_state(c: Controller) -> Json:
    """Return `SearchState` of js/src/protocol.ts; to be called under the controller's lock."""
    found = c.searching
    run = {name: getattr(found.run, name) for name in ("state", "stage", "done", "total", "seconds_left", "error")}
    return search_json(
        found.shown, c.x.decisions(), c.x.target, run, chosen=found.chosen(), stale=found.stale(found.shown)
    )


@functools.cache
def _targets() -> tuple[Json, ...]:
    found = []
    known = {status.name: status for status in backend_status()}
    for name, label in _TARGETS.items():
        status = known[name]
        ready = status.state == "ready"
        found.append(
            {
                "name": name,
                "label": label,
                "ready": ready,
                "missing": "" if ready else " ".join(part for part in (status.detail, status.fix) if part),
                "kernels": kernel_support(name).source,
            }
        )
    return (*found, _NO_TARGET)


# -- headline ----------------------------------------------------------------------------------------------------------


def _headline(c: Controller, decisions: Decisions) -> Json:
    x = c.x
    floats = [decision.format for decision in decisions if decision.format != NO_FORMAT]
    return {
        "output_error": _output_error(c),
        "metric": _metric(c),
        "low_share": figure(
            x.low_share, shares_text(floats, x.plan), f"{_counts(floats, x.plan)}; {x.target_provenance}"
        ),
        "casts": _casts(c, decisions),
        "latency": c.measuring.headline(),
    }


def shares_text(formats: Sequence[str], plan: Plan) -> str:
    """Return the share of layers that run low, and of each low format where there are several.

    >>> from explorer.plan import Plan
    >>> formats = ["fp16"] * 7 + ["int8"] * 2 + ["fp32"]
    >>> shares_text(formats, Plan().use("int8", op_types=["Conv"])).replace("\u00a0", " ")
    '90 %: 70 % fp16, 20 % int8'
    """
    total = max(1, len(formats))
    low = text.share(sum(name != _HIGH for name in formats) / total)
    parts = [(name, formats.count(name)) for name in plan.formats if name in formats]
    if len(parts) < 2:
        return low
    return f"{low}: " + ", ".join(f"{text.share(count / total)} {name}" for name, count in parts)


def _counts(formats: Sequence[str], plan: Plan) -> str:
    counts = ", ".join(f"{formats.count(name):,} in {name}" for name in plan.formats)
    return f"{counts}, of {text.plural(len(formats), 'layer')} with float32 tensors"


def _output_error(c: Controller) -> Json | None:
    if c.shown is None or not c.shown.errors.found.outputs:
        return None
    worst, outputs = c.shown.errors.worst_db, len(c.shown.errors.found.outputs)
    which = "" if outputs == 1 else f", the worst of {outputs} outputs"
    random = "; random inputs: not to be trusted" if c.x.samples.origin == "random" else ""
    return figure(worst, sqnr_text(worst), f"{c.x.results.provenance(c.shown.plan, c.shown.target)}{which}{random}")


def _metric(c: Controller) -> Json | None:
    found = c.shown.errors.accuracy if c.shown else None
    if not isinstance(found, Accuracy):
        return None
    words = f"{text.percent(found.exact)} → {text.percent(found.plan)}"
    return figure(found.plan, words, f"accuracy on {text.plural(found.samples, 'sample')}, {found.provenance}")


def _casts(c: Controller, decisions: Decisions) -> Json | None:
    key = (c.x.plan, c.x.target)
    if key not in c.casts:
        c.casts[key] = cast_count(decisions) + pair_count(decisions)
    casts, pairs = c.casts[key], pair_count(decisions)
    words = [text.plural(casts - pairs, "Cast node")] if casts > pairs or not pairs else []
    if pairs:
        words.append(text.plural(pairs, "pair") + " of QuantizeLinear and DequantizeLinear")
    return figure(casts, text.count(casts), f"{' and '.join(words)}, inserted by conversion")


# -- plans -------------------------------------------------------------------------------------------------------------


def _tried(c: Controller, index: int, each: TriedPlan) -> Json:
    latency_us, latency_provenance = c.measuring.of_tried(each)
    return {
        "index": index,
        "label": each.label,
        "sqnr_db": num(each.sqnr_db),
        "metric": num(each.accuracy),
        "latency_us": num(latency_us),
        "low_share": each.low_share,
        "casts": c.casts.get((each.plan, each.target)),
        "error_provenance": each.error_provenance,
        "latency_provenance": latency_provenance,
        "current": each.plan == c.x.plan and each.target == c.x.target,
    }
