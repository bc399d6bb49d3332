"""What a plan costs where no latency is known: the layers that it keeps in fp32, and a little for each cast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.backends.kernel_model import storage_bytes
from explorer.convert.places import cast_places
from explorer.search.costs import CostModel

if TYPE_CHECKING:
    from explorer.convert import Decisions, Typing
    from explorer.model import Layer

__all__ = ["counted_costs", "counted_formats", "counted_plan", "layer_bytes"]

_BY_BYTES: Final = "counted: layers by the bytes of their format, no latency is known"
_CAST: Final = 0.05  # of a layer: of two plans with as many low layers, the one with fewer casts is better


def counted_costs(typing: Typing) -> CostModel:
    """Return costs under which the best plan is the one with the most low layers; no GPU is asked.

    The fields in microseconds hold layers.
    """
    layers = typing.model.layers
    places = cast_places(typing)
    free = np.array([typing.layers[layer.id].switchable and layer.container is None for layer in layers], np.bool_)
    casts = {name: 0.0 if inner else _CAST for name, inner in zip(places.names, places.inner, strict=True)}
    return CostModel(
        layer_ids=tuple(layer.id for layer in layers),
        high_us=free.astype(np.float64),
        low_us=np.where(free, 0.0, np.nan),
        down_us=casts,
        up_us=casts,
        bonds=(),
        places=places,
        device="",
        provenance="counted: layers in fp32, no latency is known",
    )


def counted_formats(low: Typing, int8: Typing) -> tuple[CostModel, CostModel]:
    """Return costs among three formats: each layer counts by the bytes of its format, as a share of those of fp32.

    Args:
        low: what each layer may be in the plan's own format.
        int8: what each layer may be in int8.
    """
    either = np.array([_counts(layer, low) or _counts(layer, int8) for layer in low.model.layers], np.float64)
    found = []
    for typing in (low, int8):
        costs = counted_costs(typing)
        low_us = np.where(np.isnan(costs.low_us), np.nan, layer_bytes(typing.format))
        found.append(replace(costs, high_us=either, low_us=low_us, provenance=_BY_BYTES))
    return found[0], found[1]


def layer_bytes(name: str) -> float:
    """Return what a layer in a format counts.

    >>> layer_bytes("fp32"), layer_bytes("fp16"), layer_bytes("int8")
    (1.0, 0.5, 0.25)
    """
    return storage_bytes(name) / storage_bytes("fp32")


def counted_plan(decisions: Decisions, low: Typing, int8: Typing) -> float:
    """Return what a plan costs by these counts, its casts left out; arguments as above."""
    counted = [layer.id for layer in low.model.layers if _counts(layer, low) or _counts(layer, int8)]
    return sum(layer_bytes(decisions[layer_id].format) for layer_id in counted)


def _counts(layer: Layer, typing: Typing) -> bool:
    return typing.layers[layer.id].switchable and layer.container is None
