"""Emulators of small graphs, and random graphs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from support.graphs import FLOAT, graph, helper, model, node, value, weight

from explorer.convert import Decisions, convert, decide, type_layers
from explorer.model import Model, load_model, load_samples
from explorer.plan import Plan
from explorer.probe import Emulator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

STORAGE = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def rounded(array, low_format: str = "fp16") -> np.ndarray:
    """``array`` stored in the format and read as float32, by numpy and ml_dtypes alone."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, np.float32).astype(STORAGE[low_format]).astype(np.float32)


@dataclass
class Bench:
    """One model on one set of samples, and its emulator."""

    model: Model
    emulator: Emulator
    plan: Plan

    @classmethod
    def of(
        cls,
        proto: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray] | None = None,
        plan: Plan | None = None,
        *,
        batch_size: int | None = None,
        threads: int = 1,
    ) -> Bench:
        plan = plan or Plan()
        loaded = load_model(proto)
        samples = load_samples(loaded, feeds, batch_size=batch_size)
        return cls(loaded, Emulator(type_layers(loaded, plan.format), samples, threads=threads), plan)

    def decisions(self, plan: Plan | None = None) -> Decisions:
        return decide(plan or self.plan, self.emulator.typing)

    def accumulated(self, plan: Plan | None = None):
        return self.emulator.accumulated(self.decisions(plan), keep_outputs=True)

    def planned(self, plan: Plan | None = None) -> dict[str, np.ndarray]:
        """The model's outputs under the plan, by name."""
        return dict(self.accumulated(plan).plan_outputs)

    def exact(self) -> dict[str, np.ndarray]:
        return dict(self.accumulated().exact_outputs)

    def converted(self, plan: Plan | None = None) -> onnx.ModelProto:
        return convert(self.model, plan or self.plan).proto


def entries(found) -> dict[str, dict[str, float]]:
    """The sums of a LocalError or AccumulatedError (or Ranges), by value, as plain numbers."""
    names = list(vars(found.sums))
    return {
        value_name: {name: getattr(found.sums, name)[index].item() for name in names}
        for index, value_name in enumerate(found.values)
    }


def same(one, other) -> bool:
    """Whether two arrays are equal bit for bit, except that every NaN equals every other."""
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    kind = {2: np.uint16, 4: np.uint32, 8: np.uint64}[one.dtype.itemsize]
    alike = one.view(kind) == other.view(kind) if one.ndim else one.reshape(1).view(kind) == other.reshape(1).view(kind)
    return bool((alike | (np.isnan(one) & np.isnan(other))).all())


# -- random graphs -------------------------------------------------------------------------------------------------

_COLUMNS = 4
_UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Softmax", "Sqrt", "Exp", "Erf")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
_SHAPED = ("Reshape", "Unsqueeze", "Gather", "SplitConcat", "MatMul", "Gemm", "Where", "Clip", "LayerNormalization",
           "Concat", "ReduceMean", "CastInt", "ArgMax")  # fmt: skip
_MAGNITUDES = (1.0, 0.1, 1e-4, 300.0, 3e4)


