"""What int8 loses: layers whose outliers set the step, values that saturate, and a backend that gains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.evidence import POOR_DB
from explorer.advise.finding import Finding
from explorer.advise.fixes import keep
from explorer.advise.words import names, plural, quantity, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.advise.evidence import Evidence

__all__ = ["came_quantised", "in_int8"]

_INT8: Final = "int8"
_CLIPPED: Final = 0.01  # share of a layer's values beyond its range that is worth a word
_CUDA: Final = "onnxruntime-cuda"


def in_int8(ev: Evidence) -> Iterator[Finding]:
    """Tell what the layers lose that run in int8, and which do so whatever the plan says."""
    yield from _from_the_source(ev)
    low = ev.runs_in(_INT8)
    if low.any():
        yield from _poor(ev, low)
        yield from _saturated(ev, low)
        yield from _without_kernels(ev, int(low.sum()))


def came_quantised(ev: Evidence) -> list[int]:
    """Return the rows of layers that are quantised in the source model."""
    typing = ev.decisions.typing.layers
    return [row for row, layer in enumerate(ev.layers) if typing[layer.id].stored]


def _from_the_source(ev: Evidence) -> Iterator[Finding]:
    """Tell of layers that came quantised: no plan changes them, and their own rounding is in the fp32 figures too."""
    typing, rows = ev.decisions.typing.layers, came_quantised(ev)
    if not rows:
        return
    formats = sorted({typing[ev.layers[row].id].stored for row in rows})
    yield Finding(
        id="came-quantised", tone="note",
        title=f"{plural(len(rows), 'layer comes', 'layers come')} in {' and '.join(formats)} from the source model",
        text="Plans leave them, and their scales, as they are. All errors here are relative to the model as it was "
        "given: what its quantisation has cost before is not in them.",
        evidence=f"{names([ev.layers[row].id for row in rows])}: between DequantizeLinear and QuantizeLinear, or of "
        "integer operators.",
        layers=ev.ids(rows),
    )  # fmt: skip


def _poor(ev: Evidence, low: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Finding]:
    sqnr = ev.column("local_sqnr_db")
    rows = np.flatnonzero(low & (sqnr < POOR_DB)).tolist()
    if not rows:
        return
    worst = min(rows, key=lambda row: sqnr[row])
    rms = ev.column("rms", "ranges")[worst]
    outlier = f", whose largest value is {quantity(float(ev.max_abs[worst] / rms))} times its rms" if rms > 0 else ""
    elements = max(1.0, float(np.nan_to_num(ev.column("elements")[worst])))
    yield Finding(
        id="int8-outliers", tone="warn", title=f"{plural(len(rows), 'layer loses', 'layers lose')} most in int8",
        text="A tensor in int8 has 255 steps of one size, and its largest values set that size: where a few are far "
        "above the rest, the rest falls on few steps. Keep these layers out of int8, or calibrate with a method that "
        "cuts outliers off (entropy, or a lower percentile).",
        evidence=f"Worst: {names([ev.layers[worst].id])}, local SQNR {sqnr[worst]:.1f} dB{outlier}; "
        f"{share(float(ev.flushed[worst]), elements)} of its values become zero (emulated).",
        layers=ev.ids(rows), fix=keep(ev, rows),
    )  # fmt: skip


def _saturated(ev: Evidence, low: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Finding]:
    elements = np.maximum(np.nan_to_num(ev.column("elements")), 1)
    stored, reads = ev.clipped / elements, np.nan_to_num(ev.column("reads_beyond"))
    part = np.maximum(stored, reads)
    rows = np.flatnonzero(low & (part > _CLIPPED)).tolist()
    if not rows:
        return
    worst = max(rows, key=lambda row: part[row])
    yield Finding(
        id="int8-saturates", tone="note", title=f"Values saturate in {plural(len(rows), 'layer')}",
        text="They lie beyond the range that calibration chose and become its largest value. That is the price of "
        "smaller steps; where it costs more than it saves, a higher percentile or min-max keeps them.",
        evidence=f"Most: {names([ev.layers[worst].id])}, {share(float(part[worst]), 1)} of "
        f"{'its values' if stored[worst] >= reads[worst] else 'the values that it reads'} (measured in fp32).",
        layers=ev.ids(rows),
    )  # fmt: skip


def _without_kernels(ev: Evidence, count: int) -> Iterator[Finding]:
    """Tell of a backend that runs quantised layers in floating point."""
    if ev.decisions.typing.backend != _CUDA:
        return
    yield Finding(
        id="int8-kernels", tone="note", title=f"{_CUDA} has no int8 kernels for {plural(count, 'layer')}",
        text="Its list of kernels has none for quantised products: it runs DequantizeLinear and the layer in floating "
        "point, which is right and not faster. TensorRT and ONNX Runtime on the CPU run the same file in integers.",
    )  # fmt: skip
