"""How the source model quantises the tensors of a layer (type Quantisation of js/src/protocol.ts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from explorer.model.quantised import SourceScale, source_quantisation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from explorer.model import Layer, Model

__all__ = ["quantisation_entries", "zero_text"]

_KNOWN: WeakKeyDictionary[Model, Mapping[str, SourceScale]] = WeakKeyDictionary()
_DASH = "\N{EN DASH}"


def quantisation_entries(model: Model, layer: Layer) -> list[dict[str, Any]]:
    """Return one entry for each tensor of the layer that the source model itself stores in low precision.

    Keys: ``tensor``, ``dtype`` of the codes, ``axis`` (None: one scale in all), ``block`` (0: none), ``scales`` (how
    many), ``least`` and ``largest`` of them, ``zero`` (the zero point, or the range of them, in words).
    """
    if model not in _KNOWN:
        _KNOWN[model] = source_quantisation(model)
    known = _KNOWN[model]
    names = dict.fromkeys((*layer.inputs, *layer.outputs))
    return [_entry(name, known[name]) for name in names if name in known]


def _entry(name: str, how: SourceScale) -> dict[str, Any]:
    scales = how.scale.astype(float)
    return {
        "tensor": name,
        "dtype": how.dtype,
        "axis": how.axis,
        "block": how.block,
        "scales": int(scales.size),
        "least": float(scales.min()) if scales.size else None,
        "largest": float(scales.max()) if scales.size else None,
        "zero": zero_text(how.zero_point),
    }


def zero_text(zero: npt.NDArray[np.generic] | None) -> str:
    """Return zero points in words.

    >>> import numpy as np
    >>> zero_text(None), zero_text(np.uint8(128)), zero_text(np.int8([-3, 0, 5]))[:2]
    ('0', '128', '-3')
    """
    if zero is None or not zero.size:
        return "0"
    values = zero.astype(float)
    least, largest = int(values.min()), int(values.max())
    return str(least) if least == largest else f"{least}{_DASH}{largest}"
