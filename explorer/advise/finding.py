"""What a finding is, and the edit of the plan that it proposes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.plan import Plan

__all__ = ["SPEED", "Finding", "Fix", "Tone", "Verdict"]

SPEED: Final = "speed"  # id of the finding that leads those of speed; the others have a verdict
Tone = Literal["stop", "warn", "good", "note"]
Verdict = Literal["", "confirmed", "ruled out", "untested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """An edit of the plan, as data: a button, a Python call and options of the command line come of it.

    Attributes:
        label: what the button says.
        block: patterns of layers that stay in fp32.
        formats: single layers and their formats, where no pattern names them alone.
        format: the low format to change to; empty keeps it.
        keep_io: whether inputs and outputs of the model keep fp32; None leaves that as it is.
    """

    label: str
    block: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    format: str = ""
    keep_io: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", MappingProxyType(dict(self.formats)))

    def apply(self, plan: Plan) -> Plan:
        """Return the plan with this edit."""
        if self.format:
            plan = _in_format(plan, self.format)
        if self.block:
            plan = plan.block(layers=self.block)
        if self.keep_io is not None:
            plan = replace(plan, keep_io=self.keep_io)
        # An override wins over every rule, so one that asks for the low format would undo the blacklist.
        return plan.set(self.formats) if self.formats else plan

    @property
    def code(self) -> str:
        """The Python call that does the same to an exploration ``x``."""
        text = "x.plan"
        if self.keep_io is not None:
            return f"import dataclasses; x.plan = dataclasses.replace(x.plan, keep_io={self.keep_io})"
        if self.format:
            return f"x.plan = explorer.Plan(format={self.format!r}, keep_io=x.plan.keep_io)"
        if self.block:
            text += f".block(layers={list(self.block)!r})"
        if self.formats:
            text += f".set({dict(self.formats)!r})"
        return f"x.plan = {text}"

    @property
    def options(self) -> str:
        """The options of the command line that do the same; empty where none can."""
        if self.format:
            return f"--format {self.format}"
        if self.keep_io is not None:
            return "--keep-io" if self.keep_io else "--no-keep-io"
        named = (*self.block, *self.formats)
        if not all(name.isprintable() for name in named):
            return ""
        return " ".join(f"--block {shlex.quote(name)}" for name in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One plain statement about the model under its plan, with what it rests on.

    Attributes:
        id: what kind of finding it is; unique in one list of findings.
        tone: ``stop`` breaks the model, ``warn`` may, ``note`` is to be known, ``good`` is well.
        title: a few words.
        text: what happens and why, in plain text.
        evidence: the figures of this model that it rests on, with how they came to be; plain text, may be empty.
        layers: ids of the layers concerned, in the order of execution.
        fix: the edit that helps, or None.
        verdict: of a cause that was tested: ``confirmed``, ``ruled out``, or ``untested`` where it cannot be tested
            here; empty where nothing was to be tested.
    """

    id: str
    tone: Tone
    title: str
    text: str
    evidence: str = ""
    layers: tuple[str, ...] = ()
    fix: Fix | None = None
    verdict: Verdict = ""

    @property
    def of_speed(self) -> bool:
        """Whether it tells of speed, and not of what breaks."""
        return self.id == SPEED or bool(self.verdict)


def _in_format(plan: Plan, low: str) -> Plan:
    """Return a plan of another low format that runs all low that can: the blacklist was made for the old one."""
    return replace(plan, format=low, base=low, rules=(), overrides={})
