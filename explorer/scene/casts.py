"""Where conversion puts casts, told from the decisions alone: what every toggle shows without converting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

import numpy as np

from explorer.convert.traits import Kind
from explorer.convert.typing import HIGH
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from explorer.convert import Decisions, Typing
    from explorer.model import Model

__all__ = ["TO_HIGH", "TO_LOW", "cast_count", "edge_casts"]

TO_LOW, TO_HIGH = 1, 2  # 0: no cast
_ALWAYS_HIGH, _AS_IO = -1, -2  # who takes a value that is no layer: the border of a body, an output of the model


def edge_casts(decisions: Decisions) -> npt.NDArray[np.uint8]:
    """Return by edge whether conversion casts its tensor there: 0 not, 1 to the low format, 2 to fp32."""
    takes = _takes(decisions.typing)
    wanted, cast = takes.casts(decisions)
    found = np.zeros(takes.edges, np.uint8)
    here = cast & (takes.edge >= 0)
    found[takes.edge[here]] = np.where(wanted[here], TO_LOW, TO_HIGH)
    return found


def cast_count(decisions: Decisions) -> int:
    """Return how many Cast nodes conversion inserts: one a tensor, however many layers take it. Exact."""
    takes = _takes(decisions.typing)
    _, cast = takes.casts(decisions)
    return len(np.unique(takes.value[cast]))


@dataclass(frozen=True)
class _Takes:
    """Every place that takes a float32 value which conversion may cast, in columns.

    Attributes:
        value: the value, as a position in ``names``.
        taker: the layer, or one of ``_ALWAYS_HIGH`` and ``_AS_IO``.
        low: whether it takes the value low when it runs low.
        edge: the edge; -1 where there is none: what a body returns, and inputs with a default value.
        names: values by number.
        layers: ids of the layers.
        edges: number of edges.
    """

    value: npt.NDArray[np.int64]
    taker: npt.NDArray[np.int64]
    low: npt.NDArray[np.bool_]
    edge: npt.NDArray[np.int64]
    names: tuple[str, ...]
    layers: tuple[str, ...]
    edges: int

    def casts(self, decisions: Decisions) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return by place whether the low format is wanted there, and whether the value is stored otherwise."""
        runs_low = np.zeros(len(self.layers) + 2, np.bool_)
        runs_low[: len(self.layers)] = [layer in decisions.low_layers for layer in self.layers]
        runs_low[_AS_IO] = not decisions.plan.keep_io  # and at the end, _ALWAYS_HIGH stays False
        stored_low = np.array([name in decisions.low_values for name in self.names], np.bool_)
        wanted = self.low & runs_low[self.taker]
        return wanted, wanted != stored_low[self.value]


_KNOWN: WeakKeyDictionary[Model, list[tuple[ref[Typing], _Takes]]] = WeakKeyDictionary()


def _takes(typing: Typing) -> _Takes:
    """Return the places of a typing, found once for each."""
    known = [pair for pair in _KNOWN.get(typing.model, ()) if pair[0]() is not None]
    for key, takes in known:
        if key() is typing:
            return takes
    takes = _found(typing)
    _KNOWN[typing.model] = [*known, (ref(typing), takes)]
    return takes


def _found(typing: Typing) -> _Takes:
    wires = wiring(typing.model)
    edges = {
        (tensor, target): edge for edge, (target, tensor) in enumerate(zip(wires.targets, wires.carried, strict=True))
    }
    names: dict[str, int] = {}
    rows = [
        (names.setdefault(name, len(names)), taker, low, edges.get((wires.tensors.get(name, -1), node), -1))
        for name, taker, low, node in (*_by_layers(typing), *_by_borders(typing))
    ]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    value, taker, low, edge = (np.array(column) for column in columns)
    return _Takes(
        value.astype(np.int64),
        taker.astype(np.int64),
        low.astype(np.bool_),
        edge.astype(np.int64),
        tuple(names),
        tuple(wires.numbers),
        len(wires.carried),
    )


def _by_layers(typing: Typing) -> Iterator[tuple[str, int, bool, int]]:
    """Yield (value, layer that takes it, whether low when that runs low, node of the edge)."""
    model = typing.model
    defaults = {str(value.name) for value in model.ir.graph.inputs}  # cast like any input, since they may be fed
    weights = {name for name in model.weights if name not in defaults}
    for number, layer in enumerate(model.layers):
        may = typing.layers[layer.id]
        if may.kind is Kind.OBSERVE:
            continue
        for name, low in zip(layer.inputs, may.low_inputs, strict=True):
            if name in typing.types and typing.types[name].dtype == HIGH and name not in weights:
                yield name, number, low, number


def _by_borders(typing: Typing) -> Iterator[tuple[str, int, bool, int]]:
    """Yield the same for what the model and its bodies return."""
    model, wires, types = typing.model, wiring(typing.model), typing.types
    floats = {name for name, spec in types.items() if spec.dtype == HIGH}
    for number, spec in enumerate(model.outputs, start=wires.layers + len(wires.input_tensors)):
        if spec.name in floats:
            yield spec.name, _AS_IO, True, number
    for body in model.ir.graph.subgraphs():
        if body is not model.ir.graph:
            yield from ((str(value.name), _ALWAYS_HIGH, False, -1) for value in body.outputs if value.name in floats)
