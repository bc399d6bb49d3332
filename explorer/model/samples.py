"""The inputs that run through a model: the user's own, or seeded random ones that say so."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from explorer.errors import InputError, nearest

if TYPE_CHECKING:
    import hashlib

    from explorer.model.graph import Model, TensorSpec

__all__ = ["Feeds", "Samples", "hash_feeds", "load_samples"]

Feeds = Mapping[str, npt.NDArray[Any]]
LABELS = "labels"  # the one key of a sample file that need not be an input of the model
_BATCH_ROWS = 32  # rows that run at once at most by default: enough to amortise a call
_TENSOR_BYTES = 1 << 20  # a batch's largest tensor by default: it stays in a core's cache (measured: 1.4 times faster)
_RANDOM_SEED = 20260101
_IN_MEMORY = "arrays in memory"
_BATCH_NAMES = ("batch", "n", "b", "bs", "unk")


@dataclass(frozen=True)
class Samples:
    """What runs through the model.

    Attributes:
        feeds: batches; each maps every input name to an array.
        rows: number of rows in all along the batch axis, or the number of batches where there is no such axis.
        origin: ``user`` or ``random``. Ranges and errors from random inputs are not to be trusted.
        labels: one class per row, where the sample file has them, else None.
        name: where they came from, in words.
        batch: rows of the first batch, the largest; 1 where there is no batch axis.
    """

    feeds: tuple[Feeds, ...]
    rows: int
    origin: str
    labels: npt.NDArray[Any] | None = None
    name: str = ""
    batch: int = 1

    def __iter__(self) -> Iterator[Feeds]:
        return iter(self.feeds)

    def __len__(self) -> int:
        return len(self.feeds)

    @property
    def path(self) -> str:
        """The file they came from; empty for random ones and for arrays in memory."""
        return self.name if self.origin == "user" and self.name != _IN_MEMORY else ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input shapes of the first batch."""
        return {name: array.shape for name, array in self.feeds[0].items()}

    @property
    def batch_note(self) -> str:
        """What one run takes, in words."""
        return f"batch of {self.batch}"

    def describe(self) -> str:
        """Return one line for people: how many, from where, and whether to trust them."""
        count = f"{self.rows} sample{'s' if self.rows != 1 else ''}"
        if self.origin == "random":
            return f"{count}, seeded random: ranges and errors from random inputs are not to be trusted"
        batches = f", in batches of {self.batch}" if len(self.feeds) > 1 else ""
        return f"{count} from {self.name}{batches}"


def hash_feeds(sha: hashlib._Hash, feeds: Iterable[Feeds]) -> None:
    """Update a hash with names, types, shapes and values of what is fed, batch by batch."""
    for feed in feeds:
        for name, array in sorted(feed.items()):
            sha.update(f"{name} {array.dtype} {array.shape}".encode())
            strings = array.dtype == object  # whose own repr numpy shortens
            sha.update(repr(array.tolist()).encode() if strings else array.tobytes())


