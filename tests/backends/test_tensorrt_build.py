"""Building TensorRT engines, on a stand-in with the documented names of both major versions: nothing ran on a GPU."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import onnx
import pytest
from support import fake_tensorrt

from explorer.backends.runtime import Cancel, RunCancelled
from explorer.backends.status import BackendStatus
from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.build import BuildSettings, build_engine
from explorer.backends.tensorrt.shapes import InputRange, input_ranges
from explorer.backends.tensorrt.versions import api_of, load_tensorrt, require_ready
from explorer.backends.tensorrt.weak import WeakPlan
from explorer.errors import BackendError, InputError, MissingDependency
from explorer.model import load_model

NEW, OLD = "11.4.0.12", "10.13.3.9"
ONNX, _ = fake_tensorrt.dense_model()
RANGES = (InputRange("x", (1, 4), (8, 4), (8, 4), dynamic=True),)


@pytest.fixture(params=[OLD, NEW])
def fake(request):
    return fake_tensorrt.make(request.param)


def build(fake, settings=None, *, onnx_bytes=ONNX, ranges=RANGES, **more):
    return build_engine(
        fake.trt, api_of(fake.trt), onnx_bytes, settings or BuildSettings(), ranges=ranges, **more
    )  # fmt: skip


def config(fake):
    ((_, made),) = fake.called("build")
    return made


def flags(fake):
    return {flag.name for flag in config(fake)._flags}


# -- versions ----------------------------------------------------------------------------------------------------------


def test_the_two_majors_differ_in_weak_typing_only():
    old, new = (api_of(fake_tensorrt.make(version).trt) for version in (OLD, NEW))
    assert (old.major, new.major) == (10, 11)
    assert (old.weak, new.weak) == (True, False)
    assert old.strong_flags == new.strong_flags == 2
    old.require_weak()
    with pytest.raises(BackendError, match=r"TensorRT 11.4.0.12 builds strongly typed networks only.*install TensorRT"):
        new.require_weak()


def test_a_version_without_debug_tensors_or_a_flag_says_so():
    fake = fake_tensorrt.make("11.0")
    del fake.trt.INetworkDefinition.mark_unfused_tensors_as_debug_tensors
    fake.trt.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), {})
    api = api_of(fake.trt)
    assert not api.inner_values
    assert api.strong_flags == 0
    with pytest.raises(BackendError, match="cannot show values inside"):
        build(fake, BuildSettings(inner_values=True))


def test_the_module_is_loaded_where_it_is(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "tensorrt", fake.trt)
    trt, api = load_tensorrt()
    assert trt is fake.trt
    assert api.version == fake.trt.__version__


@pytest.mark.parametrize("error", [ImportError("libnvinfer.so.10: cannot open"), OSError("libnvinfer.so.10: no file")])
def test_a_package_without_its_libraries_is_told(monkeypatch, error):
    def refuse(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BackendError, match=r"cannot be loaded: libnvinfer.so.10.*backends"):
        load_tensorrt()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"precision-explorer\[tensorrt\]"):
        load_tensorrt()


@pytest.mark.parametrize("state", ["not installed", "wrong version", "missing library", "no device"])
def test_a_backend_that_is_not_ready_refuses_with_its_state_and_remedy(monkeypatch, state):
    status = BackendStatus("tensorrt", state, detail="This is why.", fix="Do that.")
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    with pytest.raises(BackendError, match=f"tensorrt is not ready .{state}.: This is why. Do that."):
        require_ready()


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    status = BackendStatus("tensorrt", "ready", devices=("NVIDIA H100",))
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    assert require_ready(0) is status
    for device in (-1, 1):
        with pytest.raises(BackendError, match="NVIDIA H100"):
            require_ready(device)


# -- the network -------------------------------------------------------------------------------------------------------


def test_networks_are_strongly_typed_and_hold_the_model(fake):
    build(fake)
    assert fake.called("create_network") == [(2,)]
    assert fake.called("parse") == [(ONNX,)]


def test_plugins_are_registered_before_the_parser_may_need_them(fake):
    build(fake)
    assert [call[0] for call in fake.calls][:3] == ["plugins", "create_network", "parse"]


def test_a_file_is_parsed_from_its_path(fake, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(ONNX)
    build(fake, onnx_bytes=path)
    assert len(fake.called("parse")) == 1


def test_what_the_parser_refuses_is_told_by_layer(fake):
    fake.faults["parser"] = [
        fake_tensorrt.ParserError("no importer for it", "blocks/0/NonMax", "NonMaxSuppression"),
        *[fake_tensorrt.ParserError("and this", f"n{index}", "Foo") for index in range(4)],
    ]
    with pytest.raises(BackendError) as caught:
        build(fake)
    assert "layer 'blocks/0/NonMax' (NonMaxSuppression): no importer for it." in caught.value.what
    assert "And 2 more." in caught.value.what
    assert "plugin" in caught.value.fix


def test_a_type_that_the_parser_refuses_asks_for_fp32(fake):
    error = fake_tensorrt.ParserError("not for half", "m/Mod", "Mod", kind="UNSUPPORTED_NODE_DATATYPE")
    fake.faults["parser"] = [error]
    with pytest.raises(BackendError, match="Keep this layer in fp32"):
        build(fake)


def test_a_file_that_the_parser_cannot_read_names_no_layer(fake):
    fake.faults["parser"] = [fake_tensorrt.ParserError("bad protobuf", kind="MODEL_DESERIALIZE_FAILED")]
    with pytest.raises(BackendError) as caught:
        build(fake)
    assert "layer" not in caught.value.what
    assert "onnx.checker" in caught.value.fix


def test_a_refusal_without_errors_is_an_error_all_the_same(fake):
    fake.faults["parser"] = []
    with pytest.raises(BackendError, match="could not read the model, and gave no reason"):
        build(fake)


def test_a_network_without_outputs_is_refused(fake):
    model = onnx.load_from_string(ONNX)
    del model.graph.output[:]
    with pytest.raises(BackendError, match="no output"):
        build(fake, onnx_bytes=model.SerializeToString())


# -- settings ----------------------------------------------------------------------------------------------------------


def test_tf32_is_cleared_unless_the_plan_is_of_tf32(fake):
    """TensorRT turns it on by itself: an fp32 reference would not be one."""
    build(fake)
    assert "TF32" not in flags(fake)
    fake.calls.clear()
    build(fake, BuildSettings(tf32=True))
    assert flags(fake) == {"TF32"}


def test_settings_reach_the_builder(fake):
    build(fake, BuildSettings(optimization_level=5, workspace_bytes=1 << 20))
    made = config(fake)
    assert made.profiling_verbosity is fake.trt.ProfilingVerbosity.DETAILED
    assert made.builder_optimization_level == 5
    assert made._pools == {fake.trt.MemoryPoolType.WORKSPACE: 1 << 20}
    fake.calls.clear()
    build(fake)
    assert config(fake).builder_optimization_level == 3
    assert config(fake)._pools == {}


@pytest.mark.parametrize("wrong", [{"optimization_level": 6}, {"optimization_level": -1}, {"workspace_bytes": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        BuildSettings(**wrong)


def test_inner_values_are_marked_only_when_asked_for(fake):
    build(fake)
    build(fake, BuildSettings(inner_values=True))
    assert [network._marked for network, _ in fake.called("build")] == [False, True]


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_samples_give_least_usual_and_most():
    model = load_model(ONNX)
    feeds = [{"x": np.zeros((rows, 4), np.float32)} for rows in (8, 8, 3)]
    (found,) = input_ranges(model, feeds)
    assert (found.least, found.usual, found.most, found.dynamic) == ((3, 4), (8, 4), (8, 4), True)
    assert found.values is None
    fixed, _ = fake_tensorrt.dense_model(batch=2)
    (found,) = input_ranges(load_model(fixed), [{"x": np.zeros((2, 4), np.float32)}])
    assert not found.dynamic


def test_values_are_taken_of_short_integer_vectors_only():
    """Others cannot be shapes; their values in the key of an engine would make every sample another engine."""
    info = onnx.helper.make_tensor_value_info
    inputs = [info("size", 7, [2]), info("ids", 7, [1, 8]), info("x", 1, [2])]
    node = onnx.helper.make_node("Identity", ["x"], ["y"], name="same")
    graph = onnx.helper.make_graph([node], "g", inputs, [info("y", 1, [2])])
    model = load_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    feeds = [
        {"size": np.array(size), "ids": np.full((1, 8), 5), "x": np.zeros(2, np.float32)} for size in ([3, 9], [4, 2])
    ]
    found = {each.name: each.values for each in input_ranges(model, feeds)}
    assert found == {"size": ((3, 2), (3, 9), (4, 9)), "ids": None, "x": None}


def test_no_samples_are_refused():
    with pytest.raises(InputError, match="no sample"):
        input_ranges(load_model(ONNX), [])


def test_open_axes_get_one_profile(fake):
    build(fake)
    (profile,) = config(fake)._profiles
    assert profile.shapes == {"x": ((1, 4), (8, 4), (8, 4))}


def test_fixed_shapes_need_no_profile(fake):
    fixed, _ = fake_tensorrt.dense_model(batch=2)
    build(fake, onnx_bytes=fixed, ranges=())
    assert config(fake)._profiles == []


def test_open_axes_without_samples_are_refused(fake):
    with pytest.raises(InputError, match=r"Input 'x' has open axes .*--dim"):
        build(fake, ranges=())


def test_shapes_that_tensorrt_refuses_are_told(fake):
    with pytest.raises(InputError, match="refuses the shapes 9x4 to 1x4 of input 'x'"):
        build(fake, ranges=(InputRange("x", (9, 4), (1, 4), (1, 4), dynamic=True),))
    fake.faults["profile"] = True
    with pytest.raises(InputError, match="'x' 1x4 to 8x4"):
        build(fake)


def test_an_input_that_is_a_shape_gets_its_values(fake):
    fake.faults["shape_tensors"] = ("x",)
    build(fake, ranges=(InputRange("x", (2,), (2,), (2,), dynamic=False, values=((1, 4), (8, 4), (9, 4))),))
    (profile,) = config(fake)._profiles
    assert profile.values == {"x": ((1, 4), (8, 4), (9, 4))}
    with pytest.raises(InputError, match="reads input 'x' to know shapes"):
        build(fake)


# -- progress and cancelling -------------------------------------------------------------------------------------------


def test_progress_tells_phases_and_their_steps(fake):
    told = []
    build(fake, progress=lambda *step: told.append(step))
    assert told[0] == ("Building", 0, 2)
    assert ("Timing tactics", 2, 3) in told
    assert told[-1] == ("Building", 2, 2)
    assert all(0 <= done <= total for _, done, total in told)


def test_a_build_can_be_cancelled_at_its_next_step(fake):
    token, told = Cancel(), []

    def progress(phase, done, total):
        told.append((phase, done))
        if done == 1:
            token.cancel()

    with pytest.raises(RunCancelled):
        build(fake, progress=progress, cancel=token)
    assert ("Timing tactics", 1) not in told


def test_a_build_that_is_cancelled_before_it_starts_does_nothing(fake):
    token = Cancel()
    token.cancel()
    with pytest.raises(RunCancelled):
        build(fake, cancel=token)
    assert fake.calls == []


def test_an_error_in_the_callers_progress_ends_the_build_and_comes_out(fake):
    """An exception may not pass through TensorRT's own code: it would be printed and lost."""

    def broken(*_):
        raise ZeroDivisionError("in the caller")

    with pytest.raises(ZeroDivisionError, match="in the caller"):
        build(fake, progress=broken)


