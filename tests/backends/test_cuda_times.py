"""Device times by layer from records: every kernel is found again at the node that asked for it; nothing is lost."""

from __future__ import annotations

import json
import time

import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from explorer.backends.cuda_match import RunWork, format_of_kernel, match, require_work, short_name
from explorer.backends.cuda_placement import placement
from explorer.backends.cuda_profile import NodeWindow, RecordedRun, clock_of, offset_between, read_runs
from explorer.backends.cuda_result import with_rows
from explorer.backends.cuda_rows import OUTSIDE, formats_run, rows_of
from explorer.backends.cupti import CuptiUnavailable, Launch, Records, Work
from explorer.backends.fusion import FusionMap, Group, map_fusion
from explorer.backends.latency import LatencyResult
from explorer.backends.runtime import create_session
from explorer.errors import BackendError
from explorer.model import load_model

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
START = 1_700_000_000_000_000_000


def event(name, ts, dur, cat="Node", tid=7, **args):
    suffix = "_kernel_time" if cat == "Node" else ""
    return {"cat": cat, "pid": 1, "tid": tid, "dur": dur, "ts": ts, "ph": "X", "name": f"{name}{suffix}", "args": args}


def written(tmp_path, events):
    path = tmp_path / "profile.json"
    path.write_text("[\n" + ",\n".join(json.dumps(item) for item in events) + "\n]\n")
    return path


def on_gpu(name, op, ts, dur, **more):
    return event(name, ts, dur, op_name=op, provider=GPU, **more)


def run_of(*windows, end=1000):
    found = tuple(NodeWindow(name, "Op", GPU, a * 1000, b * 1000, 7) for name, a, b in windows)
    return RecordedRun(0, end * 1000, found)


def launched(correlation, at_us, *, lasts=2, thread=7):
    return Launch(correlation, at_us * 1000, (at_us + lasts) * 1000, thread)


def kernel(correlation, name="k", *, us=10, start=500):
    return Work(correlation, name, "kernel", start * 1000, (start + us) * 1000)


def test_a_profile_gives_runs_with_providers_and_absolute_times(tmp_path):
    events = [
        event("session_initialization", 1, 9, cat="Session"),
        on_gpu("conv", "Conv", 100, 20),
        event("shape", 121, 4, op_name="Shape", provider=CPU),
        event("model_run", 95, 80, cat="Session"),
        on_gpu("conv", "Conv", 200, 10),
        event("shape", 211, 3, op_name="Shape", provider=CPU),
        event("model_run", 195, 60, cat="Session"),
    ]
    first, second = read_runs(written(tmp_path, events), start_ns=START, nodes=["conv", "shape"])
    assert [window.name for window in first.windows] == ["conv", "shape"]
    assert first.windows[0] == NodeWindow("conv", "Conv", GPU, START + 100_000, START + 120_000, 7)
    assert first.windows[1].provider == CPU
    assert (first.total_us, second.total_us) == (80, 60)


def test_nodes_of_a_body_that_repeat_a_name_do_not_count_twice(tmp_path):
    events = [
        on_gpu("add", "Add", 12, 3),  # inside the If
        on_gpu("if", "If", 10, 10),
        on_gpu("add", "Add", 30, 5),
        event("model_run", 5, 40, cat="Session"),
    ]
    (run,) = read_runs(written(tmp_path, events), start_ns=0, nodes=["if", "add"], body_nodes=["add"])
    assert [(window.name, window.start_ns) for window in run.windows] == [("if", 10_000), ("add", 30_000)]