@st.composite
def random_graphs(draw, *, largest: int = 8, magnitudes=_MAGNITUDES) -> onnx.ModelProto:
    """A graph of a few layers on tensors of shape (batch, 4), each layer with its weights, one to three outputs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes, weights, values = [], [], ["x", "z"]

    def some():
        return draw(st.sampled_from(values))

    def weight_of(shape):
        shared = [each.name for each in weights if tuple(each.dims) == shape and each.data_type == FLOAT]
        if shared and draw(st.booleans()):
            return draw(st.sampled_from(shared))
        name = f"w{len(weights)}"
        array = rng.standard_normal(shape) * draw(st.sampled_from(magnitudes))
        weights.append(weight(name, array))
        return name

    def constant(array):
        name = f"c{len(weights)}"
        weights.append(weight(name, array))
        return name

    for number in range(draw(st.integers(1, largest))):
        op = draw(st.sampled_from(_UNARY + _BINARY + _SHAPED))
        out, name = f"v{number}", f"{op}_{number}"
        if op in _UNARY:
            nodes.append(node(op, [some()], [out], name))
        elif op in _BINARY:
            other = some() if draw(st.booleans()) else weight_of((_COLUMNS,))
            nodes.append(node(op, [some(), other], [out], name))
        elif op == "MatMul":
            nodes.append(node(op, [some(), weight_of((_COLUMNS, _COLUMNS))], [out], name))
        elif op == "Gemm":
            inputs = [some(), weight_of((_COLUMNS, _COLUMNS)), weight_of((_COLUMNS,))]
            nodes.append(node(op, inputs, [out], name, transB=1))
        elif op == "Reshape":
            nodes.append(node(op, [some(), constant(np.array([-1, _COLUMNS]))], [out], name))
        elif op == "Unsqueeze":
            axis = constant(np.array([0]))
            nodes.append(node("Unsqueeze", [some(), axis], [f"{out}_wide"], name))
            nodes.append(node("Squeeze", [f"{out}_wide", axis], [out], f"{name}_back"))
        elif op == "Gather":
            nodes.append(node(op, [some(), constant(rng.integers(0, _COLUMNS, _COLUMNS))], [out], name, axis=1))
        elif op == "SplitConcat":
            parts = [f"{out}_a", f"{out}_b"]
            nodes.append(node("Split", [some(), constant(np.array([1, 3]))], parts, name, axis=1))
            nodes.append(node("Concat", parts[::-1], [out], f"{name}_back", axis=1))
        elif op == "Concat":
            nodes.append(node(op, [some(), some()], [f"{out}_wide"], name, axis=1))
            picked = constant(rng.integers(0, 2 * _COLUMNS, _COLUMNS))
            nodes.append(node("Gather", [f"{out}_wide", picked], [out], f"{name}_pick", axis=1))
        elif op == "Where":
            condition = constant(rng.integers(0, 2, _COLUMNS).astype(bool))
            nodes.append(node(op, [condition, some(), some()], [out], name))
        elif op == "Clip":
            nodes.append(node(op, [some(), constant(np.float32(-2.7)), constant(np.float32(1e4))], [out], name))
        elif op == "LayerNormalization":
            nodes.append(node(op, [some(), weight_of((_COLUMNS,))], [out], name, axis=-1))
        elif op == "ReduceMean":
            nodes.append(node(op, [some()], [f"{out}_mean"], name, axes=[1], keepdims=1))
            nodes.append(node("Sub", [some(), f"{out}_mean"], [out], f"{name}_centre"))
        elif op == "CastInt":
            nodes.append(node("Tanh", [some()], [f"{out}_small"], f"{name}_tanh"))
            nodes.append(
                node(
                    "Cast",
                    [f"{out}_small"],
                    [f"{out}_int"],
                    name,
                    to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)),
                )
            )
            nodes.append(node("Cast", [f"{out}_int"], [out], f"{name}_back", to=FLOAT))
        elif op == "ArgMax":
            nodes.append(node("Softmax", [some()], [f"{out}_soft"], f"{name}_soft"))
            nodes.append(node("ArgMax", [f"{out}_soft"], [f"{out}_best"], name, axis=1, keepdims=1))
            nodes.append(node("GatherElements", [some(), f"{out}_best"], [f"{out}_one"], f"{name}_pick", axis=1))
            nodes.append(node("Add", [some(), f"{out}_one"], [out], f"{name}_add"))
        values.append(out)
    made = [each for each in values if each not in ("x", "z")]
    outputs = [made[-1], *draw(st.lists(st.sampled_from(made), max_size=2))]
    return model(
        nodes,
        [value("x", ["batch", _COLUMNS]), value("z", ["batch", _COLUMNS])],
        [value(name, None) for name in dict.fromkeys(outputs)],
        weights,
        opset=17,
    )


@st.composite
def plans_for(draw, proto: onnx.ModelProto, *, low_format: str | None = None, keep_io: bool | None = None) -> Plan:
    """A plan that blocks some operators, overrides some layers, and keeps I/O or not."""
    keep = draw(st.booleans()) if keep_io is None else keep_io
    plan = Plan(format=low_format or draw(st.sampled_from(("fp16", "bf16"))), keep_io=keep)
    layers = [layer.id for layer in load_model(proto).layers]
    ops = sorted({layer.op for layer in load_model(proto).layers})
    plan = plan.block(op_types=draw(st.lists(st.sampled_from(ops), unique=True, max_size=2)))
    chosen = draw(st.lists(st.sampled_from(layers), unique=True, max_size=4))
    return plan.set({layer: draw(st.sampled_from(("fp32", plan.format))) for layer in chosen})


def feeds_of(seed: int, rows: int = 3, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Inputs of a random graph."""
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal((rows, _COLUMNS)) * scale).astype(np.float32) for name in ("x", "z")}


__all__ = [
    "STORAGE",
    "Bench",
    "entries",
    "feeds_of",
    "graph",
    "plans_for",
    "random_graphs",
    "rounded",
    "same",
]
