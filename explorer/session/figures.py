"""Errors, ranges and values under a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer.backends.onnxruntime_cpu import cpu_name
from explorer.errors import InputError
from explorer.measure import ErrorSums
from explorer.measure.tables import errors_table, outputs_table, ranges_table
from explorer.model import load_samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from explorer.calibrate import Calibration
    from explorer.measure import Histogram
    from explorer.probe import LayerValues
    from explorer.results import Accuracy
from explorer.session.planned import Planned

__all__ = ["Figures"]


class Figures(Planned):
    """What the samples show of a plan; attributes as of :class:`explorer.Exploration`."""

    # -- int8 ------------------------------------------------------------------------------------------------------

    @property
    def calibration(self) -> Calibration | None:
        """What the scales of int8 are made of: None before the first calibration. Set one to use it."""
        return self.results.scales.known

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self.results.scales.use(calibration)

    def calibrate(
        self,
        data: str | Path | Mapping[str, npt.ArrayLike] | None = None,
        *,
        method: str = "percentile",
        percentile: float = 99.99,
        samples: int = 500,
        cache: bool | Path = True,
    ) -> Calibration:
        """Find the range of each tensor, of which int8 makes its scales, and use it from now on.

        Without it, the first plan that asks for int8 calibrates on the samples of the exploration. Errors should be
        measured on other samples than those that ranges were taken from.

        Args:
            data: samples to calibrate on, as ``inputs`` of :func:`explorer.open`; by default those here.
            method: ``minmax``, ``percentile`` or ``entropy``.
            percentile: of the values that are represented, for that method.
            samples: rows of the data, at most.
            cache: keep what is found beside the model, and take it from there; or the file to keep it in.

        Raises:
            InputError: the data do not fit the model.
            CalibrationError: there is no such method, or the cache is not one.
        """
        given = None if data is None else load_samples(self.model, data)
        return self.results.scales.make(given, method=method, percentile=percentile, most=samples, cache=cache)

    # -- errors ----------------------------------------------------------------------------------------------------

    @property
    def provenance(self) -> str:
        """How errors come to be."""
        return self.results.provenance(self._plan, self._target)

    def errors(self) -> pd.DataFrame:
        """Return one row a layer: decision and reason, local and accumulated error, counts of what is lost.

        ``local_*`` is the error when only that layer runs low on exact inputs; ``acc_*`` when the whole plan does.
        ``overflow``, ``subnormal`` and ``flushed`` count the elements of the layer's exact result that leave the
        range of the low format, lose bits or become zero in it, none where a low layer's result is not stored in it;
        ``nan`` those that its low version makes NaN. ``reads_beyond`` is the share of what a low layer reads that lies
        beyond the range, of the tensor with the largest share.
        """
        plan, target = self._plan, self._target
        ranges, local = (ask(plan, target) for ask in (self.results.plan_ranges, self.results.plan_local))
        accumulated = self.results.errors(plan, target)
        return errors_table(
            self.model.layers,
            self.results.decisions(plan, target),
            ranges,
            local,
            accumulated.layers,
            incomparable=accumulated.found.incomparable,
            reads_beyond=self.results.reads.beyond(plan, target),
            provenance=self.results.provenance(plan, target),
        )

    def output_error(self) -> pd.DataFrame:
        """Return one row a float32 output of the model: its error under the plan."""
        plan = self._plan
        errors = self.results.errors(plan, self._target)
        sums, names = errors.found.output_sums, errors.found.outputs
        if not sums.finite.all():
            sums = replace(sums, nan=errors.nan)
        overflow = dict(zip(names, errors.overflow.tolist(), strict=True))
        return outputs_table(names, sums, overflow, provenance=self.results.provenance(plan, self._target))

    def ranges(self) -> pd.DataFrame:
        """Return one row a layer: where its exact fp32 values lie relative to the low format, known before any plan."""
        found = self.results.plan_ranges(self._plan, self._target)
        return ranges_table(self.model.layers, found, provenance=self.range_provenance)

    @property
    def range_provenance(self) -> str:
        """How ranges come to be."""
        trust = "; random inputs: not to be trusted" if self.samples.origin == "random" else ""
        return f"measured: fp32 on onnxruntime-cpu, {cpu_name()}{trust}"

    def first_nonfinite(self) -> str | None:
        """Return the id of the first layer whose result is not finite under the plan though the exact one is."""
        errors = self.results.errors(self._plan, self._target)
        assert isinstance(errors.layers.sums, ErrorSums)
        rows = zip(self.model.layers, errors.layers.measured, errors.layers.sums.finite, strict=True)
        lost = errors.found.incomparable
        return next((layer.id for layer, seen, ok in rows if seen and not ok and not lost & set(layer.outputs)), None)

    def outputs(self) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
        """Return the model's outputs for all samples: exact, and under the plan (emulated)."""
        self.results.errors(self._plan, self._target)
        return self.results.outputs(self._plan, self._target)

    def values(self, layer_id: str, output: int = 0) -> LayerValues:
        """Return the values of one result of a layer, exact and under the plan (emulated): one run of the samples.

        Args:
            layer_id: the layer.
            output: which of its float32 results, from 0 on.

        Raises:
            PlanError: the model has no such layer, or the layer no such result.
            ModelError: the layer makes no float32 tensor, or stands in the body of a control-flow layer.
        """
        return self.results.values(self._plan, self._target, layer_id, output)

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the exact fp32 |values| of each layer's first float32 result, by layer id."""
        found = self.results.histograms(self.plan.format, self._target)
        first = {layer.id: next((name for name in layer.outputs if name in found), "") for layer in self.model.layers}
        return {layer_id: found[name] for layer_id, name in first.items() if name}

    def accuracy(self) -> Accuracy | None:
        """Return the accuracy before and after, or None where the samples have no labels.

        Raises:
            InputError: no output of the model has one row of scores per label.
        """
        found = self.results.errors(self._plan, self._target).accuracy
        if isinstance(found, InputError):
            raise InputError(found.what, why=found.why, fix=found.fix)
        return found
