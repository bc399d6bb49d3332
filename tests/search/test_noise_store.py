"""What a search keeps of its measurements: found again, and never in the way."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import explorer
from explorer.search.store import Store

SQUARES = np.array([1.5, np.inf])


def opened(scale=1.0, rows=4):
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.full(2, scale, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return explorer.open(model, inputs={"x": np.ones((rows, 2), np.float32)}, target=None)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))
    return tmp_path


def store_of(x, low_format="fp16"):
    return Store.open(x.results.typing(low_format, None), x.samples)


def filled(x):
    store = store_of(x)
    store.batches = 3
    store.put(["a"], SQUARES)
    store.put(["a", "b"], 2 * SQUARES)
    store.save()
    return store


def test_what_was_kept_is_found_again_infinities_too():
    filled(opened())
    store = store_of(opened())
    assert store.batches == 3
    assert store.get(["a"]) == [1.5, np.inf]
    assert store.get(["a", "b"]) == [3.0, np.inf]
    assert store.get(["b"]) is None


def test_another_model_format_or_sample_knows_nothing_of_it():
    filled(opened())
    for other in (store_of(opened(scale=1.5)), store_of(opened(rows=5)), store_of(opened(), "bf16")):
        assert other.batches is None
        assert other.get(["a"]) is None


def test_another_number_of_batches_forgets_what_was_measured():
    store = filled(opened())
    store.batches = 3
    assert store.get(["a"])
    store.batches = 2
    assert store.get(["a"]) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 0, "batches": 1, "squares": {}}', "\x00\xff"]
)
def test_a_broken_file_is_measured_afresh_and_written_anew(folder, text):
    filled(opened())
    (file,) = (folder / "noise").iterdir()
    file.write_text(text, encoding="utf-8")
    assert store_of(opened()).get(["a"]) is None
    filled(opened())
    assert store_of(opened()).get(["a"]) == [1.5, np.inf]
    assert [each.name for each in (folder / "noise").iterdir()] == [file.name]  # nothing half-written stays


def test_a_folder_that_cannot_be_written_stops_nothing(folder, monkeypatch):
    (folder / "file").write_text("in the way")
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(folder / "file"))
    store = filled(opened())
    assert store.get(["a"]) == [1.5, np.inf]
    assert store_of(opened()).get(["a"]) is None


def test_the_folder_stays_bounded_and_keeps_the_newest(folder, monkeypatch):
    monkeypatch.setattr("explorer.search.store._MOST_FILES", 3)
    for scale in range(1, 6):
        filled(opened(scale=float(scale)))
    assert len(list((folder / "noise").iterdir())) == 3
    assert store_of(opened(scale=5.0)).batches == 3


def test_the_file_says_its_version(folder):
    filled(opened())
    (file,) = (folder / "noise").iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["version"] >= 1
