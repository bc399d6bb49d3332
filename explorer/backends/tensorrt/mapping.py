"""Engine layers -> layers of the model: which of them each computes, or what it was added for.

Both ways it is many to many: a kernel computes several layers, and a layer may take several kernels. Names decide, from
metadata where there is some, else from the name of the engine layer; our exported models have the ids of layers as node
names. What no name tells is taken from the graph: a kernel that writes the value of a layer computes that layer, and a
block of which only the ends are named computes what lies between the tensors that it reads and writes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from explorer.backends.tensorrt.names import is_reformat, parts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from explorer.backends.tensorrt.engine_layers import EngineLayer
    from explorer.model import Layer, Model

__all__ = ["MappedLayer", "map_layers"]

# As conversion names what it inserts: the value, and what is done to it (explorer.convert.insert, insert_pairs).
_INSERTED: Final = re.compile(r"^(.*)_(?:cast_[a-z0-9]+|QuantizeLinear|DequantizeLinear)(?:_\d+)?$", re.DOTALL)
_ADDED: Final = frozenset({"reformat", "cast", "copy", "constant"})  # kinds that compute no layer unless they are named
_MOVED: Final = "Reformatted "  # TensorRT's name of a tensor that it gave another layout


@dataclass(frozen=True, slots=True)
class MappedLayer:
    """An engine layer and the layers of the model that it computes.

    Attributes:
        layer: the engine layer.
        ids: layers of the model, in their order of execution; empty for what TensorRT or conversion added.
        serves: the layer whose value it moves or casts, where it computes none and that is known.
        kind: ``layer``, ``reformat``, ``cast``, ``copy`` or ``other``.
        casts: it casts inside: types of what it reads and writes do not tell what it computes in.
        guessed: some of ``ids`` are not named, but lie between its tensors.
    """

    layer: EngineLayer
    ids: tuple[str, ...]
    serves: str | None = None
    kind: str = "layer"
    casts: bool = False
    guessed: bool = False

    @property
    def format(self) -> str:
        """What it computes in; empty where that is not told."""
        return "" if self.casts and not self.layer.multiplies else self.layer.format


def map_layers(
    model: Model, layers: Sequence[EngineLayer], inserted: Mapping[str, str] | None = None
) -> tuple[MappedLayer, ...]:
    """Return each engine layer with the layers of the model that it computes.

    Args:
        model: the model that the engine was made of, before conversion.
        layers: of the engine.
        inserted: names of the nodes that conversion inserted, each with the value that it casts. What the names that
            conversion gives look like is known without it.
    """
    mapper = _Mapper(model, inserted or {})
    found = [mapper.by_name(layer) for layer in layers]
    claimed = {each for mapped in found for each in mapped.ids}
    aliases = _aliases(layers)
    for number, mapped in enumerate(found):
        more = mapper.written(mapped, aliases) - claimed
        if more:
            claimed |= more
            found[number] = mapper.grown(mapped, more, guessed=mapped.guessed)
    for number, mapped in enumerate(found):
        if mapped.layer.kind == "myelin" or mapped.layer.cut:
            more = mapper.between(mapped, aliases, claimed)
            if more:
                claimed |= more
                found[number] = mapper.grown(mapped, more, guessed=True)
    return tuple(found)


class _Mapper:
    """Finds the layers of one model by names of nodes and values.

    Args:
        model: the model.
        inserted: nodes that conversion inserted, with the value of each.
    """

    def __init__(self, model: Model, inserted: Mapping[str, str]) -> None:
        self._order = {layer.id: number for number, layer in enumerate(model.layers)}
        self._layers = {layer.id: layer for layer in model.layers}
        self._known = _names(model.layers)
        self._producers = {name: layer.id for layer in model.layers for name in layer.outputs if name}
        self._values = {*self._producers, *model.weights, *(spec.name for spec in model.inputs)}
        self._inserted = inserted

    def by_name(self, layer: EngineLayer) -> MappedLayer:
        """Return an engine layer with what its names tell."""
        parts = parts_of(layer.name, self._known)
        ids = [self._known[name] for name in layer.sources if name in self._known]
        others = [name for name in layer.sources if name not in self._known]
        if not ids:
            ids, others = [self._known[name] for name in parts.nodes], others or list(parts.unknown)
        values = [value for name in others if (value := self._cast_value(name)) is not None]
        if is_reformat(layer.name):
            ids = []  # the metadata of a change of layout names the layer that it serves
        if ids:
            kind = "layer"
        elif values and len(values) == len(others) and layer.kind != "reformat":
            kind = "cast"
        elif (parts.serves or layer.type == "NoOp") and layer.kind not in ("reformat", "cast"):
            kind = "copy"  # a reshape that TensorRT put around a layer
        else:
            kind = layer.kind if layer.kind in ("reformat", "cast", "copy") else "other"
        return MappedLayer(layer, self._sorted(ids), self._served(layer, parts.serves, values), kind, bool(values))

    def _served(self, layer: EngineLayer, names: Iterable[str], values: Iterable[str]) -> str | None:
        for name in names:
            if name in self._known:
                return self._known[name]
        for value in (*values, *(each.name for each in (*layer.inputs, *layer.outputs))):
            if value in self._producers:
                return self._producers[value]
        return None

    def _cast_value(self, name: str) -> str | None:
        """Return the value that an inserted node casts; None where the name is not of such a node."""
        if name in self._inserted:
            return self._inserted[name]
        found = _INSERTED.match(name)
        return found[1] if found and found[1] in self._values else None

    def written(self, mapped: MappedLayer, aliases: Mapping[str, str]) -> set[str]:
        """Return the layers whose values an engine layer writes."""
        if mapped.kind not in ("layer", "other") or mapped.layer.kind in _ADDED:
            return set()
        names = (aliases.get(each.name, each.name) for each in mapped.layer.outputs)
        return {self._producers[name] for name in names if name in self._producers}

    def between(self, mapped: MappedLayer, aliases: Mapping[str, str], claimed: Collection[str]) -> set[str]:
        """Return the layers between the tensors that a block reads and those that it writes, and no other's."""
        ends = parts_of(mapped.layer.name, self._known).ends
        starts = {self._producers.get(aliases.get(each.name, each.name)) for each in mapped.layer.outputs}
        starts |= {self._known.get(name.rpartition(" + ")[2]) for name in ends[-1:]} | set(mapped.ids)
        stop = {aliases.get(each.name, each.name) for each in mapped.layer.inputs}
        own, found = set(mapped.ids), set()
        waiting = [each for each in starts if each is not None and (each in own or each not in claimed)]
        while waiting:
            layer_id = waiting.pop()
            if layer_id in found:
                continue
            found.add(layer_id)
            for name in self._layers[layer_id].inputs:
                before = None if name in stop else self._producers.get(name)
                if before is not None and before not in claimed:
                    waiting.append(before)
        first = {self._known[name] for name in ends[:1] if name in self._known} - set(claimed)
        return (found | first) - own

    def grown(self, mapped: MappedLayer, more: Collection[str], *, guessed: bool) -> MappedLayer:
        """Return an engine layer with more layers of the model."""
        return replace(mapped, ids=self._sorted({*mapped.ids, *more}), kind="layer", guessed=guessed)

    def _sorted(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(set(ids), key=self._order.__getitem__))


def _names(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the id of each layer by its id, and by the name that it has in the source file where that is unique."""
    counts = Counter(layer.name for layer in layers)
    known = {layer.name: layer.id for layer in layers if layer.name and counts[layer.name] == 1}
    return {**known, **{layer.id: layer.id for layer in layers}}


def _aliases(layers: Sequence[EngineLayer]) -> dict[str, str]:
    """Return the value that each tensor of another layout or type holds, by the tensor's name in the engine."""
    aliases: dict[str, str] = {}
    for layer in layers:
        if layer.kind not in ("reformat", "cast") or len(layer.inputs) != 1 or len(layer.outputs) != 1:
            continue
        source, target = layer.inputs[0].name, layer.outputs[0].name
        if source.startswith(_MOVED):
            aliases[source] = target
        elif target.startswith(_MOVED):
            aliases[target] = source
    return aliases
