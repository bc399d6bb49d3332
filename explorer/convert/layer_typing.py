"""What one layer may be under any plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from explorer.convert.traits import Kind

if TYPE_CHECKING:
    from explorer.model import Layer

__all__ = ["HIGH", "LayerTyping", "always_high"]

HIGH: Final = "float32"


@dataclass(frozen=True, slots=True)
class LayerTyping:
    """What one layer may be.

    Attributes:
        kind: how it takes part in a plan.
        low_inputs: for each input, whether it takes the low format when the layer runs low.
        low_outputs: likewise for each output.
        blocked: why the layer cannot run low, else an empty string.
        after: id of the layer whose quantised kernel computes this one too, else an empty string: it then runs low
            exactly when that one does.
        stored: the low format that the source model itself runs the layer in, else an empty string; no plan changes it.
    """

    kind: Kind
    low_inputs: tuple[bool, ...]
    low_outputs: tuple[bool, ...]
    blocked: str = ""
    after: str = ""
    stored: str = ""

    @property
    def switchable(self) -> bool:
        """Whether a plan can choose the layer's format."""
        return not self.blocked and self.kind in (Kind.COMPUTE, Kind.MOVEMENT, Kind.PROMOTE)


def always_high(layer: Layer, kind: Kind, reason: str) -> LayerTyping:
    """Return the typing of a layer that stays in fp32, and why."""
    return LayerTyping(kind, (False,) * len(layer.inputs), (False,) * len(layer.outputs), reason)
