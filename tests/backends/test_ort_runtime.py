"""Sessions: weights lent without a copy, types that numpy lacks, cancelling, and every failure in plain words."""

from __future__ import annotations

import gc
import threading
import time

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import small_models
from onnx import TensorProto
from small_models import BFLOAT16, FLOAT, model, node, noise, value

from explorer.backends.lend import lend_weights
from explorer.backends.runtime import Cancel, RunCancelled, create_session, default_threads, run, run_bound
from explorer.errors import BackendError, InputError, ModelError
from explorer.model import load_model


def relu():
    return model([node("Relu", ["x"], ["y"], name="relu")], [value("x", [2, 3])], [value("y", [2, 3])])


def with_outside_weight(array, kind=FLOAT):
    """y = x @ w (or a Cast of w for other types), where the file only declares w."""
    declared = TensorProto(name="w", data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
    if kind == FLOAT:
        inputs = [value("x", [1, array.shape[0]])]
        graph = model([node("MatMul", ["x", "w"], ["y"], name="mm")], inputs, [value("y", [1, array.shape[1]])])
    else:
        graph = model([node("Cast", ["w"], ["y"], name="cast", to=FLOAT)], [], [value("y", array.shape)])
    graph.graph.initializer.append(declared)
    return graph.SerializeToString()


@pytest.mark.parametrize("optimize", ["all", "extended", "basic", "none"])
@pytest.mark.parametrize("disable_prepacking", [False, True])
def test_lent_weights_give_the_same_bits_as_stored_ones(optimize, disable_prepacking):
    data, feeds = small_models.serialized(small_models.cnn)
    stored = create_session(data, optimize=optimize, disable_prepacking=disable_prepacking, threads=1).run(feeds)
    source, weights = lend_weights(load_model(data).ir)
    assert len(source) < len(data)
    lent = create_session(
        source, initializers=weights, optimize=optimize, disable_prepacking=disable_prepacking, threads=1
    ).run(feeds)
    assert np.array_equal(lent["y"], stored["y"])


def test_lending_leaves_small_and_default_weights_inside():
    graph, _ = small_models.cnn()
    graph.graph.input.append(value("w2", [16, 16, 3, 3]))  # an initializer that is only a default
    source, weights = lend_weights(ir.from_proto(graph))
    assert set(weights) == {"w"}
    inside = {tensor.name: tensor for tensor in onnx.load_from_string(source).graph.initializer}
    assert inside["w2"].data_location == TensorProto.DEFAULT
    create_session(source, initializers=weights)


def test_without_prepacking_the_session_computes_on_the_lent_memory_itself():
    weight = np.ones((64, 64), np.float32)
    session = create_session(
        with_outside_weight(weight), initializers={"w": weight}, disable_prepacking=True, optimize="none"
    )
    feeds = {"x": np.ones((1, 64), np.float32)}
    before = session.run(feeds)["y"].copy()
    weight[:] = 2
    assert np.array_equal(session.run(feeds)["y"], 2 * before)


def test_lent_weights_stay_alive_with_the_session():
    weight = noise(128, 128)
    expected = weight[0].copy()
    session = create_session(
        with_outside_weight(weight), initializers={"w": np.asfortranarray(weight)}, disable_prepacking=True
    )
    del weight
    gc.collect()
    feeds = {"x": np.eye(128, dtype=np.float32)[:1]}
    assert np.array_equal(session.run(feeds)["y"][0], expected)


@pytest.mark.parametrize("disable_prepacking", [False, True])
def test_bfloat16_weights_can_be_lent(disable_prepacking):
    weight = noise(32, 32).astype(ml_dtypes.bfloat16)
    session = create_session(
        with_outside_weight(weight, BFLOAT16), initializers={"w": weight}, disable_prepacking=disable_prepacking
    )
    assert np.array_equal(session.run({})["y"], weight.astype(np.float32))


@pytest.mark.parametrize("strided", [False, True])
def test_bfloat16_goes_in_and_out_as_ml_dtypes(strided):
    graph = model(
        [node("Cast", ["x"], ["f"], name="up", to=FLOAT), node("Cast", ["f"], ["y"], name="down", to=BFLOAT16)],
        [value("x", [2, 3], BFLOAT16)],
        [value("y", [2, 3], BFLOAT16)],
    )
    feed = noise(3, 2).astype(ml_dtypes.bfloat16).T if strided else noise(2, 3).astype(ml_dtypes.bfloat16)
    result = create_session(graph.SerializeToString()).run({"x": feed})["y"]
    assert result.dtype == ml_dtypes.bfloat16
    assert np.array_equal(result, feed)


def test_a_scalar_input_stays_one_when_it_is_bound():
    data, feeds = small_models.serialized(small_models.picked)
    session = create_session(data)
    bound = session.bind(feeds)
    run_bound(session, bound)
    np.testing.assert_array_equal(bound.copy_outputs_to_cpu()[0], session.run(feeds)["y"])


def test_a_bfloat16_scalar_stays_one():
    graph = model([node("Cast", ["x"], ["y"], to=FLOAT)], [value("x", [], BFLOAT16)], [value("y", [])])
    found = create_session(graph.SerializeToString()).run({"x": np.array(2, ml_dtypes.bfloat16)})["y"]
    assert np.shape(found) == ()


def test_a_lent_scalar_weight_stays_one():
    data = with_outside_weight(np.array(2, ml_dtypes.bfloat16), BFLOAT16)
    session = create_session(data, initializers={"w": np.array(2, ml_dtypes.bfloat16)})
    assert np.shape(session.run({})["y"]) == ()


def test_a_run_returns_the_wanted_outputs_by_name():
    graph = model(
        [node("Split", ["x"], ["a", "b"], name="split", axis=0)],
        [value("x", [4, 2])],
        [value("a", [2, 2]), value("b", [2, 2])],
    )
    session = create_session(graph.SerializeToString())
    feed = noise(4, 2)
    assert session.output_names == ("a", "b")
    assert list(session.run({"x": feed})) == ["a", "b"]
    only = run(session, {"x": feed}, ["b"])
    assert list(only) == ["b"]
    assert np.array_equal(only["b"], feed[2:])


def test_a_bound_run_computes_what_a_plain_one_does():
    data, feeds = small_models.serialized(small_models.cnn)
    session = create_session(data, threads=1)
    bound = session.bind(feeds)
    run_bound(session, bound)
    (output,) = bound.copy_outputs_to_cpu()
    assert np.array_equal(output, session.run(feeds)["y"])


def test_a_path_is_loaded_with_the_weights_beside_it(tmp_path):
    graph, feeds = small_models.cnn()
    expected = create_session(graph.SerializeToString(), threads=1).run(feeds)["y"]
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=16)
    assert np.array_equal(create_session(tmp_path / "m.onnx", threads=1).run(feeds)["y"], expected)


