"""The scales of int8 for one model and its samples: calibrated when they are asked for, or by the user's own words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.calibrate import Calibration, calibrate
from explorer.errors import ConversionError

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.convert import Decisions
    from explorer.model import Samples
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["Scales"]

_INT8 = "int8"


class Scales:
    """Holds the calibration of a model.

    Args:
        results: of the model; what it measured with other scales is forgotten when new ones come.

    Attributes:
        known: the calibration; None before the first.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self.known: Calibration | None = None

    def get(self) -> Calibration:
        """Return the calibration; the first time it is made on the samples of the exploration."""
        return self.known or self.make()

    def of(self, plan: Plan, decisions: Decisions) -> Calibration | None:
        """Return the calibration where a plan runs layers in int8, else None."""
        return self.get() if self.needed(plan, decisions) else None

    def needed(self, plan: Plan, decisions: Decisions) -> bool:
        """Return whether a plan runs layers in int8."""
        return bool(decisions.low_layers if plan.format == _INT8 else decisions.int8_layers)

    def make(
        self,
        samples: Samples | None = None,
        *,
        method: str = "percentile",
        percentile: float = 99.99,
        most: int = 500,
        cache: bool | Path = True,
    ) -> Calibration:
        """Calibrate anew; arguments as of :func:`explorer.calibrate.calibrate`, samples by default those at hand."""
        results = self._results
        with results.running() as (cancel, progress):
            made = calibrate(
                results.model,
                samples or results.samples,
                method=method,
                percentile=percentile,
                most=most,
                cache=cache,
                threads=results.threads,
                progress=progress,
                cancel=cancel,
            )
        data = None if samples is None else samples.path
        made = replace(made, asked={"data": data, "method": method, "percentile": percentile, "samples": most})
        self.use(made)
        return made

    def use(self, calibration: Calibration) -> None:
        """Take a calibration, such as one that TensorRT made.

        Raises:
            ConversionError: it is no calibration, or of another model.
        """
        if not isinstance(calibration, Calibration):
            raise ConversionError(
                f"A calibration must be a Calibration, not {type(calibration).__name__}.",
                fix="Use x.calibrate(...), or explorer.read_tensorrt_cache(...).",
            )
        if calibration.model_hash and calibration.model_hash != self._results.model.digest:
            raise ConversionError(
                f"The calibration ({calibration.description}) is of another model.",
                why="Ranges belong to the tensors of the model, and to its weights, that they were taken from.",
                fix="Calibrate this model: x.calibrate().",
            )
        if calibration != self.known:
            self.known = calibration
            self._results.forget_int8()
