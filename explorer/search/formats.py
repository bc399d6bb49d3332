"""Among which formats a search chooses, and the plan that it keeps the rules of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from explorer.errors import InputError, nearest
from explorer.formats import FORMATS
from explorer.search.plans import blacklist_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.plan import Plan

__all__ = ["CPU", "asked_formats", "check_device", "plan_for"]

CPU: Final = "cpu"  # in place of a GPU: the times are measured on this machine's processor
_HIGH: Final = "fp32"
_INT8: Final = "int8"
_MIXED: Final = ("fp16", "bf16")


def asked_formats(plan: Plan, formats: Sequence[str] | None) -> tuple[str, ...]:
    """Return the low formats of a search, int8 last: one, or one of fp16 and bf16 with int8.

    Args:
        plan: whose formats are meant where none are given.
        formats: low formats; fp32 may be named, and is always there.

    Raises:
        InputError: one is not known, or no plan can have all of them.
    """
    if isinstance(formats, str):
        formats = [each.strip() for each in formats.split(",")]
    given = plan.formats if formats is None else formats
    wanted = tuple(sorted({each for each in given if each != _HIGH}, key=lambda each: each == _INT8))
    for name in wanted:
        if name not in FORMATS:
            raise InputError(
                f"There is no format '{name}'.", fix=nearest(name, FORMATS) or f"Known: {', '.join(FORMATS)}."
            )
    if len(wanted) == 1 or (len(wanted) == 2 and wanted[0] in _MIXED and wanted[1] == _INT8):
        return wanted
    raise InputError(
        f"A search cannot choose among {', '.join((_HIGH, *wanted)) if wanted else _HIGH}.",
        why="A plan has one low format; only one of fp16 or bf16 may name int8 besides.",
        fix="Give formats=('fp16', 'int8'), or one low format.",
    )


def check_device(formats: Sequence[str], gpu_model: str | None) -> None:
    """Refuse formats that the device does not compute in.

    Raises:
        InputError: this machine's processor is asked for a format that it has no arithmetic for.
    """
    wrong = [name for name in formats if name != _INT8]
    if gpu_model == CPU and wrong:
        raise InputError(
            f"Latency in {wrong[0]} cannot be measured on the CPU.",
            why=f"ONNX Runtime computes {wrong[0]} in fp32 there, so its time would say nothing.",
            fix="Give formats=('int8',), or the name of a GPU.",
        )


def plan_for(plan: Plan, formats: Sequence[str]) -> Plan:
    """Return what a search among these formats keeps of a plan: keep-I/O, and rules that name fp32 or one of them."""
    first = formats[0]
    if first == plan.format:
        return blacklist_only(plan)
    kept = tuple(rule for rule in plan.rules if rule.format in (_HIGH, *formats))
    return replace(plan, format=first, base="", keep_io=plan.keep_io or first not in _MIXED, rules=kept, overrides={})
