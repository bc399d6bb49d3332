"""What this machine has for the backends: packages, shared libraries, the NVIDIA driver and its devices.

It only looks: no provider is started and ``onnxruntime`` is not imported. Nothing here raises.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import mmap
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Driver", "Machine", "look", "missing_for_providers", "needed_libraries"]

# Distributions that bring the module `onnxruntime`: of these at most one may be installed.
ONNXRUNTIME_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx")
_CUDA_LIBRARY = re.compile(r"lib(cu|nv)")  # of what a provider links, the part that is not the system's own
_LAZY_LIBRARIES = {
    "libcudnn.so.9"
}  # opened by name at the first convolution since 1.31, linked before: needed either way
_NAME_BYTES = 256  # cuDeviceGetName writes at most as many as it is told; NVIDIA's samples use 256


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        cuda: the newest CUDA version that it runs, as ``(major, minor)``.
        devices: names of the GPUs, in CUDA's order.
    """

    cuda: tuple[int, int]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that `explorer.backends.status` judges.

    Attributes:
        packages: installed distributions that matter, to their versions.
        cuda_libraries: libraries that ONNX Runtime's CUDA provider needs.
        missing_libraries: those of them, and TensorRT's own, that are not found.
        driver: None where no NVIDIA driver is installed, or no GPU is in reach of it.
        tensorrt_library: name of the library that the installed TensorRT package needs; empty without the package.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    cuda_libraries: tuple[str, ...] = ()
    missing_libraries: frozenset[str] = frozenset()
    driver: Driver | None = None
    tensorrt_library: str = ""


def look() -> Machine:
    """Return what is here now."""
    packages = {name: version for name in (*ONNXRUNTIME_PACKAGES, *TENSORRT_PACKAGES) if (version := _version(name))}
    linked = [name for path in _cuda_provider() for name in needed_libraries(path) if _CUDA_LIBRARY.match(name)]
    libraries = tuple(sorted({*linked, *_LAZY_LIBRARIES} - {"libcuda.so.1"})) if linked else ()
    tensorrt = next((packages[name] for name in TENSORRT_PACKAGES if name in packages), "")
    infer = f"libnvinfer.so.{tensorrt.partition('.')[0]}" if tensorrt else ""
    wanted = (*libraries, infer) if infer else libraries
    missing = frozenset(name for name in wanted if not _is_there(name))
    return Machine(packages, libraries, missing, _driver(), infer)


def missing_for_providers() -> tuple[str, ...]:
    """Return the libraries that any provider beside ONNX Runtime links and that are not found here.

    ONNX Runtime starts all of them when it is asked for its kernels, and crashes where one cannot be loaded.
    """
    found = [
        path for folder in _folders("onnxruntime") for path in (folder / "capi").glob("libonnxruntime_providers_*")
    ]
    linked = {name for path in found for name in needed_libraries(path)}
    return tuple(sorted(name for name in linked if "onnxruntime" not in name and not _is_there(name)))


def needed_libraries(path: Path) -> tuple[str, ...]:
    """Return the names of the libraries that a 64-bit ELF file links; nothing for other files."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return tuple(_dynamic_names(data))
    except (OSError, ValueError, OverflowError, struct.error):  # absent, empty, or another kind of file
        return ()


def _dynamic_names(data: mmap.mmap) -> Iterator[str]:
    """Read DT_NEEDED from the dynamic section (ELF-64 specification, figures 2-3, 2-4 and 2-10)."""
    if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return
    (table,) = struct.unpack_from("<Q", data, 32)  # e_phoff
    size, count = struct.unpack_from("<HH", data, 54)  # e_phentsize, e_phnum
    load, dynamic = 1, 2  # p_type
    segments = []
    entries: list[tuple[int, int]] = []
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
        if kind == load:
            segments.append((address, offset, length))
        elif kind == dynamic:
            entries = list(struct.iter_unpack("<QQ", data[offset : offset + length]))
    string_table, needed = 5, 1  # DT_STRTAB, DT_NEEDED
    strings = next((value for tag, value in entries if tag == string_table), -1)
    bases = [offset + strings - start for start, offset, length in segments if start <= strings < start + length]
    for tag, value in entries:
        if tag == needed and bases:
            start = bases[0] + value
            yield data[start : data.find(b"\0", start)].decode("ascii", "replace")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _folders(module: str) -> list[Path]:
    """Return the folders of a package without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module that was put into sys.modules by hand
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _cuda_provider() -> list[Path]:
    return [folder / "capi" / "libonnxruntime_providers_cuda.so" for folder in _folders("onnxruntime")]


def _is_there(library: str) -> bool:
    """Return whether a library is in NVIDIA's wheels, from where ONNX Runtime loads it, or can be loaded by name."""
    wheels = [path for module in ("nvidia", "tensorrt_libs") for path in _folders(module)]
    found = any((folder / library).exists() or any(folder.glob(f"*/lib/{library}")) for folder in wheels)
    return found or _load(library) is not None


def _load(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


@functools.cache
def _driver() -> Driver | None:
    """Ask the driver's own library: it is the one that every GPU program uses."""
    cuda = _load("libcuda.so.1") or _load("nvcuda.dll")
    if cuda is None or cuda.cuInit(0) != 0:  # 100: no device, 999: a container without access to it
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return None
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if cuda.cuDeviceGetName(name, _NAME_BYTES, index) == 0:
            names.append(name.value.decode("utf-8", "replace"))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(names))
