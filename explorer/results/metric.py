"""The user's own metric of a plan: accuracy against labels, agreement with the fp32 model, or a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from explorer.errors import InputError, nearest
from explorer.results.accuracy import accuracy_of

if TYPE_CHECKING:
    from explorer.model import Samples

__all__ = ["METRICS", "Metric", "Outputs", "UserMetric", "metric_named"]

Outputs = Mapping[str, npt.NDArray[Any]]
Metric = Callable[[Outputs, Outputs], float]  # of the exact outputs and of those to judge; higher is better
UserMetric = Callable[[Outputs, "npt.NDArray[Any] | None"], float]

METRICS: Final = ("top1", "agreement")


def metric_named(metric: str | UserMetric, samples: Samples) -> Metric:
    """Return the metric as a function of exact and planned outputs.

    Args:
        metric: ``top1`` (share of samples whose largest score is the label), ``agreement`` (share of samples whose
            largest score is the fp32 model's), or a function of the outputs by name, all samples joined along axis 0,
            and of the labels or None; higher is better.
        samples: what it is measured on.

    Raises:
        InputError: there is no such metric, or it needs labels and there are none.
    """
    if callable(metric):
        return _Called(metric, samples.labels)
    if metric not in METRICS:
        raise InputError(
            f"There is no metric '{metric}'.",
            fix=nearest(metric, METRICS) or f"Known: {', '.join(METRICS)}; or give a function of outputs and labels.",
        )
    if metric == "top1" and samples.labels is None:
        raise InputError(
            "The metric top1 needs labels, and the samples have none.",
            fix="Give samples with a key 'labels', one class per row, or use metric='agreement'.",
        )
    return _top1(samples) if metric == "top1" else _agreement


class _Called:
    """A user's function, whose trouble is told in words."""

    def __init__(self, function: UserMetric, labels: npt.NDArray[Any] | None) -> None:
        self._function, self._labels = function, labels

    def __call__(self, exact: Outputs, planned: Outputs) -> float:
        del exact
        try:
            value = float(self._function(planned, self._labels))
        except Exception as error:
            raise InputError(
                f"The metric failed: {type(error).__name__}: {error}",
                why="It was called with the outputs by name, all samples joined along axis 0, and the labels or None.",
                fix="Try it on x.outputs()[1].",
            ) from error
        return value


def _top1(samples: Samples) -> Metric:
    labels = samples.labels
    assert labels is not None
    return lambda exact, planned: accuracy_of(labels, exact, planned, provenance="").plan


def _agreement(exact: Outputs, planned: Outputs) -> float:
    name = next((key for key, value in exact.items() if np.ndim(value) >= 2), None)
    if name is None:
        raise InputError(
            "No output of the model is a table of scores, so no predictions can agree.",
            fix="Give a function of the outputs as metric.",
        )
    before, after = exact[name], planned[name]
    same = (before.argmax(axis=-1) == np.where(np.isnan(after), -np.inf, after).argmax(axis=-1)).astype(np.float64)
    same[np.isnan(after).any(axis=-1)] = 0.0
    return float(same.mean())
