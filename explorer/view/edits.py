"""Edits of a plan, as clicks make them: what the plan becomes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from explorer.convert import decide, type_layers
from explorer.convert.traits import Kind
from explorer.errors import ExplorerError, PlanError, nearest
from explorer.plan import NO_FORMAT, Plan, Rule
from explorer.view.calls import IO_FORMATS, in_format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from explorer.convert import Decisions, Typing

__all__ = ["edited", "low_formats"]

_HIGH, _INT8 = "fp32", "int8"
_ROUNDS = 3  # formats follow each other along chains of movement: after so many rounds all that is left is set


def edited(edit: Mapping[str, Any], decisions: Decisions) -> Plan:
    """Return the plan after an edit of js/src/protocol.ts, but for those that only history knows (undo, goto ...).

    Args:
        edit: as it came, not trusted.
        decisions: what became of the plan that is set.

    Raises:
        PlanError: nothing can come of it, with the reason.
    """
    plan, typing, op = decisions.plan, decisions.typing, str(edit.get("op", ""))
    if op in ("toggle", "block", "allow"):
        return _Overrides(decisions, _layers(edit, typing), op).plan()
    if op in ("use", "use_ops", "use_scope"):
        return _used(edit, op, decisions)
    if op in ("block_ops", "unblock_ops"):
        names = _ops(edit, typing)
        return plan.block(op_types=names) if op == "block_ops" else _unblocked(plan, "op", names, typing)
    if op in ("block_scope", "unblock_scope"):
        scope = _scope(edit, typing)
        return plan.block(scopes=[scope]) if op == "block_scope" else _unblocked(plan, "scope", [scope], typing)
    if op in ("preset", "format"):
        name = str(edit.get("name"))
        return _in_format(plan, name) if op == "format" else Plan.preset(name, format=plan.format, keep_io=plan.keep_io)
    if op == "keep_io":
        return replace(plan, keep_io=bool(edit.get("value")))  # a format that cannot be I/O refuses it
    raise PlanError(f"There is no edit '{op}'.", fix="Panel and kernel may be of two versions: reload the page.")


# -- single layers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Overrides:
    """Overrides of single layers, as few as give what is wanted."""

    decisions: Decisions
    layers: Sequence[str]
    op: str

    def plan(self) -> Plan:
        """Return the plan with the overrides changed."""
        plan, low = self.decisions.plan, self.decisions.plan.format
        ids = self._switchable()
        bare = plan.set(dict.fromkeys(ids))
        if self.op == "block":
            wishes = bare.wishes(self.decisions.typing.model)
            held = {key for key in ids if wishes[key].by == "rule" and wishes[key].format == _HIGH}
            return bare.set({key: _HIGH for key in ids if key not in held})
        runs_low = any(self.decisions[key].format not in (_HIGH, NO_FORMAT) for key in ids)
        return self._settled(bare, ids, _HIGH if self.op == "toggle" and runs_low else low)

    def _settled(self, plan: Plan, ids: Sequence[str], wanted: str) -> Plan:
        """Return the plan with overrides on those layers that do not get the wanted format without one."""
        typing = self.decisions.typing
        for last in (*[False] * _ROUNDS, True):
            found = decide(plan, typing, self.decisions.int8)
            missing = [key for key in ids if found[key].format != wanted and key not in plan.overrides]
            if not missing:
                break
            # A layer that moves data may follow once the layer before it has what is wanted.
            made = {name for key in missing for name in typing.model.layer(key).outputs}
            first = [
                key
                for key in missing
                if last or typing.layers[key].kind is Kind.COMPUTE or not made & set(typing.model.layer(key).inputs)
            ]
            plan = plan.set(dict.fromkeys(first, wanted))
        return plan

    def _switchable(self) -> list[str]:
        typings = self.decisions.typing.layers
        found = [key for key in self.layers if typings[key].switchable or key in self.decisions.int8_layers]
        if not found:
            key = self.layers[0]
            reason = typings[key].blocked or self.decisions[key].reason
            count = len(self.layers)
            what = f"'{key}' cannot switch" if count == 1 else f"None of these {count} layers can switch; of '{key}'"
            raise PlanError(f"{what}: {reason}.", why="It has one format under every plan.")
        return found


def _layers(edit: Mapping[str, Any], typing: Typing) -> list[str]:
    layers, given = typing.model.layers, edit.get("layers")
    if not isinstance(given, list) or not given:
        raise PlanError("The edit names no layer.", fix="Select a layer first.")
    if not all(type(index) is int and 0 <= index < len(layers) for index in given):
        raise PlanError(
            f"The edit names a layer that the model of {len(layers)} layers does not have.",
            fix="The panel shows another model than the kernel has: run the cell again.",
        )
    return [layers[index].id for index in dict.fromkeys(given)]


# -- any format --------------------------------------------------------------------------------------------------------


def _used(edit: Mapping[str, Any], op: str, decisions: Decisions) -> Plan:
    """Return the plan with layers, operator types or a scope in the format that the edit names."""
    plan, typing, wanted = decisions.plan, decisions.typing, str(edit.get("format", ""))
    known = (_HIGH, *low_formats(plan))
    if wanted not in known:
        raise PlanError(
            f"A plan of {plan.format} cannot run layers in '{wanted}'.", fix=f"Choose one of: {', '.join(known)}."
        )
    if op == "use":
        return _named(_layers(edit, typing), wanted, decisions)
    named = {"op_types": _ops(edit, typing)} if op == "use_ops" else {"scopes": [_scope(edit, typing)]}
    return plan.use(wanted, **named)


def low_formats(plan: Plan) -> tuple[str, ...]:
    """Return the low formats that layers of a plan may be given, its own first."""
    return (plan.format, _INT8) if plan.format in IO_FORMATS else (plan.format,)


def _named(ids: Sequence[str], wanted: str, decisions: Decisions) -> Plan:
    """Return the plan with those of the layers in a format that may have it; overrides only where it takes them."""
    plan = decisions.plan
    if wanted == _HIGH or (wanted == plan.format and not decisions.int8_layers.intersection(ids)):
        return _Overrides(decisions, ids, "block" if wanted == _HIGH else "allow").plan()
    typing = decisions.typing
    if wanted != plan.format:
        typing = decisions.int8 or type_layers(typing.model, wanted, typing.backend)
    able = [key for key in ids if typing.layers[key].switchable]
    if not able:
        reason = typing.layers[ids[0]].blocked
        raise PlanError(
            f"'{ids[0]}' cannot run in {wanted}: {reason}."
            if len(ids) == 1
            else f"None of these {len(ids)} layers can run in {wanted}; of '{ids[0]}': {reason}.",
            why="It is so under every plan.",
        )
    bare = plan.set(dict.fromkeys(able))
    wishes = bare.wishes(typing.model)
    return bare.set({key: wanted for key in able if wishes[key].format != wanted})


# -- rules -------------------------------------------------------------------------------------------------------------


def _ops(edit: Mapping[str, Any], typing: Typing) -> list[str]:
    given = edit.get("ops")
    names = [str(name) for name in given] if isinstance(given, list) else []
    known = {layer.qualified_op for layer in typing.model.layers}
    if not names or (unknown := [name for name in names if name not in known]):
        what = f"The model has no operator type '{unknown[0]}'." if names else "The edit names no operator type."
        raise PlanError(what, fix=nearest(unknown[0], known) if names else "Choose one.")
    return names


def _scope(edit: Mapping[str, Any], typing: Typing) -> str:
    """Return the pattern of a scope: what has a meaning in patterns stands for itself."""
    path = str(edit.get("path", "")).strip("/")
    inside = [layer for layer in typing.model.layers if layer.scope == path or layer.scope.startswith(f"{path}/")]
    if not path or not inside:
        raise PlanError(
            f"The model has no scope '{path}'.",
            why="A stretch of the graph without a name of its own cannot be named by a rule.",
            fix="Select its layers and block those.",
        )
    return re.sub(r"([*?[])", r"[\1]", path)


def _unblocked(plan: Plan, kind: str, patterns: Sequence[str], typing: Typing) -> Plan:
    """Return the plan without the rules that block; where something else still asks for fp32, with one that allows."""
    argument = {"op": "op_types", "scope": "scopes"}[kind]
    rules = {(rule.kind, rule.pattern) for rule in plan.rules}
    dropped = plan.drop(**{argument: [pattern for pattern in patterns if (kind, pattern) in rules]})
    wishes = dropped.unset().wishes(typing.model)
    still = []
    for pattern in patterns:
        matches = Rule(kind, pattern, _HIGH).matcher()
        if any(matches(layer) and wishes[layer.id].format == _HIGH for layer in typing.model.layers):
            still.append(pattern)
    return dropped.allow(**{argument: still}) if still else dropped


def _in_format(plan: Plan, name: str) -> Plan:
    try:
        made = in_format(plan, name)
    except ExplorerError as error:
        raise PlanError(error.what, why=error.why, fix=error.fix) from error
    # A preset is the same choice in another format; it may block other operators there.
    preset = plan.preset_name
    return Plan.preset(preset, format=name, keep_io=made.keep_io) if preset else made
