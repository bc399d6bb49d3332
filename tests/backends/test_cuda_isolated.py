"""Layers run alone, and the whole path of a measurement, with the CPU in the GPU's place."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import small_models
from test_cupti import FakeCupti

from explorer.backends import cuda_isolated, onnxruntime_cuda
from explorer.backends.cuda_isolated import EventTimer, HostTimer, time_isolated
from explorer.backends.graph_view import served_by_inserted, shown_layers, view_of
from explorer.backends.runtime import Cancel, RunCancelled, create_session
from explorer.backends.status import BackendStatus
from explorer.convert import convert
from explorer.errors import BackendError
from explorer.model import load_model
from explorer.plan import Plan

MODELS = sorted(small_models.ALL.keys() - {"deep"})


def loaded(name):
    data, feeds = small_models.serialized(small_models.ALL[name])
    return load_model(data), feeds


class Counting(HostTimer):
    """Counts the layers that it times, and keeps what they returned."""

    def __init__(self):
        super().__init__()
        self.results = []

    def time(self, session, binding, *, repeats, cancel):
        took = super().time(session, binding, repeats=1, cancel=cancel)
        self.results.append({item.name: item for item in session.raw.get_outputs()})
        return took


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_the_main_graph_is_timed_alone(name):
    model, feeds = loaded(name)
    found = time_isolated(model, feeds, Counting(), provider="cpu")
    assert found.failures == {}
    assert set(found.times_us) == {layer.id for layer in model.layers if layer.container is None}
    assert all(min(times) > 0 for times in found.times_us.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_alone_computes_what_it_does_in_the_model(name):
    """Fed with the values of the whole model, the model of one node gives the values behind it."""
    model, feeds = loaded(name)
    place = cuda_isolated._Place("cpu", 0, {}, None)
    whole = cuda_isolated._Whole(model, place)
    made = {}
    for layers, values in whole.parts(feeds):
        made.update({name: value for name, value in values.items() if isinstance(value, np.ndarray)})
        for layer in layers:
            source, weights, fed = whole.alone(layer, values)
            made.setdefault("::alone", {}).update(
                create_session(source, initializers=weights, optimize="none").run(fed)
            )
    alone = made.pop("::alone")
    compared = [name for name in alone if name in made]
    assert compared or len(model.layers) == 1
    for value in compared:
        assert np.array_equal(alone[value], made[value], equal_nan=True)


def test_layers_that_are_alike_are_timed_once(monkeypatch):
    model, feeds = loaded("deep")
    timer = Counting()
    found = time_isolated(model, feeds, timer, provider="cpu")
    assert len(found.times_us) == len(model.layers) == 121
    assert len(timer.results) == 4 * (cuda_isolated._RUNS + 1)  # Conv, Relu, Add, the pool; one of each for warm-up


def test_values_are_taken_in_parts_that_fit(monkeypatch):
    model, feeds = loaded("cnn")
    monkeypatch.setattr(cuda_isolated, "_VALUE_BYTES", 1)
    whole = cuda_isolated._Whole(model, cuda_isolated._Place("cpu", 0, {}, None))
    parts = [len(layers) for layers, _ in whole.parts(feeds)]
    assert sum(parts) == len(model.layers)
    assert max(parts) <= 2


def test_isolated_timing_can_be_cancelled():
    model, feeds = loaded("cnn")
    token = Cancel()
    with pytest.raises(RunCancelled):
        time_isolated(model, feeds, Counting(), provider="cpu", progress=lambda _: token.cancel(), cancel=token)


class FakeDevice:
    """A GPU's stream and events, by the clock of the test."""

    stream = 4711

    def __init__(self):
        self.log, self.clock = [], 0.0

    def event(self):
        self.log.append("event")
        return [0.0]

    def record(self, event):
        event[0] = self.clock
        self.clock += 80.0

    def synchronize(self):
        self.log.append("wait")

    def elapsed_us(self, start, end):
        return end[0] - start[0]

    def drop_event(self, event):
        self.log.append("drop")


