"""What the panel has measured of a plan in the background: its latency where it runs, and the scales of int8."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from explorer.backends.devices import device_here
from explorer.backends.ort_errors import RunCancelled
from explorer.backends.status import backend_status
from explorer.calibrate import METHODS
from explorer.errors import ExplorerError, InputError
from explorer.measure.latency import CpuLatency
from explorer.report import text
from explorer.scene import num
from explorer.view.devices import IMPORTED, THIS_CPU, backend_of, devices_json
from explorer.view.words import figure

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from explorer.backends.latency import LatencyResult
    from explorer.backends.runtime import Cancel
    from explorer.measure.latency import PredictedLatency
    from explorer.plan import Plan
    from explorer.results import TriedPlan
    from explorer.session import Exploration
    from explorer.view.controller import Controller

__all__ = ["Measuring"]

Json = dict[str, Any]
_Key = tuple["Plan", "str | None", str]

_INT8 = "int8"


class Measuring:
    """Latency on the chosen device, and calibration.

    Args:
        controller: of the panel; its lock is held by those who ask here.
    """

    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self._refused: dict[_Key, ExplorerError] = {}
        self._wanted: dict[str, Any] | None = None  # the calibration that is to be made
        self._follow(controller.x)

    def _follow(self, x: Exploration) -> None:
        """Show every latency that comes in, also by a cell of the notebook, for as long as the panel lives."""
        me = weakref.ref(self)  # results outlive the forks that share them

        def came() -> None:
            if (alive := me()) is not None:
                alive._c.publish()  # noqa: SLF001 - its own
            else:
                stop()

        stop = x.results.latencies.watch(came)

    # -- latency -----------------------------------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        """The backend that measures plans; empty where latency is predicted."""
        return backend_of(self._c.gpu)

    @property
    def gpu_model(self) -> str:
        """The GPU that latency is predicted for: the chosen one, or that on which plans are measured."""
        gpu = self._c.gpu
        if not backend_of(gpu):
            return gpu
        here = backend_of(gpu) not in ("", backend_of(THIS_CPU), IMPORTED)
        return device_here() if here and any(status.devices for status in backend_status()) else ""

    def known(self, plan: Plan | None = None, target: str | None = None) -> LatencyResult | None:
        """Return the measured latency of a plan on the chosen device, by default of the one that is set."""
        x = self._c.x
        plan, target = (plan, target) if plan is not None else (x.plan, x.target)
        if not self.backend:
            return None
        found = x.results.latencies.known_measured(plan, target, self.backend)
        if found is not None:
            return found.result
        cpu = x.results.latencies.known_cpu()
        return cpu.result if self._c.gpu == THIS_CPU and cpu is not None and self._is_fp32(plan, target) else None

    def _is_fp32(self, plan: Plan, target: str | None) -> bool:
        decisions = self._c.x.results.decisions(plan, target)
        return not decisions.low_layers and not decisions.int8_layers and plan.keep_io

    def call(self) -> str:
        """Return the Python call that tells the latency on the chosen device; empty where none is chosen."""
        x, gpu = self._c.x, self._c.gpu
        if gpu == IMPORTED:
            return "x.import_profile(...)"
        if gpu == THIS_CPU and x.decisions().low_layers and x.plan.format != _INT8:
            return "x.latency()"  # of the fp32 model: this CPU does not compute in the plan's format
        return f"x.measure({self.backend!r})" if self.backend else f"x.latency(gpu_model={gpu!r})" if gpu else ""

    def stand_in(self) -> CpuLatency | PredictedLatency | None:
        """Return what is known without measuring the plan: fp32 on this CPU, or the prediction for a GPU."""
        x = self._c.x
        if self._c.gpu == THIS_CPU:
            return x.results.latencies.known_cpu()
        gpu = self.gpu_model
        return x.results.latencies.known_prediction(x.plan, x.target, gpu) if gpu else None

    def table(self) -> pd.DataFrame | None:
        """Return what `stand_in` tells, one row a layer."""
        found, x = self.stand_in(), self._c.x
        return None if found is None else found.table(x.model.layers, x.decisions())

    @property
    def standing_in(self) -> bool:
        """Whether what is shown is only there until the plan has been measured, which is under way or to come."""
        return bool(self.backend) and self.backend != IMPORTED and self.known() is None and not self.refusal

    @property
    def refusal(self) -> str:
        """Why the plan that is set cannot be measured on the chosen device; empty where it can, or was not tried."""
        x = self._c.x
        found = self._refused.get((x.plan, x.target, self.backend))
        return "" if found is None else f"{found.what} {found.why}".strip()

    def again(self) -> None:
        """Forget refusals: what was missing may be there now."""
        self._refused.clear()

    def predict(self, fork: Exploration, revision: int) -> None:
        """Predict the latency of the plan, where the device is a GPU: it stands in until it is measured."""
        gpu = self.gpu_model
        if gpu and fork.results.latencies.known_prediction(fork.plan, fork.target, gpu) is None:
            fork.predicted_latency(gpu)
            self._c.publish_if(revision)

    def missing(self, plan: Plan, target: str | None) -> bool:
        """Return whether there is something to measure of a plan on the chosen device."""
        return self._lacks_cpu() or self._lacks(plan, target)

    def _lacks_cpu(self) -> bool:
        return self._c.gpu == THIS_CPU and self._c.x.results.latencies.known_cpu() is None

    def _lacks(self, plan: Plan, target: str | None) -> bool:
        backend = self.backend
        if not backend or backend == IMPORTED or (plan, target, backend) in self._refused:
            return False
        return self.known(plan, target) is None

    def measure(self, fork: Exploration, token: Cancel, tell: Callable[[str, int, int], None]) -> None:
        """Measure what is `missing` of a plan; what cannot be is kept as a refusal.

        Args:
            fork: an exploration with the plan.
            token: stops it.
            tell: called with what is being done, how much of it, and of how much.
        """
        latencies = fork.results.latencies
        plan, target, backend = fork.plan, fork.target, self.backend
        if self._lacks_cpu():
            with fork.results.turn(token, tell):
                fork.cpu_latency()
            self._c.publish()
        if not self._lacks(plan, target):
            return
        try:
            latencies.measure(plan, target, backend, cancel=token, progress=tell)
        except RunCancelled:
            raise
        except ExplorerError as error:
            self._refused[plan, target, backend] = error

    def of_tried(self, each: TriedPlan) -> tuple[float | None, str]:
        """Return the latency of a plan that was tried, on the chosen device, and how it came to be."""
        if self.backend:
            found = self.known(each.plan, each.target)
            return (None, "") if found is None else (found.whole_us, found.provenance)
        known = bool(self._c.gpu) and each.gpu_model == self._c.gpu
        return (each.latency_us, each.latency_provenance) if known else (None, "")

    # -- what is shown of it -----------------------------------------------------------------------------------------

    def devices(self) -> list[Json]:
        """Return the devices that can be chosen, as `DeviceState` of js/src/protocol.ts."""
        x = self._c.x
        return devices_json(imported=x.results.latencies.known_measured(x.plan, x.target, IMPORTED) is not None)

    def headline(self) -> Json | None:
        """Return the latency of the whole model as `Figure` of js/src/protocol.ts; None where none is known."""
        found = self.known()
        if found is not None:
            return _measured(found, self.stand_in())
        known = self.stand_in()
        if known is None:
            return None
        more = f"; {self.refusal}" if self.refusal else "; until the plan is measured" if self.standing_in else ""
        if isinstance(known, CpuLatency):
            whole = known.result.whole_us
            more = more or "; this device tells nothing of the low format"
            return figure(whole, f"{text.duration(whole)} in fp32", f"{known.result.provenance}{more}")
        predicted = known.result
        low = f"; in fp32 {text.duration(predicted.uniform_us['fp32'])}{more}"
        if predicted.unpredicted:
            low += f"; a lower bound: {text.plural(len(predicted.unpredicted), 'layer')} could not be predicted"
        words = f"{'≥ ' if predicted.unpredicted else ''}{text.duration(predicted.plan_us)}"
        return figure(predicted.plan_us, words, f"{predicted.provenance}{low}")

    def state(self) -> Json | None:
        """Return `MeasuredState` of js/src/protocol.ts; None where no device that measures is chosen."""
        if not self.backend:
            return None
        found = self.known()
        nothing: Json = {"whole_us": None, "spread_us": None, "layers_us": None, "overhead_us": None}
        state: Json = {"backend": self.backend, **nothing, "formats": "", "notes": [], "provenance": ""}
        if found is not None:
            state |= {
                "whole_us": num(found.whole_us),
                "spread_us": num(found.whole_spread_us),
                "layers_us": num(sum(row.median_us for row in found.layers)) if found.layers else None,
                "overhead_us": num(found.overhead_us),
                "formats": found.formats,
                "notes": list(found.notes),
                "provenance": found.provenance,
            }
        return {**state, "refused": "" if found is not None else self.refusal}

    # -- calibration -------------------------------------------------------------------------------------------------

    def calibrate(self, method: str) -> str:
        """Find the scales of int8 anew, in the background, and return the Python call that does the same.

        Raises:
            InputError: there is no such method.
        """
        if method not in METHODS:
            raise InputError(f"There is no calibration '{method}'.", fix=f"Choose one of: {', '.join(METHODS)}.")
        call = f"x.calibrate(method={method!r})"
        with self._c.lock:
            self._wanted = {"method": method}
            self._c.note(call)
            self._c.start()
        return call

    def forget(self) -> None:
        """Give up the calibration that was asked for."""
        self._wanted = None

    def calibrated(self, fork: Exploration, token: Cancel) -> bool:
        """Make the calibration that was asked for, if there is one; return whether the scales are new."""
        wanted = self._wanted
        if wanted is None:
            return False
        before = fork.calibration
        with fork.results.turn(token, self._c.tell):
            fork.calibrate(**wanted)
        if self._wanted is wanted:
            self._wanted = None
        return fork.calibration != before

    def calibration(self) -> Json:
        """Return `CalibrationState` of js/src/protocol.ts."""
        x = self._c.x
        known, decisions = x.calibration, x.decisions()
        return {
            "wanted": bool(decisions.low_layers if x.plan.format == _INT8 else decisions.int8_layers),
            "method": "" if known is None else known.method,
            "methods": list(METHODS),
            "text": "" if known is None else known.description,
            "notes": [] if known is None else [*known.warnings, *known.notes],
        }


def _measured(found: LatencyResult, other: CpuLatency | PredictedLatency | None) -> Json:
    words = text.duration(found.whole_us)
    more = f", ± {text.duration(found.whole_spread_us)}" if found.whole_spread_us > 0 else ""
    if isinstance(other, CpuLatency) and other.result is not found:
        more += f"; in fp32 {text.duration(other.result.whole_us)}"
    elif isinstance(other, CpuLatency):
        words += " in fp32"
    return figure(found.whole_us, words, f"{found.provenance}{more}")
