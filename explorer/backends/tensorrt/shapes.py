"""Which shapes an engine must take: least, usual and most, from the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from explorer.model import Model

__all__ = ["InputRange", "input_ranges", "shape_words"]

_VALUES = 64  # an input that TensorRT reads to know shapes holds as many numbers as a tensor has dimensions


@dataclass(frozen=True, slots=True)
class InputRange:
    """Shapes of one input.

    Attributes:
        name: the input.
        least: smallest extent on each axis.
        usual: the shape that the engine is tuned for: that of the first, largest batch, which is what is timed.
        most: largest extent on each axis.
        dynamic: whether the model leaves an axis open; others need no profile.
        values: least, usual and most value of each element, of a short vector of integers: TensorRT asks for them where
            it reads the input to know shapes. None for other inputs.
    """

    name: str
    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]
    dynamic: bool
    values: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None


def input_ranges(model: Model, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> tuple[InputRange, ...]:
    """Return the range of every input over all batches.

    Args:
        model: the model.
        feeds: the batches; the first one is what the engine is tuned for.

    Raises:
        InputError: there is no batch, or an input has another number of dimensions in one of them.
    """
    batches = list(feeds)
    if not batches:
        raise InputError("There is no sample to take input shapes from.", fix="Give inputs.")
    found = []
    for spec in model.inputs:
        arrays = [np.asarray(feed[spec.name]) for feed in batches]
        shapes = [array.shape for array in arrays]
        if len({len(shape) for shape in shapes}) > 1:
            raise InputError(f"Input '{spec.name}' has {sorted({len(shape) for shape in shapes})} dimensions.")
        table = np.asarray(shapes, dtype=np.int64).reshape(len(shapes), -1)
        found.append(
            InputRange(
                spec.name, _row(table.min(axis=0)), tuple(shapes[0]), _row(table.max(axis=0)),
                dynamic=spec.static_shape is None, values=_values(arrays),
            )
        )  # fmt: skip
    return tuple(found)


def _values(arrays: list[NDArray[Any]]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    first = arrays[0]
    is_vector = first.ndim < 2  # TensorRT reads shapes from scalars and vectors only
    if first.dtype.kind != "i" or not is_vector or first.size > _VALUES or len({each.shape for each in arrays}) > 1:
        return None
    table = np.stack([array.reshape(-1) for array in arrays])
    return _row(table.min(axis=0)), _row(first.reshape(-1)), _row(table.max(axis=0))


def _row(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def shape_words(shape: tuple[int, ...]) -> str:
    """Return a shape as ``trtexec`` writes it.

    >>> shape_words((1, 3, 224, 224)), shape_words(())
    ('1x3x224x224', 'scalar')
    """
    return "x".join(map(str, shape)) or "scalar"
