"""Which tensors a plan rounds: the sources of its noise, each counted once, whoever rounds it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.traits import Kind
from explorer.convert.typing import HIGH
from explorer.probe.low import adds_value
from explorer.probe.rounding import STORED, reads_rounded, rounded_elements, rounded_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.model import Layer

__all__ = ["Sources", "rounding_sources"]

_FIRST: Final = frozenset({  # results are elements of the first input, perhaps with another sign
    "Abs", "Compress", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GlobalMaxPool",
    "Identity", "MaxPool", "Neg", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ReverseSequence", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze",
})  # fmt: skip
_ALL: Final = frozenset({"Concat", "Max", "Min", "Pad", "Where"})  # results are elements of the float inputs
_CLIP_TAKES_BOUNDS: Final = 11  # Clip: bounds are inputs from this opset on, attributes before
_SMALL: Final = 16  # elements up to which a weight that several layers read is a source for each of them
_FIRST_LOOK: Final = 4096  # elements of a weight, among which one nearly always changes


@dataclass(frozen=True)
class Sources:
    """The sources of noise of a model.

    Attributes:
        names: what stands for each: the tensor, and where one layer alone reads it rounded, that layer too.
        kinds: of each, ``activation``, ``weight`` or ``input``.
        touched: by layer id, the sources that are rounded when the layer runs low; only layers that may.
        outputs: sources that are rounded when the model's inputs and outputs take the low format.
        single: by source that one layer alone sees rounded, the tensor and the id of the layer. Such are small weights
            that several layers read: an epsilon that one of them bears may break another. Such are all weights in int8:
            their steps depend on who reads them.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    touched: Mapping[str, npt.NDArray[np.intp]]
    outputs: npt.NDArray[np.intp]
    single: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def tensor(self, source: int) -> str:
        """Return the tensor that a source rounds."""
        return self.single[source][0] if source in self.single else self.names[source]

    def __len__(self) -> int:
        return len(self.names)


def rounding_sources(typing: Typing) -> Sources:
    """Return the sources of a model; layers in the bodies of others, and weights that rounding leaves, have none."""
    reader = _Reader(typing)
    touched = {}
    for layer in typing.model.layers:
        if layer.container is None:
            reader.note_copies(layer)
            if typing.layers[layer.id].switchable:
                touched[layer.id] = reader.numbers(reader.rounded(layer), layer.id)
    borders = (*typing.model.inputs, *typing.model.outputs) if typing.format in STORED else ()
    outside = reader.numbers(spec.name for spec in borders if reader.is_float(spec.name))
    kinds = tuple(reader.kind(tensor) for tensor, _ in reader.known)
    names = tuple(f"{tensor}::in::{layer_id}" if layer_id else tensor for tensor, layer_id in reader.known)
    single = {number: key for key, number in reader.known.items() if key[1]}
    return Sources(names, kinds, touched, outside, single)


