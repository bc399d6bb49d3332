"""What a search hands around: how plans are judged, what a front is of, and one plan of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.plan import Plan

__all__ = ["FrontPoint", "Judge", "Outcome", "Preview", "Settings"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of a plan gave.

    Attributes:
        error: relative L2 error of the worst output; inf where one is not finite.
        suspects: where it is not: the low layers by which that begins.
    """

    error: float
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """What decides about a plan: runs of it, and its latency.

    Attributes:
        run: runs the plan (emulated, or on a GPU).
        cost: what is to be small: latency of the whole model in microseconds, or where no GPU is asked the layers that
            stay in fp32.
        score: the user's metric under the plan, higher is better; None where there is none.
        exact_score: of the fp32 model; NaN where there is no metric.
        error_provenance: how errors come to be.
    """

    run: Callable[[Plan, Cancel | None], Outcome]
    cost: Callable[[Plan], float]
    error_provenance: str
    score: Callable[[Plan, Cancel | None], float] | None = None
    exact_score: float = float("nan")


@dataclass(frozen=True)
class Settings:
    """What a front is of: it does not fit when one of these changes.

    Attributes:
        plan: its format, keep-I/O and rules; without overrides.
        target: the backend whose kernels decide what may run low.
        gpu_model: the GPU that latency is of; empty where as many layers as possible shall run low.
    """

    plan: Plan
    target: str | None
    gpu_model: str

    def differs(self, other: Settings) -> str:
        """Return in words why what was found under these settings does not fit others; empty when it does."""
        mine, theirs = self.plan, other.plan
        changed = [
            (mine.format != theirs.format, f"the format is {theirs.format} now"),
            (mine.keep_io != theirs.keep_io, "keep-I/O changed"),
            (mine.rules != theirs.rules, "the blacklist changed"),
            (self.target != other.target, "the backend changed"),
            (self.gpu_model != other.gpu_model, f"it is for {self.gpu_model or 'no GPU'}"),
        ]
        return "; ".join(words for is_so, words in changed if is_so)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One plan.

    Attributes:
        plan: the plan.
        low: number of layers that run low.
        low_share: their share of the layers with float32 tensors.
        predicted_error: relative L2 error of the worst output by the noise model.
        error: the same as a run gave it; None until the plan was run.
        metric: the user's metric under the plan; None where it was not asked or not run.
        cost: what is to be small: the latency, or where no GPU was asked the layers that stay in fp32.
        latency_us: of the whole model, in microseconds; NaN where no GPU was asked.
        mask: by layer of the model, whether it runs low.
        labels: by layer, its place among the formats of the front, fp32 first; None where there are two.
    """

    plan: Plan
    low: int
    low_share: float
    predicted_error: float
    cost: float
    latency_us: float
    mask: npt.NDArray[np.bool_]
    error: float | None = None
    metric: float | None = None
    labels: npt.NDArray[np.int8] | None = None

    @property
    def choice(self) -> npt.NDArray[Any]:
        """What was chosen for each layer: its label, or where there are two formats whether it runs low."""
        return self.mask if self.labels is None else self.labels

    @property
    def worst(self) -> float:
        """The measured error, or while there is none the predicted one."""
        return self.predicted_error if self.error is None else self.error


@dataclass(frozen=True, slots=True)
class Preview:
    """What the best plan within a budget would be: predicted, nothing was run.

    Attributes:
        low: by layer of the model, whether it runs low.
        predicted_error: relative L2 error of the worst output.
        latency_us: of the whole model, estimated between the plans whose latency is known; NaN where no GPU was asked.
        low_share: share of the layers with float32 tensors that run low.
        seconds: that finding it took.
        labels: by layer, its place among the formats of the front, fp32 first; None where there are two.
    """

    low: npt.NDArray[np.bool_]
    predicted_error: float
    latency_us: float
    low_share: float
    seconds: float
    labels: npt.NDArray[np.int8] | None = None
