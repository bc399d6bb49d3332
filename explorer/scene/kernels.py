"""What was measured of a plan, kernel by kernel: type Kernel of js/src/protocol.ts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.scene.numbers import num
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from explorer.backends.latency import LatencyResult, LayerTime
    from explorer.model import Model

__all__ = ["kernels_json", "layer_times"]

Json = dict[str, Any]

_KINDS: Final = {"reorder": "reformat", "transpose": "reformat", "reshape": "reformat", "cast": "cast", "copy": "copy"}


def kernels_json(model: Model, result: LatencyResult) -> list[Json]:
    """Return the kernels of a measurement, in its order; then what the backend or conversion inserted.

    Where the backend tells no kernels, layers that it fused make one each.
    """
    numbers = wiring(model).numbers
    found = [
        {
            "name": kernel.name,
            "layers": [numbers[each] for each in kernel.layer_ids if each in numbers],
            "us": num(kernel.median_us),
            "kind": kernel.kind,
            "format": kernel.format,
            "note": kernel.note,
        }
        for kernel in result.kernels
    ] or list(_fused(result, numbers))
    known = {kernel["name"] for kernel in found}
    found += [
        {
            "name": each.name,
            "layers": [numbers[each.serves]] if each.serves in numbers else [],
            "us": num(each.median_us),
            "kind": _KINDS.get(each.kind, "other"),
            "format": "",
            "note": each.op,
        }
        for each in result.inserted
        if each.name not in known
    ]
    return found


def _fused(result: LatencyResult, numbers: dict[str, int]) -> Iterator[Json]:
    """Yield a kernel for each set of layers that is timed as one; layers on their own are left out."""
    seen: set[frozenset[str]] = set()
    for row in result.layers:
        members = frozenset((row.layer_id, *row.fused_with))
        if len(members) < 2 or members in seen:
            continue
        seen.add(members)
        main = max((each for each in result.layers if each.layer_id in members), key=_time)
        yield {
            "name": main.layer_id,
            "layers": sorted(numbers[each] for each in members if each in numbers),
            "us": num(main.median_us),
            "kind": "layer",
            "format": "",
            "note": "",
        }


def _time(row: LayerTime) -> float:
    return row.median_us


def layer_times(model: Model, result: LatencyResult) -> npt.NDArray[np.float32]:
    """Return the time of each layer in microseconds; that of a fused group stands once, NaN where none was told."""
    rows = {row.layer_id: row.median_us for row in result.layers}
    return np.array([rows.get(layer.id, np.nan) for layer in model.layers], np.float32)
