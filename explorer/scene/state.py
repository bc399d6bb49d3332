"""Parts of `PanelState` of js/src/protocol.ts that notebook and report share."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from explorer.plan import NO_FORMAT
from explorer.scene.numbers import Num, num

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from explorer.advise import Finding
    from explorer.convert import Decisions
    from explorer.model import Layer, Model
    from explorer.plan import Plan

__all__ = ["findings_json", "ops_json", "outputs_json", "plan_json"]

Json = dict[str, Any]


def plan_json(plan: Plan) -> Json:
    """Return the rules and overrides of a plan, and the plan in words."""
    return {
        "rules": [{"kind": rule.kind, "pattern": rule.pattern, "format": rule.format} for rule in plan.rules],
        "layers": dict(plan.overrides),
        "text": str(plan),
    }


def findings_json(findings: Iterable[Finding], model: Model) -> list[Json]:
    """Return findings, their layers by number."""
    numbers = {layer.id: number for number, layer in enumerate(model.layers)}
    return [
        {
            "id": found.id,
            "tone": found.tone,
            "title": found.title,
            "text": found.text,
            "evidence": found.evidence,
            "layers": [numbers[layer_id] for layer_id in found.layers],
            "fix": found.fix.label if found.fix else "",
            "verdict": found.verdict,
            "code": found.fix.code if found.fix else "",
        }
        for found in findings
    ]


def ops_json(decisions: Decisions) -> list[Json]:
    """Return the op types with float tensors, most frequent first, each with what the blacklist says of it."""
    plan, layers = decisions.plan, decisions.typing.model.layers
    count: Counter[str] = Counter()
    low: Counter[str] = Counter()
    example: dict[str, Layer] = {}
    for layer in layers:
        found = decisions[layer.id].format
        if found != NO_FORMAT:
            count[layer.qualified_op] += 1
            low[layer.qualified_op] += found != "fp32"
            example.setdefault(layer.qualified_op, layer)
    rules = [(rule.matcher(), rule.format == "fp32") for rule in plan.rules if rule.kind == "op"]
    return [
        {
            "op": op,
            "count": number,
            "low": low[op],
            "blocked": next((blocks for matches, blocks in reversed(rules) if matches(example[op])), False),
        }
        for op, number in count.most_common()
    ]


def outputs_json(outputs: pd.DataFrame) -> list[Json]:
    """Return the error of each output, as ``Exploration.output_error()`` gives it.

    Every output was run: where its error is NaN it is not finite, which must not pass for not measured.
    """
    rows: Any = outputs.itertuples()
    return [
        {
            "name": row.output,
            "sqnr_db": _known(row.sqnr_db, -math.inf),
            "rel_l2": _known(row.rel_l2, math.inf),
            "max_abs": _known(row.max_abs, math.inf),
            "overflow": int(row.overflow),
            "nan": int(row.nan),
        }
        for row in rows
    ]


def _known(value: float, worst: float) -> Num:
    return num(worst if math.isnan(value) else value)
