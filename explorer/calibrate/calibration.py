"""What calibration found: the range of each tensor that int8 is to represent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from explorer.errors import CalibrationError, nearest
from explorer.formats import activation_scale
from explorer.model.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy as np

__all__ = ["METHODS", "Calibration"]

METHODS: Final = ("minmax", "percentile", "entropy")  # how a range is chosen from what was seen
KEPT: Final = "precision-explorer calibrations"  # the kind of a file that keeps several, beside a model
_KIND: Final = "precision-explorer calibration"
_VERSION: Final = 1
_AGAIN: Final = "Calibrate again, or give a file that Calibration.save wrote."


@dataclass(frozen=True)
class Calibration:
    """The range of each float32 tensor of a model, as its samples gave it.

    >>> found = Calibration({"x": 63.5}, "minmax", rows=8)
    >>> found.scale("x"), found.description
    (np.float32(0.5), 'minmax over 8 samples')

    Attributes:
        amax: model input or activation to the largest |value| that int8 represents; what lies beyond saturates.
        method: ``minmax``, ``percentile`` or ``entropy``; ``tensorrt cache`` where the ranges came from there.
        rows: how many samples were seen; 0 where that is not known.
        model_hash: of the model, as `explorer.model.Model.digest` gives it; empty where not known.
        data_hash: of the samples; empty where not known.
        percentile: share of the values that is represented, in percent; of that method only.
        random: the samples were random ones: the ranges are not to be trusted.
        warnings: what was odd, in words: values that were not finite, tensors of which nothing was seen.
        found_in: file that it was taken from instead of calibrating; empty where it is new. Equality ignores it.
        notes: where it came from and where it is kept, in words; not saved, and equality ignores them.
        asked: what it was asked for by: ``data``, the file of samples, None for those of the exploration, empty for
            arrays; ``method``, ``percentile`` and ``samples``. Empty where it was read. Not saved, equality ignores it.
    """

    amax: Mapping[str, float]
    method: str
    rows: int
    model_hash: str = ""
    data_hash: str = ""
    percentile: float = 99.99
    random: bool = False
    warnings: tuple[str, ...] = ()
    found_in: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name, amax in self.amax.items():
            if not (math.isfinite(amax) and amax >= 0):
                raise CalibrationError(
                    f"The range of '{name}' is {amax}.",
                    why="A scale is made of it, which must be finite and not negative.",
                    fix=_AGAIN,
                )
        object.__setattr__(self, "amax", MappingProxyType(dict(self.amax)))

    def __hash__(self) -> int:
        return hash((self.method, self.rows, self.model_hash, self.data_hash, self.percentile, len(self.amax)))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        values = (self.method, self.rows, self.model_hash, self.data_hash, self.percentile, self.random)
        return type(self), (dict(self.amax), *values, self.warnings, self.found_in, self.notes, dict(self.asked))

    def __contains__(self, name: object) -> bool:
        return name in self.amax

    def range_of(self, name: str) -> float:
        """Return the largest |value| of a tensor that is to be represented.

        Raises:
            CalibrationError: nothing is known of the tensor.
        """
        try:
            return self.amax[name]
        except KeyError:
            raise CalibrationError(
                f"The calibration ({self.description}) has no range for the tensor '{name}'.",
                why="Without one it has no int8 scale.",
                fix=nearest(name, self.amax) or "Calibrate this model, or keep the layers around the tensor in fp32.",
            ) from None

    def scale(self, name: str) -> np.float32:
        """Return the scale of a tensor in int8: its range / 127 as a float32, 1.0 where the range is zero.

        Raises:
            CalibrationError: nothing is known of the tensor.
        """
        return activation_scale(self.range_of(name))

    @property
    def description(self) -> str:
        """How the ranges were found, in words: ``percentile 99.99 over 500 samples``."""
        how = f"percentile {self.percentile:g}" if self.method == "percentile" else self.method
        if not self.rows:
            return how
        kind = "random sample" if self.random else "sample"
        return f"{how} over {self.rows} {kind}{'s' if self.rows != 1 else ''}"

    def to_json(self) -> str:
        """Return it as JSON text, without ``found_in``, ``notes`` and ``asked``; `from_json` reads it.

        >>> Calibration.from_json(Calibration({"x": 0.1}, "entropy", 5).to_json()).amax["x"]
        0.1
        """
        return json.dumps(self.to_data(), indent=1)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data, as it stands in JSON."""
        return {
            "kind": _KIND,
            "version": _VERSION,
            "method": self.method,
            "percentile": self.percentile,
            "rows": self.rows,
            "random": self.random,
            "model_hash": self.model_hash,
            "data_hash": self.data_hash,
            "warnings": list(self.warnings),
            "amax": dict(self.amax),
        }

    @classmethod
    def from_json(cls, text: str, *, found_in: str = "") -> Calibration:
        """Return the calibration that `to_json` wrote.

        Args:
            text: the JSON.
            found_in: where it came from, for messages and the attribute of that name.

        Raises:
            CalibrationError: the text is not JSON, is something else, or a part of it is missing or wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{_named(found_in)} is not JSON: {error}.", fix=_AGAIN) from error
        return cls.from_data(data, found_in=found_in)

    @classmethod
    def from_data(cls, data: Any, *, found_in: str = "") -> Calibration:
        """Return the calibration that `to_data` gave; arguments and errors as for `from_json`."""
        named = _named(found_in)
        if isinstance(data, dict) and data.get("kind") == KEPT:
            data = _only_one(data.get("entries"), named)
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            raise CalibrationError(f"{named} is no calibration of Precision Explorer.", fix=_AGAIN)
        if data.get("version") != _VERSION:
            raise CalibrationError(
                f"{named} has version {data.get('version')}; this version of Precision Explorer reads {_VERSION}.",
                fix=_AGAIN,
            )
        if wrong := next((key for key, fits in _FIELDS.items() if not fits(data.get(key))), None):
            raise CalibrationError(
                f"{named} has {data[wrong]!r:.80} as its '{wrong}'." if wrong in data else f"{named} lacks '{wrong}'.",
                why="It is not what Precision Explorer writes; ranges may be missing or wrong.",
                fix=_AGAIN,
            )
        fields = {key: data[key] for key in _FIELDS if key not in ("amax", "warnings", "percentile")}
        ranges = {name: float(amax) for name, amax in data["amax"].items()}
        percentile, warnings = float(data["percentile"]), tuple(data["warnings"])
        return cls(ranges, **fields, percentile=percentile, warnings=warnings, found_in=found_in)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a JSON file, whole or not at all, and return the path.

        Raises:
            ExportError: the file cannot be written.
        """
        with replacing(path) as part:
            part.write_text(self.to_json(), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Return what `save` wrote, or the only calibration of a file that is kept beside a model.

        Raises:
            CalibrationError: there is no such file, or it is neither, or several calibrations are kept in it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise CalibrationError(f"'{path}' cannot be read: {reason}.", fix="Check the path.") from error
        return cls.from_json(text, found_in=str(path))


def _only_one(entries: Any, named: str) -> Any:
    """Return what a file that is kept beside a model holds, where that is one calibration."""
    if isinstance(entries, list) and len(entries) == 1:
        return entries[0]
    count = len(entries) if isinstance(entries, list) else 0
    raise CalibrationError(
        f"{named} keeps {count} calibrations.",
        why="Nothing says which of them is meant.",
        fix="Calibrate with the settings of the one that you mean: it is taken from there.",
    )


def _named(found_in: str) -> str:
    return f"'{found_in}'" if found_in else "The text"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_ranges(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(amax) and amax >= 0 for amax in value.values())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_FIELDS: Final = {
    "method": _is_text,
    "rows": _is_count,
    "model_hash": _is_text,
    "data_hash": _is_text,
    "percentile": _is_number,
    "random": lambda value: isinstance(value, bool),
    "warnings": _are_texts,
    "amax": _are_ranges,
}
