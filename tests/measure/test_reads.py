"""What layers lose on reading: a layer whose result is not stored in the format rounds its data all the same."""

import numpy as np
import pytest
from support.graphs import model, node, value, weight

import explorer
from explorer.calibrate import Calibration
from explorer.plan import Plan

ROWS = np.linspace(1, 10, 40, dtype=np.float32).reshape(10, 4)


def opened(ranges: dict[str, float], rows=ROWS) -> explorer.Exploration:
    """A product, an activation, and another product; no result of these is stored in int8."""
    nodes = [
        node("MatMul", ["x", "w"], ["m"], "first"),
        node("Abs", ["m"], ["a"], "size"),
        node("MatMul", ["a", "v"], ["y"], "second"),
    ]
    weights = [weight("w", np.eye(4)), weight("v", np.eye(4))]
    x = explorer.open(model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], weights), inputs={"x": rows})
    x.plan = Plan(format="int8")
    x.calibration = Calibration({"x": 10.0, "m": 10.0, "a": 10.0, "y": 10.0} | ranges, "minmax", 10)
    return x


def rows_of(x: explorer.Exploration):
    return x.errors().set_index("id")


def test_a_product_counts_what_it_reads_and_not_its_result():
    """The result is beyond the range that was found for it, and no one stores it there."""
    table = rows_of(opened({"x": 5.5, "y": 1.0}))
    assert table.loc["first", "reads_beyond"] == np.mean(ROWS > 5.5)
    assert table.loc["second", "reads_beyond"] == 0
    assert table.loc["second", ["overflow", "flushed", "subnormal"]].tolist() == [0, 0, 0]


def test_what_another_layer_makes_is_counted_too():
    table = rows_of(opened({"a": 2.0}))
    assert table.loc["second", "reads_beyond"] == np.mean(ROWS > 2.0)
    assert table.loc["first", "reads_beyond"] == 0


def test_a_new_calibration_is_counted_anew():
    x = opened({"x": 5.5})
    before = rows_of(x).loc["first", "reads_beyond"]
    x.calibration = Calibration({"x": 1.5, "m": 10.0, "a": 10.0, "y": 10.0}, "minmax", 10)
    assert before < rows_of(x).loc["first", "reads_beyond"] == np.mean(ROWS > 1.5)


def test_a_layer_that_runs_high_rounds_nothing_on_reading():
    x = opened({"x": 5.5, "y": 1.0})
    x.plan = x.plan.block(layers=["first", "second"])
    table = rows_of(x)
    assert table["reads_beyond"].isna().all()
    assert table.loc["second", "overflow"] == np.count_nonzero(ROWS > 1.0), "what it would lose, were it stored"


@pytest.mark.parametrize("target", ["onnxruntime-cuda", None])
def test_in_fp16_it_is_what_becomes_infinite(target):
    x = opened({}, ROWS * np.float32(10_000))
    x.target = target
    x.plan = Plan()
    table = rows_of(x)
    assert table.loc["first", "reads_beyond"] == np.mean(ROWS * 10_000 > 65_504)
    assert table.loc["first", "overflow"] == np.count_nonzero(ROWS * 10_000 > 65_504)


def test_the_finding_names_what_is_read():
    found = {each.id: each for each in opened({"x": 5.5, "y": 1.0}).findings()}
    assert found["int8-saturates"].layers == ("first",)
    assert "of the values that it reads" in found["int8-saturates"].evidence
