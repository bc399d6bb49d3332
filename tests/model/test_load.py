"""Loading: what is read, what is made uniform, and what is refused with a clear error."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.graphs import BOOL, chain, feeds_for, graph, model, node, run, value, weight

from explorer.errors import ModelError
from explorer.model import TensorSpec, load_model
from explorer.model.wire import cut_weights, serialized

BIG = np.arange(6000, dtype=np.float32).reshape(60, 100)


def big_model(kind=np.float32):
    return model(
        [node("MatMul", ["x", "w"], ["y"], "mm")],
        [value("x", ("batch", 60))],
        [value("y", ("batch", 100))],
        [weight("w", BIG.astype(kind))],
    )


# --- sources --------------------------------------------------------------------------------------------------------


def test_path_bytes_and_proto_give_the_same_model(tmp_path):
    source = big_model()
    path = tmp_path / "m.onnx"
    path.write_bytes(source.SerializeToString())
    models = [load_model(path), load_model(str(path)), load_model(source.SerializeToString()), load_model(source)]
    assert len({each.digest for each in models}) == 1
    assert [each.name for each in models] == ["m", "m", "g", "g"]
    for each in models:
        np.testing.assert_array_equal(each.ir.graph.initializers["w"].const_value.numpy(), BIG)
        assert each.weights["w"].elements == 6000
        assert each.weights["w"].bytes == 24_000
        assert each.proto().graph.initializer[0].raw_data == source.graph.initializer[0].raw_data


def test_an_open_model_does_not_depend_on_its_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(big_model().SerializeToString())
    loaded = load_model(path)
    path.write_bytes(b"x")
    np.testing.assert_array_equal(loaded.ir.graph.initializers["w"].const_value.numpy(), BIG)


def test_the_proto_that_was_given_is_never_changed():
    w = weight("w", BIG)
    nodes = [
        node("Constant", [], ["k"], value=weight("", np.ones(100))),
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "k"], ["y"]),
    ]
    source = model(
        nodes, [value("x", (2, 60)), value("w", (60, 100))], [value("y", (2, 100))], [w], opset=9, ir_version=3
    )
    before = source.SerializeToString(deterministic=True)
    loaded = load_model(source)
    loaded.proto()
    loaded.skeleton()
    clone = loaded.clone()
    clone.graph.initializers["w"].name = "other"
    assert source.SerializeToString(deterministic=True) == before
    source.graph.initializer[0].raw_data = b""
    np.testing.assert_array_equal(loaded.ir.graph.initializers["w"].const_value.numpy(), BIG)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int8, np.int64, np.uint16, np.bool_])
def test_weights_of_every_type_come_through(kind):
    w = weight("w", BIG.astype(kind))
    if kind == np.float64:
        w = onnx.numpy_helper.from_array(BIG.astype(kind), "w")
    source = model([node("Identity", ["w"], ["y"])], [], [value("y", (60, 100), w.data_type)], [w])
    loaded = load_model(source.SerializeToString())
    np.testing.assert_array_equal(loaded.ir.graph.initializers["w"].const_value.numpy(), BIG.astype(kind))
    assert onnx.ModelProto.FromString(b"".join(serialized(loaded.ir))).graph.initializer[0].raw_data == w.raw_data


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.FLOAT8E4M3FN, TensorProto.BFLOAT16])
def test_weights_of_types_that_numpy_lacks(kind):
    w = helper.make_tensor("w", kind, [64, 100], np.tile([1, 2, 3, -4], 1600).tolist())
    source = model([node("Identity", ["w"], ["y"])], [], [value("y", (64, 100), kind)], [w], opset=21)
    written = onnx.ModelProto.FromString(b"".join(serialized(load_model(source.SerializeToString()).ir)))
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(written.graph.initializer[0]).astype(np.float32),
        onnx.numpy_helper.to_array(w).astype(np.float32),
    )


def test_weights_in_typed_fields_and_strings():
    floats = helper.make_tensor("w", TensorProto.FLOAT, [60, 100], BIG.reshape(-1).tolist())
    texts = helper.make_tensor("t", TensorProto.STRING, [2], ["ä".encode(), b"b"])
    nodes = [node("Identity", ["w"], ["y"]), node("Identity", ["t"], ["u"])]
    source = model(nodes, [], [value("y", (60, 100)), value("u", (2,), TensorProto.STRING)], [floats, texts])
    loaded = load_model(source.SerializeToString())
    np.testing.assert_array_equal(loaded.ir.graph.initializers["w"].const_value.numpy(), BIG)
    assert loaded.proto().graph.initializer[1].string_data[0] == "ä".encode()
    assert len(loaded.digest) == 64
    assert "t" in loaded.weights


def test_serialized_is_what_protobuf_would_write():
    source = chain(40)
    source.metadata_props.add(key="author", value="me")
    source.graph.doc_string = "about"
    loaded = load_model(source)
    ours = onnx.ModelProto.FromString(b"".join(serialized(loaded.ir)))
    onnx.checker.check_model(ours, full_check=True)
    theirs = loaded.proto()
    assert ours.metadata_props[0].value == "me"
    for part in ("node", "input", "output", "initializer", "name", "doc_string"):
        assert getattr(ours.graph, part) == getattr(theirs.graph, part), part
    feeds = feeds_for(source)
    np.testing.assert_array_equal(run(ours, feeds)[0], run(source, feeds)[0])


@given(st.binary(max_size=200), st.integers(0, 25_000), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_cutting_never_fails_on_damaged_bytes(noise, position, byte):
    data = bytearray(big_model().SerializeToString())
    cut = cut_weights(bytes(data))
    assert cut is not None
    assert len(cut[0]) < 600
    data[position % len(data)] = byte
    for broken in (bytes(data), bytes(data[:position]), noise):
        try:
            load_model(broken)
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it need not raise


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(source, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(source)
    assert "\n" not in str(caught.value)
    return caught.value


def test_missing_empty_corrupt_and_foreign_files(tmp_path):
    refused(tmp_path / "none.onnx", "There is no file")
    refused(tmp_path, "is a folder")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_bytes(b"\x89PNG\r\n" + bytes(200))
    refused(path, "not a readable ONNX model")
    path.write_bytes(big_model().SerializeToString()[:9000])
    refused(path, "not a readable ONNX model")
    path.write_text("hello, this is text and no model", encoding="utf-8")
    refused(path, "not a readable ONNX model|not a valid")
    refused(b"", "not a readable ONNX model")
    refused(onnx.ModelProto(), "no ONNX graph")


def external(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save_model(big_model(), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    return path


def test_external_weights_are_read_lazily(tmp_path):
    loaded = load_model(external(tmp_path))
    np.testing.assert_array_equal(loaded.ir.graph.initializers["w"].const_value.numpy(), BIG)
    assert loaded.digest == load_model(big_model()).digest


def test_external_weights_that_are_missing_cut_short_or_elsewhere(tmp_path):
    path = external(tmp_path)
    data = (tmp_path / "m.bin").read_bytes()
    refused(path.read_bytes(), "no such file")
    (tmp_path / "m.bin").write_bytes(data[:100])
    refused(path, "cut short")
    (tmp_path / "m.bin").unlink()
    refused(path, "'m.bin'")
    proto = onnx.load(path, load_external_data=False)
    for location in ("../m.bin", "/etc/passwd"):
        proto.graph.initializer[0].external_data[0].value = location
        path.write_bytes(proto.SerializeToString())
        refused(path, "outside its own folder")


def test_invalid_graphs():
    refused(model([node("Relu", ["nobody"], ["y"])], [value("x")], [value("y")]), "not a valid ONNX model")
    refused(model([node("Relu", ["x"], ["y"], slope=1.0)], [value("x")], [value("y")]), "not a valid ONNX model")
    refused(model([node("NoSuchOp", ["x"], ["y"])], [value("x")], [value("y")]), "not a valid ONNX model")


def test_weights_whose_data_does_not_fill_their_shape():
    source = big_model()
    source.graph.initializer[0].raw_data = source.graph.initializer[0].raw_data[:-4]
    refused(source, "weight 'w'")
    refused(source.SerializeToString(), "weight 'w'")


def test_types_that_contradict_each_other():
    integers = weight("w", np.int64([1, 2, 3, 4]))
    source = model([node("Add", ["x", "w"], ["y"])], [value("x")], [value("y")], [integers])
    with pytest.raises(ModelError, match="Shape inference failed"):
        _ = load_model(source).types


def test_functions_that_cannot_be_inlined_say_so():
    imports = [helper.make_opsetid("", 15)]
    function = helper.make_function("local", "F", ["a"], ["b"], [node("Neg", ["a"], ["b"])], imports)
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    source = model([call], [value("x")], [value("y")], functions=[function], domains=["local"])
    error = refused(source, "cannot be inlined")
    assert "convert_version=True" in str(error)


# --- what the model tells -------------------------------------------------------------------------------------------


def test_layers_in_execution_order_with_bodies_behind_their_container():
    then = graph([node("Neg", ["x"], ["t"], "n")], [], [value("t")], name="then")
    other = graph([node("Abs", ["x"], ["t"], "n")], [], [value("t")], name="else")
    nodes = [node("If", ["c"], ["b"], "if", then_branch=then, else_branch=other), node("Relu", ["b"], ["y"], "last")]
    loaded = load_model(model(nodes, [value("x"), value("c", (), BOOL)], [value("y")]))
    assert [(layer.id, layer.op, layer.container) for layer in loaded.layers] == [
        ("if", "If", None), ("n", "Abs", "if"), ("n_2", "Neg", "if"), ("last", "Relu", None),
    ]  # fmt: skip
    assert loaded.layer("n_2").name == "n"
    names = [name for layer in loaded.layers for name in layer.outputs]
    assert len(names) == len(set(names))


def test_types_of_every_value_with_and_without_concrete_shapes():
    loaded = load_model(big_model())
    assert loaded.inputs == (TensorSpec("x", "float32", ("batch", 60)),)
    assert loaded.outputs == (TensorSpec("y", "float32", ("batch", 100)),)
    assert loaded.types["w"] == TensorSpec("w", "float32", (60, 100))
    assert loaded.infer({"x": (7, 60)})["y"].static_shape == (7, 100)
    assert loaded.outputs[0].static_shape is None
    assert str(loaded.outputs[0]) == "y: float32[batch, 100]"


def test_types_inside_bodies_are_known():
    then = graph([node("Neg", ["x"], ["m"]), node("Abs", ["m"], ["t"])], [], [value("t")], name="then")
    other = graph([node("Abs", ["x"], ["t"])], [], [value("t")], name="else")
    nodes = [node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other)]
    loaded = load_model(model(nodes, [value("x"), value("c", (), BOOL)], [value("y")]))
    assert loaded.types["m"] == TensorSpec("m", "float32", (2, 4))


def test_shapes_that_depend_on_small_weights_are_inferred():
    nodes = [node("Reshape", ["x", "s"], ["y"])]
    loaded = load_model(model(nodes, [value("x")], [value("y", (None, None))], [weight("s", np.int64([4, 2]))]))
    assert loaded.infer({"x": (2, 4)})["y"].static_shape == (4, 2)


def test_attributes_as_python_values():
    nodes = [node("Concat", ["x", "x"], ["y"], "c", axis=1)]
    loaded = load_model(model(nodes, [value("x")], [value("y", (2, 8))]))
    assert loaded.attributes("c") == {"axis": 1}
    with pytest.raises(ModelError, match="no layer 'd'"):
        loaded.attributes("d")
    assert "c" in loaded
    assert "d" not in loaded


def test_the_digest_tells_weights_and_structure_apart():
    assert load_model(chain(5)).digest == load_model(chain(5)).digest
    assert load_model(chain(5)).digest != load_model(chain(6)).digest
    other = big_model()
    raw = bytearray(other.graph.initializer[0].raw_data)
    raw[0] ^= 1
    other.graph.initializer[0].raw_data = bytes(raw)
    assert load_model(other).digest != load_model(big_model()).digest


def test_the_skeleton_is_small_and_of_the_same_types(tmp_path):
    loaded = load_model(big_model())
    assert loaded.skeleton().ByteSize() < 1000
    onnx.checker.check_model(loaded.skeleton(), full_check=True)
    shutil.rmtree(tmp_path)


def test_thousands_of_equal_names_take_no_quadratic_time():
    nodes, previous = [], "x"
    for index in range(3000):
        nodes.append(node("Relu", [previous], [f"v{index}"], "same"))
        previous = f"v{index}"
    loaded = load_model(model(nodes, [value("x")], [value(previous)]))
    assert loaded.layers[0].id == "same"
    assert loaded.layers[-1].id == "same_3000"


def test_notes_tell_what_was_changed():
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    loaded = load_model(model([call], [value("x")], [value("y")], functions=[function], domains=["local"]))
    assert loaded.notes == ("1 local functions were inlined",)
    w = weight("w", np.ones(4))
    inputs = [value("x"), value("w", (4,))]
    old = load_model(model([node("Add", ["x", "w"], ["y"])], inputs, [value("y")], [w], opset=8, ir_version=3))
    assert "IR version 3" in old.notes[0]


def test_the_standard_domain_may_be_written_out():
    """Some exporters import the standard operators as ``ai.onnx``: it is the same domain and the same opset."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("ai.onnx", 18)], ir_version=10)
    model = load_model(proto)
    assert model.opset == 18
    assert [layer.qualified_op for layer in model.layers] == ["Relu"]
