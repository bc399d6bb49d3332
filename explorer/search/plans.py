"""From the layers that shall run low to a plan that says exactly that, in as few words as it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.convert import Decisions, Typing, decide
from explorer.convert.traits import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from explorer.plan import Plan

__all__ = ["blacklist_only", "blocked_layers", "plan_in", "plan_with"]

_HIGH = "fp32"


def blacklist_only(plan: Plan) -> Plan:
    """Return what a search keeps of a plan: the format, keep-I/O and the rules; single overrides are its to choose."""
    return replace(plan, base=plan.format, overrides={})


def blocked_layers(plan: Plan, typing: Typing) -> frozenset[str]:
    """Return the ids of the layers that the rules of a plan keep in fp32."""
    wishes = blacklist_only(plan).wishes(typing.model)
    return frozenset(layer_id for layer_id, wish in wishes.items() if wish.format == _HIGH)


def plan_with(low: Collection[str], plan: Plan, typing: Typing) -> tuple[Plan, Decisions]:
    """Return the plan that runs exactly these layers low, with the rules of ``plan``, and what it decides.

    Only layers that would run otherwise are named: one that moves data follows its input by itself.

    Args:
        low: ids of layers that may run low and that no rule blocks.
        plan: whose format, keep-I/O and rules are kept.
        typing: what each layer may be.
    """
    return _named(blacklist_only(plan), dict.fromkeys(low, typing.format), typing, None)


def plan_in(formats: Mapping[str, str], plan: Plan, typing: Typing, int8: Typing) -> tuple[Plan, Decisions]:
    """Return the plan that runs exactly these layers in these formats, the others in fp32, and what it decides.

    Args:
        formats: format by id of layers that may run in it and that no rule blocks.
        plan: whose format, keep-I/O and rules are kept.
        typing: what each layer may be in the plan's own format.
        int8: what each layer may be in int8.
    """
    start, counted = blacklist_only(plan), Counter(formats.values())
    if counted[int8.format]:  # what most layers run in needs no words
        counted[_HIGH] = sum(may.switchable for may in typing.layers.values()) - len(formats)
        start = replace(start, base=counted.most_common(1)[0][0])
    return _named(start, formats, typing, int8)


def _named(start: Plan, formats: Mapping[str, str], typing: Typing, int8: Typing | None) -> tuple[Plan, Decisions]:
    overrides: dict[str, str] = {}

    def decided() -> Decisions:
        plan = replace(start, overrides=overrides)
        return decide(plan, typing, int8 if int8 is not None and int8.format in plan.formats[1:] else None)

    # Formats flow forwards only, so the first layer that differs is settled for good by naming it; layers that differ
    # behind it may follow by themselves once it is right.
    made = decided()
    while differing := _first_differing(made, formats):
        overrides |= {layer_id: formats.get(layer_id, _HIGH) for layer_id in differing}
        made = decided()
    return made.plan, made


def _first_differing(made: Decisions, formats: Mapping[str, str]) -> list[str]:
    """Return the layers whose format is wrong, without those that may follow by themselves once others are right."""
    wrong: set[str] = set()  # values whose format is not what it will be, and layers likewise
    found = []
    typings = [made.typing, *([made.int8] if made.int8 is not None else [])]
    for layer in made.typing.model.layers:
        mays = [typing.layers[layer.id] for typing in typings]
        follows = any(may.kind in (Kind.MOVEMENT, Kind.PROMOTE) for may in mays)
        waits = follows and any(name in wrong for name in layer.inputs)
        waits = waits or any(may.after in wrong for may in mays if may.after)
        differs = _format(made, layer.id) != formats.get(layer.id, _HIGH)
        if differs and not waits:
            found.append(layer.id)
        if differs or waits:
            wrong.update((layer.id, *layer.outputs))
    return found


def _format(made: Decisions, layer_id: str) -> str:
    if layer_id in made.low_layers:
        return made.typing.format
    return made.int8.format if made.int8 is not None and layer_id in made.int8_layers else _HIGH
