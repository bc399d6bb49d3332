"""What the plan asked for against what TensorRT ran: layers whose kernel computed in another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from explorer.backends.latency import KernelTime

__all__ = ["FormatDifference", "asked_notes", "format_differences"]

_TOLD: Final = 3  # layers that a note names
# They move values, or are themselves the change of a format: no arithmetic that a format could be told of.
_MOVES: Final = frozenset(
    {"Cast", "CastLike", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "Pad",
     "QuantizeLinear", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FormatDifference:
    """A layer that ran in another format than the plan asked for.

    Attributes:
        layer_id: the layer.
        asked: the plan's format.
        ran: the format of its kernels.
        kernel: name of the kernel, the slowest where there are several.
    """

    layer_id: str
    asked: str
    ran: str
    kernel: str


def format_differences(
    kernels: Iterable[KernelTime], asked: Mapping[str, str], ops: Mapping[str, str], compute: Collection[str]
) -> tuple[FormatDifference, ...]:
    """Return the layers whose kernels all computed in another format than was asked for.

    Only what a kernel's format is told of is judged: where it multiplies matrices, those layers; else all that do
    arithmetic. A kernel whose format is not told says nothing.

    Args:
        kernels: with the layers and the format of each.
        asked: format by layer id.
        ops: operator type by layer id.
        compute: operator types that multiply.
    """
    ran: dict[str, list[KernelTime]] = {}
    for kernel in kernels:
        if kernel.format and kernel.kind == "layer":
            main = [layer_id for layer_id in kernel.layer_ids if ops.get(layer_id) in compute]
            for layer_id in main or kernel.layer_ids:
                if ops.get(layer_id) not in _MOVES:
                    ran.setdefault(layer_id, []).append(kernel)
    found = []
    for layer_id, them in ran.items():
        wanted = asked.get(layer_id, NO_FORMAT)
        if wanted != NO_FORMAT and all(each.format != wanted for each in them):
            slowest = max(them, key=lambda each: each.median_us)
            found.append(FormatDifference(layer_id, wanted, slowest.format, slowest.name))
    return tuple(found)


def asked_notes(
    kernels: Sequence[KernelTime], asked: Mapping[str, str], ops: Mapping[str, str], compute: Collection[str]
) -> list[str]:
    """Return a sentence for each pair of formats that were asked for and ran; arguments as of `format_differences`."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for each in format_differences(kernels, asked, ops, compute):
        pairs.setdefault((each.asked, each.ran), []).append(each.layer_id)
    notes = []
    for (wanted, ran), ids in pairs.items():
        more = f", and {len(ids) - _TOLD:,} more" if len(ids) > _TOLD else ""
        why = " TF32 is on by itself in TensorRT: --noTF32 turns it off." if (wanted, ran) == ("fp32", "tf32") else ""
        notes.append(
            f"Asked {wanted}, ran {ran}: {len(ids):,} layer{'s' * (len(ids) > 1)}: {', '.join(ids[:_TOLD])}{more}.{why}"
        )
    return notes
