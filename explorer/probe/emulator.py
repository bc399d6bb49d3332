"""Compile once, measure any plan: ranges, local errors and accumulated errors of every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from explorer.errors import ModelError
from explorer.measure import ErrorSums, RangeSums
from explorer.probe.graphs import Woven, weave_exact, weave_local, weave_ranges
from explorer.probe.metrics import OUTPUT_SUMS, SUMS, Care
from explorer.probe.outcomes import AccumulatedError, LocalError, Ranges
from explorer.probe.picks import PICKS, pick_vector
from explorer.probe.rounding import check_calibrated
from explorer.probe.runs import Progress, Runs
from explorer.probe.switchable import SWITCHES, switch_vector, weave_switchable
from explorer.probe.values import LayerValues, exact_histograms, look, shown_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.backends.runtime import Cancel, Provider, Session
    from explorer.convert import Decisions, Typing
    from explorer.measure import Histogram
    from explorer.model import Samples

__all__ = ["AccumulatedError", "Emulator", "LocalError", "Ranges"]

Floats = npt.NDArray[np.float64]

_FIRST_OPSET = 9  # Where and IsNaN, which the sums need, are in ONNX from opset 9 on
_LARGE, _SMALL = 1e15, 1e-15  # beyond them squares of float32 values overflow, or vanish, in sums of float32
_EXACT_CACHE_BYTES = 2 << 30  # exact values of all samples are kept up to here, so that a toggle runs the plan alone
_MOST_SCALE = 126  # exponent: what is subnormal in float32 comes near enough to 1
_RANGE_PASSES = 3  # the first finds what needs care, the second masks it, the third scales what was masked


class Emulator:
    """Emulates one low format on one set of samples, and int8 beside it where plans ask for both.

    Rounding is emulated exactly: results are what storage in the low format with float32 arithmetic gives, and
    therefore independent of the machine up to the order of float32 sums.

    Args:
        typing: what each layer may be; it says where conversion would round, and holds the calibration of int8.
        samples: what runs through the model.
        int8: what each layer may be in int8, with its calibration, for plans of another format that ask for it too.
            Ranges and local errors are those of ``typing`` alone.
        native: layers that run low hold true operators of the format instead of emulated ones.
        provider: ``cpu`` or ``cuda``, where everything runs.
        device: index of the CUDA device.
        threads: of the runtime; by default what this process may use.
        progress: called after each batch.
        cancel: stops a run from another thread.

    Raises:
        ModelError: the model's opset is older than 9.
        CalibrationError: int8 is asked for, and the typing has no calibration.
    """

    def __init__(
        self,
        typing: Typing,
        samples: Samples,
        *,
        int8: Typing | None = None,
        native: bool = False,
        provider: Provider = "cpu",
        device: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        if typing.model.opset < _FIRST_OPSET:
            raise ModelError(
                f"The model uses opset {typing.model.opset}; errors are measured from opset {_FIRST_OPSET} on.",
                fix=f"Raise it: onnx.version_converter.convert_version(model, {_FIRST_OPSET}).",
            )
        for each in (typing, int8):
            if each is not None:
                check_calibrated(each)
        self.int8, self._native, self._provider = int8, native, provider
        self.typing, self.samples = typing, samples
        self._runs = Runs(samples, threads=threads, progress=progress, cancel=cancel, provider=provider, device=device)
        self._cares = self._shape_cares()
        self._ranges: Ranges | None = None
        self._local: LocalError | None = None
        self._given: dict[str, tuple[float, int]] = {}
        self._switchable: tuple[Woven, Session] | None = None
        self._pickable = False  # whether the switchable graph gives out single tensors
        self._exact: list[dict[str, Any]] = []  # by batch: exact values that the switchable graph is fed

    def _shape_cares(self) -> dict[str, Care]:
        specs = self.typing.model.infer(self.samples.shapes)
        guarded = {}
        for name, spec in specs.items():
            shape = spec.static_shape
            if shape is None or 0 in shape:
                guarded[name] = Care(guarded=True)
        return guarded

    def _care(self, value: str) -> Care:
        return self._cares.get(value, Care())

    @property
    def cancel(self) -> Cancel:
        """Stops what runs, from another thread; what was stopped can be asked for again after a new one was set.

        Measurements take turns, each under the token that was set when it was asked for: a token that was cancelled
        stops the measurement that began with it, and a new one may be set at once for the next.
        """
        return self._runs.cancel

    @cancel.setter
    def cancel(self, token: Cancel) -> None:
        self._runs.cancel = token

    def ranges(self) -> Ranges:
        """Return where the exact values lie; measured once."""
        with self._runs.turn():
            if self._ranges is None:
                for _ in range(_RANGE_PASSES):
                    found, raw = self._measure_ranges()
                    if not self._learn(found, raw):
                        break
                self._given = self._observe_given()
                self._ranges = found
            return self._ranges

    def _observe_given(self) -> dict[str, tuple[float, int]]:
        """Return sum of squares and number of elements of those outputs that no layer makes: inputs and weights."""
        given = {}
        weights = self.typing.model.ir.graph.initializers
        for name in {spec.name for spec in self.typing.model.outputs if self._is_high(spec.name)}:
            tensor = weights[name].const_value if name in weights else None
            if name in self.samples.feeds[0]:
                arrays = [batch[name] for batch in self.samples]
            elif tensor is not None:
                arrays = [tensor.numpy()] * len(self.samples)
            else:
                continue
            sizes = [np.abs(array[np.isfinite(array)].astype(np.float64)) for array in arrays]
            given[name] = (float(sum((size**2).sum() for size in sizes)), sum(array.size for array in arrays))
            largest = max((size.max(initial=0.0) for size in sizes), default=0.0)
            care = replace(self._care(name), masked=any(map(_has_nonfinite, arrays)))
            if largest > _LARGE or 0 < largest < _SMALL:
                care = replace(care, scale=_scale_for(largest))
            self._cares[name] = care
        return given

    def _measure_ranges(self) -> tuple[Ranges, dict[str, Floats]]:
        woven = weave_ranges(self.typing, self._cares)
        if not woven.values:
            return Ranges((), RangeSums.zeros(0)), {}
        session = self._runs.compile(woven)
        names = session.output_names
        total = RangeSums.zeros(len(woven.values))
        scales = np.array([self._care(value).scale for value in woven.values])
        raw: dict[str, Floats] = {}
        for out in self._runs.batches(session, "ranges of the exact values", _outputs):
            part = {name.removeprefix(SUMS): np.asarray(out[name], np.float64) for name in names}
            raw = {name: raw[name] + value if name in raw else value for name, value in part.items()}
            total = total.merge(_range_sums(part, scales))
        return Ranges(woven.values, total), raw

    def _learn(self, found: Ranges, raw: Mapping[str, Floats]) -> bool:
        """Note which tensors need care; return whether that is news."""
        news = False
        if not found.values:
            return False
        for value, largest, squares in zip(found.values, found.sums.max_abs, raw["exact_squares"], strict=True):
            care = self._care(value)
            better = care
            if not np.isfinite(largest) or (np.isnan(squares) and not care.masked):
                better = replace(care, masked=True)
            elif largest > _LARGE or 0 < largest < _SMALL:
                better = replace(care, scale=_scale_for(largest))
            if better != care:
                self._cares[value] = better
                news = True
        return news

    def local(self) -> LocalError:
        """Return the local error of every layer that may run low, all from one session; measured once."""
        with self._runs.turn():
            if self._local is None:
                self.ranges()
                found = self._measure_local()
                lost = [value for value, ok in zip(found.values, found.sums.finite, strict=True) if not ok]
                if fresh := [value for value in lost if not self._care(value).masked]:
                    # Count what was lost, which costs time, only where something was.
                    self._cares |= {value: replace(self._care(value), masked=True) for value in fresh}
                    found = self._measure_local()
                self._local = found
            return self._local

    def _measure_local(self) -> LocalError:
        woven = weave_local(self.typing, self._cares, native=self._native)
        if not woven.values:
            return LocalError((), ErrorSums.zeros(0))
        session = self._runs.compile(woven)
        total = ErrorSums.zeros(len(woven.values))
        for out in self._runs.batches(session, "local errors", _outputs):
            total = total.merge(self._error_sums(out, woven.values)[0])
        return LocalError(woven.values, self._with_exact(total, woven.values))

    def accumulated(self, decisions: Decisions, *, keep_outputs: bool = False) -> AccumulatedError:
        """Return the errors under a plan: one run with its switches, the session being compiled at the first call.

        Args:
            decisions: of the plan, made with this emulator's typing.
            keep_outputs: return the outputs themselves too.
        """
        with self._runs.turn():
            return self._run_plan(decisions, keep_outputs=keep_outputs)

    def _run_plan(self, decisions: Decisions, *, keep_outputs: bool) -> AccumulatedError:
        woven, session = self._compiled_switchable()
        outputs = tuple(
            name for name in dict.fromkeys(s.name for s in self.typing.model.outputs) if self._is_high(name)
        )
        pairs = self._output_pairs(session) if keep_outputs else {}
        names = list(dict.fromkeys(name for pair in pairs.values() for name in pair))
        wanted = [name for name in session.output_names if name in _SUM_NAMES or name in names]
        extra = {SWITCHES: switch_vector(woven, decisions), PICKS: pick_vector(woven.picks)}
        total, out_total = ErrorSums.zeros(len(woven.values)), ErrorSums.zeros(len(outputs))
        kept: dict[str, list[Any]] = {}
        incomparable: set[str] = set()
        runs = self._runs.batches(
            session, "errors of the plan", _outputs, wanted=wanted, extra=extra, exact=self._exact
        )
        for out, exact in zip(runs, self._exact or [{}] * len(self.samples), strict=True):
            if woven.values:
                sums, differ = self._error_sums(out, woven.values)
                total = total.merge(sums)
                incomparable |= differ
            if outputs:
                out_total = out_total.merge(self._error_sums(out, outputs, OUTPUT_SUMS)[0])
            for name in names:
                kept.setdefault(name, []).append(out[name] if name in out else exact[name])
        joined = {name: _join(parts) for name, parts in kept.items()}
        return AccumulatedError(
            woven.values,
            self._with_exact(total, woven.values),
            outputs,
            self._with_exact(out_total, outputs),
            {name: joined[exact] for name, (exact, _) in pairs.items()},
            {name: joined[plan] for name, (_, plan) in pairs.items()},
            frozenset(incomparable),
        )

    def values(self, decisions: Decisions, layer_id: str, output: int = 0) -> LayerValues:
        """Return the values of one result of a layer, exact and under a plan: one run.

        The first call compiles the switchable graph anew, so that it gives out single tensors; runs of plans take a few
        percent longer from then on.

        Args:
            decisions: of the plan, made with this emulator's typing.
            layer_id: the layer.
            output: which of its float32 results, from 0 on.

        Raises:
            PlanError: the model has no such layer, or the layer no such result.
            ModelError: the layer makes no float32 tensor, or stands in the body of another.
        """
        shown = shown_values(self.typing, layer_id)
        decisions = replace(decisions, typing=self.typing, int8=self.int8 or decisions.int8)  # with their calibration
        with self._runs.turn():
            found = self.ranges()
            elements = dict(zip(found.values, found.sums.elements.tolist(), strict=True))
            size = elements[shown[output]] if 0 <= output < len(shown) else 0
            compiled = self._compiled_switchable(pickable=True)
            return look(
                self._runs,
                compiled,
                self._exact,
                decisions,
                (layer_id, output),
                elements=size,
                backend=f"onnxruntime-{self._provider}",
                native=self._native,
            )

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the exact values of each float32 tensor that a layer makes, by its name.

        Values in memory are counted there; others leave the runtime in parts of bounded size, each costing a run.
        """
        with self._runs.turn():
            found = self.ranges()
            elements = dict(zip(found.values, found.sums.elements.tolist(), strict=True))
            return exact_histograms(self._runs, self.typing, self._exact, elements)

    def _compiled_switchable(self, *, pickable: bool = False) -> tuple[Woven, Session]:
        if pickable and self._switchable is not None and not self._pickable:
            self._switchable = None  # before the next is made: two would hold the weights twice
        if self._switchable is None:
            elements = int(self.ranges().sums.elements.sum())
            fits = elements * np.dtype(np.float32).itemsize <= _EXACT_CACHE_BYTES
            woven = weave_switchable(
                self.typing, self._cares, exact_fed=fits, pickable=pickable, int8=self.int8, native=self._native
            )
            session = self._runs.compile(woven)
            outputs = [spec.name for spec in self.typing.model.outputs]
            if not self._exact and (woven.fed or not set(session.output_names).issuperset(outputs)):
                exact = self._runs.compile(weave_exact(self.typing, dict.fromkeys([*woven.fed, *outputs])))
                self._exact = list(self._runs.batches(exact, "exact values", _outputs))
            self._switchable, self._pickable = (woven, session), pickable
        return self._switchable

    def _is_high(self, name: str) -> bool:
        return self.typing.types[name].dtype == "float32"

    def _output_pairs(self, session: Session) -> dict[str, tuple[str, str]]:
        """Return for each model output the names of its exact and its planned version."""
        have = set(session.output_names)
        pairs = {}
        for spec in self.typing.model.outputs:
            names = (f"{spec.name}::planned", f"{spec.name}::plan", spec.name)
            pairs[spec.name] = (spec.name, next(name for name in names if name in have))
        return pairs

    def _with_exact(self, sums: ErrorSums, values: tuple[str, ...]) -> ErrorSums:
        """Return the sums with what the ranges already know of the exact values."""
        found = self.ranges()
        known = dict(zip(found.values, zip(found.sums.squares, found.sums.elements, strict=True), strict=True))
        known |= self._given
        exact = [known.get(value, (np.nan, 0)) for value in values]
        return replace(
            sums,
            exact_squares=np.array([squares for squares, _ in exact], dtype=np.float64),
            elements=np.array([elements for _, elements in exact], dtype=np.int64),
        )

    def _error_sums(
        self, out: Mapping[str, Any], values: tuple[str, ...], prefix: str = SUMS
    ) -> tuple[ErrorSums, set[str]]:
        """Return the sums of one run, and the values that could not be compared."""
        scale_squares = np.array([self._care(value).scale for value in values]) ** 2
        squares = np.asarray(out[f"{prefix}error_squares"], np.float64)
        differ = squares < 0
        squares = np.where(differ, np.nan, squares / scale_squares)
        low = out.get(f"{prefix}low_squares")
        scale = np.sqrt(scale_squares)
        high, below = (
            np.asarray(out[f"{prefix}error_high"], np.float64),
            np.asarray(out[f"{prefix}error_low"], np.float64),
        )
        largest = np.where(np.isnan(squares), np.nan, np.fmax(high, -below))
        # Nothing is lost where the error is finite, even if its squares leave float32: they are its largest at least.
        beyond = np.isinf(squares) & np.isfinite(largest)
        squares = np.where(beyond, largest**2, squares)
        sums = ErrorSums(
            error_squares=squares,
            exact_squares=np.zeros(len(values)),
            low_squares=np.full(len(values), np.nan) if low is None else np.asarray(low, np.float64) / scale**2,
            max_error=largest,
            elements=np.zeros(len(values), np.int64),
            nan=np.asarray(out[f"{prefix}low_nan"], np.int64),
            infinite=np.asarray(out[f"{prefix}low_infinite"], np.int64),
        )
        return sums, {value for value, differs in zip(values, differ, strict=True) if differs}


