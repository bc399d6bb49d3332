"""Layers that had better share a format: engines run them as one product, or they share their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explorer.convert.traits import Kind
from explorer.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from explorer.convert import Typing
    from explorer.model import Layer
    from explorer.search.costs import CostModel

__all__ = ["AGREE", "agreeing", "following"]

AGREE: Final = ("qkv", "tied")  # unless the user asks for others
_KINDS: Final = (*AGREE, "fused")
_PRODUCTS: Final = frozenset({"Gemm", "MatMul"})
_MATRIX: Final = 2  # dimensions from which on a weight is worth storing once; scales and biases are small


def agreeing(typing: Typing, kinds: Collection[str], costs: CostModel) -> list[list[str]]:
    """Return groups of layers, by id, that shall run in the same format.

    Args:
        typing: what each layer may be; only layers that may run low are named.
        kinds: ``qkv`` (matrix products of one tensor with different weights, which engines run as one: the Q, K and V
            of attention, the gates of an MLP) and ``tied`` (layers that read the same matrix of weights, which would be
            stored twice), ``fused`` (layers that one kernel computes when they agree).
        costs: what each layer takes; it knows which run in one kernel.

    Raises:
        InputError: there is no such kind.
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise InputError(
                f"There are no layers that agree by '{kind}'.",
                fix=nearest(kind, _KINDS) or f"Known: {', '.join(_KINDS)}.",
            )
    free = [layer for layer in typing.model.layers if typing.layers[layer.id].switchable and layer.container is None]
    found: dict[tuple[str, str], list[str]] = {}
    for layer in free:
        matrices = [name for name in layer.inputs if _is_matrix(name, typing)]
        if "tied" in kinds:
            for name in matrices:
                found.setdefault(("tied", name), []).append(layer.id)
        if "qkv" in kinds and layer.op in _PRODUCTS and not layer.domain and matrices:
            for name in _read(layer, typing):
                found.setdefault(("qkv", name), []).append(layer.id)
    fused = (
        [[costs.layer_ids[one], costs.layer_ids[other]] for one, other, _ in costs.bonds] if "fused" in kinds else []
    )
    return [*(ids for ids in found.values() if len(ids) > 1), *fused]


def _is_matrix(name: str, typing: Typing) -> bool:
    weight = typing.model.weights.get(name)
    return weight is not None and len(weight.shape) >= _MATRIX


def _read(layer: Layer, typing: Typing) -> Sequence[str]:
    return [name for name in layer.inputs if name and name not in typing.model.weights]


def following(typing: Typing, blocked: Collection[str] = ()) -> list[list[str]]:
    """Return pairs of layers of which the second runs in a quantised format exactly when the first does.

    Such are an activation in the kernel of its producer, and a layer that moves what another one stored. A layer that
    moves data and that the user keeps in fp32 does, and binds nobody.

    Args:
        typing: what each layer may be in int8; other formats have no such pairs.
        blocked: ids of layers that stay in fp32.
    """
    found: list[list[str]] = []
    stored: dict[str, str] = {}  # by value, the layer that stores it
    weights = typing.model.weights
    for layer in typing.model.layers:
        may = typing.layers[layer.id]
        if not may.switchable:
            continue
        if may.after:
            found.append([may.after, layer.id])
        elif typing.format == "int8" and may.kind is Kind.MOVEMENT and layer.id not in blocked:
            takes = zip(layer.inputs, may.low_inputs, strict=True)
            data = next((name for name, low in takes if low and name not in weights), "")
            if data in stored:
                found.append([stored[data], layer.id])
        stored |= {name: layer.id for name, low in zip(layer.outputs, may.low_outputs, strict=True) if low}
    return found
