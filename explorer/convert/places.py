"""Where float32 tensors are made and taken: which casts a plan needs, told without converting.

The rules are those of :mod:`explorer.convert.insert`, in columns, so that a search asks them of thousands of plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.traits import Kind
from explorer.convert.typing import HIGH

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from explorer.convert.typing import Typing

__all__ = ["ALWAYS_HIGH", "AS_IO", "Places", "cast_places"]

ALWAYS_HIGH: Final = -1  # who makes or takes a tensor where that is no layer: the border of a body stays in fp32
AS_IO: Final = -2  # the model's inputs and outputs


@dataclass(frozen=True)
class Places:
    """Every place that makes or takes a float32 tensor that conversion may cast; weights are converted, not cast.

    Attributes:
        names: the tensors.
        maker: by tensor, the position of the layer that makes it, or one of ``ALWAYS_HIGH`` and ``AS_IO``.
        made_low: by tensor, whether it is stored low when its maker runs low.
        inner: by tensor, whether it belongs to a control-flow body.
        value: by place that takes one, the tensor's position in ``names``.
        taker: by place, the position of the layer that takes it, or one of ``ALWAYS_HIGH`` and ``AS_IO``.
        taken_low: by place, whether it is taken low when the taker runs low.
    """

    names: tuple[str, ...]
    maker: npt.NDArray[np.intp]
    made_low: npt.NDArray[np.bool_]
    inner: npt.NDArray[np.bool_]
    value: npt.NDArray[np.intp]
    taker: npt.NDArray[np.intp]
    taken_low: npt.NDArray[np.bool_]

    def casts(
        self, low: npt.NDArray[np.bool_], *, keep_io: bool
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return by tensor whether it is cast to the low format, and whether it is cast to fp32.

        Args:
            low: by layer of the model, whether it runs low.
            keep_io: whether the model's inputs and outputs stay in fp32.
        """
        wanted, cast = self.casts_by_place(low, keep_io=keep_io)
        down, up = np.zeros((2, len(self.names)), np.bool_)
        down[self.value[cast & wanted]] = True
        up[self.value[cast & ~wanted]] = True
        return down, up

    def casts_by_place(
        self, low: npt.NDArray[np.bool_], *, keep_io: bool
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return by place whether the low format is wanted there, and whether the tensor is stored otherwise.

        Arguments as in :meth:`casts`.
        """
        runs_low = np.concatenate([low, [not keep_io, False]])
        stored_low = self.made_low & runs_low[self.maker]
        wanted = self.taken_low & runs_low[self.taker]
        return wanted, wanted != stored_low[self.value]


def cast_places(typing: Typing) -> Places:
    """Return where the float32 tensors of a model are made and taken."""
    model = typing.model
    rows = [*_by_layers(typing), *_by_borders(typing)]
    names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _, _ in rows))}
    maker = np.full(len(names), ALWAYS_HIGH, np.intp)
    made_low, inner = np.zeros((2, len(names)), np.bool_)
    for body in model.ir.graph.subgraphs():
        if body is not model.ir.graph:
            inner[[names[str(value.name)] for value in body.inputs if value.name in names]] = True
    for spec in model.inputs:
        if spec.name in names:
            maker[names[spec.name]], made_low[names[spec.name]] = AS_IO, True
    for position, layer in enumerate(model.layers):
        for name, low in zip(layer.outputs, typing.layers[layer.id].low_outputs, strict=True):
            if name in names:
                number = names[name]
                maker[number], made_low[number], inner[number] = position, low, layer.container is not None
    values, takers, lows = zip(*rows, strict=True) if rows else ((), (), ())
    return Places(
        tuple(names),
        maker,
        made_low,
        inner,
        np.array([names[name] for name in values], np.intp),
        np.array(takers, np.intp),
        np.array(lows, np.bool_),
    )


def _by_layers(typing: Typing) -> Iterator[tuple[str, int, bool]]:
    """Yield (tensor, layer that takes it, whether low when that runs low)."""
    model = typing.model
    fed = {str(value.name) for value in model.ir.graph.inputs}  # one with a default may be fed, so it is no weight
    weights = model.weights.keys() - fed
    for position, layer in enumerate(model.layers):
        may = typing.layers[layer.id]
        if may.kind is Kind.OBSERVE:
            continue
        for name, low in zip(layer.inputs, may.low_inputs, strict=True):
            if name not in weights and _is_high(typing, name):
                yield name, position, low


def _by_borders(typing: Typing) -> Iterator[tuple[str, int, bool]]:
    """Yield the same for what the model and its bodies return."""
    model = typing.model
    for graph in (model.ir.graph, *model.ir.graph.subgraphs()):
        for value in graph.outputs:
            if _is_high(typing, str(value.name)):
                yield str(value.name), *((AS_IO, True) if graph is model.ir.graph else (ALWAYS_HIGH, False))


def _is_high(typing: Typing, name: str) -> bool:
    return name in typing.types and typing.types[name].dtype == HIGH
