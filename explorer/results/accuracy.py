"""Accuracy of a classifier before and after, from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Accuracy", "accuracy_of"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of samples whose largest output is the label.

    Attributes:
        exact: of the fp32 model, 0 to 1.
        plan: of the plan, emulated, 0 to 1.
        agreement: share of samples for which both predict the same.
        samples: number of labelled samples.
        output: name of the output that was compared with the labels.
        provenance: how the numbers came to be.
    """

    exact: float
    plan: float
    agreement: float
    samples: int
    output: str
    provenance: str


def accuracy_of(
    labels: npt.NDArray[Any],
    exact: Mapping[str, npt.NDArray[Any]],
    planned: Mapping[str, npt.NDArray[Any]],
    *,
    provenance: str,
) -> Accuracy:
    """Return the accuracy of the first output that is a table of one row of scores per label.

    Raises:
        InputError: no output is such a table.
    """
    rows = len(labels)
    name = next((key for key, value in exact.items() if np.ndim(value) == 2 and len(value) == rows), None)
    if name is None:
        raise InputError(
            f"The samples have {rows} labels, and no output of the model is a table of {rows} rows of scores.",
            fix="Leave the labels out, or give one label per row of a classifier's output.",
        )
    before, after = exact[name].argmax(axis=1), _predictions(planned[name])
    return Accuracy(
        exact=float((before == labels).mean()),
        plan=float((after == labels).mean()),
        agreement=float((before == after).mean()),
        samples=rows,
        output=name,
        provenance=provenance,
    )


def _predictions(scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the predicted class of each row; -1, which is no label, where a score is NaN."""
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return np.where(np.isnan(scores).any(axis=1), -1, best)
