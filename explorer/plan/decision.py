"""What conversion did with one layer, and why."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_FORMAT", "Decision"]

NO_FORMAT = "none"  # a layer without float32 tensors: integers, shapes, strings


@dataclass(frozen=True, slots=True)
class Decision:
    """What conversion did with one layer.

    Attributes:
        layer_id: the layer.
        format: the format that it runs in; ``none`` where it carries no float32 tensor.
        reason: why, in words.
        asked: the format that the plan asked for.
    """

    layer_id: str
    format: str
    reason: str
    asked: str

    @property
    def overruled(self) -> bool:
        """Whether the layer does not run in the format that the plan asked for."""
        return self.format not in (self.asked, NO_FORMAT)
