"""How errors come to be, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.calibrate import Calibration

__all__ = ["provenance_of"]


def provenance_of(*formats: str, calibration: Calibration | None = None) -> str:
    """Return how errors of plans with these low formats come to be.

    Args:
        formats: the low formats.
        calibration: what the scales of int8 come from, where they are known.

    >>> provenance_of("fp16")
    'emulated: fp16 storage rounding, fp32 accumulation'
    >>> provenance_of("tf32")
    'emulated: products of tf32 operands, fp32 accumulation'
    """
    if formats == ("tf32",):
        return "emulated: products of tf32 operands, fp32 accumulation"
    scales = f" (scales: {calibration.description})" if calibration is not None and "int8" in formats else ""
    return f"emulated: {' and '.join(formats)} storage rounding{scales}, fp32 accumulation"
