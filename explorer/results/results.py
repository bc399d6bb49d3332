"""What a model and its samples give under a plan and a target: each result once, kept, safe to ask from any thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from explorer.backends.lend import lend_weights
from explorer.backends.ort_errors import RunCancelled
from explorer.backends.runtime import Cancel, create_session
from explorer.convert import Conversion, Decisions, Typing, convert, decide, type_layers
from explorer.errors import BackendError, InputError, ModelError
from explorer.measure.tables import LayerSums, by_layer
from explorer.probe import AccumulatedError, Emulator
from explorer.results.accuracy import Accuracy, accuracy_of
from explorer.results.latencies import Latencies
from explorer.results.provenance import provenance_of
from explorer.results.reads import Reads
from explorer.results.recent import Recent
from explorer.results.scales import Scales
from explorer.results.tried import TriedPlan, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from explorer.measure import Histogram
    from explorer.model import Model, Samples
    from explorer.plan import Plan
    from explorer.probe import LayerValues
    from explorer.search.front import Front

__all__ = ["PlanErrors", "Results"]

T = TypeVar("T")

_SUM_BYTES = 64  # of one layer in ErrorSums: eight columns of 8 bytes
_PLANS_BYTES = 64 << 20  # errors of plans are kept up to here: any step back is instant then
_PLANS = (8, 512)  # at least and at most so many plans
_OUTPUT_BYTES = 64 << 20  # outputs that are smaller come with every run, so that none is repeated to look at them
_FLOAT_BYTES = 4
_EMULATORS = 3  # each holds a compiled graph and up to 2 GiB of exact values
_DECISIONS = 16
_INT8 = "int8"


@dataclass(frozen=True)
class PlanErrors:
    """Errors of one plan.

    Attributes:
        layers: sums by layer.
        found: as the emulator measured them, without the outputs themselves.
        overflow: infinities that the plan makes, by output; None until they were counted on the outputs.
        nan: likewise.
        accuracy: None without labels, or where none can be told.
    """

    layers: LayerSums
    found: AccumulatedError
    overflow: npt.NDArray[np.int64]
    nan: npt.NDArray[np.int64]
    accuracy: Accuracy | InputError | None

    @property
    def worst_db(self) -> float:
        """SQNR of the worst output in dB: -inf where one is not finite, NaN where there is none."""
        sums = self.found.output_sums
        if not len(sums.sqnr_db):
            return float("nan")
        return float(np.where(sums.finite, sums.sqnr_db, -np.inf).min())


class Results:
    """Computes and keeps results by (plan, target).

    Short questions (what becomes of a plan) take a light lock; runs of the model take turns. What is known is answered
    at once, also while another thread runs the model.

    Args:
        model: the model.
        samples: what runs through it.
        threads: of the runtime.
        progress: called with what is being done, batches done, and batches in all.
    """

    def __init__(
        self, model: Model, samples: Samples, *, threads: int | None, progress: Callable[[str, int, int], None]
    ) -> None:
        self.model, self.samples, self.threads = model, samples, threads
        self.tried: list[TriedPlan] = []
        self.progress = progress
        self._light = threading.RLock()
        self._turn = threading.RLock()
        self._converting = threading.RLock()
        self._run: tuple[Cancel, Callable[[str, int, int], None] | None] | None = None
        self._typings: dict[tuple[str, str | None], Typing] = {}
        self._decisions: Recent[Decisions] = Recent(_DECISIONS)
        self._conversion: tuple[object, Conversion] | None = None
        self._emulators: Recent[Emulator] = Recent(_EMULATORS)
        self._ranges: dict[tuple[str, str | None], LayerSums] = {}
        self._local: dict[tuple[str, str | None], LayerSums] = {}
        most = _PLANS_BYTES // (_SUM_BYTES * max(1, len(model.layers)))
        self._errors: Recent[PlanErrors] = Recent(min(max(most, _PLANS[0]), _PLANS[1]))
        self._outputs: tuple[object, AccumulatedError] | None = None
        self._front: Front | None = None
        self._front_watchers: list[Callable[[Front], None]] = []
        self.scales = Scales(self)
        self.reads = Reads(self)
        self.latencies = Latencies(self)

    # -- what becomes of a plan ------------------------------------------------------------------------------------

    def typing(self, low_format: str, target: str | None) -> Typing:
        """Return what each layer may be."""
        with self._light:
            key = (low_format, target)
            if key not in self._typings:
                self._typings[key] = type_layers(self.model, low_format, target)
            return self._typings[key]

    def decisions(self, plan: Plan, target: str | None) -> Decisions:
        """Return what becomes of each layer."""
        with self._light:
            found = self._decisions.get((plan, target))
            if found is None:
                int8 = self.typing(_INT8, target) if _INT8 in plan.formats[1:] else None
                found = self._decisions[plan, target] = decide(plan, self.typing(plan.format, target), int8)
            return found

    def low_share(self, plan: Plan, target: str | None) -> float:
        """Return the share of the layers with float32 tensors that run low."""
        return self.decisions(plan, target).low_share

    def conversion(self, plan: Plan, target: str | None, *, clamp: bool) -> Conversion:
        """Return the converted, checked model."""
        decisions = self.decisions(plan, target)
        calibration = self.scales.of(plan, decisions)  # before the lock: a calibration waits for its turn to run
        key = (plan, target, clamp, calibration)
        with self._converting:
            if self._conversion is None or self._conversion[0] != key:
                made = convert(
                    self.model,
                    plan,
                    backend=target,
                    clamp=clamp,
                    decisions=decisions,
                    calibration=calibration,
                )
                self._conversion = (key, made)
            return self._conversion[1]

    def provenance(self, plan: Plan, target: str | None) -> str:
        """Return how errors of a plan come to be."""
        return provenance_of(*self.decisions(plan, target).formats, calibration=self.scales.known)

    def forget_int8(self) -> None:
        """Forget what was measured with the scales that were, or would have been."""
        with self._turn, self._light:
            for kept in (self._ranges, self._local):
                for key in [each for each in kept if each[0] == _INT8]:
                    del kept[key]
            for recent in (self._errors, self._emulators):
                recent.clear()
            self._outputs = self._conversion = None
            self.tried = [each for each in self.tried if _INT8 not in each.plan.formats]

    def light(self) -> threading.RLock:
        """Return the lock of what is kept, held for moments only."""
        return self._light

    # -- errors ----------------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, cancel: Cancel, progress: Callable[[str, int, int], None] | None = None) -> Iterator[None]:
        """Run what the block asks for with this token, one thread at a time.

        Args:
            cancel: stops it from another thread, and nothing else.
            progress: called instead of the session's own.
        """
        with self._turn:
            cancel.check()
            outer, self._run = self._run, (cancel, progress)
            try:
                yield
            finally:
                self._run = outer

    @contextmanager
    def running(self) -> Iterator[tuple[Cancel, Callable[[str, int, int], None]]]:
        """Take the turn, or share that of the caller; yields the token that stops it, and what tells its progress."""
        with self._turn:
            yield (self._run[0] if self._run else Cancel()), self._teller()

    def _tell(self, stage: str, done: int, count: int) -> None:
        self._teller()(stage, done, count)

    def _teller(self) -> Callable[[str, int, int], None]:
        own = self._run[1] if self._run else None
        return own or self.progress

    def ready(self, low_format: str, target: str | None) -> Typing:
        """Return what each layer may be, with the scales that running it needs: without a calibration, one is made."""
        typing = self.typing(low_format, target)
        return replace(typing, calibration=self.scales.get()) if low_format == _INT8 else typing

    def _emulator(self, low_format: str, target: str | None, *, mixed: bool = False) -> Emulator:
        """Return the emulator, to be used by the thread whose turn it is; ``mixed`` plans ask for int8 too."""
        key = (low_format, target, mixed)
        found = self._emulators.get(key)
        if found is None:
            int8 = self.ready(_INT8, target) if mixed else None
            typing = self.ready(low_format, target)
            found = Emulator(typing, self.samples, int8=int8, threads=self.threads, progress=self._tell)
            self._emulators[key] = found
        found.cancel = self._run[0] if self._run else Cancel()
        found.cancel.check()
        return found

    def _once(
        self, known: dict[tuple[str, str | None], LayerSums], key: tuple[str, str | None], run: Callable[[], T]
    ) -> LayerSums:
        if key not in known:
            with self._turn:
                if key not in known:
                    found: Any = run()
                    known[key] = by_layer(self.model.layers, found.values, found.sums)
        return known[key]

    def ranges(self, low_format: str, target: str | None) -> LayerSums:
        """Return where the exact values lie; the first run of the model, so what it cannot do shows here."""
        return self._once(self._ranges, (low_format, target), lambda: self._exact_ranges(low_format, target))

    def _exact_ranges(self, low_format: str, target: str | None) -> Any:
        try:
            return self._emulator(low_format, target).ranges()
        except RunCancelled:
            raise
        except (ModelError, BackendError, InputError):
            self._check_runs()
            raise

    def _check_runs(self) -> None:
        """Check that the model as it is runs, where its emulation did not."""
        source, weights = lend_weights(self.model.ir)
        try:
            session = create_session(source, optimize="none", threads=self.threads, initializers=weights)
            for feed in self.samples:
                session.run(feed)
        except (ModelError, BackendError, InputError) as error:
            raise ModelError(
                f"The model does not run in fp32: {error.what}",
                why="Errors are measured against the fp32 model, so it has to run with these inputs.",
                fix="Run it in ONNX Runtime on the CPU first; converting it, without measuring, works all the same.",
            ) from error

    def local(self, low_format: str, target: str | None) -> LayerSums:
        """Return the local errors."""
        self.ranges(low_format, target)
        return self._once(self._local, (low_format, target), lambda: self._emulator(low_format, target).local())

    def plan_ranges(self, plan: Plan, target: str | None) -> LayerSums:
        """Return where the exact values lie relative to the format that each layer runs in under a plan."""
        return self._by_format(plan, target, self.ranges)

    def plan_local(self, plan: Plan, target: str | None) -> LayerSums:
        """Return the local error of each layer in its format under a plan, in the plan's own where it runs high."""
        return self._by_format(plan, target, self.local)

    def known_figures(self, plan: Plan, target: str | None) -> tuple[LayerSums | None, LayerSums | None]:
        """Return :meth:`plan_ranges` and :meth:`plan_local`, each None where it was not measured."""
        found = []
        for known in (self._ranges, self._local):
            have = all((each, target) in known for each in self._formats(plan, target))
            found.append(self._by_format(plan, target, lambda *key, at=known: at[key]) if have else None)
        return found[0], found[1]

    def _formats(self, plan: Plan, target: str | None) -> tuple[str, ...]:
        """Return the formats that layers run in under a plan, its own first."""
        return (plan.format, _INT8) if self.decisions(plan, target).int8_layers else (plan.format,)

    def _by_format(self, plan: Plan, target: str | None, ask: Callable[[str, str | None], LayerSums]) -> LayerSums:
        first = ask(plan.format, target)
        int8_layers = self.decisions(plan, target).int8_layers
        if not int8_layers:
            return first
        return first.where([layer.id not in int8_layers for layer in self.model.layers], ask(_INT8, target))

    def errors(self, plan: Plan, target: str | None, *, tried: bool = True) -> PlanErrors:
        """Return the errors under a plan.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            tried: list the plan among those that the user tried; a search runs many that nobody asked for.
        """
        made = self.known_errors(plan, target)
        if made is None:
            with self._turn:
                made = self.known_errors(plan, target) or self._measured(plan, target)
        if tried:
            with self._light:
                self._note_tried(plan, target, made)
        return made

    def _measured(self, plan: Plan, target: str | None) -> PlanErrors:
        keep = self.samples.labels is not None or self._small_outputs(self.ranges(plan.format, target))
        found = self._accumulated(plan, target, keep=keep)
        if not found.output_sums.finite.all() and not found.exact_outputs:
            # What is lost is counted on the outputs themselves: the sums tell only that something is.
            found = self._accumulated(plan, target, keep=True)
        made = self._summed(found, plan, target)
        with self._light:
            self._errors[plan, target] = made
        return made

    def _small_outputs(self, ranges: LayerSums) -> bool:
        made = {spec.name for spec in self.model.outputs}
        makers = [bool(made & set(layer.outputs)) for layer in self.model.layers]
        return 2 * _FLOAT_BYTES * int(ranges.sums.elements[makers].sum()) <= _OUTPUT_BYTES  # exact, and under the plan

    def _accumulated(self, plan: Plan, target: str | None, *, keep: bool) -> AccumulatedError:
        emulator = self._plan_emulator(plan, target)
        found = emulator.accumulated(self.decisions(plan, target), keep_outputs=keep)
        if keep:
            self._outputs = ((plan, target), found)
        return found

    def _plan_emulator(self, plan: Plan, target: str | None) -> Emulator:
        self.ranges(plan.format, target)
        return self._emulator(plan.format, target, mixed=bool(self.decisions(plan, target).int8_layers))

    def _summed(self, found: AccumulatedError, plan: Plan, target: str | None) -> PlanErrors:
        pairs = [(found.exact_outputs.get(name), found.plan_outputs.get(name)) for name in found.outputs]
        broken = not found.output_sums.finite.all()
        counts = {
            what: np.array([_made(what, *pair) if broken else 0 for pair in pairs], dtype=np.int64)
            for what in (np.isinf, np.isnan)
        }
        accuracy: Accuracy | InputError | None = None
        if self.samples.labels is not None:
            try:
                accuracy = accuracy_of(
                    self.samples.labels,
                    found.exact_outputs,
                    found.plan_outputs,
                    provenance=self.provenance(plan, target),
                )
            except InputError as error:
                accuracy = error
        layers = by_layer(self.model.layers, found.values, found.sums)
        light = replace(found, exact_outputs={}, plan_outputs={})
        return PlanErrors(layers, light, counts[np.isinf], counts[np.isnan], accuracy)

    def outputs(
        self, plan: Plan, target: str | None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
        """Return the model's outputs for all samples: exact, and under the plan; those of the last plan are kept."""
        with self._turn:
            if self._outputs is None or self._outputs[0] != (plan, target):
                self._accumulated(plan, target, keep=True)
            assert self._outputs is not None
            return self._outputs[1].exact_outputs, self._outputs[1].plan_outputs

    # -- values ----------------------------------------------------------------------------------------------------

    def values(self, plan: Plan, target: str | None, layer_id: str, output: int) -> LayerValues:
        """Return the values of one float32 result of a layer, exact and under a plan: one run."""
        with self._turn:
            return self._plan_emulator(plan, target).values(self.decisions(plan, target), layer_id, output)

    def histograms(self, low_format: str, target: str | None) -> dict[str, Histogram]:
        """Return the histogram of the exact values by name of the tensor, of all that layers make."""
        with self._turn:
            self.ranges(low_format, target)
            return self._emulator(low_format, target).histograms()

    # -- what is known already, without waiting ----------------------------------------------------------------------

    def known_errors(self, plan: Plan, target: str | None) -> PlanErrors | None:
        """Return the errors of a plan if they were measured and are still kept."""
        with self._light:
            return self._errors.get((plan, target))

    def _note_tried(self, plan: Plan, target: str | None, made: PlanErrors) -> None:
        if any(each.plan == plan and each.target == target for each in self.tried):
            return
        self.tried.append(
            TriedPlan(
                plan=plan,
                target=target,
                label=label_of(self.decisions(plan, target)),
                sqnr_db=made.worst_db,
                accuracy=made.accuracy.plan if isinstance(made.accuracy, Accuracy) else None,
                low_share=self.low_share(plan, target),
                error_provenance=self.provenance(plan, target),
            )
        )

    # -- the search ------------------------------------------------------------------------------------------------

    @property
    def front(self) -> Front | None:
        """The front that was found last, or None; set it to tell those who watch."""
        return self._front

    @front.setter
    def front(self, front: Front) -> None:
        self._front = front
        for watcher in tuple(self._front_watchers):
            watcher(front)

    def watch_front(self, changed: Callable[[Front], None]) -> Callable[[], None]:
        """Call ``changed`` with each front that is found, in the thread that finds it; return what ends that."""
        self._front_watchers.append(changed)
        return lambda: self._front_watchers.remove(changed) if changed in self._front_watchers else None


def _made(what: Any, exact: npt.NDArray[Any] | None, planned: npt.NDArray[Any] | None) -> int:
    """Return how many elements are ``what`` (inf, NaN) under the plan, and finite in the exact output."""
    if exact is None or planned is None:
        return 0
    found = what(planned)
    return int((found & np.isfinite(exact)).sum() if exact.shape == planned.shape else found.sum())
