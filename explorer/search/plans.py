"""From the layers that shall run low to a plan that says exactly that, in as few words as it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.convert import Decisions, Typing, decide
from explorer.convert.traits import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from explorer.plan import Plan

__all__ = ["blacklist_only", "blocked_layers", "plan_with"]

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
    start = blacklist_only(plan)
    wanted = frozenset(low)
    overrides: dict[str, str] = {}
    # Formats flow forwards only, so the first layer that differs is settled for good by naming it; layers that differ
    # behind it may follow by themselves once it is right.
    made = decide(start, typing)
    while differing := _first_differing(made, wanted):
        overrides |= {layer_id: typing.format if layer_id in wanted else _HIGH for layer_id in differing}
        made = decide(replace(start, overrides=overrides), typing)
    return made.plan, made


def _first_differing(made: Decisions, wanted: frozenset[str]) -> list[str]:
    """Return the layers whose format is wrong, without those that may follow by themselves once others are right."""
    wrong: set[str] = set()  # values whose format is not what it will be
    found = []
    for layer in made.typing.model.layers:
        follows = made.typing.layers[layer.id].kind in (Kind.MOVEMENT, Kind.PROMOTE)
        waits = follows and any(name in wrong for name in layer.inputs)
        differs = (layer.id in made.low_layers) != (layer.id in wanted)
        if differs and not waits:
            found.append(layer.id)
        if differs or waits:
            wrong.update(layer.outputs)
    return found
