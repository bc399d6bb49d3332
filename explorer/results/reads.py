"""How much of what layers read lies beyond the range of the format that they read it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from explorer.measure import RangeSums
from explorer.probe.bands import Bands

if TYPE_CHECKING:
    from explorer.calibrate import Calibration
    from explorer.convert import Typing
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["Reads"]


class Reads:
    """Tells what low layers lose on reading, before they compute.

    A layer rounds what it reads whether or not its own result is rounded: a matrix product in int8 stores nothing.

    Args:
        results: of the model.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._known: dict[tuple[str, str | None], tuple[Calibration | None, dict[str, float]]] = {}

    def beyond(self, plan: Plan, target: str | None) -> npt.NDArray[np.float64]:
        """Return by layer the largest share of a tensor, of those that it rounds on reading, beyond the format's range.

        Args:
            plan: the plan.
            target: whose kernels decide what may run low.

        Returns:
            From 0 to 1, of exact values; NaN where a layer runs high, rounds weights alone, or reads only values that
            are not measured, in the bodies of control flow.
        """
        layers, decisions = self._results.model.layers, self._results.decisions(plan, target)
        found = np.full(len(layers), np.nan)
        for name in decisions.formats:
            typing = self._results.ready(name, target)
            shares = self._shares(typing, target)
            chosen = decisions.low_layers if name == plan.format else decisions.int8_layers
            for row, layer in enumerate(layers):
                if layer.id in chosen:
                    takes = zip(layer.inputs, typing.layers[layer.id].low_inputs, strict=True)
                    found[row] = max((shares[value] for value, low in takes if low and value in shares), default=np.nan)
        return found

    def _shares(self, typing: Typing, target: str | None) -> dict[str, float]:
        """Return for each float32 input of the model, and each result of a layer, its share beyond the range."""
        key = (typing.format, target)
        known = self._known.get(key)
        if known is None or known[0] is not typing.calibration:
            known = self._known[key] = (typing.calibration, self._made(typing, target) | self._given(typing))
        return known[1]

    def _made(self, typing: Typing, target: str | None) -> dict[str, float]:
        sums = self._results.ranges(typing.format, target).sums
        assert isinstance(sums, RangeSums)
        return {
            value: float(beyond) / float(elements)
            for layer, beyond, elements in zip(typing.model.layers, sums.overflow, sums.elements, strict=True)
            for value in layer.outputs
            if elements
        }

    def _given(self, typing: Typing) -> dict[str, float]:
        found = {}
        for spec in typing.model.inputs:
            if spec.dtype == "float32":
                limit = Bands.of_tensor(typing, spec.name).overflow
                arrays = [feed[spec.name] for feed in self._results.samples]
                beyond = sum(int(np.count_nonzero(np.abs(array) >= limit)) for array in arrays)
                found[spec.name] = beyond / max(1, sum(array.size for array in arrays))
        return found