def load_samples(
    model: Model,
    source: str | Path | Mapping[str, npt.ArrayLike] | None = None,
    *,
    batch_size: int | None = None,
    dims: Mapping[str, int] | None = None,
) -> Samples:
    """Return samples for ``model``, checked against its inputs.

    Args:
        model: the model that they feed.
        source: an ``.npz`` file or a mapping from input name to array; a key ``labels`` may hold one class per row.
            None makes seeded random inputs.
        batch_size: rows that run at once; by default what the model fixes, else up to 32.
        dims: sizes of named dynamic dimensions, for random inputs.

    Raises:
        InputError: the file cannot be read, names, dtypes or shapes do not fit, a value is NaN, or random inputs
            need the size of a dynamic dimension that ``dims`` does not give.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"The batch size is {batch_size}.", fix="Give at least 1.")
    if source is None:
        return Samples(
            (_random_feed(model, dict(dims or {}), batch_size or 1),), batch_size or 1, "random", batch=batch_size or 1
        )
    arrays, name = _read(source)
    labels = None if LABELS in {spec.name for spec in model.inputs} else arrays.pop(LABELS, None)
    _check_names(model, arrays)
    for spec in model.inputs:
        _check_array(spec, arrays[spec.name])
    feeds, rows, batch = _split(model, arrays, batch_size)
    if labels is not None and len(labels) != rows:
        raise InputError(
            f"{name} has {len(labels)} labels for {rows} rows of input.", fix="Give one label per row, in order."
        )
    return Samples(tuple(feeds), rows, "user", labels, name, batch)


def _read(source: str | Path | Mapping[str, npt.ArrayLike]) -> tuple[dict[str, npt.NDArray[Any]], str]:
    if isinstance(source, Mapping):
        return {str(key): np.asarray(value) for key, value in source.items()}, _IN_MEMORY
    path = Path(source)
    if not path.exists():
        raise InputError(f"There is no file '{path}'.", fix="Name an .npz file with one array per model input.")
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it opened itself and could not read
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise InputError(
                    f"'{path}' holds a single array without a name.",
                    why="Inputs are matched by name.",
                    fix="Save with numpy.savez(path, input_name=array).",
                )
            with loaded:
                return {key: loaded[key] for key in loaded.files}, str(path)
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{path}' is not a readable .npz file: {error}.",
            fix="Save with numpy.savez(path, input_name=array); object arrays are not accepted.",
        ) from error


def _check_names(model: Model, arrays: Mapping[str, Any]) -> None:
    wanted = {spec.name for spec in model.inputs}
    listed = "; ".join(str(spec) for spec in model.inputs) or "none"
    if unknown := sorted(set(arrays) - wanted):
        raise InputError(
            f"The samples hold '{unknown[0]}', which is no input of the model.",
            why=f"Its inputs are: {listed}.",
            fix=nearest(unknown[0], wanted) or "Rename the array to an input's name.",
        )
    if missing := sorted(wanted - set(arrays)):
        raise InputError(
            f"The samples lack the input '{missing[0]}'.", why=f"The model's inputs are: {listed}.", fix="Add it."
        )


def _check_array(spec: TensorSpec, array: npt.NDArray[Any]) -> None:
    if spec.dtype and spec.dtype not in ("string", array.dtype.name):
        raise InputError(
            f"The array for '{spec.name}' is {array.dtype.name}; the model takes {spec.dtype}.",
            why="Converting it silently would change your numbers.",
            fix=f"Give array.astype('{spec.dtype}').",
        )
    if spec.shape is not None:
        if array.ndim != len(spec.shape):
            raise InputError(
                f"The array for '{spec.name}' has {array.ndim} dimensions {array.shape}; "
                f"the model takes {len(spec.shape)}: {spec}.",
                fix="Reshape it; a single sample still needs its batch axis.",
            )
        for axis, (have, want) in enumerate(zip(array.shape, spec.shape, strict=True)):
            if isinstance(want, int) and have != want and (axis or want == 0 or have % want):
                raise InputError(
                    f"The array for '{spec.name}' has shape {array.shape}; axis {axis} must be {want}: {spec}.",
                    fix="Give the shape that the model was exported with.",
                )
    if array.size == 0:
        raise InputError(f"The array for '{spec.name}' is empty: shape {array.shape}.", fix="Give at least one row.")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.unique(np.argwhere(np.isnan(array))[:, 0] if array.ndim else np.array([0]))
        raise InputError(
            f"The array for '{spec.name}' holds NaN, first in row {rows[0]} ({len(rows)} rows in all).",
            why="A NaN spreads through every layer, so no error could be measured.",
            fix="Remove these rows or fill the values.",
        )


def _split(
    model: Model, arrays: Mapping[str, npt.NDArray[Any]], batch_size: int | None
) -> tuple[list[Feeds], int, int]:
    """Return the arrays cut into batches along the model's batch axis, the rows in all, and those of a batch."""
    specs = model.inputs
    batched, step = _batch_axis(specs)
    if not batched:
        return [{spec.name: arrays[spec.name] for spec in specs}], 1, 1
    counts = {name: len(arrays[name]) for name in batched}
    rows = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise InputError(
            "The inputs differ in their number of rows: "
            + ", ".join(f"'{name}' has {count}" for name, count in counts.items())
            + ".",
            fix="Give the same number of rows for each.",
        )
    step = step or min(batch_size or _fitting_rows(model, arrays, batched), rows)
    feeds: list[Feeds] = [
        {
            spec.name: np.ascontiguousarray(arrays[spec.name][start : start + step])
            if spec.name in batched
            else arrays[spec.name]
            for spec in specs
        }
        for start in range(0, rows, step)
    ]
    return feeds, rows, step


