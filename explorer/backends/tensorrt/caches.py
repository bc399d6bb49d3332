"""Built engines and TensorRT's timing caches, kept in the user's cache folder.

An engine belongs to one model, plan, version of TensorRT, GPU and set of build settings; a timing cache to one version
and GPU. Nothing that is wrong with a file, or with the folder, stops a build: it is then made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.cache_folder import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from explorer.backends.tensorrt.shapes import InputRange

__all__ = ["Cache", "EngineKey", "engine_cache", "timing_cache", "timing_key"]

_MAGIC: Final = b"PXC1"  # raised when the layout of a kept file changes
_DIGEST_BYTES: Final = 32
MOST_BYTES: Final = 4 << 30  # engines of some ten large models; the least recently used ones go first


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        model: SHA-256 of the ONNX model that is built, weights included.
        plan: the plan, as JSON.
        tensorrt: version of TensorRT.
        gpu: name of the GPU.
        capability: its CUDA compute capability.
        settings: build settings, as plain values.
        ranges: shapes that it takes.
    """

    model: str
    plan: str
    tensorrt: str
    gpu: str
    capability: tuple[int, int]
    settings: Mapping[str, Any]
    ranges: tuple[InputRange, ...]

    @property
    def digest(self) -> str:
        """The key as one word: equal keys give equal ones."""
        text = json.dumps(
            {
                "model": self.model, "plan": self.plan, "tensorrt": self.tensorrt, "gpu": self.gpu,
                "capability": self.capability, "settings": dict(self.settings),
                "ranges": [asdict(each) for each in self.ranges],
            },
            sort_keys=True, default=str,
        )  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Files of bytes by key in one folder, whole or absent, the least recently used removed beyond a size.

    Args:
        folder: where they lie; it is made when something is kept.
        suffix: of the files; other files in the folder are left alone.
        most_bytes: size of all files together beyond which the oldest go.
    """

    def __init__(self, folder: Path, suffix: str, *, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._suffix = suffix

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{key}{self._suffix}"

    def get(self, key: str) -> bytes | None:
        """Return what was kept under a key; None where nothing was, or where it is damaged (it then goes)."""
        path = self.path(key)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        body = stored[len(_MAGIC) + _DIGEST_BYTES :]
        if stored[: len(_MAGIC)] != _MAGIC or _digest(body) != stored[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES]:
            self.drop(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: it goes last
        return body

    def put(self, key: str, data: bytes) -> bool:
        """Keep bytes under a key, whole or not at all, and return whether they are kept."""
        if len(data) > self.most_bytes:
            return False
        path = self.path(key)
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.writelines((_MAGIC, _digest(data), data))
            part.replace(path)
        except OSError:  # a full disk, a read-only home
            with contextlib.suppress(OSError):
                part.unlink()
            return False
        self._remove_oldest(keep=path)
        return True

    def drop(self, key: str) -> None:
        """Forget a key."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def _remove_oldest(self, keep: Path) -> None:
        files = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"*{self._suffix}"):
                with contextlib.suppress(OSError):  # another process may have removed it
                    stat = path.stat()
                    files.append((stat.st_mtime_ns, stat.st_size, path))
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= self.most_bytes:
                break
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                left -= size


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def engine_cache(*, most_bytes: int = MOST_BYTES) -> Cache:
    """Return the cache of engines, by `EngineKey.digest`."""
    return Cache(cache_folder() / "tensorrt" / "engines", ".engine", most_bytes=most_bytes)


def timing_cache() -> Cache:
    """Return the cache of timing caches, by `timing_key`."""
    return Cache(cache_folder() / "tensorrt" / "timing", ".timing")


def timing_key(tensorrt: str, gpu: str, capability: tuple[int, int]) -> str:
    """Return the key of the timing cache of one version on one GPU."""
    return hashlib.sha256(json.dumps([tensorrt, gpu, capability]).encode()).hexdigest()
