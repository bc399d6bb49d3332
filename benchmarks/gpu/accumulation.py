"""What a GPU might do differently from emulation, as far as numpy on a CPU can show it; writes accumulation.json.

    python benchmarks/gpu/accumulation.py

Emulation rounds inputs and results to fp16 and computes in fp32. Tensor cores do the same with another order of
summation; some kernels also *sum* in fp16. Both are played out here in numpy, on single operators with seeded inputs:
not a GPU's arithmetic, but the size of what can differ. Every error is relative to float64 on the same fp16 inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "accumulation.json"
SEED = 16
LENGTHS = (64, 256, 1024, 4096)
ROWS = 16
Array = np.ndarray[Any, Any]
TAPS = 9
HALF, SINGLE = np.float16, np.float32


def operands(op: str, length: int) -> tuple[Array, Array]:
    """Seeded inputs, stored in fp16; weights of the size that keeps a network's activations around 1."""
    generator = np.random.default_rng([SEED, length])
    x = generator.normal(0, 1, (ROWS, length))
    w = generator.normal(0, 1 / np.sqrt(length), (length, ROWS))
    if op == "Softmax":
        x *= 3.0
    return x.astype(HALF), w.astype(HALF)


def summed(terms: Array, dtype: type) -> Array:
    """The sum along the last axis, one term after the other, every partial sum stored in ``dtype``."""
    total = np.zeros(terms.shape[:-1], dtype)
    for index in range(terms.shape[-1]):
        total = (total + terms[..., index].astype(dtype)).astype(dtype)
    return total


def product(x: Array, w: Array, accumulate: type, step: type) -> Array:
    """A matrix product: each term computed in ``step``, summed in ``accumulate``, the result stored in fp16."""
    terms = x[:, None, :].astype(step) * w.T[None, :, :].astype(step)
    return summed(terms, accumulate).astype(HALF)


def unfolded(x: Array, w: Array) -> tuple[Array, Array]:
    """Patches and weights of a 3x3 convolution as a product: nine shifted copies of the rows."""
    taps = np.concatenate([np.roll(x, shift, axis=1) for shift in range(TAPS)], axis=1)
    weights = np.concatenate([np.roll(w, shift, axis=0) for shift in range(TAPS)], axis=0) / HALF(3)
    return taps.astype(HALF), weights.astype(HALF)


def softmax(x: Array, _: Array, accumulate: type, step: type) -> Array:
    """Softmax over the last axis, its exponentials stored in ``step`` and summed in ``accumulate``."""
    moved = np.exp((x.astype(step) - x.max(-1, keepdims=True).astype(step)).astype(step)).astype(step)
    return (moved / summed(moved, accumulate)[:, None].astype(step)).astype(HALF)


def mean(x: Array, _: Array, accumulate: type, step: type) -> Array:
    return (summed(x.astype(step), accumulate) / accumulate(x.shape[-1])).astype(HALF)


OPS: dict[str, Callable[..., Array]] = {
    "MatMul": product,
    "Conv": product,
    "Softmax": softmax,
    "ReduceMean": mean,
}


def emulated(op: str, x: Array, w: Array) -> Array:
    """What this package's emulation gives: explicit pairs of casts around the fp32 operator, run by ONNX Runtime."""
    from explorer.backends.runtime import create_session  # noqa: PLC0415 - the arithmetic above does without

    inputs = {"MatMul": ["xs", "ws"], "Conv": ["xs", "ws"]}.get(op, ["xs"])
    attributes = {"axes": [1], "keepdims": 0} if op == "ReduceMean" else {}
    nodes = [
        helper.make_node("Cast", ["x"], ["xs"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["w"], ["ws"], to=TensorProto.FLOAT),
        helper.make_node("MatMul" if op == "Conv" else op, inputs, ["r"], **attributes),
        helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT16),
    ]
    info = helper.make_tensor_value_info
    fed = [info("x", TensorProto.FLOAT16, x.shape), info("w", TensorProto.FLOAT16, w.shape)]
    graph = helper.make_graph(nodes, "op", fed, [info("y", TensorProto.FLOAT16, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = create_session(model.SerializeToString(), threads=1, optimize="none")
    return np.asarray(session.run({"x": x, "w": w})["y"])


def error(got: Array, truth: Array) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - truth) / np.linalg.norm(truth))


def rows() -> list[dict[str, Any]]:
    """One row for each operator and length."""
    found = []
    for op, compute in OPS.items():
        for length in LENGTHS:
            x, w = operands(op, length)
            if op == "Conv":
                x, w = unfolded(x, w)
            truth = exact(op, x, w)
            errors = {
                "storage": error(truth.astype(HALF), truth),
                "emulated": error(emulated(op, x, w), truth),
                "fp32_sums": error(compute(x, w, SINGLE, SINGLE), truth),
                "fp16_sums": error(compute(x, w, HALF, HALF), truth),
            }
            told = {name: float(f"{value:.3e}") for name, value in errors.items()}
            found.append({"op": op, "terms": int(x.shape[1]), **told})
    return found


def exact(op: str, x: Array, w: Array) -> Array:
    """The operator in float64 on the same inputs, its result not rounded."""
    x64 = x.astype(np.float64)
    if op in {"MatMul", "Conv"}:
        return np.asarray(x64 @ w.astype(np.float64))
    if op == "Softmax":
        moved = np.exp(x64 - x64.max(-1, keepdims=True))
        return np.asarray(moved / moved.sum(-1, keepdims=True))
    return np.asarray(x64.mean(-1))


def main() -> None:
    record = {
        "command": "python benchmarks/gpu/accumulation.py",
        "numpy": np.__version__,
        "rows": rows(),
        "what": "numpy float16 and float32 on a CPU, not a GPU",
    }
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"Wrote {RECORD}. Now: python benchmarks/gpu/page.py")


if __name__ == "__main__":
    main()
