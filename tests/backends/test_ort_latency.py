"""Times by layer on the CPU: every layer has a row, fused ones say so, and the rows add up to the profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import small_models
from small_models import GELU, LAYER_NORM, node

from explorer.backends import onnxruntime_cpu
from explorer.backends.onnxruntime_cpu import measure_layers, measure_whole
from explorer.backends.profiles import ProfiledRun, read_profile
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.errors import BackendError, InputError
from explorer.model import load_model

if TYPE_CHECKING:
    from explorer.backends.latency import LatencyResult


def measure(name: str, **settings) -> LatencyResult:
    data, feeds = small_models.serialized(small_models.ALL[name])
    return measure_layers(load_model(data), feeds, **({"runs": 6, "warmup": 2} | settings))


@pytest.fixture(scope="module", params=sorted(small_models.ALL))
def measured(request):
    data, feeds = small_models.serialized(small_models.ALL[request.param])
    model = load_model(data)
    return model, measure_layers(model, feeds, runs=6, warmup=2)


def test_every_layer_has_one_row_in_the_models_order(measured):
    model, result = measured
    assert [row.layer_id for row in result.layers] == [layer.id for layer in model.layers]


def test_the_parts_add_up_to_the_profiled_run(measured):
    _, result = measured
    parts = sum(row.median_us for row in (*result.layers, *result.inserted))
    assert parts + result.overhead_us + result.interference_us == pytest.approx(result.profiled_us)
    assert result.overhead_us >= 0


def test_no_time_of_any_node_is_lost(monkeypatch):
    """With times made up (1, 2, 4 ... us for the nodes, 10 us of executor) every microsecond is found again."""
    made = {}

    def fake(path, *, nodes, body_nodes=()):
        runs = read_profile(path, nodes=nodes, body_nodes=body_nodes)
        times = {name: 2.0**index for index, name in enumerate(nodes)}
        made["sum"] = sum(times.values())
        return tuple(ProfiledRun(made["sum"] + 10, times) for _ in runs)

    monkeypatch.setattr(onnxruntime_cpu, "read_profile", fake)
    for name in small_models.ALL.keys() - {"deep"}:
        result = measure(name)
        assert sum(row.median_us for row in (*result.layers, *result.inserted)) == made["sum"]
        assert (result.overhead_us, result.interference_us) == (10, 0)
        assert result.profiled_us == made["sum"] + 10


def test_a_busy_machine_is_told(monkeypatch):
    def fake(path, *, nodes, body_nodes=()):
        count = len(read_profile(path, nodes=nodes, body_nodes=body_nodes))
        slow = [
            {name: 10.0 + 1000 * (index == run % len(nodes)) for index, name in enumerate(nodes)}
            for run in range(count)
        ]
        return tuple(ProfiledRun(sum(times.values()), times) for times in slow)

    monkeypatch.setattr(onnxruntime_cpu, "read_profile", fake)
    result = measure("transformer_block")
    assert result.interference_us == 1000
    assert any("idle machine" in note for note in result.notes)


def test_a_layer_without_time_of_its_own_says_why(measured):
    _, result = measured
    for row in result.layers:
        assert row.median_us > 0 or row.note


def test_fused_layers_name_each_other(measured):
    _, result = measured
    for row in result.layers:
        for other in row.fused_with:
            assert set(result.layer(other).fused_with) | {other} == set(row.fused_with) | {row.layer_id}


def test_a_fused_groups_time_stands_once(measured):
    _, result = measured
    for row in result.layers:
        group = [row, *(result.layer(other) for other in row.fused_with)]
        assert sum(item.median_us > 0 for item in group) <= 1


def test_the_result_says_how_it_was_measured(measured):
    _, result = measured
    assert result.runs == 6
    assert result.threads >= 1
    assert result.device in result.provenance
    assert result.provenance.startswith("measured on")
    assert f"{result.threads} thread" in result.provenance
    assert result.whole_us > 0


def test_no_time_is_left_without_a_layer(measured):
    """Whatever ONNX Runtime renames, each node is traced to a layer, or to the layer that it serves."""
    _, result = measured
    assert [row for row in result.inserted if row.kind == "other" or row.serves is None] == []


def test_conv_batch_norm_and_relu_are_one():
    result = measure("cnn")
    assert set(result.layer("conv").fused_with) == {"bn", "relu"}
    assert result.layer("conv").median_us > 0


def test_a_residual_add_and_its_relu_belong_to_the_convolution_before_them():
    result = measure("cnn")
    assert set(result.layer("block/conv").fused_with) == {"block/add", "block/relu"}
    assert result.layer("pool").fused_with == ()


def test_matmul_and_add_become_a_gemm_shown_at_the_matmul():
    result = measure("cnn")
    assert result.layer("fc/matmul").fused_with == ("fc/add",)
    assert result.layer("fc/matmul").median_us > 0
    assert "Gemm" in result.layer("fc/matmul").note
    assert "'fc/matmul'" in result.layer("fc/add").note


def test_an_identity_is_removed_and_says_so():
    row = measure("cnn").layer("identity")
    assert row.median_us == 0
    assert "Removed" in row.note


def test_layout_changes_of_the_blocked_kernels_are_rows_of_their_own():
    reorders = [row for row in measure("cnn").inserted if row.kind == "reorder"]
    assert [row.serves for row in reorders] in ([], ["pool"])  # none where the CPU has no blocked kernels


def test_gelu_and_layer_norm_patterns_are_found_whole():
    result = measure("transformer_block")
    assert set(result.layer("gelu/half").fused_with) >= set(GELU) - {"gelu/half"}
    norm = {f"ln/{name}" for name in LAYER_NORM}
    assert set(result.layer("ln/add").fused_with) >= norm - {"ln/add"}


def test_what_depends_on_weights_alone_is_folded():
    row = measure("transformer_block").layer("weight/transpose")
    assert row.median_us == 0
    assert "constant" in row.note


def test_time_in_a_body_stays_with_its_container():
    result = measure("branching")
    assert result.layer("if").median_us > 0
    for inner in ("then/sigmoid", "then/mul", "neg"):
        assert result.layer(inner).median_us == 0
        assert "'if'" in result.layer(inner).note


def test_a_loop_that_profiling_slows_down_is_reported():
    result = measure("looping")
    assert result.layer("loop").median_us > 5 * result.layer("exp").median_us
    assert any("profiling adds" in note for note in result.notes)


def test_half_precision_on_the_cpu_is_never_shown_as_its_speed():
    result = measure("half_precision")
    assert "computed mostly in fp32" in result.formats
    assert any("say nothing about the speed of fp16" in note for note in result.notes)
    assert {row.kind for row in result.inserted} == {"cast"}
    assert {row.serves for row in result.inserted} == {"matmul", "relu"}


def test_a_float32_model_is_called_so():
    result = measure("cnn")
    assert result.formats == "fp32"


def test_cancelled_transposes_are_not_fused_into_what_is_between_them():
    result = measure("channels_last")
    for name in ("to_last", "to_first"):
        assert result.layer(name).fused_with == ()
        assert "Removed" in result.layer(name).note
    assert result.layer("sigmoid").fused_with in {(), ("conv1",)}  # blocked kernels take the activation in


def test_a_repeated_computation_is_named_as_done_once():
    result = measure("twins")
    notes = [result.layer(name).note for name in ("exp1", "exp2")]
    assert sorted(bool(note) for note in notes) == [False, True]
    assert "Same computation as 'exp" in "".join(notes)


def test_a_quantized_matmul_takes_its_neighbours_in():
    result = measure("quantized")
    assert set(result.layer("matmul").fused_with) == {"dq", "q_out"}


def test_the_users_own_casts_are_layers():
    result = measure("explicit_casts")
    assert all(result.layer(name).median_us > 0 for name in ("down", "up", "relu"))
    assert result.inserted == ()


def test_the_whole_model_is_measured_without_layers():
    data, feeds = small_models.serialized(small_models.cnn)
    result = measure_whole(load_model(data), feeds, runs=5, warmup=1, threads=1)
    assert result.threads == 1
    assert result.layers == ()
    assert result.profiled_us is None
    assert result.whole_us > 0


def test_a_small_budget_gives_fewer_runs_but_at_least_five():
    assert measure("cnn", runs=1000, budget_s=0.0).runs == 5


def test_progress_goes_from_nothing_to_all():
    seen = []
    measure("twins", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_cancelling_stops_the_measurement():
    token = Cancel()
    with pytest.raises(RunCancelled):
        measure("deep", runs=1000, cancel=token, progress=lambda _: token.cancel())


@pytest.mark.parametrize(("runs", "warmup"), [(0, 0), (3, -1)])
def test_an_impossible_number_of_runs_is_refused(runs, warmup):
    with pytest.raises(InputError):
        measure("twins", runs=runs, warmup=warmup)


def test_missing_feeds_are_named():
    data, _ = small_models.serialized(small_models.twins)
    with pytest.raises(InputError, match="Missing inputs: x"):
        measure_layers(load_model(data), {})


def test_the_model_is_not_modified():
    data, feeds = small_models.serialized(small_models.cnn)
    model = load_model(data)
    before = model.digest
    measure_layers(model, feeds, runs=1, warmup=0)
    assert model.digest == before


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", 'a,"args" : {', "caf\u00e9/层", "line\nbreak", "<b>&amp;"])
def test_strange_layer_names_are_measured_too(name):
    nodes = [node("Exp", ["x"], ["e"], name=name), node("Sigmoid", ["e"], ["y"], name="last")]
    graph = small_models.model(nodes, [small_models.value("x", [4])], [small_models.value("y", [4])])
    model = load_model(graph.SerializeToString())
    result = measure_layers(model, {"x": small_models.noise(4)}, runs=2, warmup=0)
    assert [row.layer_id for row in result.layers] == [layer.id for layer in model.layers]
    assert result.layers[0].median_us > 0
    assert result.inserted == ()


def event(name, start, duration, category="Node"):
    return {"cat": category, "name": name, "ts": start, "dur": duration, "args": {}}


def written(folder, events):
    path = folder / "profile.json"
    lines = (json.dumps(item, separators=(",", ":")) for item in events)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")  # ONNX Runtime writes one event a line
    return path


def test_events_of_a_body_are_not_counted_twice_even_under_a_name_of_the_main_graph(tmp_path):
    events = [
        event("a_kernel_time", 10, 5),
        event("a_kernel_time", 21, 3),  # in the body of `if`, written before it
        event("inner_kernel_time", 25, 2),
        event("if_kernel_time", 20, 9),
        event("SequentialExecutor::Execute", 9, 21, "Session"),
        event("model_run", 8, 24, "Session"),
    ]
    (run,) = read_profile(written(tmp_path, events), nodes=["a", "if"], body_nodes=["a", "inner"])
    assert run.nodes_us == {"if": 9.0, "a": 5.0}
    assert run.total_us == 24.0


def test_an_unfinished_run_is_left_out(tmp_path):
    events = [event("a_kernel_time", 1, 2), event("model_run", 0, 4, "Session"), event("a_kernel_time", 6, 2)]
    assert len(read_profile(written(tmp_path, events), nodes=["a"])) == 1


def test_a_profile_without_a_complete_run_is_an_error(tmp_path):
    with pytest.raises(BackendError, match="no complete run"):
        read_profile(written(tmp_path, [event("a_kernel_time", 1, 2)]), nodes=["a"])


def test_a_damaged_profile_is_an_error(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('[\n{"cat" : "Node","du,"args" : {}},\n]', encoding="utf-8")
    with pytest.raises(BackendError, match="not JSON"):
        read_profile(path, nodes=["a"])


def test_profiles_leave_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    measure("twins")
    assert list(tmp_path.iterdir()) == []
