"""The scene that a report carries: what the view shows where nothing can be asked."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from explorer.scene.details import layer_details
from explorer.scene.structure import encode, structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Model

__all__ = ["read_only_scene"]

_MOST_DETAILS = 3000  # layers; beyond it the details would outweigh the graph (about 0.7 kB a layer before packing)


def read_only_scene(
    model: Model,
    state: Mapping[str, Any],
    frame: bytes,
    *,
    low_format: str,
    formats: Mapping[str, str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[int, Mapping[str, Any]] | None = None,
) -> bytes:
    """Return the scene as JSON, in the form of ``Scene`` in js/src/hosts/page.ts.

    It is ``{structure, state, figures, details, values}``: Structure and PanelState as they are, the frame in base64,
    LayerDetails by layer (none in a model of more than 3,000 layers), LayerValues by number of the layer. Nothing in
    it is interned beyond what the Structure interns: the report packs the whole with gzip, which makes repeated scopes
    and names cost nothing, and which every browser unpacks by itself.

    Args:
        model: the model.
        state: the PanelState to show; its ``created`` tells that it is a report.
        frame: what :func:`explorer.scene.figures` gave.
        low_format: the format of the plan.
        formats: layer id to the low format that the layer runs in, where that is another.
        shapes: concrete shapes of the model's inputs.
        values: LayerValues by layer, without typed arrays.
    """
    details: list[dict[str, Any]] = []
    if len(model.layers) <= _MOST_DETAILS:
        other = formats or {}
        details = [layer_details(model, each.id, other.get(each.id, low_format), shapes) for each in model.layers]
    return encode(
        {
            "structure": structure(model, shapes),
            "state": state,
            "figures": base64.b64encode(frame).decode("ascii"),
            "details": details,
            "values": {str(layer): found for layer, found in (values or {}).items()},
        }
    )
