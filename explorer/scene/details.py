"""All that is known of one layer before anything runs (type LayerDetails of js/src/protocol.ts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explorer.model import TensorSpec
from explorer.model.scopes import code_of
from explorer.scene.quantised import quantisation_entries
from explorer.scene.shapes import concrete_types
from explorer.scene.text import attribute_text, dims_text, shape_text
from explorer.scene.weights import weight_figures
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Layer, Model

__all__ = ["layer_details"]


def layer_details(
    model: Model,
    layer_id: str,
    low_format: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    weights: bool = True,
) -> dict[str, Any]:
    """Return attributes, tensors, weights and source code of a layer as plain values.

    Args:
        model: the model.
        layer_id: the layer.
        low_format: the format whose losses are counted in the weights.
        shapes: concrete shapes of the model's inputs, as for :func:`explorer.scene.structure`.
        weights: whether to read the weights' values; else none are listed.

    Raises:
        ModelError: the model has no such layer.
    """
    layer, node = model.layer(layer_id), model.nodes[layer_id]
    known = model.weights
    attributes = [
        {"name": name, "value": attribute_text(name, attribute)} for name, attribute in node.attributes.items()
    ]
    return {
        "layer": wiring(model).numbers[layer_id],
        "name": layer.name,
        "domain": layer.domain,
        "scope": layer.scope,
        "attributes": attributes,
        "inputs": _tensors(model, layer, "inputs", shapes),
        "outputs": _tensors(model, layer, "outputs", shapes),
        "weights": [
            weight_figures(model, layer, index, low_format)
            for index, name in enumerate(layer.inputs)
            if name in known and name not in layer.inputs[:index]
        ]
        if weights
        else [],
        "quantisation": quantisation_entries(model, layer),
        "source": layer.source,
        "code": code_of(node.metadata_props),
    }


def _tensors(
    model: Model, layer: Layer, side: str, shapes: Mapping[str, tuple[int, ...]] | None
) -> list[dict[str, str]]:
    """Return the tensors on one side of a layer, as the protocol's TensorInfo."""
    types = concrete_types(model, shapes)
    border = {spec.name for spec in (model.inputs if side == "inputs" else model.outputs)}
    found = []
    for name in layer.inputs if side == "inputs" else layer.outputs:
        kind = "absent" if not name else side.removesuffix("s") if name in border else "value"
        spec = types.get(name) or TensorSpec(name, "", None)
        shape = shape_text(spec) if name else ""
        if name in model.weights and kind == "value":
            kind, shape = "weight", dims_text(model.weights[name].shape)
        found.append({"name": name, "dtype": spec.dtype if name else "", "shape": shape, "kind": kind})
    return found
