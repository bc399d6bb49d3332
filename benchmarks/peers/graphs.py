"""Graphs that are built in code: the long chain, and the sum that fp16 loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ABSORBED", "write_chain", "write_trap"]

WIDTH = 16
SEED = 10_000
ABSORBED = 65504.0  # the largest fp16 number: what is added to it and is smaller than 16 is lost
TRAP_VALUES = 1024
OPSET, IR_VERSION = 17, 8
CHAIN = ("MatMul", "Add", "Relu", "Mul")


def write_chain(path: Path, layers: int, rows: int = 4) -> None:
    """Write a chain of small layers, and an ``.npz`` with its input beside it."""
    generator = np.random.default_rng(SEED)
    weights = [
        onnx.numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "turn"),
        onnx.numpy_helper.from_array(generator.normal(0, 0.1, WIDTH).astype(np.float32), "shift"),
        onnx.numpy_helper.from_array(np.full(WIDTH, 0.95, np.float32), "shrink"),
    ]
    second = {"MatMul": ["turn"], "Add": ["shift"], "Relu": [], "Mul": ["shrink"]}
    nodes, last = [], "x"
    for index in range(layers):
        kind = CHAIN[index % len(CHAIN)]
        out = "y" if index == layers - 1 else f"value_{index}"
        nodes.append(onnx.helper.make_node(kind, [last, *second[kind]], [out], name=f"layer_{index}"))
        last = out
    _write(path, nodes, weights, ["batch", WIDTH])
    np.savez_compressed(path.with_suffix(".npz"), x=generator.normal(0, 1, (rows, WIDTH)).astype(np.float32))


def write_trap(path: Path) -> None:
    """Write ``(x + 65504) - 65504``: exact to 0.004 in fp32, nothing is left of ``x`` in fp16."""
    generator = np.random.default_rng(SEED)
    large = onnx.numpy_helper.from_array(np.array([ABSORBED], np.float32), "large")
    nodes = [
        onnx.helper.make_node("Add", ["x", "large"], ["sum"], name="add"),
        onnx.helper.make_node("Sub", ["sum", "large"], ["y"], name="subtract"),
    ]
    _write(path, nodes, [large], ["batch", TRAP_VALUES])
    np.savez_compressed(path.with_suffix(".npz"), x=generator.normal(0, 1, (1, TRAP_VALUES)).astype(np.float32))


def _write(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[str | int]) -> None:
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        path.stem,
        [info("x", onnx.TensorProto.FLOAT, shape)],
        [info("y", onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)
