"""The real latency of a plan on the CPU: int8 and fp32 are measured, fp16 is refused; rows are those of the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small_models
from onnx import TensorProto, helper, numpy_helper

import explorer
from explorer.backends import onnxruntime_cuda
from explorer.backends.latency import InsertedTime, LatencyResult, LayerTime
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.backends.status import backend_status
from explorer.errors import BackendError
from explorer.model import load_model
from explorer.plan import Plan
from explorer.results.measuring import BACKENDS, folded, measure_plan

CPU = "onnxruntime-cpu"
INT8 = Plan(format="int8")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def results():
    data, feeds = small_models.serialized(small_models.cnn)
    return explorer.open(data, inputs=feeds, target=CPU).results


@pytest.mark.parametrize("plan", [Plan(), Plan(format="bf16"), Plan(format="tf32"), Plan(format="fp8e4m3")])
def test_formats_that_the_cpu_does_not_compute_in_are_refused(results, plan):
    """Its time would be that of fp32, and would be read as a speed-up."""
    target = None  # what ONNX allows: there are layers in the low format
    assert results.decisions(plan, target).low_layers
    with pytest.raises(BackendError, match=f"layers in {plan.format} cannot be timed on onnxruntime-cpu") as caught:
        measure_plan(results, plan, target, CPU)
    assert "in fp32 between casts" in caught.value.why
    assert "onnxruntime-cuda" in caught.value.fix


def test_a_plan_that_mixes_fp16_and_int8_is_refused_for_its_fp16(results):
    plan = Plan().use("int8", op_types=["Conv"])
    with pytest.raises(BackendError, match="layers in fp16 cannot be timed"):
        measure_plan(results, plan, None, CPU)


@pytest.mark.parametrize("plan", [Plan.preset("fp32"), Plan.preset("fp32", format="bf16")])
def test_an_fp32_plan_is_the_model_itself(results, plan):
    told = []
    found = measure_plan(results, plan, CPU, CPU, runs=5, progress=lambda *step: told.append(step))
    assert [row.layer_id for row in found.layers] == [layer.id for layer in results.model.layers]
    assert found.formats == "fp32"
    assert found.whole_us > 0
    assert results.samples.batch_note in found.provenance
    assert told[-1] == ("latency on onnxruntime-cpu", 100, 100)


def test_an_int8_plan_is_timed_for_real_with_a_row_for_every_layer(results):
    found = measure_plan(results, INT8, CPU, CPU, runs=5)
    assert [row.layer_id for row in found.layers] == [layer.id for layer in results.model.layers]
    ids = set(results.model._by_id)
    assert all(set(row.fused_with) <= ids for row in found.layers)
    assert all(each.serves is None or each.serves in ids for each in found.inserted)
    assert "int8" in found.formats
    low = results.decisions(INT8, CPU).low_layers
    accounted = sum(row.median_us for row in (*found.layers, *found.inserted))
    assert accounted + found.overhead_us + found.interference_us == pytest.approx(found.profiled_us)
    convs = [row for row in found.layers if row.layer_id in low and results.model.layer(row.layer_id).op == "Conv"]
    assert convs
    assert all(row.median_us > 0 and "QLinearConv" in row.note for row in convs)


def test_a_layer_that_was_asked_for_int8_and_ran_in_fp32_says_so(results):
    """ONNX Runtime fuses the MatMul with the Add behind it before it looks for int8 kernels."""
    found = measure_plan(results, INT8, CPU, CPU, runs=5)
    wide = [row.layer_id for row in found.layers if row.note.startswith("Asked int8, ran fp32")]
    assert wide == ["fc/matmul"]
    assert "ran fp32, as Gemm" in found.layer("fc/matmul").note
    (note,) = [note for note in found.notes if "asked for int8" in note]
    assert note.startswith("1 layer was asked for int8 and ran in fp32")
    assert "'fc/matmul'" in note


def test_pools_and_activations_between_int8_layers_stand_at_themselves():
    """ONNX Runtime names its channels-last int8 nodes `<node>_token_<number>` and leaves no value's name."""
    generator = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "v"], ["y"], name="conv2", pads=[1, 1, 1, 1]),
    ]
    weights = [generator.standard_normal(shape).astype(np.float32) for shape in ((16, 3, 3, 3), (16, 16, 3, 3))]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 32 // 2, 32 // 2])],
        [numpy_helper.from_array(weights[0], "w"), numpy_helper.from_array(weights[1], "v")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = explorer.open(model, inputs={"x": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)}, target=CPU)
    rows = {row.layer_id: row for row in measure_plan(x.results, INT8, CPU, CPU, runs=5).layers}
    assert set(rows) == {"conv", "relu", "pool", "conv2"}
    assert rows["conv"].fused_with == ("relu",)
    assert rows["pool"].fused_with == ()
    assert min(rows[name].median_us for name in ("conv", "pool", "conv2")) > 0
    assert rows["relu"].median_us == 0


def test_kernels_of_another_backend_are_told(results):
    found = measure_plan(results, INT8, "onnxruntime-cuda", CPU, runs=5)
    assert any("followed the kernels of onnxruntime-cuda" in note for note in found.notes)