@pytest.mark.parametrize("text", ["", "[\n]\n", "[\n{oops\n]\n"])
def test_a_profile_without_a_run_is_refused(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(BackendError):
        read_runs(path, start_ns=0, nodes=["a"])


def test_the_profile_that_this_runtime_writes_is_read(tmp_path):
    """The windows of a real profile lie inside their run, one for each node, on the clock that it says."""
    data, feeds = small_models.serialized(small_models.cnn)
    wall, monotonic = time.time_ns(), time.monotonic_ns()
    session = create_session(data, profile_prefix=tmp_path / "p", optimize="none")
    start = int(session.raw.get_profiling_start_time_ns())
    clock = clock_of(start, wall_ns=wall, monotonic_ns=monotonic)
    before = time.time_ns() if clock == "wall" else time.monotonic_ns()
    session.run(feeds)
    after = time.time_ns() if clock == "wall" else time.monotonic_ns()
    nodes = [layer.name for layer in small_models.cnn()[0].graph.node]
    (run,) = read_runs(session.end_profiling(), start_ns=start, nodes=nodes)
    assert [window.name for window in run.windows] == nodes
    assert {window.provider for window in run.windows} == {CPU}
    assert before - 1_000_000 <= run.start_ns <= run.windows[0].start_ns
    assert run.windows[-1].end_ns <= run.end_ns + 2000 <= after + 1_000_000


def test_the_clock_is_the_nearer_one():
    assert clock_of(START, wall_ns=START + 5, monotonic_ns=9) == "wall"
    assert clock_of(1000, wall_ns=START, monotonic_ns=900) == "monotonic"


@given(st.integers(-(10**18), 10**18), st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**4)), min_size=1))
def test_the_offset_of_two_clocks_is_found_to_half_the_narrowest_sample(true, reads):
    samples = [(at, at + width // 2 + true, at + width) for at, width in reads]
    assert abs(offset_between(samples) - true) <= 1


def test_a_kernel_belongs_to_the_node_that_launched_it_however_late_it_runs():
    run = run_of(("a", 10, 20), ("b", 20, 30))
    records = Records((launched(1, 12), launched(2, 22)), (kernel(2, "kb", us=5, start=40), kernel(1, "ka", start=600)))
    (found,) = match([run], records)
    assert [item.name for item in found.nodes["a"].work] == ["ka"]
    assert found.nodes["b"].us == 5
    assert found.outside == ()


def test_work_of_no_node_and_of_no_run_is_told_apart():
    runs = [run_of(("a", 10, 20), end=100)]
    records = Records(
        (launched(1, 50), launched(2, 500)), (kernel(1, "input copy"), kernel(2, "between"), kernel(9, start=5000))
    )
    (found,) = match(runs, records)
    assert [item.name for item in found.outside] == ["input copy"]
    assert found.nodes["a"].us == 0


def test_a_launch_of_another_thread_is_not_the_nodes():
    run = run_of(("a", 10, 20))
    records = Records((launched(1, 12), launched(2, 13, thread=8)), (kernel(1, "mine"), kernel(2, "other")))
    (found,) = match([run], records)
    assert [item.name for item in found.nodes["a"].work] == ["mine"]
    assert [item.name for item in found.outside] == ["other"]


def test_threads_are_passed_over_where_the_two_sides_count_them_differently():
    records = Records((launched(1, 12, thread=123456),), (kernel(1, "mine"),))
    (found,) = match([run_of(("a", 10, 20))], records)
    assert [item.name for item in found.nodes["a"].work] == ["mine"]


def test_nested_calls_with_one_id_count_as_the_outer_one():
    run = run_of(("a", 10, 20), ("b", 20, 30))
    records = Records((Launch(1, 18_000, 19_000, 7), Launch(1, 24_000, 25_000, 7)), (kernel(1, "k"),))
    (found,) = match([run], records)
    assert [item.name for item in found.nodes["a"].work] == ["k"]


@given(st.data())
def test_no_microsecond_of_the_gpu_is_lost_or_counted_twice(data):
    """Windows of any widths, launches anywhere in a run: what is inside a window is the node's, the rest is outside."""
    widths = data.draw(st.lists(st.tuples(st.integers(3, 50), st.integers(3, 50)), min_size=1, max_size=12))
    windows, at = [], 10
    for number, (gap, width) in enumerate(widths):
        windows.append((f"n{number}", at + gap, at + gap + width))
        at += gap + width
    run = run_of(*windows, end=at + 100)
    moments = data.draw(st.lists(st.integers(0, at + 100), max_size=30))
    lengths = data.draw(st.lists(st.integers(1, 99), min_size=len(moments), max_size=len(moments)))
    calls = tuple(Launch(number, moment * 1000, moment * 1000, 7) for number, moment in enumerate(moments))
    work = tuple(kernel(number, f"k{number}", us=us, start=5000) for number, us in enumerate(lengths))
    (found,) = match([run], Records(calls, work))
    assert sum(node.us for node in found.nodes.values()) + sum(item.us for item in found.outside) == sum(lengths)
    owner = {item.name: name for name, node in found.nodes.items() for item in node.work}
    for number, moment in enumerate(moments):
        for name, begin, end in windows:
            if begin < moment < end:
                assert owner[f"k{number}"] == name


def test_a_node_on_the_cpu_has_the_time_of_its_call():
    window = NodeWindow("shape", "Shape", CPU, 10_000, 14_000, 7)
    (found,) = match([RecordedRun(0, 100_000, (window,))], Records())
    assert found.nodes["shape"].us == 4
    assert found.nodes["shape"].on_cpu


FUSED = FusionMap(
    (
        Group("cast_in", "Cast", (), None, "cast", "conv"),
        Group("conv", "FusedConv", ("conv", "relu"), "conv", "layer"),
        Group("fc_cast", "Cast", ("x_cast_fp16",), "x_cast_fp16", "layer"),
        Group("fc", "Gemm", ("fc", "x_cast_fp32"), "fc", "layer"),
        Group("Memcpy_token_1", "MemcpyToHost", (), None, "copy", "top"),
        Group("top", "TopK", ("top",), "top", "layer"),
    ),
    {"gone": "Removed by the optimizer: it passes its input through."},
)
SHOWN = ["conv", "relu", "gone", "fc", "top", "nowhere"]


def recorded(scale=1):
    """Two kernels in the conv, one elsewhere each, a copy to the host, a node on the CPU, and one copy of an input."""
    names = [group.node for group in FUSED.groups]
    windows = tuple(
        NodeWindow(name, group.op, CPU if name == "top" else GPU, (10 + 10 * i) * 1000, (18 + 10 * i) * 1000, 7)
        for i, (name, group) in enumerate(zip(names, FUSED.groups, strict=True))
    )
    launches = (*(launched(i, 11 + 10 * i) for i in range(5)), launched(7, 22), launched(8, 2))
    work = (
        kernel(0, "cast_kernel", us=1 * scale),
        kernel(1, "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32", us=20 * scale),
        kernel(7, "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32", us=5 * scale),
        kernel(2, "cast_kernel", us=2 * scale),
        kernel(3, "ampere_sgemm_32x32_tn", us=40 * scale),
        Work(4, "copy, device to host", "copy", 0, 3000 * scale),
        Work(8, "copy, host to device", "copy", 0, 4000 * scale),
    )
    (run,) = match([RecordedRun(0, 300_000, windows)], Records(launches, work))
    return run


def test_rows_tell_layers_fused_groups_inserted_casts_and_copies():
    rows = rows_of([recorded()], FUSED, SHOWN)
    by_id = {row.layer_id: row for row in rows.layers}
    assert [row.layer_id for row in rows.layers] == SHOWN
    assert by_id["conv"].median_us == 25
    assert by_id["conv"].fused_with == ("relu",)
    assert by_id["relu"].median_us == 0
    assert "conv" in by_id["relu"].note
    assert by_id["fc"].median_us == 40
    assert by_id["fc"].fused_with == ()  # the cast that conversion inserted is no layer of the model
    assert by_id["gone"].note.startswith("Removed")
    assert by_id["nowhere"].note
    assert by_id["top"].median_us == 8
    inserted = {row.name: row for row in rows.inserted}
    assert (inserted["cast_in"].kind, inserted["cast_in"].serves) == ("cast", "conv")
    assert inserted["fc_cast"].kind == "cast"
    assert (inserted["Memcpy_token_1"].kind, inserted["Memcpy_token_1"].median_us) == ("copy", 3)
    assert (inserted[OUTSIDE].kind, inserted[OUTSIDE].median_us) == ("copy", 4)


def test_kernels_say_what_they_computed_in_and_which_layers():
    rows = rows_of([recorded(), recorded(3)], FUSED, SHOWN)
    conv = next(row for row in rows.kernels if "fprop" in row.name)
    assert conv.layer_ids == ("conv", "relu")
    assert (conv.format, conv.kind, conv.median_us) == ("fp16", "layer", 50)  # 25 and 75: two launches added up
    assert "2 launches" in conv.note
    assert next(row for row in rows.kernels if "sgemm" in row.name).format == "fp32"
    assert {row.kind for row in rows.kernels if not row.layer_ids} == {"cast", "copy"}
    assert formats_run(rows.kernels) == {"fp16": 50, "fp32": 80}


def test_the_rows_add_up_to_what_the_gpu_and_the_cpu_nodes_worked():
    run = recorded()
    rows = rows_of([run], FUSED, SHOWN)
    worked = sum(node.us for node in run.nodes.values()) + sum(item.us for item in run.outside)
    assert rows.sum_us == pytest.approx(worked)


def test_no_run_makes_no_rows():
    with pytest.raises(ValueError, match="no run"):
        rows_of([], FUSED, SHOWN)


def whole(us):
    return LatencyResult("onnxruntime-cuda", "GPU", "measured on GPU", "fp32", 1, 5, 1, us, 0.0)


def test_overhead_is_the_whole_without_the_layers():
    rows = rows_of([recorded()], FUSED, SHOWN)
    result = with_rows(whole(200.0), rows, placement(helper.make_graph([], "g", [], []), {}, FUSED))
    assert result.overhead_us == pytest.approx(200 - rows.sum_us)
    assert result.kernels == rows.kernels
    assert "CUPTI" in result.provenance
    assert "launches" in " ".join(result.notes)
    short = with_rows(whole(10.0), rows, placement(helper.make_graph([], "g", [], []), {}, FUSED))
    assert "beside each other" in " ".join(short.notes)


def test_work_that_no_node_asked_for_is_warned_of():
    windows = (NodeWindow("conv", "Conv", GPU, 10_000, 18_000, 7),)
    fusion = FusionMap((Group("conv", "Conv", ("conv",), "conv", "layer"),), {})
    nothing = placement(helper.make_graph([], "g", [], []), {}, fusion)
    lost = Records((launched(1, 11), launched(2, 100)), (kernel(1, us=50), kernel(2, us=50)))
    runs = match([RecordedRun(0, 300_000, windows)], lost)
    require_work(runs)
    assert "50 us of the GPU's work" in " ".join(
        with_rows(whole(200.0), rows_of(runs, fusion, ["conv"]), nothing).notes
    )
    kept = Records((launched(1, 11),), (kernel(1, us=50),))
    runs = match([RecordedRun(0, 300_000, windows)], kept)
    assert "no node" not in " ".join(with_rows(whole(200.0), rows_of(runs, fusion, ["conv"]), nothing).notes)


def test_a_silent_recorder_is_no_measurement():
    """Nodes ran on the GPU and nothing was recorded: zeros would be told as times."""
    windows = (NodeWindow("conv", "Conv", GPU, 10_000, 18_000, 7), NodeWindow("shape", "Shape", CPU, 20_000, 21_000, 7))
    with pytest.raises(CuptiUnavailable, match="no work of the GPU"):
        require_work(match([RecordedRun(0, 300_000, windows)], Records()))
    require_work(match([RecordedRun(0, 300_000, windows[1:])], Records()))


def test_layers_on_the_cpu_are_listed_with_the_copies_that_they_cause():
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x"], ["c"], name="conv"),
            helper.make_node("MemcpyToHost", ["c"], ["c_cpu"], name="Memcpy_1"),
            helper.make_node("Unique", ["c_cpu"], ["u"], name="unique"),
            helper.make_node("MemcpyFromHost", ["u"], ["u_gpu"], name="Memcpy_2"),
            helper.make_node("Relu", ["u_gpu"], ["y"], name="relu"),
            helper.make_node("Shape", ["x"], ["s"], name="shape"),
        ],
        "g",
        [],
        [],
    )
    groups = tuple(Group(node.name, node.op_type, (node.name,), node.name, "layer") for node in graph.node)
    fusion = FusionMap(groups, {})
    found = placement(
        graph, {"unique": CPU, "shape": CPU, "conv": GPU}, fusion, has_kernel=lambda _, op: op != "Unique"
    )
    assert [node.node for node in found.cpu] == ["unique", "shape"]
    unique, shape = found.cpu
    assert unique.copies == ("Memcpy_1", "Memcpy_2")
    assert "no kernel for Unique" in unique.reason
    assert shape.copies == ()
    assert "shapes" in shape.reason
    assert [(copy.node, copy.to_host, copy.causes) for copy in found.copies] == [
        ("Memcpy_1", True, ("unique",)),
        ("Memcpy_2", False, ("unique",)),
    ]
    assert "2 copies" in found.reason("unique")
    assert found.reason("conv") == ""
    assert "unique (Unique)" in found.notes()[0]
    assert "2 copies between the devices" in found.notes()[1]


