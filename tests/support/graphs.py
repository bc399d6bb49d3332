"""Small ONNX graphs for tests, and what every converted graph must hold to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from explorer.convert import Conversion, convert
from explorer.model import Model, load_model
from explorer.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FLOAT, FLOAT16, BFLOAT16, INT64, BOOL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT64,
    TensorProto.BOOL,
)
LOW = {"fp16": FLOAT16, "bf16": BFLOAT16}
EPSILON = {"fp16": 2.0**-10, "bf16": 2.0**-7}
_IR_OF_OPSET = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], name: str | None = None, **attributes):
    return helper.make_node(op, inputs, outputs, name=name, **attributes)


def value(name: str, shape=(2, 4), dtype: int = FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


X, Y, Z = value("x"), value("y"), value("z")
NEWEST = onnx.defs.onnx_opset_version()
RUNS_UP_TO = 24  # newest opset that the oldest supported ONNX Runtime of the test environment loads without a warning


def blocked(*layers: str) -> Plan:
    """Return the full fp16 plan with these layers on the blacklist."""
    return Plan().block(layers=layers)


def weight(name: str, array) -> TensorProto:
    array = np.asarray(array)
    return numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)


def graph(nodes, inputs, outputs, weights=(), name="g", **more):
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(weights), **more)


def model(nodes, inputs, outputs, weights=(), *, opset=17, ir_version=None, functions=(), domains=(), **more):
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph(nodes, inputs, outputs, weights, **more),
        opset_imports=imports,
        ir_version=ir_version or _IR_OF_OPSET.get(opset, 10),
        functions=list(functions),
    )


def chain(count: int, ops: Sequence[str] = ("Add", "Relu", "Mul", "MatMul"), *, opset: int = 17):
    """``count`` layers in a row, each with its weight, in scopes of ten."""
    rng = np.random.default_rng(0)
    nodes, weights, previous = [], [], "x"
    for index in range(count):
        op = ops[index % len(ops)]
        inputs = [previous]
        if op in ("Add", "Mul", "MatMul"):
            weights.append(weight(f"w{index}", rng.standard_normal((8, 8) if op == "MatMul" else 8) / 3))
            inputs.append(f"w{index}")
        nodes.append(node(op, inputs, [f"v{index}"], f"/block.{index // 10}/{op}_{index}"))
        previous = f"v{index}"
    return model(nodes, [value("x", ["batch", 8])], [value(previous, ["batch", 8])], weights, opset=opset)


def bodies(graph_proto: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every body in it."""
    yield graph_proto
    for each in graph_proto.node:
        for attribute in each.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.ByteSize():
                    yield from bodies(body)


def nodes_of(proto: onnx.ModelProto, op: str | None = None) -> list[onnx.NodeProto]:
    return [each for body in bodies(proto.graph) for each in body.node if op in (None, each.op_type)]


def infers(proto: onnx.ModelProto) -> bool:
    """Whether onnx's strict inference accepts the model; it stumbles over its own MeanVarianceNormalization."""
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def types_of(proto: onnx.ModelProto, *, strict: bool = True) -> dict[str, int]:
    """Element type of every tensor, from onnx's inference."""
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=True)
    found = {}
    for body in bodies(inferred.graph):
        for info in (*body.input, *body.output, *body.value_info):
            if info.type.HasField("tensor_type"):
                found[info.name] = info.type.tensor_type.elem_type
        found.update((tensor.name, tensor.data_type) for tensor in body.initializer)
    return found


def disagreements(proto: onnx.ModelProto, *, strict: bool = True) -> list[str]:
    """Every edge whose type its operator's schema does not allow there, found by a walk of our own."""
    types, wrong = types_of(proto, strict=strict), []
    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    for each in nodes_of(proto):
        if each.domain not in ("", "ai.onnx"):
            continue
        schema = onnx.defs.get_schema(each.op_type, opset, "")
        allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
        bound: dict[str, str] = {}
        for names, formals in ((each.input, schema.inputs), (each.output, schema.outputs)):
            for index, name in enumerate(names):
                formal = formals[min(index, len(formals) - 1)]
                if name not in types:
                    continue
                kind = f"tensor({_type_string(types[name])})"
                if kind not in allowed.get(formal.type_str, [formal.type_str]):
                    wrong.append(f"{each.name}: {name} is {kind}")
                if formal.is_homogeneous and bound.setdefault(formal.type_str, kind) != kind:
                    wrong.append(f"{each.name}: {name} is {kind}, {formal.type_str} is {bound[formal.type_str]}")
    return wrong


