"""Kernels of an int8 plan on the CPU: each with the layers of the model that it computes, and its own format."""

from __future__ import annotations

from pathlib import Path

import pytest

import explorer
from explorer.backends.onnxruntime_cpu import measure_layers
from explorer.plan import Plan
from explorer.results.measuring import measure_plan

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
CPU = "onnxruntime-cpu"


@pytest.fixture(scope="module")
def lenet():
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz", target=CPU)
    x.calibrate(SAMPLES / "digits_train.npz", cache=False)
    return x


def test_every_node_that_runs_is_a_kernel_and_times_add_up(lenet):
    found = measure_plan(lenet.results, Plan(format="int8"), CPU, CPU, runs=5)
    ids = {layer.id for layer in lenet.model.layers}
    assert all(set(kernel.layer_ids) <= ids for kernel in found.kernels)
    told = sum(kernel.median_us for kernel in found.kernels)
    assert told == pytest.approx(sum(row.median_us for row in (*found.layers, *found.inserted)))
    assert {kernel.kind for kernel in found.kernels} <= {"layer", "cast", "reformat", "other"}


def test_lenet_runs_in_integers_throughout(lenet):
    found = measure_plan(lenet.results, Plan(format="int8"), CPU, CPU, runs=5)
    products = {layer.id for layer in lenet.model.layers if layer.op in ("Conv", "Gemm", "MatMul")}
    ran = {name: kernel.format for kernel in found.kernels for name in kernel.layer_ids if name in products}
    assert ran == dict.fromkeys(products, "int8")
    inserted = [kernel for kernel in found.kernels if not kernel.layer_ids]
    assert inserted
    assert {kernel.kind for kernel in inserted} <= {"cast", "reformat", "other"}
    (first,) = [kernel for kernel in inserted if kernel.note == "QuantizeLinear" and kernel.name.startswith("image")]
    assert first.kind == "cast"


def test_kernels_of_the_fp32_model(lenet):
    found = measure_layers(lenet.model, lenet.samples.feeds[0], runs=5)
    covered = {name for kernel in found.kernels for name in kernel.layer_ids}
    assert {layer.id for layer in lenet.model.layers if layer.op in ("Conv", "Gemm")} <= covered
    formats = {kernel.format for kernel in found.kernels if kernel.note in ("Conv", "Gemm", "FusedGemm")}
    assert formats == {"fp32"}
    assert "int8" not in {kernel.format for kernel in found.kernels}