def test_a_missing_weights_file_is_a_model_error(tmp_path):
    graph, _ = small_models.cnn()
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=16)
    (tmp_path / "m.weights").unlink()
    with pytest.raises(ModelError, match="cannot load the model"):
        create_session(tmp_path / "m.onnx")


def test_threads_are_what_was_asked_for_or_what_the_process_may_use():
    assert create_session(relu().SerializeToString(), threads=1).threads == 1
    assert create_session(relu().SerializeToString()).threads == default_threads() >= 1


UNKNOWN_OP = model([node("Nonsense", ["x"], ["y"], name="n")], [value("x", [2])], [value("y", [2])])
UNKNOWN_DOMAIN = model(
    [node("Thing", ["x"], ["y"], name="n", domain="com.example")], [value("x", [2])], [value("y", [2])]
)
UNKNOWN_DOMAIN.opset_import.add(domain="com.example", version=1)
NO_KERNEL = model(
    [node("Tan", ["x"], ["y"], name="n")], [value("x", [2], TensorProto.DOUBLE)], [value("y", [2], TensorProto.DOUBLE)]
)
BAD_TYPES = model(
    [node("Add", ["x", "z"], ["y"], name="n")], [value("x", [2]), value("z", [2], TensorProto.INT64)], [value("y", [2])]
)
CYCLE = model(
    [node("Add", ["x", "b"], ["a"], name="n1"), node("Relu", ["a"], ["b"], name="n2")],
    [value("x", [2])],
    [value("b", [2])],
)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"", ModelError),
        (b"not a model", ModelError),
        ("nowhere.onnx", ModelError),
        (__file__, ModelError),
        (UNKNOWN_OP.SerializeToString(), ModelError),
        (UNKNOWN_DOMAIN.SerializeToString(), ModelError),
        (NO_KERNEL.SerializeToString(), BackendError),
        (BAD_TYPES.SerializeToString(), ModelError),
        (CYCLE.SerializeToString(), ModelError),
        (with_outside_weight(noise(32, 32)), ModelError),
    ],
    ids=["empty", "garbage", "absent", "text", "op", "domain", "kernel", "types", "cycle", "weights"],
)
def test_what_cannot_be_loaded_gives_one_plain_paragraph(source, error, capfd):
    with pytest.raises(error) as caught:
        create_session(source)
    message = str(caught.value)
    assert "\n" not in message
    assert "onnxruntime_src" not in message
    assert ".cc" not in message
    assert len(message) < 1200
    assert capfd.readouterr().err == ""


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ModelError, match="dimensions"):
        create_session(with_outside_weight(noise(32, 32)), initializers={"w": noise(32, 16)})


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "Missing inputs: x"),
        ({"z": noise(2, 3)}, "Unknown inputs: z"),
        ({"x": noise(2, 3).astype(np.float64)}, "data type"),
        ({"x": noise(2, 4)}, "dimensions"),
        ({"x": noise(2)}, "rank"),
    ],
    ids=["missing", "unknown", "dtype", "shape", "rank"],
)
def test_wrong_feeds_are_input_errors(feeds, words, capfd):
    session = create_session(relu().SerializeToString())
    with pytest.raises(InputError, match=words):
        session.run(feeds)
    assert capfd.readouterr().err == ""