_SUM_NAMES = frozenset(
    f"{prefix}{name}"
    for prefix in (SUMS, OUTPUT_SUMS)
    for name in ("error_squares", "error_high", "error_low", "low_nan", "low_infinite", "low_squares")
)


def _range_sums(part: Mapping[str, Floats], scales: Floats) -> RangeSums:
    def counts(values: Floats) -> npt.NDArray[np.int64]:
        return values.astype(np.int64)

    infinite = part["infinite"]
    return RangeSums(
        squares=part["exact_squares"] / scales**2,
        max_abs=part["max_abs"],
        elements=counts(part["elements"]),
        overflow=counts(part["overflow"]),
        subnormal=counts(part["kept"] - part["normal"]),
        flushed=counts(part["nonzero"] - part["kept"]),
        nonfinite=counts(infinite + part["nan"]),
    )


def _scale_for(largest: float) -> float:
    """Return a power of two that brings values of this size near 1, as far as float32 has it."""
    return float(2.0 ** min(-int(np.frexp(largest)[1]), _MOST_SCALE))


def _outputs(_: int, out: dict[str, Any]) -> dict[str, Any]:
    return out


def _join(parts: list[Any]) -> Any:
    """Return an output of all batches: along axis 0, stacked where it has none, flat where its other sizes differ."""
    if isinstance(parts[0], list):  # a sequence
        return [item for part in parts for item in part]
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    if np.ndim(parts[0]) == 0:
        return np.stack(parts)
    if len({part.shape[1:] for part in parts}) > 1:
        return np.concatenate([part.ravel() for part in parts])
    return np.concatenate(parts)


def _has_nonfinite(array: npt.NDArray[Any]) -> bool:
    return not np.isfinite(array).all()
