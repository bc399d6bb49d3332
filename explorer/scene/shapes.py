"""Types of all values for concrete inputs, inferred once."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Model, TensorSpec

__all__ = ["concrete_types"]

_Key = tuple[tuple[str, tuple[int, ...]], ...]
_KNOWN: WeakKeyDictionary[Model, tuple[_Key, dict[str, TensorSpec]]] = WeakKeyDictionary()


def concrete_types(model: Model, shapes: Mapping[str, tuple[int, ...]] | None) -> dict[str, TensorSpec]:
    """Return dtype and shape of every value for inputs of these shapes; kept for the shapes last asked for."""
    if not shapes:
        return model.types
    key = tuple((name, tuple(shape)) for name, shape in shapes.items())
    known = _KNOWN.get(model)
    if known is None or known[0] != key:
        known = _KNOWN[model] = (key, model.infer(shapes))
    return known[1]