def test_cuda_events_frame_the_runs_on_the_sessions_stream():
    model, feeds = loaded("twins")
    device = FakeDevice()
    timer = EventTimer(device)
    assert timer.options == {"user_compute_stream": "4711", "has_user_compute_stream": "1"}
    session = create_session(model.proto().SerializeToString())
    assert timer.time(session, session.bind(feeds), repeats=4, cancel=None) == 20.0
    assert device.log == ["event", "event", "wait", "drop", "drop"]


@pytest.fixture
def stand_in(monkeypatch):
    """Let the CUDA backend run on this CPU, and remember the provider options that it asked for."""
    ready = BackendStatus("onnxruntime-cuda", "ready", devices=("Test GPU",))
    monkeypatch.setattr(onnxruntime_cuda, "backend_status", lambda: (ready,))
    asked = []

    def on_cpu(source, *, provider="cpu", device=0, provider_options=None, **settings):
        asked.append(dict(provider_options or {}))
        return create_session(source, **settings)

    monkeypatch.setattr(onnxruntime_cuda, "create_session", on_cpu)
    monkeypatch.setattr(cuda_isolated, "create_session", on_cpu)
    return asked


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_measurement_has_a_row_for_every_layer(stand_in, monkeypatch, name):
    """The whole path, profile and records and rows; here every node is one that fell back to the CPU."""
    monkeypatch.setattr(onnxruntime_cuda, "find_cupti", FakeCupti)
    model, feeds = loaded(name)
    progress = []
    result = onnxruntime_cuda.measure_layers(model, feeds, runs=5, warmup=1, progress=progress.append)
    assert [row.layer_id for row in result.layers] == [layer.id for layer in model.layers]
    assert result.overhead_us == pytest.approx(
        result.whole_us - sum(row.median_us for row in (*result.layers, *result.inserted))
    )
    assert any(row.median_us > 0 for row in result.layers)
    assert all(row.median_us > 0 or row.note for row in result.layers)
    assert any("ran on the CPU" in note for note in result.notes)
    assert "CUPTI" in result.provenance
    assert progress[-1] == 1.0
    assert all(options["use_tf32"] == "0" and options["enable_cuda_graph"] == "0" for options in stand_in)


@pytest.mark.parametrize("name", ["cnn", "transformer_block", "branching"])
def test_a_conversion_has_the_rows_of_its_source_and_its_casts_apart(stand_in, monkeypatch, name):
    monkeypatch.setattr(onnxruntime_cuda, "find_cupti", FakeCupti)
    model, feeds = loaded(name)
    conversion = convert(model, Plan("fp16", keep_io=True).use("fp32", layers=[model.layers[0].id]))
    assert conversion.casts
    result = onnxruntime_cuda.measure_layers(conversion, feeds, runs=5, warmup=1)
    assert [row.layer_id for row in result.layers] == [layer.id for layer in model.layers]
    assert shown_layers(conversion) == model.layers
    ids = {layer.id for layer in model.layers}
    assert ids.isdisjoint(cast.name for cast in conversion.casts)
    casts = [row for row in result.inserted if row.name in {cast.name for cast in conversion.casts}]
    assert all(row.kind == "cast" and row.serves in ids for row in casts)
    assert "fp16" in result.formats
    assert "computed mostly in fp32" not in result.formats


def test_low_inputs_are_cast_for_a_conversion_that_changes_them(stand_in):
    model, feeds = loaded("cnn")
    conversion = convert(model, Plan("fp16", keep_io=False))
    assert onnxruntime_cuda.measure_whole(conversion, feeds, runs=5).whole_us > 0


def test_without_cupti_layers_are_isolated_and_every_text_says_so(stand_in, monkeypatch):
    model, feeds = loaded("cnn")
    device = FakeDevice()
    device.__class__.__enter__ = lambda self: self
    device.__class__.__exit__ = lambda *_: None
    monkeypatch.setattr("explorer.backends.tensorrt.device.open_device", lambda index: device)
    result = onnxruntime_cuda.measure_layers(model, feeds, runs=5, warmup=1)
    assert "isolated, each run alone, timed by CUDA events" in result.provenance
    assert any("isolated" in note and "cupti-python" in note for note in result.notes)
    assert all("isolated" in row.note for row in result.layers)
    assert result.overhead_us is None
    assert result.kernels == ()
    assert any("user_compute_stream" in options for options in stand_in)


