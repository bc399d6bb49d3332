"""The edit of a plan that keeps layers in fp32, as few readable patterns name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.finding import Fix
from explorer.advise.naming import patterns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.advise.evidence import Evidence

__all__ = ["keep"]

_HIGH: Final = "fp32"


def keep(ev: Evidence, rows: Iterable[int], what: str = "") -> Fix:
    """Return the edit that keeps these layers, and no other that runs low, in fp32."""
    ids = ev.ids(set(rows))
    found, single = patterns(ids, ev.layers, ev.ids(np.flatnonzero(ev.lowered).tolist()))
    # An override that asks for the low format wins over any pattern.
    asked = [each for each in ids if each in ev.decisions.plan.overrides and each not in single]
    label = what or f"Keep {'this layer' if len(ids) == 1 else f'these {len(ids):,} layers'} in fp32"
    return Fix(label=label, block=tuple(found), formats=dict.fromkeys([*single, *asked], _HIGH))
