"""How close emulated errors are to those of real kernels, layer by layer.

Both are errors against the fp32 model on the same samples; the real ones come from the same switchable graph with true
low-precision operators, on CUDA (`explorer.probe.native`). The comparison itself is plain arithmetic on sums, so that
it is tested without a GPU; with one, `benchmarks/gpu/run_gpu_suite.py` fills `docs/fidelity.md` from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from explorer.probe.emulator import Emulator

if TYPE_CHECKING:
    from explorer.backends.runtime import Provider
    from explorer.convert import Decisions, Typing
    from explorer.model import Samples
    from explorer.probe.outcomes import AccumulatedError, LocalError

__all__ = ["Fidelity", "OpFidelity", "compare_errors", "measure_fidelity"]

Floats = npt.NDArray[np.float64]
CLOSE_DB: Final = 3.0  # a factor of 1.4 in the error: what another order of summation makes of it


@dataclass(frozen=True, slots=True)
class OpFidelity:
    """All results of one operator type.

    Attributes:
        op: the type.
        count: how many results were compared.
        median_db: median of real against emulated error in dB; positive where the real one is larger.
        worst_db: the one farthest from 0, with its sign.
        worst_layer: whose it is.
        close: share of the results within 3 dB.
    """

    op: str
    count: int
    median_db: float
    worst_db: float
    worst_layer: str
    close: float


@dataclass(frozen=True, eq=False)
class Fidelity:
    """Emulated and real error of each result, in the order of the layers.

    Attributes:
        values: names of the results.
        layers: id of the layer that makes each.
        ops: its operator type.
        emulated: relative error ||y - r|| / ||r||; inf or NaN where the result is not finite.
        real: likewise, of real kernels.
    """

    values: tuple[str, ...]
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    emulated: Floats
    real: Floats

    @property
    def difference_db(self) -> Floats:
        """20 log10(real / emulated) of each result.

        0 where both have no error, or both are not finite; inf where only the real one has an error or is not finite,
        -inf the other way round.
        """
        emulated, real = (np.where(np.isnan(side), np.inf, side) for side in (self.emulated, self.real))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 20 * np.log10(real / emulated)
        return np.where(real == emulated, 0.0, ratio)

    def by_op(self) -> tuple[OpFidelity, ...]:
        """Return a summary for each operator type, the most frequent first."""
        difference = self.difference_db
        found = []
        for op in sorted(set(self.ops)):
            rows = np.flatnonzero(np.array(self.ops) == op)
            part = difference[rows]
            worst = int(rows[np.argmax(np.abs(part))])
            found.append(
                OpFidelity(
                    op,
                    len(rows),
                    float(np.median(part)),
                    float(difference[worst]),
                    self.layers[worst],
                    float(np.mean(np.abs(part) <= CLOSE_DB)),
                )
            )
        return tuple(sorted(found, key=lambda item: (-item.count, item.op)))


def compare_errors(
    typing: Typing, emulated: LocalError | AccumulatedError, real: LocalError | AccumulatedError
) -> Fidelity:
    """Return both errors of the results that both measured.

    Args:
        typing: of the model; it says which layer makes a result.
        emulated: from an emulator.
        real: from an emulator whose low layers are native, on a backend that has low-precision arithmetic.
    """
    maker = {name: layer for layer in typing.model.layers for name in layer.outputs if name}
    theirs = dict(zip(real.values, real.sums.rel_l2.tolist(), strict=True))
    rows = [
        (name, maker[name], mine, theirs[name])
        for name, mine in zip(emulated.values, emulated.sums.rel_l2.tolist(), strict=True)
        if name in theirs and name in maker
    ]
    return Fidelity(
        tuple(name for name, *_ in rows),
        tuple(layer.id for _, layer, *_ in rows),
        tuple(layer.qualified_op for _, layer, *_ in rows),
        np.array([mine for *_, mine, _ in rows], np.float64),
        np.array([other for *_, other in rows], np.float64),
    )


def measure_fidelity(
    typing: Typing,
    samples: Samples,
    decisions: Decisions | None = None,
    *,
    provider: Provider = "cuda",
    device: int = 0,
    threads: int | None = None,
) -> Fidelity:
    """Return emulated and real errors: local ones of every layer, or those under a plan.

    Args:
        typing: what each layer may be; of fp16 or bf16.
        samples: what runs through the model.
        decisions: of a plan; without them, local errors are compared.
        provider: where the real kernels are. On ``cpu`` the "real" ones are not: nothing is learnt but that it runs.
        device: index of the GPU.
        threads: of the runtime.

    Raises:
        PlanError: no operator computes in the format.
        BackendError: CUDA is not ready here.
    """
    emulator = Emulator(typing, samples, threads=threads)
    kernels = Emulator(typing, samples, native=True, provider=provider, device=device, threads=threads)
    if decisions is None:
        return compare_errors(typing, emulator.local(), kernels.local())
    return compare_errors(typing, emulator.accumulated(decisions), kernels.accumulated(decisions))
