"""What other rooms tell, in the form that js/src/protocol.ts wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.export.blacklists import TOOLS, blacklist_text
from explorer.export.python_code import session_code
from explorer.scene import encode, layer_details, num, structure

if TYPE_CHECKING:
    from explorer.results import Trial, TrialFigures
    from explorer.session import Exploration

__all__ = [
    "blacklist_call",
    "blacklist_json",
    "layer_json",
    "python_code",
    "structure_json",
    "tools_json",
    "trial_json",
    "values_json",
]

Json = dict[str, Any]


def structure_json(x: Exploration) -> bytes:
    """Return the model as drawn, as UTF-8 JSON."""
    return encode(structure(x.model, x.samples.shapes))


def layer_json(x: Exploration, layer: int) -> Json:
    """Return `LayerDetails` of js/src/protocol.ts."""
    name = x.model.layers[layer].id
    runs = x.decisions()[name].format
    low = runs if runs in x.plan.formats else x.plan.format
    return layer_details(x.model, name, low, x.samples.shapes)


def values_json(x: Exploration, layer: int, output: int, revision: int) -> tuple[Json, list[bytes]]:
    """Return `LayerValues` of js/src/protocol.ts, and the buffers that it points into."""
    found = x.values(x.model.layers[layer].id, output)
    first, exact, plan = found.axis
    message: Json = {
        "layer": layer,
        "revision": revision,
        "output": found.output,
        "outputs": list(found.outputs),
        "format": found.format,
        "histogram": {
            "first": first,
            "exact": list(exact),
            "plan": list(plan),
            "exact_zeros": found.exact.zeros,
            "plan_zeros": found.plan.zeros,
            "exact_nonfinite": found.exact.nonfinite,
            "plan_nonfinite": found.plan.nonfinite,
        },
        "bands": found.bands.shown(),
        "scatter": None,
        "provenance": found.provenance,
        "note": found.note,
    }
    if found.scatter is None:
        return message, []
    pairs = [np.ascontiguousarray(each, "<f4").tobytes() for each in (found.scatter.exact, found.scatter.plan)]
    message["scatter"] = {
        "exact": {"$buffer": 0, "dtype": "f4"},
        "plan": {"$buffer": 1, "dtype": "f4"},
        "total": found.scatter.total,
    }
    return message, pairs


def trial_json(found: Trial) -> Json:
    """Return `TrialResult` of js/src/protocol.ts."""
    return {"before": _tried(found.before), "after": _tried(found.after), "text": found.text}


def _tried(found: TrialFigures) -> Json:
    return {
        "error": None if np.isnan(found.error) else num(found.error),
        "metric": num(found.metric),
        "latency_us": num(found.latency_us),
    }


def python_code(x: Exploration) -> str:
    """Return Python that makes the state of an exploration again, in a session of its own."""
    return session_code(x.model.path, x.plan, inputs=x.samples, target=x.target, calibration=x.calibration)


# -- other tools -------------------------------------------------------------------------------------------------------


def tools_json() -> list[Json]:
    """Return the tools whose syntax a blacklist can be written in."""
    return [{"name": name, "label": label} for name, label in TOOLS.items()]


def blacklist_json(x: Exploration, tool: str) -> Json:
    """Return the blacklist in the syntax of a tool, and what that cannot express."""
    text, note = blacklist_text(tool, x.model, x.decisions())
    return {"text": text, "note": note}


def blacklist_call(tool: str, path: str) -> str:
    """Return the Python that writes the same file."""
    text = f"blacklist_text({tool!r}, x.model, x.decisions())[0]"
    return (
        "import pathlib; from explorer.export.blacklists import blacklist_text; "
        f"pathlib.Path({path!r}).write_text({text}, encoding='utf-8', errors='backslashreplace')"
    )
