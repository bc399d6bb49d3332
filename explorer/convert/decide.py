"""Plan -> one decision per layer, with its reason: types are settled to a fixpoint along the graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from explorer.convert.layer_typing import HIGH
from explorer.convert.traits import Kind
from explorer.plan import NO_FORMAT, Decision, Plan, Wish

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from explorer.convert.layer_typing import LayerTyping
    from explorer.convert.typing import Typing
    from explorer.model import Layer

__all__ = ["Decisions", "decide"]

_FP32, _INT8 = "fp32", "int8"


@dataclass(frozen=True)
class Decisions:
    """What becomes of every layer under one plan.

    Attributes:
        by_layer: layer id to its decision, in execution order.
        low_layers: ids of the layers that run low.
        low_values: names of the float32 values that are stored low from where they are made.
        plan: the plan.
        typing: what each layer may be in the plan's low format.
        int8: what each layer may be in int8, where a plan of another format asks for it too; else None.
        int8_layers: ids of the layers that run in int8 then.
        int8_values: names of the values that are stored in int8 then.
    """

    by_layer: dict[str, Decision]
    low_layers: frozenset[str]
    low_values: frozenset[str]
    plan: Plan
    typing: Typing
    int8: Typing | None = None
    int8_layers: frozenset[str] = frozenset()
    int8_values: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.by_layer.values())

    def __len__(self) -> int:
        return len(self.by_layer)

    def __getitem__(self, layer_id: str) -> Decision:
        return self.by_layer[layer_id]

    @property
    def formats(self) -> tuple[str, ...]:
        """The low formats that layers run in, the plan's own first; that alone where none runs low."""
        if not self.int8_layers:
            return (self.plan.format,)
        return (self.plan.format, _INT8) if self.low_layers else (_INT8,)

    @property
    def low_share(self) -> float:
        """Share of the layers with float32 tensors that the plan runs low; 0 where there are none."""
        floats = sum(decision.format != NO_FORMAT for decision in self)
        return len(self.low_layers | self.int8_layers) / floats if floats else 0.0


def decide(plan: Plan, typing: Typing, int8: Typing | None = None) -> Decisions:
    """Return what becomes of each layer.

    The formats of tensors only flow forwards: a layer's format depends on the plan, on what the layer may be, and, for
    layers that move or join data, on the formats of what they take. The border of a control-flow body is always fp32,
    so no value's format depends on one that is made later, and one pass in execution order reaches the fixpoint.

    Args:
        plan: what is asked; its format must be the one of ``typing``.
        typing: what each layer may be.
        int8: what each layer may be in int8, for a plan of another format that asks for it too.
    """
    model, types = typing.model, typing.types
    wishes = plan.wishes(model)
    fed = {spec.name for spec in model.inputs}
    made_by: dict[str, str] = {}
    low = _State(typing, made_by)
    if not plan.keep_io:
        low.values.update(name for name in fed if types[name].dtype == HIGH)
    more = _State(int8, made_by) if int8 is not None else None
    by_layer: dict[str, Decision] = {}
    for layer in model.layers:
        wish = wishes[layer.id]
        fmt, reason = _mixed(layer, wish, low, more)
        by_layer[layer.id] = Decision(layer.id, fmt, reason, wish.format)
        for state in (low, more):
            if state is not None and fmt == state.low:
                state.run(layer)
        for name in layer.outputs:
            made_by[name] = layer.id
    done = Decisions(by_layer, frozenset(low.layers), frozenset(low.values), plan, typing)
    if more is None:
        return done
    return replace(done, int8=int8, int8_layers=frozenset(more.layers), int8_values=frozenset(more.values))


@dataclass
class _State:
    """What is settled so far of one low format."""

    typing: Typing
    made_by: Mapping[str, str]
    values: set[str] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)

    @property
    def low(self) -> str:
        return self.typing.format

    def run(self, layer: Layer) -> None:
        """Note that a layer runs low."""
        may = self.typing.layers[layer.id]
        if may.switchable:
            self.layers.add(layer.id)
            self.values.update(name for name, low in zip(layer.outputs, may.low_outputs, strict=True) if low)

    def origin(self, value: str) -> str:
        """Return who makes a value, in words."""
        return self.made_by.get(value, f"the input {value}")


def _mixed(layer: Layer, wish: Wish, low: _State, int8: _State | None) -> tuple[str, str]:
    """Return format and reason of one layer under a plan that may ask for int8 beside its own low format."""
    if int8 is None:
        return _settle(layer, wish, low)
    insists = wish.by == "override" or (wish.by == "rule" and wish.format == _FP32)
    may = int8.typing.layers[layer.id]
    if wish.format == int8.low or not insists:
        # What follows an int8 layer is not asked: it runs in its kernel, or moves what it stored.
        asked = wish if wish.format == int8.low else Wish(_FP32, wish.reason)
        fmt, reason = _settle(layer, asked, int8)
        if fmt == int8.low:
            return fmt, reason
    if wish.format != int8.low:
        return _settle(layer, wish, low, int8.values)
    fmt, instead = _settle(layer, Wish(low.low, wish.reason), low, int8.values)
    return fmt, f"not in int8: {may.blocked or reason}" if fmt != NO_FORMAT else instead


def _settle(layer: Layer, wish: Wish, state: _State, narrow: Collection[str] = ()) -> tuple[str, str]:
    """Return format and reason of one layer, the formats of its inputs being settled.

    Args:
        layer: the layer.
        wish: what the plan asks of it: fp32 or the low format.
        state: what is settled so far.
        narrow: values that are stored in another low format.
    """
    may = state.typing.layers[layer.id]
    if may.blocked:
        return may.stored or (NO_FORMAT if may.kind in (Kind.INERT, Kind.OBSERVE) else _FP32), may.blocked
    if wish.by == "override" or (wish.by == "rule" and wish.format == _FP32):
        return wish.format, wish.reason
    if may.after:
        if may.after in state.layers:
            return state.low, f"runs in the {state.low} kernel of {may.after}"
        return _FP32, f"runs in {state.low} only in the kernel of {may.after}, which does not"
    return _follow(layer, may, wish, state, narrow) or (wish.format, wish.reason)


def _follow(
    layer: Layer, may: LayerTyping, wish: Wish, state: _State, narrow: Collection[str]
) -> tuple[str, str] | None:
    """Return format and reason of a layer that takes them from its data; None for others. Arguments as above."""
    weights = state.typing.model.weights
    moved = [n for n, takes in zip(layer.inputs, may.low_inputs, strict=True) if takes and n not in weights]
    if may.kind is Kind.MOVEMENT and moved:
        low = moved[0] in state.values
        return state.low if low else _FP32, f"moves data, so it follows {state.origin(moved[0])}"
    if may.kind is Kind.PROMOTE and wish.format != _FP32:
        wide = next((name for name in moved if name not in state.values and name not in narrow), None)
        if wide is not None:
            return _FP32, f"joins streams and takes the widest: '{wide}' from {state.origin(wide)} is fp32"
    return None