def _fitting_rows(model: Model, arrays: Mapping[str, npt.NDArray[Any]], batched: list[str]) -> int:
    """Return how many rows run at once so that the largest tensor stays in cache; never less than one."""
    one_row = {name: (1, *array.shape[1:]) if name in batched else array.shape for name, array in arrays.items()}
    sizes = [
        math.prod(spec.static_shape or (0,)) for spec in model.infer(one_row).values() if spec.name not in model.weights
    ]
    largest = max(sizes, default=0) * np.dtype(np.float32).itemsize
    return max(1, min(_BATCH_ROWS, _TENSOR_BYTES // largest if largest else _BATCH_ROWS))


def _batch_axis(specs: tuple[TensorSpec, ...]) -> tuple[list[str], int | None]:
    """Return the inputs that share a batch axis, and its size where the model fixes it."""
    first = next((spec for spec in specs if spec.shape), None)
    if first is None or not first.shape:
        return [], None
    size = first.shape[0]
    same = [spec.name for spec in specs if spec.shape and spec.shape[0] == size and type(spec.shape[0]) is type(size)]
    # With a fixed size, several batches may be stacked along axis 0 of every input that has it.
    return same, size if isinstance(size, int) else None


def _random_feed(model: Model, dims: dict[str, int], batch: int) -> Feeds:
    generator = np.random.default_rng(_RANDOM_SEED)
    known = {dim for spec in model.inputs for dim in spec.shape or () if isinstance(dim, str)}
    if unknown := sorted(set(dims) - known):
        raise InputError(
            f"The model has no dynamic dimension '{unknown[0]}'.",
            why=f"Its dynamic dimensions are: {', '.join(sorted(known)) or 'none'}.",
            fix=nearest(unknown[0], known),
        )
    return {spec.name: _random_array(model, spec, _random_shape(spec, dims, batch), generator) for spec in model.inputs}


def _random_shape(spec: TensorSpec, dims: Mapping[str, int], batch: int) -> tuple[int, ...]:
    if spec.shape is None:
        raise InputError(
            f"Input '{spec.name}' declares no shape, so random samples cannot be made.",
            fix="Give real inputs (inputs='data.npz', --inputs data.npz).",
        )
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif dim is not None and dim in dims:
            shape.append(dims[dim])
        elif axis == 0 and (dim is None or dim.lower().startswith(_BATCH_NAMES) or dim.startswith("s")):
            shape.append(batch)
        else:
            raise InputError(
                f"Input '{spec}' has the dynamic dimension '{dim or '?'}' (axis {axis}) of unknown size.",
                why="Random samples need every size.",
                fix=f"Give it: dims={{'{dim or 'name'}': 128}} or --dim {dim or 'name'}=128; or give real inputs.",
            )
    return tuple(shape)


def _random_array(
    model: Model, spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator
) -> npt.NDArray[Any]:
    if spec.dtype in ("float32", "float64", "float16"):
        return generator.standard_normal(shape).astype(spec.dtype)
    if spec.dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if spec.dtype.startswith(("int", "uint")):
        return generator.integers(0, _index_bound(model, spec.name), shape).astype(spec.dtype)
    raise InputError(
        f"Random samples of type {spec.dtype or 'unknown'} cannot be made for input '{spec.name}'.",
        fix="Give real inputs (inputs='data.npz', --inputs data.npz).",
    )


def _index_bound(model: Model, name: str) -> int:
    """Return the number of rows of the table that an integer input indexes; 2 (a mask) when it indexes none."""
    names = {name}
    bound = None
    for layer in model.layers:
        if layer.op in ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity") and names & set(layer.inputs[:1]):
            names.update(layer.outputs)
        elif layer.op == "Gather" and layer.inputs[1] in names and layer.inputs[0] in model.weights:
            rows = model.weights[layer.inputs[0]].shape[int(model.attributes(layer.id).get("axis", 0))]
            bound = rows if bound is None else min(bound, rows)
    return bound or 2
