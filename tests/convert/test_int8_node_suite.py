"""The ONNX backend node suite in int8: every case of an operator that may run in it, against the outputs expected."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import onnx
import pytest
from support.graphs import run

from explorer.calibrate.calibration import Calibration
from explorer.convert import convert
from explorer.errors import ConversionError
from explorer.model import load_model
from explorer.plan import Plan

FLOAT = onnx.TensorProto.FLOAT
OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OLDEST = 10  # QuantizeLinear
FEWEST = 25
SHARE = 0.05  # of the largest output: two operands in 255 steps, sums of a few terms that may cancel


@cache
def cases() -> dict[str, tuple]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own numpy code overflows on purpose
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it runs the suite's numpy code

        found = {}
        for case in collect_testcases(None):
            graph = case.model.graph
            only = len(graph.node) == 1 and graph.node[0].op_type in OPERATORS
            floats = all(info.type.tensor_type.elem_type == FLOAT for info in graph.input)
            if only and floats and case.model.opset_import[0].version >= OLDEST:
                found[case.name] = (case.model, case.data_sets[0])
        return found


def test_there_are_cases():
    assert len(cases()) >= FEWEST


@pytest.mark.parametrize("opset", [13, None])
def test_every_case_is_near_in_int8(opset):
    far, low = {}, 0
    for name, (proto, (inputs, outputs)) in cases().items():
        given = [info.name for info in proto.graph.input]
        feeds = {key: np.asarray(array) for key, array in zip(given, inputs, strict=False)}
        if opset is not None:
            if proto.opset_import[0].version < opset:
                continue
            proto = onnx.ModelProto.FromString(proto.SerializeToString())  # noqa: PLW2901 - the case is shared
            proto.opset_import[0].version = opset
        wanted = np.asarray(outputs[0])
        ranges = {key: float(np.abs(array).max(initial=0)) for key, array in feeds.items()}
        ranges[proto.graph.output[0].name] = float(np.abs(wanted).max(initial=0))
        try:
            made = convert(load_model(proto), Plan(format="int8"), calibration=Calibration(ranges, "minmax", rows=1))
        except ConversionError as error:
            far[name] = str(error)
            continue
        low += bool(made.low_share)
        got = run(made.proto, feeds)[0]
        worst = np.abs(got - wanted).max(initial=0)
        if got.shape != wanted.shape or worst > SHARE * max(1e-6, ranges[proto.graph.output[0].name]):
            far[name] = f"{worst} of {ranges[proto.graph.output[0].name]}"
    assert far == {}
    assert low >= FEWEST
