"""A model is calibrated once for the same samples and method; what is kept is found again, and nothing else."""

import json

import numpy as np
import onnx
import pytest
from support.graphs import chain, node, value
from support.graphs import model as model_of

import explorer.calibrate.run as calibration_run
from explorer.calibrate import Calibration, calibrate
from explorer.calibrate.cache import _MOST, Cache
from explorer.errors import CalibrationError, ExportError
from explorer.model import load_model, load_samples

ROWS = np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def runs(monkeypatch):
    """Grows by one with every calibration that runs the model."""
    count = []
    real = calibration_run.Activations
    monkeypatch.setattr(calibration_run, "Activations", lambda *args, **more: count.append(1) or real(*args, **more))
    return count


def saved(path, layers: int = 3, change: float = 0.0):
    proto = chain(layers)
    if change:
        weights = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
        weights.flat[0] += change
        proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, proto.graph.initializer[0].name))
    onnx.save(proto, path)
    return load_model(path)


def found(model, rows=ROWS, batch_size=None, **settings):
    return calibrate(model, load_samples(model, {"x": rows}, batch_size=batch_size), **settings)


def test_it_lies_beside_the_model_and_is_reused(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    first = found(model)
    file = tmp_path / "net.calibration.json"
    assert first.notes == (f"Kept in {file}.",)
    assert file.exists()
    told = []
    second = found(load_model(tmp_path / "net.onnx"), progress=lambda *step: told.append(step))
    assert second == first
    assert runs == [1]
    assert second.notes == (f"Taken from {file}: nothing was calibrated anew.",)
    assert told == [(f"calibration taken from {file}", 1, 1)]
    assert second.found_in == str(file)
    assert not folder.exists()


@pytest.mark.parametrize(
    "other",
    [
        {"method": "minmax"},
        {"method": "entropy"},
        {"percentile": 99.0},
        {"most": 10},
        {"rows": ROWS + 1},
        {"rows": ROWS[:39]},
        {"rows": ROWS[::-1].copy()},
    ],
)
def test_another_method_setting_or_sample_is_calibrated_beside_it(other, tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    first, second = found(model), found(model, **other)
    assert len(runs) == 2
    assert found(model) == first
    assert found(model, **other) == second
    assert len(runs) == 2


def test_a_percentile_is_nothing_to_other_methods(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    found(model, method="minmax", percentile=99.0)
    found(model, method="minmax", percentile=90.0)
    assert runs == [1]


@pytest.mark.parametrize("batch_size", [1, 7, 39])
def test_the_size_of_a_batch_makes_no_other_samples(batch_size, tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    first = found(model)
    assert found(model, batch_size=batch_size) == first
    assert runs == [1]


def test_other_rows_are_other_samples(tmp_path, folder, runs):
    """Whole batches are chosen, so that their size decides which rows are used where not all are."""
    model = saved(tmp_path / "net.onnx")
    first, second = (found(model, batch_size=size, most=20) for size in (10, 4))
    assert len(runs) == 2
    assert first.rows == second.rows == 20
    assert first.data_hash != second.data_hash


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_an_input_without_a_batch_axis_counts_once_in_the_hash(change, tmp_path, folder, runs):
    proto = model_of(
        [node("Add", ["x", "shift"], ["y"], "sum")], [value("x", ["n", 8]), value("shift", [8])], [value("y", ["n", 8])]
    )
    onnx.save(proto, tmp_path / "net.onnx")
    model = load_model(tmp_path / "net.onnx")
    for size, shift in ((8, 0.0), (5, change)):
        data = {"x": ROWS, "shift": np.full(8, 1 + shift, np.float32)}
        calibrate(model, load_samples(model, data, batch_size=size))
    assert len(runs) == (2 if change else 1)


@pytest.mark.parametrize("change", [{"layers": 4}, {"change": 1e-3}])
def test_a_changed_model_is_calibrated_anew(change, tmp_path, folder, runs):
    """A single weight that changed is enough."""
    found(saved(tmp_path / "net.onnx"))
    second = found(saved(tmp_path / "net.onnx", **change))
    assert len(runs) == 2
    assert second.found_in == ""


def test_nothing_is_kept_where_that_is_asked(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    found(model, cache=False)
    found(model, cache=False)
    assert len(runs) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


def test_a_model_in_memory_uses_the_folder_of_the_user(folder, runs):
    first = found(load_model(chain(3)))
    assert first.notes[0].startswith(f"Kept in {folder}")
    assert found(load_model(chain(3))) == first
    assert runs == [1]


def test_a_folder_that_cannot_be_written_falls_back_and_says_so(tmp_path, folder, runs, monkeypatch):
    model = saved(tmp_path / "net.onnx")
    (tmp_path / "net.calibration.json").mkdir()  # for root too, a folder cannot be written as a file
    first = found(model)
    assert first.notes[0].startswith(f"Kept in {folder}")
    assert "net.calibration.json" in first.notes[0]
    assert found(model) == first
    assert runs == [1]
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "net.onnx"))  # no folder either
    third = found(model)
    assert third.notes[0].startswith("Not kept: it will be calibrated anew.")
    assert third == first


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"weights": [1]}', '{"kind": "precision-explorer calibrations"}'])
def test_a_file_of_the_user_is_not_overwritten(text, tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    file = tmp_path / "net.calibration.json"
    file.write_text(text, encoding="utf-8")
    first = found(model)
    assert file.read_text(encoding="utf-8") == text
    assert first.notes[0].startswith(f"Kept in {folder}")
    assert found(model) == first
    assert runs == [1]


def test_a_file_that_was_named_is_used_or_refused(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    file = tmp_path / "mine.json"
    first = found(model, cache=file)
    assert found(model, cache=file) == first
    assert runs == [1]
    assert not (tmp_path / "net.calibration.json").exists()
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(CalibrationError, match="left as it is"):
        found(model, cache=file)
    with pytest.raises(ExportError, match="cannot be written"):
        found(model, cache=tmp_path / "nowhere" / "mine.json")


def test_an_entry_that_is_broken_makes_the_file_not_ours(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    found(model)
    file = tmp_path / "net.calibration.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["entries"][0]["amax"]["x"] = "wide"
    file.write_text(json.dumps(data), encoding="utf-8")
    assert "as its 'amax'" in found(model).notes[0]
    assert len(runs) == 2


def test_a_file_of_another_version_is_calibrated_anew(tmp_path, folder, runs):
    model = saved(tmp_path / "net.onnx")
    first = found(model)
    file = tmp_path / "net.calibration.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["version"] += 1
    file.write_text(json.dumps(data), encoding="utf-8")
    assert found(model) == first
    assert len(runs) == 2


def test_the_oldest_give_way(tmp_path):
    cache = Cache(tmp_path / "many.json")
    every = [Calibration({"x": 1.0}, "minmax", 1, "m", str(number)) for number in range(_MOST + 3)]
    for each in every:
        cache.keep(each)
    assert [cache.find(each) is not None for each in every] == [False] * 3 + [True] * _MOST


def test_what_is_kept_can_be_loaded_where_it_is_one(tmp_path, folder):
    model = saved(tmp_path / "net.onnx")
    first = found(model)
    file = tmp_path / "net.calibration.json"
    assert Calibration.load(file) == first
    found(model, method="minmax")
    with pytest.raises(CalibrationError, match="keeps 2 calibrations"):
        Calibration.load(file)


def test_the_model_file_is_not_touched(tmp_path, folder):
    model = saved(tmp_path / "net.onnx")
    before = (tmp_path / "net.onnx").read_bytes(), (tmp_path / "net.onnx").stat().st_mtime_ns
    found(model)
    assert before == ((tmp_path / "net.onnx").read_bytes(), (tmp_path / "net.onnx").stat().st_mtime_ns)
