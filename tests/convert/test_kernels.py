"""Decisions that depend on which kernels a backend has."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import chain, formats, model, node, value, weight

from explorer.convert import convert, type_layers
from explorer.errors import BackendError
from explorer.model import load_model
from explorer.plan import Plan

NODES = [
    node("MatMul", ["x", "w"], ["a"], "mm"),
    node("Softmax", ["a"], ["b"], "soft"),
    node("Det", ["c3"], ["d"], "det"),
    node("Transpose", ["b"], ["y"], "t"),
]


def source():
    inputs = [value("x"), value("c3", (3, 3))]
    return load_model(model(NODES, inputs, [value("y", (4, 2)), value("d", ())], [weight("w", np.eye(4))]))


def test_without_a_backend_the_schemas_decide():
    assert formats(convert(source(), Plan())) == {"mm": "fp16", "soft": "fp16", "det": "fp16", "t": "fp16"}


def test_cuda_from_the_snapshot_runs_low_what_has_a_kernel_there():
    got = convert(source(), Plan(), backend="onnxruntime-cuda")
    assert formats(got) == {"mm": "fp16", "soft": "fp16", "det": "fp32", "t": "fp16"}
    assert got.decisions["det"].reason.startswith("onnxruntime-cuda has no tensor(float16) kernel for Det")


def test_the_cpu_has_no_half_precision_arithmetic():
    got = convert(source(), Plan(), backend="onnxruntime-cpu")
    assert formats(got)["mm"] == "fp32"
    assert "no tensor(float16) kernel for MatMul" in got.decisions["mm"].reason


def test_an_override_cannot_conjure_a_kernel():
    got = convert(source(), Plan().set({"mm": "fp16"}), backend="onnxruntime-cpu")
    assert formats(got)["mm"] == "fp32"
    assert got.decisions["mm"].overruled


def test_a_backend_without_a_list_allows_what_the_schemas_allow():
    assert formats(convert(source(), Plan(), backend="tensorrt"))["det"] == "fp16"


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(BackendError, match="onnxruntime-cuda"):
        type_layers(load_model(chain(2)), "fp16", "onnxruntime-cudda")
