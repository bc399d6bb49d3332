"""The Python call that does the same: every change of the panel is one line of code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.export.python_code import RULE_ARGUMENTS, plan_calls, rule_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from explorer.plan import Plan, Rule

__all__ = ["IO_FORMATS", "change_call", "in_format"]

IO_FORMATS = ("fp16", "bf16")  # formats that inputs and outputs may have, and that may be mixed with int8
_HIGH, _INT8 = "fp32", "int8"

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
    wanted, named = run[0].format, _named(run)
    method = {_HIGH: "block", plan.format: "allow"}.get(wanted, "use")
    if method == "use":
        return method, f"{wanted!r}, {_arguments(run)}", plan.use(wanted, **named)
    return method, _arguments(run), getattr(plan, method)(**named)


def _named(rules: Iterable[Rule]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule in rules:
        found.setdefault(RULE_ARGUMENTS[rule.kind], []).append(rule.pattern)
    return found


def _arguments(rules: Iterable[Rule]) -> str:
    return ", ".join(f"{name}={patterns!r}" for name, patterns in _named(rules).items())


def in_format(plan: Plan, low: str) -> Plan:
    """Return the same plan with another low format.

    Layers that it asked to run in int8 stay so where the new format can be mixed with it; else they take the new one.
    Where inputs and outputs cannot have the format, they keep their types.

    >>> from explorer.plan import Plan
    >>> in_format(Plan(keep_io=False).set({"conv1": "int8"}), "bf16").overrides["conv1"]
    'int8'
    >>> in_format(Plan(keep_io=False).set({"conv1": "int8"}), "fp8e4m3").keep_io
    True
    """
    mixed = low in IO_FORMATS

    def turned(name: str) -> str:
        return name if name == _HIGH or (name == _INT8 != plan.format and mixed) else low

    rules = tuple(replace(rule, format=turned(rule.format)) for rule in plan.rules)
    overrides = {key: turned(value) for key, value in plan.overrides.items()}
    keep_io = plan.keep_io or not mixed
    return replace(plan, format=low, base=turned(plan.base), keep_io=keep_io, rules=rules, overrides=overrides)