def test_a_model_wholly_on_the_gpu_has_no_notes():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", [], [])
    assert placement(graph, {"relu": GPU}, FusionMap((), {})).notes() == ()


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize128x128x32", "tf32"),
        ("cutlass_80_tensorop_s1688gemm_128x128_16x5_nn_align4", "tf32"),
        ("ampere_sgemm_128x64_nn", "fp32"),
        ("turing_fp16_s1688gemm_fp16_128x64_sliced1x2_nn", "fp16"),
        ("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x3_nn", "fp16"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "bf16"),
        ("void onnxruntime::cuda::_UnaryElementWise<__half, __half>(...)", "fp16"),
        ("void onnxruntime::cuda::_BinaryElementWise<float, float, float>(...)", "fp32"),
        ("sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32", "int8"),
        ("sm90_xmma_gemm_e4m3e4m3_f32", "fp8"),
        ("somebodys_kernel", ""),
    ],
)
def test_a_kernels_name_tells_what_it_computes_in(name, format_):
    assert format_of_kernel(name) == format_


def test_names_of_kernels_are_readable():
    assert short_name("void softmax_warp_forward<float>(float*)") == "softmax_warp_forward"
    assert len(short_name("x" * 500)) == 80


def test_runs_are_kept_apart():
    runs = [
        run_of(("a", 10, 20), end=100),
        RecordedRun(200_000, 300_000, (NodeWindow("a", "Op", GPU, 210_000, 220_000, 7),)),
    ]
    records = Records((launched(1, 12), launched(2, 212)), (kernel(1, us=3), kernel(2, us=7)))
    assert [run.nodes["a"].us for run in match(runs, records)] == [3, 7]
    assert all(isinstance(run, RunWork) for run in match(runs, records))


