"""What a format loses of which magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.convert.quantise import quantisation_of
from explorer.formats import get_format

if TYPE_CHECKING:
    from explorer.convert import Typing

__all__ = ["Bands"]


@dataclass(frozen=True, slots=True)
class Bands:
    """Where magnitudes lie relative to a format, as borders of |value|.

    Attributes:
        overflow: from here on a value becomes infinite, or the largest value where the format saturates (fp8, int8).
        normal: from here on it keeps the format's full precision.
        subnormal: above it, and below ``normal``, it keeps fewer bits; up to it, it is flushed to zero.
    """

    overflow: float
    normal: float
    subnormal: float

    def shown(self) -> dict[str, float]:
        """Return the borders for a logarithmic axis: what is beyond all numbers stands at the ends of fp32."""
        fp32 = get_format("fp32")
        return {
            "overflow": min(self.overflow, fp32.max),
            "normal": max(self.normal, fp32.min_subnormal),
            "subnormal": max(self.subnormal, fp32.min_subnormal),
        }

    @classmethod
    def of(cls, low_format: str) -> Bands:
        """Return the borders of a format; for int8, those of values in steps of 1."""
        fmt = get_format(low_format)
        return cls(fmt.overflow_threshold, fmt.subnormal_threshold, fmt.flush_threshold)

    @classmethod
    def of_tensor(cls, typing: Typing, tensor: str) -> Bands:
        """Return the borders of one tensor of a model: those of the typing's format, for int8 in the tensor's steps.

        An int8 tensor without a calibrated range is never stored in int8, and loses nothing.
        """
        if typing.format != "int8":
            return cls.of(typing.format)
        calibration = typing.calibration
        if calibration is None or typing.roots.get(tensor, tensor) not in calibration.amax:
            return cls(np.inf, 0.0, 0.0)
        how = quantisation_of(typing, tensor)
        step, most = float(how.scale), int(np.iinfo(how.dtype).max)
        flushed = np.float32(step / 2)
        return cls((most + 0.5) * step, float(np.nextafter(flushed, np.float32(np.inf))), float(flushed))
