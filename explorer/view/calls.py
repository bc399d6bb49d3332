"""The Python call that does the same: every change of the panel is one line of code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.export.python_code import RULE_ARGUMENTS, plan_calls, rule_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from explorer.plan import Plan, Rule

__all__ = ["change_call", "in_format"]

_STEPS_LENGTH = 2  # steps tell what was done; where they are longer than this, the whole plan reads better


def change_call(old: tuple[Plan, str | None], new: tuple[Plan, str | None]) -> str:
    """Return code that turns the old plan and target of ``x`` into the new ones.

    >>> from explorer.plan import Plan
    >>> plan = Plan()
    >>> change_call((plan, None), (plan.block(op_types=["Softmax"]).set({"conv1": "fp32"}), None))
    "x.plan = x.plan.block(op_types=['Softmax']).set({'conv1': 'fp32'})"
    >>> change_call((plan, None), (Plan.preset("safe"), "onnxruntime-cpu"))
    "x.change(explorer.Plan.preset('safe'), 'onnxruntime-cpu')"
    """
    (old_plan, old_target), (new_plan, new_target) = old, new
    if old_plan == new_plan:
        return f"x.target = {new_target!r}"
    steps, whole = _steps(old_plan, new_plan), plan_calls(new_plan)
    wanted = steps if steps and len(steps) <= _STEPS_LENGTH * len(whole) else whole
    return f"x.plan = {wanted}" if old_target == new_target else f"x.change({wanted}, {new_target!r})"


def _steps(old: Plan, new: Plan) -> str:
    """Return the change as methods of the old plan; empty where they cannot express it."""
    if (old.format, old.base, old.keep_io) != (new.format, new.base, new.keep_io):
        return ""
    text, made = "x.plan", old
    added = [rule for rule in new.rules if rule not in old.rules]
    gone = [
        rule
        for rule in old.rules
        if rule not in new.rules and not any((rule.kind, rule.pattern) == (r.kind, r.pattern) for r in added)
    ]
    if gone:
        made = made.drop(**_named(gone))
        text += f".drop({_arguments(gone)})"
    for run in rule_runs(added):
        method, arguments, made = _ruled(made, run)
        text += f".{method}({arguments})"
    changed: dict[str, str | None] = dict.fromkeys(key for key in old.overrides if key not in new.overrides)
    changed |= {key: value for key, value in new.overrides.items() if old.overrides.get(key) != value}
    text, made = text + _set(changed), made.set(changed)
    return text if made == new and (gone or added or changed) else ""


def _set(formats: Mapping[str, str | None]) -> str:
    return f".set({dict(formats)!r})" if formats else ""


def _ruled(plan: Plan, run: Sequence[Rule]) -> tuple[str, str, Plan]:
    method = "block" if run[0].format == "fp32" else "allow"
    return method, _arguments(run), getattr(plan, method)(**_named(run))


def _named(rules: Iterable[Rule]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule in rules:
        found.setdefault(RULE_ARGUMENTS[rule.kind], []).append(rule.pattern)
    return found


def _arguments(rules: Iterable[Rule]) -> str:
    return ", ".join(f"{name}={patterns!r}" for name, patterns in _named(rules).items())


def in_format(plan: Plan, low: str) -> Plan:
    """Return the same plan with another low format."""

    def turned(name: str) -> str:
        return low if name == plan.format else name

    rules = tuple(replace(rule, format=turned(rule.format)) for rule in plan.rules)
    overrides = {key: turned(value) for key, value in plan.overrides.items()}
    return replace(plan, format=low, base=turned(plan.base), rules=rules, overrides=overrides)
