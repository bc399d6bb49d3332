"""Causes of missing speed: confirmed on a model that has one, ruled out on one that has not, untested where unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

import explorer
from explorer.advise import slow_findings
from explorer.advise.slow.case import Case
from explorer.advise.slow.extents import Extents
from explorer.backends.gpus import get_gpu
from explorer.backends.latency import InsertedTime, LatencyResult
from explorer.backends.machine import look
from explorer.convert import decide, type_layers
from explorer.errors import BackendError
from explorer.model import load_model
from explorer.plan import Plan

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
F = onnx.TensorProto.FLOAT
NAMES = (
    "hardware", "launch", "fallback", "memory", "dims", "stem", "layout", "casts", "small", "wider", "copy", "host",
    "version",
)  # fmt: skip
CURRENT = {"onnxruntime": "1.31.1"}  # the CPU package
h = onnx.helper


def node(op, inputs, output, **attributes):
    return h.make_node(op, inputs, [output], name=output, **attributes)


def made(nodes, weights, shapes, outputs=("y",)):
    """A checked model; its weights are seeded by their shapes."""
    rng = np.random.default_rng(0)
    graph = h.make_graph(
        nodes, "net", [h.make_tensor_value_info(name, F, shape) for name, shape in shapes.items()],
        [h.make_tensor_value_info(name, F, None) for name in outputs],
        [onnx.numpy_helper.from_array(
            value if isinstance(value, np.ndarray) else rng.standard_normal(value).astype(np.float32), name)
         for name, value in weights.items()],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9)


def told(proto, rows, *, plan=None, gpu="H100", target="onnxruntime-cuda", packages=CURRENT, measured=None):
    """Findings by the end of their ids; nothing is run: shapes are all that a prediction needs."""
    model = load_model(proto)
    shapes = {
        spec.name: tuple(rows if not isinstance(dim, int) else dim for dim in spec.shape) for spec in model.inputs
    }
    typing = type_layers(model, (plan or Plan()).format, target)
    decisions = decide(plan or Plan(), typing)
    found = slow_findings(
        model, decisions, shapes, gpu=gpu, measured=measured, packages=packages, target=target
    )  # fmt: skip
    return {each.id.removeprefix("slow-"): each for each in found}


def mlp(width, *, depth=2, rows="N"):
    nodes, weights, last = [], {}, "x"
    for index in range(depth):
        name = "y" if index == depth - 1 else f"h{index}"
        nodes.append(node("MatMul", [last, f"w{index}"], name))
        weights[f"w{index}"] = (width, width)
        last = name
    return made(nodes, weights, {"x": [rows, width]})


def conv_net(channels, *, width=64, size=64):
    nodes = [
        node("Conv", ["x", "w0"], "c0", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], "r0"),
        node("Conv", ["r0", "w1"], "y", pads=[1, 1, 1, 1]),
    ]
    return made(nodes, {"w0": (width, channels, 3, 3), "w1": (width, width, 3, 3)}, {"x": ["N", channels, size, size]})


LARGE = mlp(1024)


# -- the list as a whole -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", ["H100", "T4"])
@pytest.mark.parametrize("name", ["lenet5_digits", "digits_transformer", "misaligned_cnn"])
def test_every_cause_has_a_verdict_and_a_reason(name, gpu):
    x = explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz")
    lead, *causes = slow_findings(x.model, x.decisions(), x.samples.shapes, gpu=gpu, target=x.target)
    assert lead.id == "speed"
    assert {each.id for each in causes} == {f"slow-{each}" for each in NAMES}
    assert all(each.verdict in ("confirmed", "untested", "ruled out") for each in causes)
    assert all(each.text for each in causes)
    assert all(each.tone == "note" for each in causes if each.verdict != "confirmed")
    assert all(len(each.title) < 90 and len(each.text) < 500 for each in causes)
    order = [("confirmed", "untested", "ruled out").index(each.verdict) for each in causes]
    assert order == sorted(order)
    assert gpu in lead.title


def test_predictions_say_so():
    for each in told(LARGE, 64).values():
        if " us" in each.evidence or " ms" in each.evidence:
            assert "redicted" in each.evidence


def test_a_much_faster_plan_is_said_first_and_nothing_is_a_warning():
    found = told(mlp(4096, depth=8), 4096)
    assert next(iter(found)) == "speed"
    assert found["speed"].tone == "good"
    assert "1.88x" in found["speed"].title
    assert "warn" not in {each.tone for each in found.values()}


def test_speed_in_words_is_that_of_the_prediction():
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")
    known = x.predicted_latency("H100").result
    lead = slow_findings(x.model, x.decisions(), x.samples.shapes, gpu="H100")[0]
    assert f"{known.uniform_us['fp32'] / known.plan_us:.2f}x" in lead.title
    assert lead.tone == "warn"


def test_nothing_is_said_without_a_device_or_without_low_layers():
    assert not told(LARGE, 64, gpu=None)
    assert not told(LARGE, 64, plan=Plan.preset("fp32"))


def test_an_unknown_gpu_is_refused():
    with pytest.raises(BackendError, match="No GPU named"):
        told(LARGE, 64, gpu="H9000")


# -- one cause after the other -----------------------------------------------------------------------------------------


def test_hardware_without_a_fast_format_is_named():
    slow = told(LARGE, 64, plan=Plan(format="bf16"), gpu="T4")["hardware"]
    assert slow.verdict == "confirmed"
    assert "fp16 would" in slow.text
    assert told(LARGE, 64, gpu="T4")["hardware"].verdict == "ruled out"
    assert "TF32" in told(LARGE, 64, gpu="A100")["hardware"].text


def test_a_small_batch_is_confirmed_with_what_a_larger_one_would_give():
    small, large = told(mlp(512, depth=6), 512), told(mlp(4096), 8192)
    assert small["launch"].verdict == "confirmed"
    assert large["launch"].verdict == "ruled out"
    assert "Batch 512 " in small["launch"].title
    assert "4,096 rows" in small["launch"].text
    by_itself = told(mlp(512, depth=6), 4096)["speed"].title
    figure = next(word for word in by_itself.split() if word.endswith("x"))
    assert figure in small["launch"].text  # the figure for the larger batch is what that batch gives by itself


def test_a_fixed_batch_is_not_guessed_at():
    assert "is fixed" in told(mlp(1024, rows=8), 8)["launch"].text


def test_layers_in_fp32_cost_their_casts_and_say_why():
    plan = Plan().block(layers=["h1", "h2"])
    found = told(mlp(2048, depth=6), 4096, plan=plan)["fallback"]
    assert found.verdict == "confirmed"
    assert found.layers == ("h1", "h2")
    assert "the plan asks for it" in found.text
    assert told(mlp(2048, depth=6), 4096)["fallback"].verdict == "ruled out"


def test_layers_in_fp32_that_cost_nothing_are_ruled_out():
    nodes = [node("MatMul", ["x", "w"], "h"), node("ReduceMean", ["h", "a"], "m", keepdims=1),
             node("Tanh", ["m"], "y")]  # fmt: skip
    proto = made(nodes, {"w": (4096, 4096), "a": np.int64([1])}, {"x": ["N", 4096]})
    found = told(proto, 4096, plan=Plan().block(layers=["y"]))["fallback"]
    assert found.verdict == "ruled out"
    assert found.layers == ("y",)


def test_a_memory_bound_layer_between_casts_is_found():
    nodes = [node("MatMul", ["x", "w0"], "h"), node("Softmax", ["h"], "s"), node("MatMul", ["s", "w1"], "y")]
    proto = made(nodes, {"w0": (2048, 2048), "w1": (2048, 2048)}, {"x": ["N", 2048]})
    found = told(proto, 8192, plan=Plan().block(layers=["s"]))["memory"]
    assert found.verdict == "confirmed"
    assert found.layers == ("s",)
    assert told(proto, 8192)["memory"].verdict == "ruled out"


def test_misaligned_matrices_are_told_what_padding_gains():
    found = told(mlp(1023, depth=4), 8192)["dims"]
    assert found.verdict == "confirmed"
    assert "1023 to 1024" in found.text
    assert len(found.layers) == 4
    assert "inputs' or outputs' own" in found.text
    assert told(mlp(1024, depth=4), 8192)["dims"].verdict == "ruled out"


def test_the_padded_time_is_that_of_the_model_with_these_extents():
    odd, even = told(mlp(1023, depth=4), 8192)["dims"], told(mlp(1024, depth=4), 8192)["speed"]
    padded = odd.evidence.split(" as it is, ")[1].split(" with every")[0]
    assert f"{padded} under the plan" in even.evidence


def test_misaligned_channels_gain_nothing_where_the_library_pads_and_that_is_said():
    found = told(conv_net(8, width=51), 256, gpu="T4")["dims"]
    assert found.verdict == "untested"
    assert "the library pads" in found.text
    assert set(found.layers) == {"c0", "y"}


def test_a_first_convolution_of_three_channels_is_found_where_it_holds_the_model_back():
    found = told(conv_net(3, width=256, size=224), 64, gpu="T4")["stem"]
    assert found.layers == ("c0",)
    assert "3 channels" in found.title
    only = made([node("Conv", ["x", "w"], "y", strides=[4, 4], pads=[3, 3, 3, 3])], {"w": (16, 3, 7, 7)},
                {"x": ["N", 3, 224, 224]})  # fmt: skip
    assert told(only, 64)["stem"].verdict == "confirmed" or "%" in told(only, 64)["stem"].evidence
    assert told(conv_net(16), 64)["stem"].verdict == "ruled out"
    assert not told(conv_net(16), 64)["stem"].layers


def test_transposes_are_counted():
    nodes = [node("Transpose", ["x"], "t", perm=[0, 2, 1]), node("Relu", ["t"], "r"),
             node("Transpose", ["r"], "y", perm=[0, 2, 1])]  # fmt: skip
    found = told(made(nodes, {}, {"x": ["N", 256, 1024]}), 64)["layout"]
    assert found.verdict == "confirmed"
    assert found.layers == ("t", "y")
    assert told(LARGE, 64)["layout"].verdict == "ruled out"


def test_casts_of_inputs_and_outputs_are_told_with_a_fix_that_keeps_its_word():
    proto = made([node("Tanh", ["x"], "y")], {}, {"x": ["N", 4096]})
    found = told(proto, 4096)["casts"]
    assert found.verdict == "confirmed"
    plan = found.fix.apply(Plan())
    assert not plan.keep_io
    after = told(proto, 4096, plan=plan)
    assert after["casts"].verdict == "ruled out"
    said = found.text.split(" are predicted instead")[0].rsplit(", ", 1)[1]
    assert f"{said} under the plan" in after["speed"].evidence
    assert found.fix.options == "--no-keep-io"
    assert told(mlp(4096, depth=8), 8192)["casts"].fix is None


def test_the_code_of_the_fix_does_what_its_button_does():
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")
    found = {each.id: each for each in x.findings(gpu_model="H100")}["slow-casts"]
    wanted = found.fix.apply(x.plan)
    exec(found.fix.code, {"x": x, "explorer": explorer})
    assert x.plan == wanted


def test_a_small_model_is_told_the_most_that_any_format_can_give():
    found = told(mlp(16), 8)["small"]
    assert found.verdict == "confirmed"
    assert "more than 1.00x" in found.text
    assert told(mlp(4096), 8192)["small"].verdict == "ruled out"


def test_copies_are_weighed_against_the_latency():
    proto = made([node("Relu", ["x"], "y")], {}, {"x": ["N", 3, 512, 512]})
    assert told(proto, 16)["copy"].verdict == "confirmed"
    assert told(mlp(4096, depth=8), 1)["copy"].verdict == "ruled out"


@pytest.mark.parametrize("cause", ["wider", "host"])
def test_what_needs_a_run_on_the_gpu_is_untested_and_says_so(cause):
    found = told(LARGE, 64)[cause]
    assert found.verdict == "untested"
    assert "profile" in found.text or "run there" in found.text


def test_products_that_the_roofline_itself_runs_wider_are_named():
    assert told(LARGE, 4096, plan=Plan(format="bf16"), gpu="T4")["wider"].layers == ("h0", "y")
    assert not told(LARGE, 4096, gpu="T4")["wider"].layers


@pytest.mark.parametrize(
    ("target", "packages", "verdict"),
    [
        ("onnxruntime-cuda", {"onnxruntime-gpu": "1.31.1"}, "ruled out"),
        ("onnxruntime-cuda", {"onnxruntime-gpu": "1.24.0"}, "untested"),
        ("onnxruntime-cuda", {"onnxruntime-gpu": "1.16.3"}, "confirmed"),
        ("onnxruntime-cuda", CURRENT, "untested"),
        ("tensorrt", CURRENT, "untested"),
        ("tensorrt", {"tensorrt-cu12": "10.3.0"}, "confirmed"),
        ("tensorrt", {"tensorrt": "12.0"}, "ruled out"),
    ],
)
def test_the_runtime_is_judged_by_its_version(target, packages, verdict):
    assert told(LARGE, 64, target=target, packages=packages)["version"].verdict == verdict


# -- on the CPU --------------------------------------------------------------------------------------------------------

MEASURED = LatencyResult(
    backend="onnxruntime-cpu", device="a CPU", provenance="measured on a CPU", formats="fp32", threads=1, runs=30,
    warmup_runs=5, whole_us=5000.0, whole_spread_us=1.0, profiled_us=5000.0, overhead_us=50.0, interference_us=0.0,
)  # fmt: skip


def on_cpu(**changes):
    return told(LARGE, 64, gpu=None, measured=replace(MEASURED, **changes))


def test_a_cpu_without_arithmetic_in_fp16_is_said_first():
    found = on_cpu()
    assert next(iter(found)) == "hardware"
    assert found["hardware"].verdict == "confirmed"
    assert "2 of 2 layers" in found["hardware"].evidence
    assert found["gpu"].verdict == "untested"


def test_measured_shares_decide():
    reorder = InsertedTime("r", "ReorderInput", "reorder", None, 900.0, 1.0)
    assert on_cpu(inserted=(reorder,))["casts"].verdict == "confirmed"
    assert on_cpu()["casts"].verdict == "ruled out"
    assert on_cpu(overhead_us=1000.0)["host"].verdict == "confirmed"
    assert on_cpu()["host"].verdict == "ruled out"
    assert on_cpu(whole_us=90.0)["small"].verdict == "confirmed"
    assert on_cpu()["small"].verdict == "ruled out"
    assert on_cpu(profiled_us=None, overhead_us=None)["host"].verdict == "untested"


# -- extents -----------------------------------------------------------------------------------------------------------


def case_of(proto, **shapes):
    model = load_model(proto)
    decisions = decide(Plan(), type_layers(model, "fp16"))
    return Case(model, decisions, shapes, get_gpu("H100"), packages=look().packages)


def test_an_extent_goes_through_layers_that_keep_it_and_ends_where_it_is_mixed():
    nodes = [
        node("Conv", ["x", "w0", "b0"], "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "o", "m", "v"], "n"),
        node("Relu", ["n"], "r"),
        node("MaxPool", ["r"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w1"], "d"),
        node("Flatten", ["d"], "f"),
        node("Gemm", ["f", "w2", "b2"], "y", transB=1),
    ]
    channel = np.ones(13, np.float32)
    weights = {"w0": (13, 8, 3, 3), "b0": (13,), "s": channel, "o": channel, "m": channel, "v": channel,
               "w1": (27, 13, 3, 3), "w2": (10, 27 * 9 * 9), "b2": (10,)}  # fmt: skip
    case = case_of(made(nodes, weights, {"x": ["N", 8, 22, 22]}), x=(4, 8, 22, 22))
    extents = Extents(case)
    root = extents.root(("c", 1))
    assert set(extents.members(root)) == {
        ("w0", 0), ("b0", 0), ("c", 1), ("s", 0), ("o", 0), ("m", 0), ("v", 0), ("n", 1), ("r", 1), ("p", 1), ("w1", 1)
    }  # fmt: skip
    assert extents.root(("d", 1)) == extents.root(("w1", 0)) != extents.root(("f", 1))
    assert extents.root(("y", 1)) == extents.root(("w2", 0)) == extents.root(("b2", 0))
    padded = extents.padded({root: 16})
    assert padded.specs["p"].shape == (4, 16, 11, 11)
    assert padded.weights["w1"].shape == (27, 16, 3, 3)
    assert padded.costs["d"].gemm.k_inner == 16
    assert case.costs["d"].gemm.k_inner == 13


def test_a_depthwise_convolution_is_not_padded_by_itself():
    nodes = [node("Conv", ["x", "w"], "y", group=13, pads=[1, 1, 1, 1])]
    assert told(made(nodes, {"w": (13, 1, 3, 3)}, {"x": ["N", 13, 32, 32]}), 64)["dims"].verdict == "ruled out"


def test_heads_of_an_attention_are_one_extent():
    nodes = [
        node("Transpose", ["k"], "t", perm=[0, 2, 1]), node("MatMul", ["q", "t"], "s"), node("Softmax", ["s"], "a"),
        node("MatMul", ["a", "v"], "y"),
    ]  # fmt: skip
    proto = made(nodes, {}, {"q": ["N", 33, 60], "k": ["N", 65, 60], "v": ["N", 65, 20]})
    extents = Extents(case_of(proto, q=(2, 33, 60), k=(2, 65, 60), v=(2, 65, 20)))
    assert extents.root(("q", 2)) == extents.root(("k", 2))
    assert extents.root(("s", 2)) == extents.root(("k", 1)) == extents.root(("a", 2)) == extents.root(("v", 1))


# -- in the session ----------------------------------------------------------------------------------------------------


def test_the_session_tells_what_breaks_first():
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    found = x.findings(gpu_model="H100")
    speed = [each.of_speed for each in found]
    assert found[0].tone == "stop"
    assert speed == sorted(speed)
    assert any(speed)
    assert len({each.id for each in found}) == len(found)
    assert not any(each.of_speed for each in x.findings())


def test_every_fix_can_be_applied():
    for name in ("digits_transformer", "digits_transformer_mask", "lenet5_digits"):
        x = explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz")
        for each in x.findings(gpu_model="T4"):
            if each.fix is not None:
                x.fork().plan = each.fix.apply(x.plan)
