"""Which layer feeds which: nodes, tensors and edges of a model, numbered once for structure and figures alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from explorer.model import Model

__all__ = ["Wiring", "wiring"]


@dataclass(frozen=True)
class Wiring:
    """Nodes, tensors and edges by number: layers first, then model inputs, then model outputs.

    Attributes:
        numbers: layer id to number.
        tensors: name to number, of every value that an edge carries or that the model takes or returns.
        sources: by edge, the node that makes the tensor.
        targets: by edge, the node that takes it.
        carried: by edge, the tensor.
        containers: by layer, the layer whose body holds it; -1 for none.
        input_tensors: by model input, its tensor.
        output_tensors: by model output, its tensor.
    """

    numbers: dict[str, int]
    tensors: dict[str, int]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    carried: tuple[int, ...]
    containers: tuple[int, ...]
    input_tensors: tuple[int, ...]
    output_tensors: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.containers)


_KNOWN: WeakKeyDictionary[Model, Wiring] = WeakKeyDictionary()


def wiring(model: Model) -> Wiring:
    """Return nodes, tensors and edges of ``model``: one edge per (producer, consumer, tensor), in execution order.

    Weights carry no edge. A value that a layer inside a body takes from outside makes one.
    """
    known = _KNOWN.get(model)
    if known is None:
        known = _KNOWN[model] = _wired(model)
    return known


def _wired(model: Model) -> Wiring:
    layers = model.layers
    index = {layer.id: number for number, layer in enumerate(layers)}
    maker = {spec.name: len(layers) + number for number, spec in enumerate(model.inputs)}
    maker.update((name, number) for number, layer in enumerate(layers) for name in layer.outputs if name)
    tensors: dict[str, int] = {}
    edges: list[tuple[int, int, int]] = []

    def connect(name: str, target: int) -> None:
        source = maker.get(name)
        if source is not None:
            edges.append((source, target, tensors.setdefault(name, len(tensors))))

    fed = tuple(tensors.setdefault(spec.name, len(tensors)) for spec in model.inputs)
    for number, layer in enumerate(layers):
        for name in dict.fromkeys(layer.inputs):
            connect(name, number)
    first_output = len(layers) + len(fed)
    for number, spec in enumerate(model.outputs):
        connect(spec.name, first_output + number)
    returned = tuple(tensors.setdefault(spec.name, len(tensors)) for spec in model.outputs)
    sources, targets, carried = zip(*edges, strict=True) if edges else ((), (), ())
    containers = tuple(-1 if layer.container is None else index[layer.container] for layer in layers)
    return Wiring(index, tensors, sources, targets, carried, containers, fed, returned)