# -- failures and notes ------------------------------------------------------------------------------------------------


def test_a_build_that_fails_is_told_in_tensorrts_words(fake):
    fake.faults["build"] = "Error Code 10: Could not find any implementation for node blocks/0/MatMul"
    with pytest.raises(BackendError, match=r"could not build the engine: .*blocks/0/MatMul") as caught:
        build(fake)
    assert "fp32" in caught.value.fix


@pytest.mark.parametrize("said", ["Requested amount of GPU memory (1 bytes): OutOfMemory", "CUDA error: out of memory"])
def test_too_little_memory_says_what_to_lower(fake, said):
    fake.faults["build"] = said
    with pytest.raises(BackendError, match="memory is too small") as caught:
        build(fake)
    assert {"batch", "workspace", "optimization level"} <= {
        word for word in ("batch", "workspace", "optimization level") if word in caught.value.fix
    }


def test_warnings_about_numbers_become_notes_and_others_do_not(fake):
    fake.faults["warnings"] = ["Weights 'w' has been affected: subnormal values", "Consider another tactic source"]
    notes = build(fake).notes
    assert len(notes) == 1
    assert "subnormal" in notes[0]


# -- the timing cache --------------------------------------------------------------------------------------------------


def test_a_timing_cache_is_used_and_given_back(fake):
    first = build(fake)
    assert fake.called("create_timing_cache") == [(b"",)]
    fake.calls.clear()
    again = build(fake, timing=first.timing)
    assert fake.called("create_timing_cache") == [(first.timing,)]
    assert again.timing == first.timing != b""