def test_an_unknown_output_is_refused_with_the_nearest_name():
    session = create_session(relu().SerializeToString())
    with pytest.raises(InputError, match="no output 'yy'"):
        session.run({"x": noise(2, 3)}, ["yy"])


def test_a_node_that_fails_while_running_is_named_once(capfd):
    graph = model(
        [node("Reshape", ["x", "s"], ["y"], name="reshape")],
        [value("x", [2, 3]), value("s", [1], TensorProto.INT64)],
        [value("y", ["n"])],
    )
    session = create_session(graph.SerializeToString())
    with pytest.raises(BackendError, match="'reshape'") as caught:
        session.run({"x": noise(2, 3), "s": np.array([5])})
    assert not isinstance(caught.value, RunCancelled)
    assert capfd.readouterr().err == ""


def test_a_gpu_session_on_a_cpu_build_is_refused_with_what_to_install():
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this is the GPU build of ONNX Runtime")
    with pytest.raises(BackendError, match="onnxruntime-gpu"):
        create_session(relu().SerializeToString(), provider="cuda")


def test_an_unknown_provider_is_refused():
    with pytest.raises(BackendError, match="Did you mean 'cuda'"):
        create_session(relu().SerializeToString(), provider="cud")


def test_a_cancelled_token_stops_before_anything_runs():
    token = Cancel()
    token.cancel()
    with pytest.raises(RunCancelled):
        create_session(relu().SerializeToString(), cancel=token)
    with pytest.raises(RunCancelled):
        create_session(relu().SerializeToString()).run({"x": noise(2, 3)}, cancel=token)


def test_cancelling_from_another_thread_stops_a_long_run():
    graph, feeds = small_models.looping(turns=2_000_000_000)
    session = create_session(graph.SerializeToString(), threads=1)
    token = Cancel()
    timer = threading.Timer(0.3, token.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(RunCancelled):
        session.run(feeds, cancel=token)
    timer.join()
    assert time.monotonic() - started < 20


def test_a_session_runs_on_after_a_cancelled_run():
    session = create_session(relu().SerializeToString())
    token = Cancel()
    token.cancel()
    with pytest.raises(RunCancelled):
        session.run({"x": noise(2, 3)}, cancel=token)
    feed = noise(2, 3)
    assert np.array_equal(session.run({"x": feed})["y"], np.maximum(feed, 0))
