"""What each layer takes in fp32 and in int8 on this machine's processor, from a measurement of both models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from explorer.convert.places import cast_places
from explorer.search.costs import CostModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from explorer.backends.latency import LatencyResult
    from explorer.convert import Typing

__all__ = ["measured_costs"]

_QUANTIZE = "_QuantizeLinear"  # how conversion names the nodes that it inserts behind a tensor's name
_DEQUANTIZE = "_DequantizeLinear"


def measured_costs(
    typing: Typing, shapes: Mapping[str, tuple[int, ...]], high: LatencyResult, low: LatencyResult
) -> CostModel:
    """Return latency as a sum of measured layers.

    The times of a layer are those in the model that runs every layer in that format. Casts take as long for each
    element as those that the int8 model has; a model without any has no time for them. What the runtime inserts to
    change layouts, and its own work, are in neither.

    Args:
        typing: what each layer may be in int8.
        shapes: concrete shapes of the inputs.
        high: the fp32 model, measured.
        low: the model with every layer in int8 that may be, measured on the same machine, its rows being those of
            the layers of the fp32 model.
    """
    model = typing.model
    specs = model.infer(shapes)
    sizes = {name: float(math.prod(shape)) for name, spec in specs.items() if (shape := spec.static_shape) is not None}
    times = [{row.layer_id: row.median_us for row in found.layers} for found in (high, low)]
    high_us, low_us = (np.array([found.get(layer.id, 0.0) for layer in model.layers], np.float64) for found in times)
    free = np.array([typing.layers[each.id].switchable and each.container is None for each in model.layers], np.bool_)
    places = cast_places(typing)
    rates = _rates(low, sizes)
    down_us, up_us = ({name: rate * sizes.get(name, 0.0) for name in places.names} for rate in rates)
    notes = ["layouts that the runtime changes between layers are left out"]
    notes += ["no cast was measured, so casts count nothing"] if not any(rates) else []
    return CostModel(
        tuple(layer.id for layer in model.layers),
        high_us,
        _only(low_us, free),
        down_us,
        up_us,
        (),
        places,
        high.device,
        f"{high.provenance}: fp32 and int8 by layer, added up",
        "; ".join(notes),
    )


def _only(us: npt.NDArray[np.float64], free: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.where(free, us, np.nan)


def _rates(low: LatencyResult, sizes: Mapping[str, float]) -> tuple[float, float]:
    """Return microseconds an element of the casts to int8, and of those to fp32; each stands in for the other."""
    found = []
    for suffix in (_QUANTIZE, _DEQUANTIZE):
        rows = [(row.median_us, sizes.get(row.name.removesuffix(suffix), 0.0)) for row in low.inserted
                if row.name.endswith(suffix)]  # fmt: skip
        us, elements = (sum(column) for column in zip(*rows, strict=True)) if rows else (0.0, 0.0)
        found.append(us / elements if elements else 0.0)
    down, up = found
    return down or up, up or down
