"""Results as one JSON document: plain values under stable keys, valid JSON whatever the numbers are."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explorer import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.convert import Conversion
    from explorer.model import Layer, Model, TensorSpec

__all__ = ["conversion_document", "layer_document", "model_document", "plain", "print_document", "weights_document"]

SCHEMA = 1  # raised when a key changes its meaning or goes away; new keys do not raise it
_WORST_WEIGHTS = 10


def plain(value: Any) -> Any:
    """Return ``value`` in JSON's own types: NaN is null, infinities are the strings ``inf`` and ``-inf``.

    >>> plain({"a": float("nan"), "b": (1.5, float("-inf"))})
    {'a': None, 'b': [1.5, '-inf']}
    """
    if isinstance(value, pd.DataFrame):
        # By row as objects: to_dict would turn counts into floats where a column holds both.
        return [dict(zip(value.columns, map(plain, row), strict=True)) for row in value.itertuples(index=False)]
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str | bool | int | Path) or value is None:
        return str(value) if isinstance(value, Path) else value
    return [plain(item) for item in value]


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "inf" if value > 0 else "-inf"


def print_document(command: str, content: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    document = {"schema": SCHEMA, "version": __version__, "command": command, **plain(content)}
    # ASCII only, so that no encoding of the terminal or the pipe can break it.
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def model_document(model: Model) -> dict[str, Any]:
    """Return what is known of a model without running it."""
    return {
        "path": None if model.path is None else str(model.path),
        "name": model.name,
        "opset": model.opset,
        "layers": len(model.layers),
        "parameters": sum(weight.elements for weight in model.weights.values()),
        "weight_bytes": sum(weight.bytes for weight in model.weights.values()),
        "inputs": _specs(model.inputs),
        "outputs": _specs(model.outputs),
        "notes": list(model.notes),
    }


def _specs(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "dtype": spec.dtype, "shape": spec.shape} for spec in specs]


def layer_document(layer: Layer) -> dict[str, Any]:
    """Return one layer; ``id`` is what a blacklist takes."""
    return {
        "id": layer.id,
        "name": layer.name,
        "op": layer.qualified_op,
        "scope": layer.scope,
        "container": layer.container,
        "inputs": layer.inputs,
        "outputs": layer.outputs,
        "source": layer.source,
    }


def conversion_document(conversion: Conversion) -> dict[str, Any]:
    """Return how a conversion came to be."""
    return {
        "low_share": conversion.low_share,
        "low_layers": len(conversion.decisions.low_layers),
        "casts": conversion.casts,
        "weights": weights_document(conversion),
        "notes": conversion.notes,
    }


def weights_document(conversion: Conversion) -> dict[str, Any]:
    """Return what conversion did to the weights: counts of values."""
    weights = conversion.weights
    return {
        "converted": len(weights.weights),
        "total": weights.total,
        "clamped": weights.clamped,
        "worst": [
            {"name": report.name, "clamped": report.clamped, **plain(report.census)}
            for report in weights.worst(_WORST_WEIGHTS)
        ],
    }
