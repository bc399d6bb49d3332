"""Status: not installed, wrong version, missing library and no device are told apart, each with its remedy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from explorer.backends import machine as machine_module
from explorer.backends import status as status_module
from explorer.backends import tensorrt
from explorer.backends.machine import Driver, Machine, look, needed_libraries
from explorer.backends.status import BackendStatus, backend_status, judge

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LIBRARIES = ("libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13", "libcudnn.so.9", "libcurand.so.10")
GPU = Machine(
    packages={"onnxruntime-gpu": "1.31.1", "tensorrt": "11.4.0.1"},
    cuda_libraries=LIBRARIES,
    driver=Driver((13, 0), ("NVIDIA H100",)),
    tensorrt_library="libnvinfer.so.11",
)


def status(machine: Machine, name: str) -> BackendStatus:
    return next(item for item in judge(machine) if item.name == name)


def test_every_backend_is_listed_once():
    names = [item.name for item in backend_status()]
    assert names == ["onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "roofline"]


def test_a_complete_machine_is_ready():
    for item in judge(GPU):
        assert (item.state, item.fix) == ("ready", "")
    assert status(GPU, "onnxruntime-cuda").devices == ("NVIDIA H100",)
    assert "NVIDIA H100" in status(GPU, "tensorrt").detail


def test_what_is_not_ready_says_what_and_how_to_mend_it():
    for item in judge(Machine()):
        if item.state != "ready":
            assert item.detail
            assert item.fix


def test_nothing_installed():
    nothing = Machine()
    assert [item.state for item in judge(nothing)] == ["not installed", "not installed", "not installed", "ready"]
    assert "precision-explorer[cpu]" in status(nothing, "onnxruntime-cpu").fix
    assert "precision-explorer[gpu]" in status(nothing, "onnxruntime-cuda").fix
    assert "precision-explorer[tensorrt]" in status(nothing, "tensorrt").fix


def test_with_the_cpu_package_the_gpu_one_must_replace_it():
    found = status(Machine(packages={"onnxruntime": "1.31.1"}), "onnxruntime-cuda")
    assert found.state == "not installed"
    assert found.fix.startswith("pip uninstall -y onnxruntime && pip install")


def test_the_gpu_package_serves_the_cpu_too():
    assert status(GPU, "onnxruntime-cpu").state == "ready"


def test_both_packages_together_are_a_broken_installation():
    both = replace(GPU, packages={"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    for name in ("onnxruntime-cpu", "onnxruntime-cuda"):
        found = status(both, name)
        assert found.state == "wrong version"
        assert "broken" in found.detail
        assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.fix
        assert "precision-explorer[gpu]" in found.fix


@pytest.mark.parametrize(
    ("name", "package", "version"),
    [
        ("onnxruntime-cpu", "onnxruntime-gpu", "1.9.0"),
        ("onnxruntime-cuda", "onnxruntime-gpu", "1.22.1"),
        ("onnxruntime-cpu", "onnxruntime-gpu", "1.23.0"),
        ("tensorrt", "tensorrt", "10.9.0.34"),
        ("tensorrt", "tensorrt", "8.6.1"),
    ],
)
def test_an_old_version_is_told(name, package, version):
    found = status(replace(GPU, packages=GPU.packages | {package: version}), name)
    assert (found.state, found.version) == ("wrong version", version)
    assert "--upgrade" in found.fix


def test_the_oldest_onnxruntime_that_is_taken_is_the_one_that_is_asked_for():
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = ".".join(map(str, status_module.MIN_ONNXRUNTIME))
    assert extras["cpu"] == [f"onnxruntime>={wanted}"]
    assert extras["gpu"] == [f"onnxruntime-gpu[cuda,cudnn]>={wanted}"]


def test_a_missing_library_names_the_package_that_brings_it():
    found = status(replace(GPU, missing_libraries=frozenset(LIBRARIES)), "onnxruntime-cuda")
    assert found.state == "missing library"
    assert "libcublas.so.13 (nvidia-cublas)" in found.detail
    assert found.fix == "pip install nvidia-cublas nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-curand"


def test_packages_of_cuda_12_carry_its_number():
    old = ("libcublas.so.12", "libcudart.so.12", "libcudnn.so.9", "libcufft.so.11")
    found = status(replace(GPU, cuda_libraries=old, missing_libraries=frozenset(old)), "onnxruntime-cuda")
    assert found.fix == ("pip install nvidia-cublas-cu12 nvidia-cuda-runtime-cu12 nvidia-cudnn-cu12 nvidia-cufft-cu12")


@pytest.mark.parametrize("driver", [None, Driver((13, 0))])
def test_no_device_is_told_and_missing_libraries_are_not_forgotten(driver):
    bare = replace(GPU, driver=driver, missing_libraries=frozenset({"libcudnn.so.9", "libnvinfer.so.11"}))
    cuda, trt = status(bare, "onnxruntime-cuda"), status(bare, "tensorrt")
    assert (cuda.state, trt.state) == ("no device", "no device")
    assert "nvidia-cudnn-cu13" in cuda.detail
    assert "libnvinfer.so.11" in trt.detail


def test_an_old_driver_is_a_wrong_version():
    found = status(replace(GPU, driver=Driver((12, 4), ("NVIDIA T4",))), "onnxruntime-cuda")
    assert found.state == "wrong version"
    assert "12.4" in found.detail


@pytest.mark.parametrize(("cuda", "state"), [((12, 8), "wrong version"), ((13, 0), "ready")])
def test_tensorrt_for_a_newer_cuda_than_the_drivers_is_a_wrong_version(cuda, state):
    """The package 'tensorrt' brings the one that is named after its CUDA; without such a name nothing is known."""
    machine = replace(GPU, packages={"tensorrt": "11.4.0.1", "tensorrt-cu13": "11.4.0.1"}, driver=Driver(cuda, ("T4",)))
    found = status(machine, "tensorrt")
    assert (found.state, found.version) == (state, "11.4.0.1")
    if state != "ready":
        assert "built for CUDA 13" in found.detail
        assert "12.8" in found.detail
        assert "tensorrt-cu12" in found.fix
    assert status(replace(machine, packages={"tensorrt": "11.4.0.1"}), "tensorrt").state == "ready"


def test_tensorrt_without_its_library_is_told():
    found = status(replace(GPU, missing_libraries=frozenset({"libnvinfer.so.11"})), "tensorrt")
    assert found.state == "missing library"
    assert "libnvinfer.so.11" in found.detail


def test_the_tensorrt_probe_is_the_same_status():
    assert tensorrt.probe() == next(item for item in backend_status() if item.name == "tensorrt")


def test_looking_imports_no_runtime():
    code = (
        "import sys; from explorer.backends.status import backend_status; backend_status();"
        "print([name for name in ('onnxruntime', 'tensorrt', 'torch') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_looking_finds_the_installed_runtime():
    assert any(name.startswith("onnxruntime") for name in look().packages)


def test_linked_libraries_are_read_from_the_file():
    assert any(name.startswith("libc.so") for name in linked_by_python()) or sys.platform != "linux"


def linked_by_python():
    """Return what Python, or the libpython that it links, links."""
    names = needed_libraries(Path(sys.executable).resolve())
    library = next((name for name in names if name.startswith("libpython")), None)
    return names if library is None else (*names, "libc.so.6")


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(58), b"MZ" * 100, b"\x7fELF\x02\x01" + b"\xff" * 99]
)
def test_other_files_link_nothing(tmp_path, content):
    path = tmp_path / "library.so"
    path.write_bytes(content)
    assert needed_libraries(path) == ()
    assert needed_libraries(tmp_path / "absent") == ()


class FakeDriver:
    """libcuda, as far as it is asked."""

    def __init__(self, start=0, names=("NVIDIA L4",), version=13000):
        self.start, self.names, self.version = start, names, version

    def cuInit(self, _):  # noqa: N802 - NVIDIA's name
        return self.start

    def cuDriverGetVersion(self, target):  # noqa: N802
        target._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, target):  # noqa: N802
        target._obj.value = len(self.names)
        return 0

    def cuDeviceGetName(self, buffer, size, index):  # noqa: N802
        buffer.value = self.names[index].encode()[: size - 1]
        return 0


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (None, None),
        (FakeDriver(start=100), None),  # CUDA_ERROR_NO_DEVICE
        (FakeDriver(), Driver((13, 0), ("NVIDIA L4",))),
        (FakeDriver(names=("A", "B"), version=12040), Driver((12, 4), ("A", "B"))),
    ],
)
def test_the_driver_is_asked_for_its_version_and_devices(monkeypatch, driver, expected):
    monkeypatch.setattr(machine_module, "_load", lambda _: driver)
    machine_module._driver.cache_clear()
    try:
        assert machine_module._driver() == expected
    finally:
        machine_module._driver.cache_clear()
