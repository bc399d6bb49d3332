"""The model as drawn: what goes over to the view once (type Structure of js/src/protocol.ts)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from explorer.scene.shapes import concrete_types
from explorer.scene.text import shape_text
from explorer.scene.tree import tree
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Model, TensorSpec

__all__ = ["encode", "structure"]

_VERSION = 1
_FLOATS = ("float", "bfloat", "double", "complex")


def structure(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """Return layers, tensors, edges and groups of ``model`` as plain values, in the form of the protocol's Structure.

    Args:
        model: the model.
        shapes: concrete shapes of its inputs (``samples.shapes``); with them the tensors' shapes are concrete too.
    """
    wires = wiring(model)
    types = concrete_types(model, shapes)
    specs = [types.get(name) for name in wires.tensors]
    quiet = [name for name, spec in zip(wires.tensors, specs, strict=True) if spec and _is_quiet(spec)]
    groups = tree(model, wires, quiet=quiet)
    ops, sources, dtypes = _Interned(), _Interned([""]), _Interned()
    return {
        "version": _VERSION,
        "name": model.name,
        "digest": model.digest,
        "opset": model.opset,
        "producer": " ".join(filter(None, (model.ir.producer_name, model.ir.producer_version))),
        "ops": ops.words,
        "sources": sources.words,
        "dtypes": dtypes.words,
        "layers": {
            "id": [layer.id for layer in model.layers],
            "op": [ops(layer.qualified_op) for layer in model.layers],
            "group": groups.layer_group,
            "source": [sources(layer.source) for layer in model.layers],
            "container": list(wires.containers),
        },
        "inputs": {"name": [spec.name for spec in model.inputs], "tensor": list(wires.input_tensors)},
        "outputs": {"name": [spec.name for spec in model.outputs], "tensor": list(wires.output_tensors)},
        "tensors": {
            "name": list(wires.tensors),
            "dtype": [dtypes(spec.dtype if spec else "") for spec in specs],
            "shape": [shape_text(spec) for spec in specs],
        },
        "edges": {"from": list(wires.sources), "to": list(wires.targets), "tensor": list(wires.carried)},
        "groups": {"label": groups.label, "path": groups.path, "parent": groups.parent, "kind": groups.kind},
    }


def encode(value: Mapping[str, Any]) -> bytes:
    """Return plain values as the UTF-8 JSON that the view reads.

    Names may hold any text: half a surrogate pair, which UTF-8 cannot hold, is escaped as JSON does it.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _is_quiet(spec: TensorSpec) -> bool:
    """Whether a tensor separates no blocks: shapes, indices and masks, which live beside the data."""
    return bool(spec.dtype) and not spec.dtype.startswith(_FLOATS)


class _Interned:
    """Words by number, each once."""

    def __init__(self, words: list[str] | None = None) -> None:
        self.words = words or []
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def __call__(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self.words))
        if number == len(self.words):
            self.words.append(word)
        return number