class _Reader:
    """Reads layer after layer which tensors are new, and which hold the elements of others."""

    def __init__(self, typing: Typing) -> None:
        self.typing = typing
        self.fed = {spec.name for spec in typing.model.inputs}
        self.weights = set(typing.model.weights) - self.fed
        self.known: dict[tuple[str, str], int] = {}
        self._readers = Counter(name for layer in typing.model.layers for name in set(layer.inputs))
        self._roots: dict[str, tuple[str, ...]] = {}
        self._unchanged: dict[tuple[str, str], bool] = {}

    def is_float(self, name: str) -> bool:
        """Return whether a value is a float32 tensor."""
        return bool(name) and name in self.typing.types and self.typing.types[name].dtype == HIGH

    def kind(self, name: str) -> str:
        """Return what sort of source a tensor is."""
        return "weight" if name in self.weights else "input" if name in self.fed else "activation"

    def numbers(self, names: Iterable[str], layer_id: str = "") -> npt.NDArray[np.intp]:
        """Return the sources that rounding these tensors rounds, where a layer does or at the model's border."""
        keys: dict[tuple[str, str], None] = {}
        for name in names:
            for root in self._roots.get(name, (name,)):
                alone = layer_id if root == name and self._is_single(name) else ""
                if not self.is_unchanged(root, alone):
                    keys[root, alone] = None
        return np.array(sorted(self.known.setdefault(key, len(self.known)) for key in keys), np.intp)

    def _is_single(self, name: str) -> bool:
        """Return whether a value is a weight that each of its readers rounds by itself."""
        if name not in self.weights:
            return False
        if self.typing.format == "int8":
            return True
        return self._readers[name] > 1 and math.prod(self.typing.model.weights[name].shape) <= _SMALL

    def is_unchanged(self, name: str, layer_id: str = "") -> bool:
        """Return whether a value is a weight that the format holds exactly, as this layer reads it."""
        if name not in self.weights:
            return False
        if (name, layer_id) not in self._unchanged:
            tensor = self.typing.model.ir.graph.initializers[name].const_value
            assert tensor is not None
            values = tensor.numpy()
            if layer_id and self.typing.format == "int8":
                layer = self.typing.model.layer(layer_id)
                low = rounded_weight(values, self.typing, layer, layer.inputs.index(name))
                same = np.array_equal(low, values)
            else:
                same = self._holds(values.reshape(-1))
            self._unchanged[name, layer_id] = same
        return self._unchanged[name, layer_id]

    def _holds(self, values: npt.NDArray[np.float32]) -> bool:
        """Return whether the format, which is not int8, holds some values exactly."""
        return all(
            np.array_equal(part, rounded_elements(part, self.typing.format)) for part in (values[:_FIRST_LOOK], values)
        )

    def note_copies(self, layer: Layer) -> None:
        """Note of which tensors the results of a layer hold the elements."""
        data = self._copied(layer)
        roots = tuple(dict.fromkeys(root for name in data for root in self._roots.get(name, (name,))))
        if roots:
            self._roots |= {name: roots for name in layer.outputs if self.is_float(name)}

    def rounded(self, layer: Layer) -> list[str]:
        """Return the tensors that a layer rounds when it runs low."""
        may = self.typing.layers[layer.id]
        moves = may.kind is Kind.MOVEMENT and not adds_value(layer.op, self.typing.model.opset)
        places = [*zip(layer.inputs, reads_rounded(self.typing, layer), strict=True)]
        places += [] if moves else [*zip(layer.outputs, may.low_outputs, strict=True)]
        return [name for name, low in places if low and self.is_float(name)]

    def _copied(self, layer: Layer) -> list[str]:
        """Return the inputs whose elements the results are; empty where results are computed.

        In formats whose tensors have scales of their own, or are only rounded where they are read, no other layers
        copy but those that move what is stored.
        """
        if layer.domain or not layer.inputs:
            return []
        if self.typing.format not in STORED:
            may = self.typing.layers[layer.id]
            return [layer.inputs[0]] if may.switchable and may.kind is Kind.MOVEMENT else []
        if self.is_float(layer.inputs[0]) and (
            layer.op in _FIRST or (layer.op == "Clip" and self._holds_bounds(layer))
        ):
            return [layer.inputs[0]]
        if layer.op in _ALL and not adds_value(layer.op, self.typing.model.opset):
            return [name for name in layer.inputs if self.is_float(name)]
        return []

    def _holds_bounds(self, clip: Layer) -> bool:
        """Return whether the format holds the bounds of a Clip exactly, so that clipping and rounding commute."""
        if self.typing.model.opset >= _CLIP_TAKES_BOUNDS:
            return all(self.is_unchanged(name) for name in clip.inputs[1:] if name)
        attributes = self.typing.model.attributes(clip.id)
        bounds = np.array([attributes[name] for name in ("min", "max") if name in attributes], np.float32)
        return self._holds(bounds)