def test_copies_between_devices_are_traced_to_the_layers_whose_values_they_move():
    """ONNX Runtime renames what a GPU node makes and gives the old name to the copy on the host."""
    nodes = [
        small_models.node("Relu", ["x"], ["a"], name="relu"),
        small_models.node("Sigmoid", ["a"], ["b"], name="sigmoid"),
        small_models.node("Add", ["a", "b"], ["y"], name="add"),
    ]
    source = load_model(
        small_models.model(nodes, [small_models.value("x", [4])], [small_models.value("y", [4])]).SerializeToString()
    )
    ran = [
        helper.make_node("Relu", ["x"], ["a_CUDAExecutionProvider"], name="relu"),
        helper.make_node("MemcpyToHost", ["a_CUDAExecutionProvider"], ["a"], name="Memcpy"),
        helper.make_node("Sigmoid", ["a"], ["b"], name="sigmoid"),
        helper.make_node("MemcpyFromHost", ["b"], ["b_CUDAExecutionProvider"], name="Memcpy_token_1"),
        helper.make_node("Add", ["a_CUDAExecutionProvider", "b_CUDAExecutionProvider"], ["y"], name="add"),
    ]
    graph = helper.make_graph(ran, "g", [], [])
    fusion = map_fusion(source, graph)
    assert {group.node: group.layers for group in fusion.groups if group.layers} == {
        "relu": ("relu",),
        "sigmoid": ("sigmoid",),
        "add": ("add",),
    }
    assert {group.node: (group.kind, group.serves) for group in fusion.groups if not group.layers} == {
        "Memcpy": ("copy", "relu"),
        "Memcpy_token_1": ("copy", "sigmoid"),
    }
    found = placement(graph, {"sigmoid": CPU}, fusion)
    assert found.reason("sigmoid").endswith("it causes 2 copies between the devices.")
