"""What the panel shows of the run in the background, and of the plan that was run last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from explorer.plan import Plan
    from explorer.results import PlanErrors
    from explorer.session import Exploration

__all__ = ["Run", "Shown"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The state of the background run, as `RunState` of js/src/protocol.ts."""

    state: str = "idle"
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float | None = None
    error: Json | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """The errors on screen, and the revision of the plan that they belong to."""

    revision: int
    plan: Plan
    target: str | None
    errors: PlanErrors
    table: pd.DataFrame
    outputs: pd.DataFrame
    first_nonfinite: str | None

    @classmethod
    def of(cls, revision: int, x: Exploration) -> Shown:
        """Return what is shown of an exploration whose errors are known."""
        errors = x.results.errors(x.plan, x.target)
        return cls(revision, x.plan, x.target, errors, x.errors(), x.output_error(), x.first_nonfinite())
