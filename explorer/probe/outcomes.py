"""What an emulator finds: sums by tensor, and the outputs of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from explorer.measure import ErrorSums, RangeSums

__all__ = ["AccumulatedError", "LocalError", "Ranges"]


@dataclass(frozen=True)
class Ranges:
    """Where the exact values of each float32 tensor lie; ``values`` names the entries of ``sums``."""

    values: tuple[str, ...]
    sums: RangeSums


@dataclass(frozen=True)
class LocalError:
    """Error of each layer's result when only that layer runs low and its inputs are exact."""

    values: tuple[str, ...]
    sums: ErrorSums


@dataclass(frozen=True)
class AccumulatedError:
    """Error of each layer's result, and of the model's outputs, when a whole plan runs low.

    Attributes:
        values: names of the entries of ``sums``.
        sums: of the layers' results.
        outputs: names of the entries of ``output_sums``.
        output_sums: of the model's float32 outputs, as the converted model returns them.
        exact_outputs: the outputs of the exact model by name, samples joined along axis 0; empty unless asked for.
        plan_outputs: likewise under the plan.
        incomparable: values whose number of elements differed between the exact model and the plan.
    """

    values: tuple[str, ...]
    sums: ErrorSums
    outputs: tuple[str, ...]
    output_sums: ErrorSums
    exact_outputs: Mapping[str, npt.NDArray[Any]]
    plan_outputs: Mapping[str, npt.NDArray[Any]]
    incomparable: frozenset[str] = frozenset()
