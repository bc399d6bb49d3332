"""Sums over a tensor's elements as nodes of the graph, so that no activation has to leave the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from explorer.probe.weave import EmulationGraph, Nodes, number

if TYPE_CHECKING:
    from explorer.probe.bands import Bands

__all__ = ["COLUMN_TYPES", "OUTPUT_SUMS", "SUMS", "Care", "Parts", "compare", "observe", "repeat"]

_INT64 = onnx.TensorProto.INT64
_INT32 = onnx.TensorProto.INT32
_FLOAT = onnx.TensorProto.FLOAT
_SIZES_DIFFER = -1.0  # stands in error_squares, which is never negative, when two tensors cannot be compared

COUNTS = ("kept", "normal", "overflow", "nonzero", "infinite", "nan", "low_nan", "low_infinite")
_TYPES = {"elements": _INT64, **dict.fromkeys(COUNTS, _INT32)}
SUMS, OUTPUT_SUMS = "::sums/", "::output_sums/"  # before the names of the vectors of sums: a model has names of its own
COLUMN_TYPES = {f"{prefix}{name}": kind for name, kind in _TYPES.items() for prefix in (SUMS, OUTPUT_SUMS)}


@dataclass(frozen=True, slots=True)
class Care:
    """How a tensor must be handled so that its sums hold.

    Attributes:
        scale: factor on the values before they are squared, so that squares neither overflow nor vanish in float32.
        masked: the exact tensor holds infinities or NaN, or the low one may: they are counted and, where the exact
            one holds them, left out of the sums.
        guarded: its shape may depend on values, so it may be empty, or differ between exact and low.
    """

    scale: float = 1.0
    masked: bool = False
    guarded: bool = False


Parts = dict[str, str]  # name of a sum -> the one-element tensor that holds it


def observe(graph: EmulationGraph, value: str, care: Care, bands: Bands) -> Parts:
    """Append the sums that say where the values of ``value`` lie relative to what a format loses, and return them."""
    nodes = Nodes()
    flat = _flat(graph, nodes, value, f"{value}::o")
    size = nodes.add("Abs", [flat], f"{flat}::abs")
    exact, parts = flat, {}
    if care.masked:
        finite = _finite(graph, nodes, size)
        exact = nodes.add("Where", [finite, flat, graph.constant("::zero", 0.0)], f"{flat}::finite")
        parts["infinite"] = _count_above(nodes, size, "largest", float(np.finfo(np.float32).max))
        parts["nan"] = _count(nodes, nodes.add("IsNaN", [flat], f"{flat}::isnan"))
        size = nodes.add("Abs", [exact], f"{exact}::abs")
    scaled = _scaled(graph, nodes, exact, care.scale)
    parts["exact_squares"] = nodes.add("ReduceSumSquare", [scaled], f"{flat}::n2", keepdims=1)
    parts["max_abs"] = nodes.add("ReduceMax", [size], f"{flat}::max", keepdims=1)
    parts["elements"] = nodes.add("Shape", [flat], f"{flat}::n")
    below = {
        "kept": bands.subnormal,
        "normal": float(np.nextafter(np.float32(bands.normal), np.float32(0))),
        "overflow": float(np.nextafter(np.float32(bands.overflow), np.float32(0))),
        "nonzero": 0.0,
    }
    for name, limit in below.items():
        parts[name] = _count_above(nodes, size, name, limit)
    return _place(graph, nodes, parts, care, (value,), prefix=SUMS)


def compare(
    graph: EmulationGraph, exact: str, low: str, care: Care, *, prefix: str = SUMS, with_norm: bool = False
) -> Parts:
    """Append the sums of the error of ``low`` against ``exact`` to the vectors named ``prefix...``, and return them."""
    nodes = Nodes()
    parts = {}
    if not (care.masked or care.guarded or with_norm):  # the usual case, in as few nodes as it takes
        error = _flat(graph, nodes, nodes.add("Sub", [low, exact], f"{low}::e"), f"{low}::flat")
    else:
        r = _flat(graph, nodes, exact, f"{low}::r")
        y = _flat(graph, nodes, low, f"{low}::y")
        error = nodes.add("Sub", [y, r], f"{low}::e")
    if care.masked:
        finite = _finite(graph, nodes, nodes.add("Abs", [r], f"{r}::abs"))
        error = nodes.add("Where", [finite, error, graph.constant("::zero", 0.0)], f"{error}::finite")
        lost = nodes.add("IsNaN", [y], f"{y}::isnan")
        parts["low_nan"] = _count(nodes, nodes.add("And", [lost, finite], f"{lost}::new"))
        size = nodes.add("Abs", [y], f"{y}::abs")
        limit = graph.constant("::largest", float(np.finfo(np.float32).max))
        above = nodes.add("Less", [limit, size], f"{size}::isinf")
        parts["low_infinite"] = _count(nodes, nodes.add("And", [above, finite], f"{above}::new"))
    scaled = _scaled(graph, nodes, error, care.scale)
    parts["error_squares"] = nodes.add("ReduceSumSquare", [scaled], f"{error}::n2", keepdims=1)
    parts["error_high"] = nodes.add("ReduceMax", [error], f"{error}::high", keepdims=1)
    parts["error_low"] = nodes.add("ReduceMin", [error], f"{error}::low", keepdims=1)
    if with_norm:
        parts["low_squares"] = nodes.add(
            "ReduceSumSquare", [_scaled(graph, nodes, y, care.scale)], f"{y}::n2", keepdims=1
        )
    return _place(graph, nodes, parts, care, (exact, low), prefix=prefix)


def repeat(graph: EmulationGraph, parts: Parts) -> None:
    """Append sums that stand in the graph already to the vectors once more, for another tensor of the same values."""
    for name, part in parts.items():
        graph.column(name, part)


def _flat(graph: EmulationGraph, nodes: Nodes, value: str, out: str) -> str:
    return nodes.add("Reshape", [value, graph.constant("::flat", [-1], np.int64)], out)


def _finite(graph: EmulationGraph, nodes: Nodes, size: str) -> str:
    return nodes.add("Less", [size, graph.constant("::infinity", np.inf)], f"{size}::isfinite")


def _scaled(graph: EmulationGraph, nodes: Nodes, value: str, scale: float) -> str:
    if scale == 1.0:
        return value
    return nodes.add("Mul", [value, graph.constant(f"::scale{scale!r}", scale)], f"{value}::scaled")


def _count_above(nodes: Nodes, size: str, name: str, limit: float) -> str:
    return _count(nodes, nodes.add("Less", [number(float(np.float32(limit))), size], f"{size}::{name}"))


def _count(nodes: Nodes, condition: str) -> str:
    """Return the number of true elements; int32 counts exactly where float32 would stop at 2^24."""
    ones = nodes.add("Cast", [condition], f"{condition}::int", to=_INT32)
    return nodes.add("ReduceSum", [ones], f"{condition}::count", keepdims=1)


def _place(
    graph: EmulationGraph, nodes: Nodes, parts: dict[str, str], care: Care, values: tuple[str, ...], *, prefix: str
) -> Parts:
    """Append ``nodes`` to the graph, behind a guard where sizes are only known at run time, and fill the columns."""
    if care.masked and "infinite" not in parts and "low_nan" not in parts:
        raise AssertionError("masked sums count what they mask")
    if not care.guarded:
        graph.nodes.extend(nodes)
        filled = parts
    else:
        filled = _guard(graph, nodes, parts, values)
    wanted = (*parts, *(() if care.masked else _uncounted(parts)))
    placed = {prefix + name: filled.get(name) or graph.constant("::none", [0], np.int32) for name in wanted}
    repeat(graph, placed)
    return placed


def _uncounted(parts: dict[str, str]) -> tuple[str, ...]:
    """Return the counts that only masked tensors have; they are zero for the others."""
    return ("low_nan", "low_infinite") if "error_squares" in parts else ("infinite", "nan")


def _guard(graph: EmulationGraph, nodes: Nodes, parts: dict[str, str], values: tuple[str, ...]) -> dict[str, str]:
    """Put the sums of tensors of unknown size behind an If: none where the tensor is empty or sizes differ."""
    first = values[0] if len(values) == 1 else values[1]
    sizes = []
    for index, value in enumerate(values):
        size = graph.nodes.add("Size", [value], f"{first}::size{index}")
        sizes.append(graph.nodes.add("Reshape", [size, graph.constant("::flat", [-1], np.int64)], f"{size}::v"))
    some = graph.nodes.add("Less", [graph.constant("::no_elements", [0], np.int64), sizes[0]], f"{first}::some")
    same = graph.nodes.add("Equal", [sizes[0], sizes[-1]], f"{first}::same")
    condition = graph.nodes.add("And", [some, same], f"{first}::comparable")
    kinds = {name: _TYPES.get(name, _FLOAT) for name in parts}
    then = onnx.helper.make_graph(
        nodes, "measured", [], [onnx.helper.make_tensor_value_info(parts[n], kinds[n], [1]) for n in parts]
    )
    otherwise = Nodes()
    for name, kind in kinds.items():
        zero = onnx.helper.make_tensor("zero", kind, [1], [0])
        otherwise.add("Constant", [], f"{parts[name]}::zero", value=zero)
    if "error_squares" in parts:
        as_float = otherwise.add("Cast", [same], f"{first}::same_float", to=_FLOAT)
        lost = graph.constant("::sizes_differ", [-_SIZES_DIFFER])
        otherwise.add("Sub", [as_float, lost], f"{parts['error_squares']}::verdict")
    empty = {name: f"{parts[name]}::{'verdict' if name == 'error_squares' else 'zero'}" for name in parts}
    alternative = onnx.helper.make_graph(
        otherwise, "not_measured", [], [onnx.helper.make_tensor_value_info(empty[n], kinds[n], [1]) for n in parts]
    )
    outs = {name: f"{parts[name]}::guarded" for name in parts}
    graph.nodes.append(
        onnx.helper.make_node(
            "If", [condition], list(outs.values()), name=f"{first}::guard", then_branch=then, else_branch=alternative
        )
    )
    return outs
