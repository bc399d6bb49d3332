"""The caches of engines and timings: keys, hits, damage, size; laws by hypothesis."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.backends.tensorrt.caches import Cache, EngineKey, engine_cache, timing_cache, timing_key
from explorer.backends.tensorrt.shapes import InputRange

RANGE = InputRange("x", (1, 4), (8, 4), (8, 4), dynamic=True)
KEY = EngineKey("m", "{}", "10.13", "NVIDIA H100", (9, 0), {"tf32": False, "workspace_bytes": None}, (RANGE,))
OTHERS = {
    "model": "other", "plan": '{"format": "bf16"}', "tensorrt": "10.14", "gpu": "NVIDIA A100", "capability": (8, 0),
    "settings": {"tf32": True, "workspace_bytes": None}, "ranges": (dataclasses.replace(RANGE, most=(9, 4)),),
}  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "engines", ".engine", most_bytes=400)


def test_equal_keys_are_one_and_any_difference_is_another():
    same = dataclasses.replace(KEY, settings={"workspace_bytes": None, "tf32": False})
    assert same.digest == KEY.digest
    digests = {dataclasses.replace(KEY, **{name: value}).digest for name, value in OTHERS.items()}
    assert set(OTHERS) == {field.name for field in dataclasses.fields(EngineKey)}
    assert len(digests | {KEY.digest}) == len(OTHERS) + 1


def test_timing_keys_tell_versions_and_gpus_apart():
    keys = {
        timing_key(*each)
        for each in (("10", "A", (8, 0)), ("11", "A", (8, 0)), ("10", "B", (8, 0)), ("10", "A", (9, 0)))
    }
    assert len(keys) == 4


@given(data=st.binary(max_size=200))
def test_what_is_kept_is_what_was_given(tmp_path_factory, data):
    cache = Cache(tmp_path_factory.mktemp("cache"), ".engine")
    assert cache.get("k") is None
    assert cache.put("k", data)
    assert cache.get("k") == data
    cache.drop("k")
    assert cache.get("k") is None


@given(data=st.binary(min_size=1, max_size=60), where=st.integers(0), bit=st.integers(0, 7), cut=st.booleans())
def test_any_damage_is_noticed_and_the_file_goes(tmp_path_factory, data, where, bit, cut):
    cache = Cache(tmp_path_factory.mktemp("cache"), ".engine")
    cache.put("k", data)
    stored = bytearray(cache.path("k").read_bytes())
    where %= len(stored)
    damaged = stored[:where] if cut else bytearray(stored)
    if not cut:
        damaged[where] ^= 1 << bit
    cache.path("k").write_bytes(damaged)
    assert cache.get("k") is None
    assert not cache.path("k").exists()


def test_the_least_recently_used_goes_first(cache):
    for age, key in enumerate(("a", "b", "c")):
        cache.put(key, b"x" * 60)  # 96 bytes with their header
        os.utime(cache.path(key), (1000 + age, 1000 + age))
    assert cache.get("a") is not None  # used now
    cache.put("d", b"x" * 120)
    assert cache.get("b") is None
    assert {key for key in "acd" if cache.get(key) is not None} == {"a", "c", "d"}


def test_other_files_in_the_folder_are_left_alone(cache):
    cache.folder.mkdir()
    (cache.folder / "mine.txt").write_bytes(b"x" * 1000)
    cache.put("a", b"x" * 100)
    assert (cache.folder / "mine.txt").exists()
    assert cache.get("a") is not None


def test_what_is_larger_than_the_cache_is_not_kept(cache):
    cache.put("small", b"x")
    assert not cache.put("large", b"x" * 500)
    assert cache.get("small") == b"x"


def test_no_half_file_is_left_where_writing_fails(cache, monkeypatch):
    cache.put("k", b"old")

    def full(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(cache.folder), "replace", full)
    assert not cache.put("k", b"new")
    assert cache.get("k") == b"old"
    assert [path.name for path in cache.folder.iterdir()] == ["k.engine"]


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = Cache(tmp_path / "file" / "engines", ".engine")
    assert not cache.put("k", b"x")
    assert cache.get("k") is None


def test_both_caches_lie_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))
    assert engine_cache().folder.is_relative_to(tmp_path)
    assert timing_cache().folder.is_relative_to(tmp_path)
    assert engine_cache().folder != timing_cache().folder
    monkeypatch.delenv("PRECISION_EXPLORER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert engine_cache().folder.is_relative_to(tmp_path / "xdg" / "precision-explorer")