def test_without_a_driver_library_the_hosts_clock_is_named(stand_in):
    model, feeds = loaded("twins")
    result = onnxruntime_cuda.measure_layers(model, feeds, runs=5, warmup=0)
    assert "isolated, each run alone, timed by the host's clock" in result.provenance


def refuses(*_, **__):
    raise FakeCupti.cuptiError(39)


def cut(path, **_):
    raise BackendError(f"ONNX Runtime's profile '{path.name}' holds no complete run (0 events).")


@pytest.mark.parametrize(
    ("place", "instead", "words"),
    [
        ("activity_enable", refuses, "CUPTI cannot record here"),
        ("activity_flush_all", refuses, "CUPTI did not hand over what it recorded"),
        ("activity_disable", refuses, "CUPTI did not hand over what it recorded"),
        ("read_runs", cut, "holds no complete run"),
    ],
)
def test_whatever_fails_in_recording_leaves_the_whole_and_isolated_times(stand_in, monkeypatch, place, instead, words):
    monkeypatch.setattr(onnxruntime_cuda, "find_cupti", FakeCupti)
    monkeypatch.setattr(FakeCupti if place.startswith("activity") else onnxruntime_cuda, place, instead)
    model, feeds = loaded("twins")
    result = onnxruntime_cuda.measure_layers(model, feeds, runs=5, warmup=0)
    assert result.whole_us > 0
    assert "isolated" in result.provenance
    assert any("isolated" in note and words in note for note in result.notes)


def test_a_recording_that_is_cancelled_is_not_followed_by_another_way(stand_in, monkeypatch):
    """Cancelled while it records; that CUPTI then fails as well is not what is told."""
    token = Cancel()
    monkeypatch.setattr(onnxruntime_cuda, "find_cupti", FakeCupti)
    monkeypatch.setattr(FakeCupti, "activity_register_callbacks", lambda *_: token.cancel())
    monkeypatch.setattr(FakeCupti, "activity_flush_all", refuses)
    model, feeds = loaded("twins")
    with pytest.raises(RunCancelled):
        onnxruntime_cuda.measure_layers(model, feeds, runs=5, warmup=0, cancel=token)


def test_tf32_is_on_only_where_asked_for(stand_in):
    model, feeds = loaded("twins")
    result = onnxruntime_cuda.measure_whole(model, feeds, runs=5, tf32=True, memory_limit=1 << 30)
    assert stand_in[-1] == {"use_tf32": "1", "enable_cuda_graph": "0", "gpu_mem_limit": str(1 << 30)}
    assert "tf32" in result.formats


def test_the_view_of_a_conversion_has_its_nodes_and_bodies():
    model, _ = loaded("branching")
    conversion = convert(model, Plan("fp16"))
    view = view_of(conversion)
    assert {layer.id for layer in view.layers} == set(view.nodes)
    assert {layer.id for layer in model.layers} <= set(view.nodes)
    inner = next(layer for layer in view.layers if layer.id == "then/mul")
    assert inner.container == "if"


def test_what_conversion_inserted_serves_the_layer_beside_it():
    model, _ = loaded("cnn")
    conversion = convert(model, Plan("fp16").use("fp32", layers=["fc/matmul"]))
    served = served_by_inserted(conversion)
    assert set(served) == {cast.name for cast in conversion.casts}
    by_value = {cast.value: served[cast.name] for cast in conversion.casts}
    assert by_value["x"] == "conv"  # nothing makes a model input: the layer that reads it
    assert by_value["fi"] == "identity"
    assert served_by_inserted(model) == {}


def test_this_runtime_offers_what_the_backend_asks_for():
    """Names of ONNX Runtime's interface that only a GPU machine would miss otherwise."""
    assert hasattr(onnxruntime.InferenceSession, "get_profiling_start_time_ns")
    assert hasattr(onnxruntime.RunOptions(), "add_run_config_entry")
    assert hasattr(onnxruntime.OrtValue, "ortvalue_from_numpy")
