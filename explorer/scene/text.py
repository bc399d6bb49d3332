"""Shapes and attributes as they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from explorer.model.graph import dtype_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.model import TensorSpec

__all__ = ["attribute_text", "dims_text", "shape_text"]

_UNKNOWN, _TIMES = "?", "\N{MULTIPLICATION SIGN}"
_MOST_ITEMS = 12  # of a list that is shown whole
_SHOWN_ITEMS = 6  # of a longer one
_MOST_LETTERS = 200  # of a text attribute
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype", "stash_type", "sequence_dtype")


def shape_text(spec: TensorSpec | None) -> str:
    r"""Return the shape of a value.

    >>> from explorer.model import TensorSpec
    >>> shape_text(TensorSpec("x", "float32", ("batch", 16, None))).split("\N{MULTIPLICATION SIGN}")
    ['batch', '16', '?']
    >>> shape_text(TensorSpec("x", "float32", ())), shape_text(TensorSpec("x", "float32", None))
    ('scalar', '?')
    """
    return _UNKNOWN if spec is None or spec.shape is None else dims_text(spec.shape)


def dims_text(dims: Iterable[int | str | None]) -> str:
    """Return dimensions, ``?`` standing for unknown ones."""
    return _TIMES.join(_UNKNOWN if dim is None else str(dim) for dim in dims) or "scalar"


def attribute_text(name: str, attribute: ir.Attr) -> str:
    """Return the value of an attribute in words; long ones are cut and say so."""
    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.GRAPH:
        return _body_text(attribute.as_graph())
    if kind == ir.AttributeType.GRAPHS:
        return "; ".join(map(_body_text, attribute.as_graphs()))
    if kind == ir.AttributeType.TENSOR:
        return _tensor_text(attribute.as_tensor())
    if kind == ir.AttributeType.INT and name in _DTYPE_ATTRIBUTES and value in set(ir.DataType):
        return dtype_name(ir.DataType(value)) or str(value)
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return _list_text(list(value))
    return _item_text(value)


def _body_text(graph: ir.Graph) -> str:
    count = len(graph)
    return f"a graph of {count} node{'s' * (count != 1)}"


def _tensor_text(tensor: ir.TensorProtocol) -> str:
    if tensor.dtype == ir.DataType.STRING:
        values = [item.decode(errors="replace") for item in np.ravel(tensor.numpy()).tolist()]
    else:
        values = np.ravel(tensor.numpy())[: _MOST_ITEMS + 1].tolist()
    shape = dims_text(tensor.shape.numpy())
    return f"{dtype_name(tensor.dtype)} {shape}: {_list_text(values, count=tensor.size)}"


def _list_text(values: list[Any], *, count: int | None = None) -> str:
    count = len(values) if count is None else count
    if count <= _MOST_ITEMS:
        return f"[{', '.join(map(_item_text, values))}]"
    return f"[{', '.join(map(_item_text, values[:_SHOWN_ITEMS]))}, … {count:,} in all]"


def _item_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}… ({len(text):,} letters)"
