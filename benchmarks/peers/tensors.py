"""Errors of every tensor the usual way: all tensors as outputs of two models, compared outside of the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["compare", "mark_all", "run_all"]


def mark_all(model: onnx.ModelProto) -> None:
    """Make every result of the main graph an output, in place."""
    have = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in have:
                have.add(name)
                model.graph.output.add(name=name)


def run_all(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def compare(exact: dict[str, Any], low: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return sum of squared errors and largest error of every float tensor that both runs have."""
    found = {}
    for name, reference in exact.items():
        value = low.get(name)
        if value is None or reference.dtype != np.float32 or value.shape != reference.shape or not value.size:
            continue
        error = np.subtract(value, reference, dtype=np.float32).reshape(-1)
        found[name] = (float(np.dot(error, error)), float(max(error.max(), -error.min())))
    return found