@pytest.mark.parametrize("wrong", [b"damaged", fake_tensorrt.CACHE + b"9.9"])
def test_a_timing_cache_of_another_version_is_left_unused(fake, wrong):
    made = build(fake, timing=wrong)
    assert fake.called("create_timing_cache") == [(wrong,), (b"",)]
    assert made.timing.endswith(fake.trt.__version__.encode())


def test_without_any_timing_cache_it_builds_all_the_same(fake):
    fake.faults["timing"] = True
    assert build(fake).timing == b""


# -- weakly typed ------------------------------------------------------------------------------------------------------


def weak(**more):
    layers = {"first": "fp16", "bias": "fp16", "relu": "fp32", "last": "fp16"}
    return WeakPlan(**{"formats": ("fp16",), "layers": layers, **more})


def test_a_plan_becomes_flags_and_constraints():
    fake = fake_tensorrt.make(OLD)
    made = build(fake, weak=weak())
    assert fake.called("create_network") == [(0,)]
    assert flags(fake) == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    network, _ = fake.called("build")[0]
    given = {layer.name: layer.precision.name for layer in network._layers}
    assert given == {"first": "HALF", "bias": "HALF", "relu": "FLOAT", "last": "HALF"}
    assert set(fake.called("set_output_type")) == {
        ("first", 0, "HALF"), ("bias", 0, "HALF"), ("relu", 0, "FLOAT"), ("last", 0, "HALF")
    }  # fmt: skip
    assert made.notes == ()