def _type_string(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower()


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, optimize: bool = False) -> list:
    """Outputs of ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, dict(feeds)
    )


def feeds_for(proto: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs, unknown dimensions being 2."""
    rng = np.random.default_rng(seed)
    weights = {tensor.name for tensor in proto.graph.initializer}
    feeds = {}
    for info in proto.graph.input:
        if info.name in weights or not info.type.HasField("tensor_type"):
            continue
        shape = tuple(dim.dim_value or 2 for dim in info.type.tensor_type.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        if np.dtype(dtype).kind == "f":
            feeds[info.name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[info.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds


def as_float(array) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype in (np.float16, ml_dtypes.bfloat16) else array


def inserted_casts(conversion: Conversion) -> list[onnx.NodeProto]:
    names = {cast.name for cast in conversion.casts}
    return [each for each in nodes_of(conversion.proto) if each.name in names]


def assert_laws(source: onnx.ModelProto, loaded: Model, conversion: Conversion) -> None:
    """What holds of every conversion, whatever the graph and the plan."""
    proto, plan = conversion.proto, conversion.decisions.plan
    assert [decision.layer_id for decision in conversion.decisions] == [layer.id for layer in loaded.layers]
    assert all(decision.reason for decision in conversion.decisions)
    kept = {each.layer_id for each in conversion.decisions if each.reason.startswith("quantised in the source model")}
    assert all(each.format in ("fp32", plan.format, "none") or each.layer_id in kept for each in conversion.decisions)
    names = [each.name for each in nodes_of(proto)]
    assert len(names) == len(set(names)), "node names are unique"
    assert {layer.id for layer in loaded.layers} <= set(names), "every layer is still there under its id"
    casts = inserted_casts(conversion)
    assert len(casts) == len(conversion.casts)
    keys = [(each.input[0], each.attribute[0].i) for each in casts]
    assert len(keys) == len(set(keys)), "one cast per (tensor, dtype)"
    made = {name for each in casts for name in each.output}
    assert not [each.name for each in casts if each.input[0] in made], "no cast of a cast"
    assert disagreements(proto, strict=infers(source)) == []
    weights = {tensor.name for tensor in source.graph.initializer} if source.ir_version < 4 else set()
    given = [info for info in source.graph.input if info.name not in weights]
    assert [info.name for info in proto.graph.input] == [info.name for info in given]
    assert [info.name for info in proto.graph.output] == [info.name for info in source.graph.output]
    if plan.keep_io:
        for before, after in zip(
            (*given, *source.graph.output), (*proto.graph.input, *proto.graph.output), strict=True
        ):
            if before.type.HasField("tensor_type"):
                assert after.type.tensor_type.elem_type == before.type.tensor_type.elem_type, before.name
                if before.type.tensor_type.HasField("shape"):
                    assert after.type.tensor_type.shape == before.type.tensor_type.shape, before.name


def mixed(
    source: onnx.ModelProto,
    plan: Plan | None = None,
    *,
    feeds: Mapping[str, np.ndarray] | None = None,
    runs: bool = True,
    tolerance: float = 8,
    **settings,
) -> Conversion:
    """Convert, hold the result to the laws and to the outputs of the source, and return it.

    ``tolerance`` is in units of the format's epsilon, relative to the largest output.
    """
    plan = plan or Plan()
    before = source.SerializeToString(deterministic=True)
    loaded = load_model(source)
    conversion = convert(loaded, plan, **settings)
    assert_laws(source, loaded, conversion)
    assert source.SerializeToString(deterministic=True) == before, "the source model is unchanged"
    if runs:
        feeds = feeds_for(source) if feeds is None else feeds
        low = {info.name: helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
               for info in conversion.proto.graph.input if info.type.HasField("tensor_type")}  # fmt: skip
        wanted = run(source, feeds)
        got = run(conversion.proto, {name: array.astype(low.get(name, array.dtype)) for name, array in feeds.items()})
        for one, other in zip(_flat(wanted), _flat(got), strict=True):
            if one is None or one.dtype.kind != "f":
                np.testing.assert_array_equal(other, one)
                continue
            scale = max(1e-30, float(np.max(np.abs(one), initial=0)))
            np.testing.assert_allclose(as_float(other), one, rtol=0, atol=tolerance * EPSILON[plan.format] * scale)
    return conversion


def _flat(outputs: Iterable) -> Iterator[np.ndarray]:
    for output in outputs:
        if isinstance(output, list):
            yield from output
        else:
            yield output


def formats(conversion: Conversion) -> dict[str, str]:
    return {decision.layer_id: decision.format for decision in conversion.decisions}
