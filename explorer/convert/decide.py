"""Plan -> one decision per layer, with its reason: types are settled to a fixpoint along the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from explorer.convert.traits import Kind
from explorer.convert.typing import HIGH, LayerTyping, Typing
from explorer.plan import NO_FORMAT, Decision, Plan, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from explorer.model import Layer

__all__ = ["Decisions", "decide"]

_FP32 = "fp32"


@dataclass(frozen=True)
class Decisions:
    """What becomes of every layer under one plan.

    Attributes:
        by_layer: layer id to its decision, in execution order.
        low_layers: ids of the layers that run low.
        low_values: names of the float32 values that are stored low from where they are made.
        plan: the plan.
        typing: what each layer may be.
    """

    by_layer: dict[str, Decision]
    low_layers: frozenset[str]
    low_values: frozenset[str]
    plan: Plan
    typing: Typing

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.by_layer.values())

    def __len__(self) -> int:
        return len(self.by_layer)

    def __getitem__(self, layer_id: str) -> Decision:
        return self.by_layer[layer_id]


def decide(plan: Plan, typing: Typing) -> Decisions:
    """Return what becomes of each layer.

    The formats of tensors only flow forwards: a layer's format depends on the plan, on what the layer may be, and, for
    layers that move or join data, on the formats of what they take. The border of a control-flow body is always fp32,
    so no value's format depends on one that is made later, and one pass in execution order reaches the fixpoint.

    Args:
        plan: what is asked; its format must be the one of ``typing``.
        typing: what each layer may be.
    """
    model, types = typing.model, typing.types
    wishes = plan.wishes(model)
    fed = {spec.name for spec in model.inputs}
    low_values: set[str] = set() if plan.keep_io else {name for name in fed if types[name].dtype == HIGH}
    by_layer: dict[str, Decision] = {}
    low_layers: set[str] = set()
    made_by: dict[str, str] = {}
    state = _State(low_values, model.weights, made_by, plan.format)
    for layer in model.layers:
        may = typing.layers[layer.id]
        fmt, reason = _settle(layer, may, wishes[layer.id], state)
        by_layer[layer.id] = Decision(layer.id, fmt, reason, wishes[layer.id].format)
        if fmt == plan.format and may.switchable:
            low_layers.add(layer.id)
            low_values.update(name for name, low in zip(layer.outputs, may.low_outputs, strict=True) if low)
        for name in layer.outputs:
            made_by[name] = layer.id
    return Decisions(by_layer, frozenset(low_layers), frozenset(low_values), plan, typing)


@dataclass(frozen=True)
class _State:
    """What is settled so far."""

    low_values: set[str]
    weights: Mapping[str, object]
    made_by: Mapping[str, str]
    low: str

    def origin(self, value: str) -> str:
        """Return who makes a value, in words."""
        return self.made_by.get(value, f"the input {value}")


def _settle(layer: Layer, may: LayerTyping, wish: Wish, state: _State) -> tuple[str, str]:
    """Return format and reason of one layer, the formats of its inputs being settled."""
    if may.blocked:
        return NO_FORMAT if may.kind in (Kind.INERT, Kind.OBSERVE) else _FP32, may.blocked
    if wish.by == "override" or (wish.by == "rule" and wish.format == _FP32):
        return wish.format, wish.reason
    moved = [n for n, takes in zip(layer.inputs, may.low_inputs, strict=True) if takes and n not in state.weights]
    if may.kind is Kind.MOVEMENT and moved:
        low = moved[0] in state.low_values
        return state.low if low else _FP32, f"moves data, so it follows {state.origin(moved[0])}"
    if may.kind is Kind.PROMOTE and wish.format != _FP32:
        wide = next((name for name in moved if name not in state.low_values), None)
        if wide is not None:
            return _FP32, f"joins streams and takes the widest: '{wide}' from {state.origin(wide)} is fp32"
    return wish.format, wish.reason
