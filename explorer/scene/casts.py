"""Where conversion puts casts, told from the decisions alone: what every toggle shows without converting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

import numpy as np

from explorer.convert.places import AS_IO, cast_places
from explorer.convert.typing import HIGH
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    import numpy.typing as npt

    from explorer.convert import Decisions, Typing
    from explorer.convert.places import Places
    from explorer.model import Model

__all__ = ["TO_HIGH", "TO_INT8", "TO_LOW", "cast_count", "edge_casts", "pair_count"]

TO_LOW, TO_HIGH, TO_INT8 = 1, 2, 3  # 0: no cast; the last one in plans of fp16 and bf16 that ask for int8 too
_STORED = ("fp16", "bf16")  # formats that Cast nodes make; the others are made by pairs of quantisation nodes, or none
_PAIRED = ("int8", "fp8e4m3", "fp8e5m2")


def edge_casts(decisions: Decisions) -> npt.NDArray[np.uint8]:
    """Return by edge whether conversion changes the tensor's format there.

    0 not, 1 to the plan's low format, 2 to fp32, 3 to int8 in a plan of another format. A pair of QuantizeLinear and
    DequantizeLinear counts as what it makes of the tensor; where a quantised layer reads what another one stored so,
    nothing changes.
    """
    found = np.zeros(len(wiring(decisions.typing.model).carried), np.uint8)
    if decisions.plan.format in _STORED:
        drawn = _drawn(decisions.typing)
        wanted, cast = drawn.places.casts_by_place(_low(decisions), keep_io=decisions.plan.keep_io)
        here = cast & (drawn.edge >= 0)
        found[drawn.edge[here]] = np.where(wanted[here], TO_LOW, TO_HIGH)
    if (pairs := _pairs(decisions)) is not None:
        _draw_pairs(found, pairs, TO_LOW if decisions.plan.format in _PAIRED else TO_INT8)
    return found


def cast_count(decisions: Decisions) -> int:
    """Return how many Cast nodes conversion inserts: one a tensor, however many layers take it. Exact."""
    if decisions.plan.format not in _STORED:
        return 0
    down, up = _drawn(decisions.typing).places.casts(_low(decisions), keep_io=decisions.plan.keep_io)
    return int((down | up).sum())


def pair_count(decisions: Decisions) -> int:
    """Return how many pairs of QuantizeLinear and DequantizeLinear conversion puts on activations. Exact."""
    pairs = _pairs(decisions)
    return 0 if pairs is None else len(pairs.stored) + len(pairs.read - pairs.stored)


def _low(decisions: Decisions) -> npt.NDArray[np.bool_]:
    return np.array([layer.id in decisions.low_layers for layer in decisions.typing.model.layers], np.bool_)


@dataclass(frozen=True)
class _Pairs:
    """Tensors that quantised layers store and read, and by layer those that it reads quantised."""

    typing: Typing
    stored: frozenset[str]
    read: frozenset[str]
    by_layer: dict[str, frozenset[str]]


def _pairs(decisions: Decisions) -> _Pairs | None:
    """Return what stands between pairs under a plan; None where nothing does."""
    pure = decisions.plan.format in _PAIRED
    typing, layers = (decisions.typing, decisions.low_layers) if pure else (decisions.int8, decisions.int8_layers)
    if typing is None or not layers:
        return None
    model = typing.model
    constants = model.weights.keys() - {spec.name for spec in model.inputs}
    stored: set[str] = set()
    by_layer: dict[str, frozenset[str]] = {}
    for layer_id in layers:
        layer, may = model.layer(layer_id), typing.layers[layer_id]
        stored.update(name for name, low in zip(layer.outputs, may.low_outputs, strict=True) if low)
        reads = (name for name, low in zip(layer.inputs, may.low_inputs, strict=True) if low)
        by_layer[layer_id] = frozenset(name for name in reads if name and name not in constants)
    read = frozenset(name for names in by_layer.values() for name in names)
    return _Pairs(typing, frozenset(stored), read, by_layer)


def _draw_pairs(found: npt.NDArray[np.uint8], pairs: _Pairs, low: int) -> None:
    """Note on the edges where a tensor is quantised, and where what was stored quantised is read in fp32."""
    model = pairs.typing.model
    wires, layers = wiring(model), model.layers
    names = list(wires.tensors)
    for edge, (target, tensor) in enumerate(zip(wires.targets, wires.carried, strict=True)):
        name = names[tensor]
        stored = name in pairs.stored
        if not stored and name not in pairs.read:
            continue
        reads = target < len(layers) and name in pairs.by_layer.get(layers[target].id, ())
        if reads:
            found[edge] = 0 if stored else low
        elif stored and found[edge] != TO_LOW:
            found[edge] = TO_HIGH


@dataclass(frozen=True)
class _Drawn:
    """Places that take tensors, and the edges that are drawn to them.

    Attributes:
        places: where float32 tensors are made and taken.
        edge: by place, the edge; -1 where there is none: what a body returns, and inputs with a default value.
        edges: number of edges.
    """

    places: Places
    edge: npt.NDArray[np.int64]
    edges: int


_KNOWN: WeakKeyDictionary[Model, list[tuple[ref[Typing], _Drawn]]] = WeakKeyDictionary()


def _drawn(typing: Typing) -> _Drawn:
    """Return the places of a typing, found once for each."""
    known = [pair for pair in _KNOWN.get(typing.model, ()) if pair[0]() is not None]
    for key, drawn in known:
        if key() is typing:
            return drawn
    drawn = _found(typing)
    _KNOWN[typing.model] = [*known, (ref(typing), drawn)]
    return drawn


def _found(typing: Typing) -> _Drawn:
    wires, places = wiring(typing.model), cast_places(typing)
    edges = {
        (tensor, target): edge for edge, (target, tensor) in enumerate(zip(wires.targets, wires.carried, strict=True))
    }
    returned = enumerate(typing.model.outputs, start=wires.layers + len(wires.input_tensors))
    outputs = iter([node for node, spec in returned if typing.types[spec.name].dtype == HIGH])  # as places has them
    edge = []
    for value, taker in zip(places.value.tolist(), places.taker.tolist(), strict=True):
        node = next(outputs) if taker == AS_IO else taker
        edge.append(edges.get((wires.tensors.get(places.names[value], -1), node), -1))
    return _Drawn(places, np.array(edge, np.int64), len(wires.carried))
