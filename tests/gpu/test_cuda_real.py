"""What only a CUDA device can show; `make test-gpu RUNTIME=gpu` runs it. So far it has not been run."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest

from explorer.backends import kernels_live, onnxruntime_cuda
from explorer.backends.cupti import CuptiUnavailable, find_cupti
from explorer.backends.onnxruntime_cuda import measure_layers, measure_whole, open_session
from explorer.backends.runtime import create_session
from explorer.backends.status import backend_status
from explorer.convert import convert, decide, type_layers
from explorer.model import load_model, load_samples
from explorer.plan import Plan
from explorer.probe import Emulator
from explorer.probe.fidelity import measure_fidelity

SAMPLES = ("lenet5_digits", "digits_transformer")
STATUS = next(item for item in backend_status() if item.name == "onnxruntime-cuda")
TOLERANCE = 1e-4  # relative L2 of fp32 on both sides: another order of summation
HALF = 0.05  # of the fp16 plan's own error: two runs of the same fp16 arithmetic in another order

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(STATUS.state != "ready", reason=f"onnxruntime-cuda is not ready: {STATUS.detail}"),
]


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request, pytestconfig):
    path = pytestconfig.rootpath / "sample_models" / f"{request.param}.onnx"
    model = load_model(path)
    return model, load_samples(model, path.with_suffix(".npz"))


def relative(got, wanted):
    return float(np.linalg.norm(np.float64(got) - wanted) / np.linalg.norm(np.float64(wanted)))


def test_fp32_on_the_gpu_equals_the_cpu(sample):
    model, samples = sample
    feeds = dict(samples.feeds[0])
    on_gpu = open_session(model).run(feeds)
    on_cpu = create_session(model.proto().SerializeToString()).run(feeds)
    for name, wanted in on_cpu.items():
        assert relative(on_gpu[name], wanted) < TOLERANCE


def test_bound_inputs_and_outputs_give_what_a_plain_run_gives(sample):
    model, samples = sample
    feeds = dict(samples.feeds[0])
    session = open_session(model)
    plain = session.run(feeds)
    bound = session.bind(feeds)
    session.raw.run_with_iobinding(bound)
    for name, got in zip(session.output_names, bound.copy_outputs_to_cpu(), strict=True):
        assert relative(got, plain[name]) < TOLERANCE


@pytest.mark.parametrize("plan", [Plan(base="fp32"), Plan()], ids=["fp32", "fp16"])
def test_layers_add_up_to_the_whole(sample, plan):
    """Device times of all nodes are most of a run that the GPU is busy in, and never much more than it."""
    model, samples = sample
    feeds = {name: np.concatenate([array] * 8) for name, array in samples.feeds[0].items()}
    result = measure_layers(convert(model, plan, backend="onnxruntime-cuda"), feeds)
    assert [row.layer_id for row in result.layers] == [layer.id for layer in model.layers]
    assert all(row.median_us > 0 or row.note for row in result.layers)
    total = sum(row.median_us for row in (*result.layers, *result.inserted))
    try:
        find_cupti()
    except CuptiUnavailable:
        assert "isolated" in result.provenance
        return
    assert result.kernels
    assert 0 < total < 1.2 * result.whole_us
    assert result.overhead_us == pytest.approx(result.whole_us - total)
    told = {row.format for row in result.kernels}
    assert "tf32" not in told  # it is off unless asked for
    assert plan.base == "fp16" or "fp16" not in told


def test_without_cupti_layers_are_isolated(sample, monkeypatch):
    model, samples = sample

    def missing():
        raise CuptiUnavailable("Not here.")

    monkeypatch.setattr(onnxruntime_cuda, "find_cupti", missing)
    result = measure_layers(model, dict(samples.feeds[0]), runs=5)
    assert "CUDA events" in result.provenance
    assert sum(row.median_us > 0 for row in result.layers) > len(result.layers) / 2


def test_the_native_switchable_graph_is_the_converted_model(sample):
    """All layers low through the switches, and the model that conversion writes: the same outputs, both on CUDA."""
    model, samples = sample
    typing = type_layers(model, "fp16", "onnxruntime-cuda")
    plan = Plan()
    found = Emulator(typing, samples, native=True, provider="cuda").accumulated(decide(plan, typing), keep_outputs=True)
    conversion = convert(model, plan, backend="onnxruntime-cuda")
    session = open_session(conversion, optimize="none")
    runs = [session.run(dict(batch)) for batch in samples]
    for name, exact in found.exact_outputs.items():
        converted = np.concatenate([run[name] for run in runs])
        own_error = np.linalg.norm(np.float64(converted) - exact)
        apart = np.linalg.norm(np.float64(converted) - found.plan_outputs[name])
        assert apart <= max(HALF * own_error, TOLERANCE * np.linalg.norm(exact))


def test_with_nothing_low_the_native_graph_is_exact(sample):
    model, samples = sample
    typing = type_layers(model, "fp16", "onnxruntime-cuda")
    found = Emulator(typing, samples, native=True, provider="cuda").accumulated(decide(Plan(base="fp32"), typing))
    assert (found.sums.rel_l2 <= TOLERANCE).all()


def test_emulated_errors_are_near_the_real_ones(sample):
    """Not a law, but the claim of docs/fidelity.md: most results within a factor of 1.4."""
    model, samples = sample
    found = measure_fidelity(type_layers(model, "fp16", "onnxruntime-cuda"), samples)
    finite = found.difference_db[np.isfinite(found.difference_db)]
    assert np.mean(np.abs(finite) <= 3.0) > 0.5


def test_too_small_a_limit_of_memory_is_refused_with_what_to_lower(sample):
    model, samples = sample
    feeds = {name: np.concatenate([array] * 64) for name, array in samples.feeds[0].items()}
    with pytest.raises(onnxruntime_cuda.OutOfMemory, match="Lower"):
        measure_whole(model, feeds, memory_limit=1 << 20)


def test_the_snapshot_of_kernels_is_the_live_list():
    live = kernels_live.cuda_kernels()
    if live is None:
        pytest.skip("asking is not safe here: a library that some provider links is missing")
    rows, version = live
    stored = json.loads(
        resources.files("explorer.backends").joinpath("data", "onnxruntime_cuda_kernels.json").read_text("utf-8")
    )
    if stored["onnxruntime"] != version:
        pytest.skip(f"the snapshot is of {stored['onnxruntime']}, installed is {version}")

    def texts(kernels):
        return {
            json.dumps([*row[:4], {name: sorted(kinds) for name, kinds in row[4].items()}], sort_keys=True)
            for row in kernels
        }

    assert texts(rows) == texts(stored["kernels"])
