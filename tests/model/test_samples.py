"""The inputs that run through a model: read, checked, cut into batches, or made up and labelled so."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from support.graphs import BOOL, INT64, model, node, value, weight

from explorer.errors import InputError
from explorer.model import hash_feeds, load_model, load_samples

X = np.arange(40, dtype=np.float32).reshape(10, 4)


def loaded(shape=("batch", 4), dtype=1, extra=(), nodes=None, weights=()):
    nodes = nodes or [node("Identity", ["x"], ["y"])]
    outputs = [value("y", shape, dtype)] if nodes[-1].op_type == "Identity" else [value("y", (None, None))]
    return load_model(model(nodes, [value("x", shape, dtype), *extra], outputs, weights))


def refused(match, *args, **settings):
    with pytest.raises(InputError, match=match) as caught:
        load_samples(*args, **settings)
    assert "\n" not in str(caught.value)


def test_rows_are_cut_into_batches_in_order():
    samples = load_samples(loaded(), {"x": X}, batch_size=4)
    assert [len(feeds["x"]) for feeds in samples] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds in samples]), X)
    assert (samples.rows, len(samples), samples.origin) == (10, 3, "user")
    assert samples.shapes == {"x": (4, 4)}
    assert samples.describe().startswith("10 samples from arrays in memory")


@pytest.mark.parametrize("dtype", [object, np.int64])
def test_samples_that_differ_anywhere_have_different_hashes(dtype):
    hashes = set()
    for changed in (0, 1000, 1999):
        values = np.zeros(2000, dtype)
        values[changed] = 1 if dtype is np.int64 else "other"
        hash_feeds(sha := hashlib.sha256(), [{"x": values}])
        hashes.add(sha.hexdigest())
    assert len(hashes) == 3


def test_a_fixed_batch_takes_whole_multiples():
    samples = load_samples(loaded((5, 4)), {"x": X})
    assert [feeds["x"].shape for feeds in samples] == [(5, 4), (5, 4)]
    refused("axis 0 must be 3", loaded((3, 4)), {"x": X})


def test_files_labels_and_inputs_without_a_batch_axis(tmp_path):
    nodes = [node("Mul", ["x", "k"], ["y"], "m")]
    both = loaded(nodes=nodes, extra=[value("k", ())])
    path = tmp_path / "data.npz"
    np.savez(path, x=X, k=np.float32(2), labels=np.arange(10))
    samples = load_samples(both, path, batch_size=8)
    assert [feeds["k"].shape for feeds in samples] == [(), ()]
    assert samples.labels.tolist() == list(range(10))
    assert str(path) in samples.describe()
    refused("9 labels for 10 rows", loaded(), {"x": X, "labels": np.arange(9)})


def test_wrong_names_types_and_shapes():
    refused("lack the input 'x'", loaded(), {})
    refused(r"'X', which is no input.*Did you mean 'x'", loaded(), {"x": X, "X": X})
    refused(r"float64; the model takes float32.*astype\('float32'\)", loaded(), {"x": X.astype(np.float64)})
    refused("has 1 dimensions", loaded(), {"x": X[0]})
    refused("axis 1 must be 4", loaded(), {"x": X[:, :3]})
    refused("is empty", loaded(), {"x": X[:0]})
    bad = X.copy()
    bad[3, 1] = np.nan
    refused("NaN, first in row 3", loaded(), {"x": bad})
    refused("batch size is 0", loaded(), {"x": X}, batch_size=0)
    two = loaded(nodes=[node("Add", ["x", "z"], ["y"])], extra=[value("z", ("batch", 4))])
    refused("'x' has 10, 'z' has 9", two, {"x": X, "z": X[:9]})


def test_infinite_inputs_pass():
    assert load_samples(loaded(), {"x": np.full((1, 4), np.inf, np.float32)}).rows == 1


def test_unreadable_files(tmp_path):
    refused("no file", loaded(), tmp_path / "none.npz")
    path = tmp_path / "data.npz"
    path.write_bytes(b"PK\x03\x04broken")
    refused("not a readable .npz", loaded(), path)
    np.save(tmp_path / "one.npy", X)
    refused("single array without a name", loaded(), tmp_path / "one.npy")
    np.savez(path, x=np.array([{}], object))
    refused("not a readable .npz", loaded(), path)
    refused("not a readable .npz|cannot be read", loaded(), tmp_path)


def test_random_inputs_are_seeded_and_say_so():
    one, two = (load_samples(loaded(), batch_size=3) for _ in range(2))
    np.testing.assert_array_equal(one.feeds[0]["x"], two.feeds[0]["x"])
    assert one.feeds[0]["x"].shape == (3, 4)
    assert one.origin == "random"
    assert "not to be trusted" in one.describe()


def test_dynamic_dimensions_are_asked_for_by_name():
    dynamic = loaded(("batch", "sequence"))
    refused("'sequence'.*dims=", dynamic)
    assert load_samples(dynamic, dims={"sequence": 7}).feeds[0]["x"].shape == (1, 7)
    refused("no dynamic dimension 'sequenc'.*'sequence'", dynamic, dims={"sequenc": 7})


@pytest.mark.parametrize("dtype", [INT64, BOOL, 11, 10])
def test_random_inputs_of_other_types(dtype):
    array = load_samples(loaded((2, 4), dtype)).feeds[0]["x"]
    assert array.shape == (2, 4)


def test_random_ids_stay_inside_the_table_that_they_index():
    table = weight("table", np.zeros((1000, 2)))
    nodes = [node("Cast", ["x"], ["i"], to=INT64), node("Gather", ["table", "i"], ["y"])]
    source = load_model(model(nodes, [value("x", (64,), 6)], [value("y", (64, 2))], [table]))
    ids = load_samples(source).feeds[0]["x"]
    assert 2 < ids.max() < 1000


def test_text_inputs_have_no_random_values():
    refused("type string", loaded((2,), 8))