def test_measuring_can_be_cancelled(results):
    token = Cancel()
    with pytest.raises(RunCancelled):
        measure_plan(results, INT8, CPU, CPU, runs=5, cancel=token, progress=lambda *_: token.cancel())


def test_a_backend_that_does_not_run_is_refused(results):
    with pytest.raises(BackendError, match="cannot be measured on 'roofline'"):
        measure_plan(results, INT8, CPU, "roofline")
    with pytest.raises(BackendError, match="Did you mean 'tensorrt'"):
        measure_plan(results, INT8, CPU, "tensort")
    assert BACKENDS == ("onnxruntime-cpu", "onnxruntime-cuda", "tensorrt")


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "tensorrt"])
def test_a_gpu_that_is_not_here_is_told(results, backend):
    status = next(each for each in backend_status() if each.name == backend)
    if status.state == "ready":
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match=f"{backend} is not ready"):
        measure_plan(results, Plan(), None, backend)


# -- rows of the converted model become rows of the model --------------------------------------------------------------


def pair():
    """Returns a model of two layers, and the same with a Cast between them and a Q behind."""
    node = helper.make_node
    info = helper.make_tensor_value_info

    def built(nodes):
        graph = helper.make_graph(nodes, "g", [info("x", 1, [2])], [info("y", 1, [2])])
        return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    first, last = node("Neg", ["x"], ["a"], name="neg"), node("Abs", ["a"], ["y"], name="abs")
    cast = node("Cast", ["a"], ["b"], name="a_cast", to=TensorProto.FLOAT)
    behind = node("Abs", ["b"], ["y"], name="abs")
    return built([first, last]), built([first, cast, behind])


BASE = LatencyResult("onnxruntime-cpu", "a CPU", "measured", "fp32", 1, 5, 0, 10.0, 0.0)


def test_an_inserted_node_of_its_own_is_a_row_of_its_own():
    source, measured = pair()
    rows = (LayerTime("neg", 3.0, 0.1), LayerTime("a_cast", 2.0, 0.2), LayerTime("abs", 4.0, 0.3))
    found = folded(dataclasses.replace(BASE, layers=rows), source, measured)
    assert [(row.layer_id, row.median_us) for row in found.layers] == [("neg", 3.0), ("abs", 4.0)]
    assert found.inserted == (InsertedTime("a_cast", "Cast", "cast", "neg", 2.0, 0.2),)


def test_a_kernel_that_stands_at_an_inserted_node_goes_to_our_layer():
    source, measured = pair()
    rows = (
        LayerTime("neg", 0.0, 0.0, ("a_cast",), "Fused: its time stands at 'a_cast'."),
        LayerTime("a_cast", 5.0, 0.5, ("neg",), "Runs as one QNeg with the layers it is fused with."),
        LayerTime("abs", 4.0, 0.3),
    )
    found = folded(dataclasses.replace(BASE, layers=rows), source, measured)
    assert found.inserted == ()
    assert found.layer("neg").median_us == 5.0
    assert found.layer("neg").spread_us == 0.5
    assert found.layer("neg").fused_with == ()
    assert found.layer("neg").note == "Runs as one QNeg with what conversion inserted around it."


def test_times_are_neither_lost_nor_counted_twice():
    source, measured = pair()
    rows = (
        LayerTime("neg", 0.0, 0.0, ("a_cast", "abs"), "Fused."),
        LayerTime("a_cast", 7.0, 0.5, ("neg", "abs"), "Runs as one."),
        LayerTime("abs", 0.0, 0.0, ("neg", "a_cast"), "Fused."),
    )
    found = folded(dataclasses.replace(BASE, layers=rows), source, measured)
    assert sum(row.median_us for row in (*found.layers, *found.inserted)) == 7.0
    assert found.layer("abs").median_us == 7.0
    assert found.layer("abs").fused_with == ("neg",)
    assert found.layer("neg").note == "Fused: its time stands at 'abs'."


def test_the_model_itself_is_not_folded():
    source, _ = pair()
    assert folded(BASE, source, source) is BASE


# -- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "converted", "tf32"),
    [(Plan.preset("fp32"), False, False), (Plan(), True, False), (Plan(format="tf32"), True, True)],
    ids=["fp32", "fp16", "tf32"],
)
def test_cuda_is_given_the_model_of_the_plan(results, monkeypatch, plan, converted, tf32):
    given = []

    def measured(runnable, feeds, **more):
        given.append((runnable, feeds, more))
        more["progress"](1.0)
        return dataclasses.replace(BASE, backend="onnxruntime-cuda")

    told = []
    monkeypatch.setattr(onnxruntime_cuda, "require_device", lambda device: "NVIDIA H100")
    monkeypatch.setattr(onnxruntime_cuda, "measure_layers", measured)
    found = measure_plan(
        results, plan, None, "onnxruntime-cuda", device=0, runs=7, progress=lambda *step: told.append(step)
    )
    ((runnable, feeds, more),) = given
    assert (runnable is not results.model) is converted
    assert (more["tf32"], more["runs"]) == (tf32, 7)
    assert feeds is results.samples.feeds[0]
    assert results.samples.batch_note in found.provenance
    assert told[-1] == ("latency on onnxruntime-cuda", 100, 100)