def test_helpers_on_integers_get_no_precision():
    """The parser gives the layers that work out a Reshape's shape the Reshape's own name."""
    fake, make, info = fake_tensorrt.make(OLD), onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Shape", ["x"], ["s"], name="reshape"),
        make("Gather", ["s", "first"], ["d"], name="reshape"),
        make("Concat", ["d", "rest"], ["shape"], name="reshape", axis=0),
        make("Reshape", ["x", "shape"], ["y"], name="reshape"),
        make("Sqrt", ["k"], ["z"], name="of a shape"),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array(value, kind), name)
        for name, value, kind in (("first", [0], np.int64), ("rest", [-1], np.int64), ("k", [4.0], np.float32))
    ]
    outputs = [info("y", 1, ["batch", 4]), info("z", 1, [1])]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, ["batch", 4])], outputs, constants)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    fake.faults["shape_tensors"] = ("z",)  # TensorRT has shape tensors of floats too
    layers = {"reshape": "fp16", "of a shape": "fp16"}
    build(fake, onnx_bytes=proto.SerializeToString(), weak=weak(layers=layers))
    network, _ = fake.called("build")[0]
    constrained = [layer.get_output(0).name for layer in network._layers if hasattr(layer, "precision")]
    assert constrained == ["y"]
    assert fake.called("set_output_type") == [("reshape", 0, "HALF")]


@pytest.mark.parametrize(("low", "flag"), [("bf16", "BF16"), ("tf32", "TF32")])
def test_each_format_has_its_flag(low, flag):
    fake = fake_tensorrt.make(OLD)
    build(fake, BuildSettings(tf32=low == "tf32"), weak=weak(formats=(low,), layers={"first": low}, obey=False))
    assert flags(fake) == {flag, "PREFER_PRECISION_CONSTRAINTS"}


def test_int8_needs_ranges_and_sets_them():
    fake = fake_tensorrt.make(OLD)
    with pytest.raises(InputError, match="neither Q/DQ nodes nor a calibration"):
        build(fake, weak=weak(formats=("int8",), layers={"first": "int8"}))
    build(fake, weak=weak(formats=("int8",), layers={"first": "int8"}, ranges={"x": 2.5, "a": 4.0, "r": 0.0}))
    assert flags(fake) == {"INT8", "OBEY_PRECISION_CONSTRAINTS"}
    assert fake.called("set_dynamic_range") == [("x", -2.5, 2.5), ("a", -4.0, 4.0)]
    assert fake.called("set_output_type") == []


def test_a_format_without_a_flag_is_refused():
    with pytest.raises(BackendError, match="no weakly typed networks in fp8e4m3"):
        build(fake_tensorrt.make(OLD), weak=weak(formats=("fp8e4m3",)))


def test_weak_typing_is_refused_by_11_with_the_reason():
    fake = fake_tensorrt.make(NEW)
    with pytest.raises(BackendError, match="strongly typed networks only"):
        build(fake, weak=weak())
    assert fake.called("build") == []


def test_layers_that_tensorrt_folded_are_counted():
    fake = fake_tensorrt.make(OLD)
    made = build(fake, weak=weak(layers={"first": "fp16", "gone": "fp32"}))
    assert "folded, so that they have no format: 1." in made.notes[0]


def test_constraints_that_cannot_be_obeyed_say_to_prefer():
    fake = fake_tensorrt.make(OLD)
    fake.faults["build"] = "no implementation obeys the requested constraints"
    with pytest.raises(BackendError, match="prefer constraints"):
        build(fake, weak=weak())
