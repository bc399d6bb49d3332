"""What a plan costs where no latency is known: the layers that it keeps in fp32, and a little for each cast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.places import cast_places
from explorer.search.costs import CostModel

if TYPE_CHECKING:
    from explorer.convert import Typing

__all__ = ["counted_costs"]

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
