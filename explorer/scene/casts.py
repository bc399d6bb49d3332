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

__all__ = ["TO_HIGH", "TO_LOW", "cast_count", "edge_casts"]

TO_LOW, TO_HIGH = 1, 2  # 0: no cast


def edge_casts(decisions: Decisions) -> npt.NDArray[np.uint8]:
    """Return by edge whether conversion casts its tensor there: 0 not, 1 to the low format, 2 to fp32."""
    drawn = _drawn(decisions.typing)
    wanted, cast = drawn.places.casts_by_place(_low(decisions), keep_io=decisions.plan.keep_io)
    found = np.zeros(drawn.edges, np.uint8)
    here = cast & (drawn.edge >= 0)
    found[drawn.edge[here]] = np.where(wanted[here], TO_LOW, TO_HIGH)
    return found


def cast_count(decisions: Decisions) -> int:
    """Return how many Cast nodes conversion inserts: one a tensor, however many layers take it. Exact."""
    down, up = _drawn(decisions.typing).places.casts(_low(decisions), keep_io=decisions.plan.keep_io)
    return int((down | up).sum())


def _low(decisions: Decisions) -> npt.NDArray[np.bool_]:
    return np.array([layer.id in decisions.low_layers for layer in decisions.typing.model.layers], np.bool_)


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
