"""Which backends are ready here, what is missing for the others, and how to get it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from explorer.backends.machine import ONNXRUNTIME_PACKAGES, TENSORRT_PACKAGES, Machine, look

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BackendStatus", "State", "backend_status", "cuda_major", "judge", "wheel_of"]

State = Literal["ready", "not installed", "wrong version", "missing library", "no device"]

# pyproject.toml, the extras `cpu` and `gpu`. OrtValue.tensor_size_in_bytes is from 1.23; 1.23.0 does not load graphs
# with many switches (onnxruntime issue 26261: "Cannot parse data from external tensors").
MIN_ONNXRUNTIME = (1, 23, 2)
MIN_TENSORRT = (10, 12)  # the first with debug tensors that keep fusion (release notes of TensorRT 10.12)
_UNSUFFIXED_CUDA = 13  # from CUDA 13 on NVIDIA's wheels carry no -cuNN, but for cuDNN's (PyPI)
_WHEELS = {
    "libcublas": "nvidia-cublas",
    "libcublasLt": "nvidia-cublas",
    "libcudart": "nvidia-cuda-runtime",
    "libcudnn": "nvidia-cudnn",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libnvJitLink": "nvidia-nvjitlink",
    "libnvrtc": "nvidia-cuda-nvrtc",
}


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What is known of one backend on this machine.

    Attributes:
        name: ``onnxruntime-cpu``, ``onnxruntime-cuda``, ``tensorrt`` or ``roofline``.
        state: ``ready``, or the first thing that stands in its way.
        version: version of its package; empty when not installed.
        detail: what was found, in one or two sentences.
        fix: what to do about it; empty when ready.
        devices: names of the devices that it would run on.
    """

    name: str
    state: State
    version: str = ""
    detail: str = ""
    fix: str = ""
    devices: tuple[str, ...] = ()


def backend_status() -> tuple[BackendStatus, ...]:
    """Return the state of every backend. It never raises, starts no provider and imports no runtime."""
    return judge(look())


def judge(machine: Machine) -> tuple[BackendStatus, ...]:
    """Return the state of every backend on a machine of which these facts are known."""
    broken = _two_runtimes(machine)
    cpu = broken or _cpu(machine)
    cuda = broken or _cuda(machine)
    return (
        BackendStatus("onnxruntime-cpu", *cpu),
        BackendStatus("onnxruntime-cuda", *cuda, _devices(machine)),
        BackendStatus("tensorrt", *_tensorrt(machine), _devices(machine)),
        BackendStatus("roofline", "ready", "", "Predicts the latency on a named GPU; needs no device."),
    )


_Verdict = tuple[State, str, str, str]


def _two_runtimes(machine: Machine) -> _Verdict | None:
    """Report several packages in one folder: the later one overwrote files of the earlier, and neither is whole."""
    owners = [name for name in ONNXRUNTIME_PACKAGES if name in machine.packages]
    if len(owners) < 2:
        return None
    named = " and ".join(f"'{name}' {machine.packages[name]}" for name in owners)
    extra = "gpu" if "onnxruntime-gpu" in owners else "cpu"
    return (
        "wrong version",
        machine.packages[owners[-1]],
        f"The installation is broken: {named} own the same folder, where each overwrites files of the other.",
        f"pip uninstall -y {' '.join(owners)} && pip install 'precision-explorer[{extra}]'",
    )


def _cpu(machine: Machine) -> _Verdict:
    name = next((name for name in ONNXRUNTIME_PACKAGES if name in machine.packages), "")
    if not name:
        return "not installed", "", "No ONNX Runtime is installed.", "pip install 'precision-explorer[cpu]'"
    version = machine.packages[name]
    if _older(version, MIN_ONNXRUNTIME):
        return _too_old(name, version, MIN_ONNXRUNTIME)
    return "ready", version, f"ONNX Runtime {version} from the package '{name}'.", ""


def _cuda(machine: Machine) -> _Verdict:
    version = machine.packages.get("onnxruntime-gpu") or machine.packages.get("ort-nightly-gpu", "")
    if not version:
        return _no_cuda_package(machine)
    if _older(version, MIN_ONNXRUNTIME):
        return _too_old("onnxruntime-gpu", version, MIN_ONNXRUNTIME)
    needs = cuda_major(machine.cuda_libraries)
    missing = [name for name in machine.cuda_libraries if name in machine.missing_libraries]
    if machine.driver is None or not machine.driver.devices:
        also = f" Also missing: {_list(missing, needs)}." if missing else ""
        return "no device", version, _no_device(machine) + also, _DEVICE_FIX
    if needs and machine.driver.cuda[0] < needs:
        return _old_driver(machine.driver.cuda, f"onnxruntime-gpu {version}", version, needs, "a version of it that is")
    if missing:
        return (
            "missing library",
            version,
            f"The CUDA provider of onnxruntime-gpu {version} does not work without {_list(missing, needs)}.",
            f"pip install {' '.join(sorted({wheel_of(name, needs) for name in missing}))}",
        )
    return "ready", version, f"onnxruntime-gpu {version} on {', '.join(machine.driver.devices)}.", ""


def _no_cuda_package(machine: Machine) -> _Verdict:
    other = next((name for name in ONNXRUNTIME_PACKAGES if name in machine.packages), "")
    if not other:
        return "not installed", "", "No ONNX Runtime is installed.", "pip install 'precision-explorer[gpu]'"
    return (
        "not installed",
        "",
        f"The package '{other}' {machine.packages[other]} has no CUDA provider.",
        f"pip uninstall -y {other} && pip install 'precision-explorer[gpu]'  # never have both installed",
    )


def _tensorrt(machine: Machine) -> _Verdict:
    name = next((name for name in TENSORRT_PACKAGES if name in machine.packages), "")
    if not name:
        return "not installed", "", "TensorRT is not installed.", "pip install 'precision-explorer[tensorrt]'"
    version = machine.packages[name]
    if _older(version, MIN_TENSORRT):
        return _too_old(name, version, MIN_TENSORRT)
    lacks = machine.tensorrt_library in machine.missing_libraries
    if machine.driver is None or not machine.driver.devices:
        also = f" Also missing: {machine.tensorrt_library}." if lacks else ""
        return "no device", version, _no_device(machine) + also, _DEVICE_FIX
    needs, have = _cuda_of_packages(machine.packages), machine.driver.cuda
    if have[0] < needs:
        return _old_driver(have, f"TensorRT {version}", version, needs, f"'tensorrt-cu{have[0]}' in its place,")
    if lacks:
        return (
            "missing library",
            version,
            f"The package '{name}' {version} is there, but not {machine.tensorrt_library}, which does the work.",
            f"Get the libraries of TensorRT {version} from developer.nvidia.com/tensorrt; add them to LD_LIBRARY_PATH.",
        )
    return "ready", version, f"TensorRT {version} on {', '.join(machine.driver.devices)}.", ""


_DEVICE_FIX = (
    "Run on a machine with an NVIDIA GPU and its driver; in a container, start it with access to the GPU "
    "(docker run --gpus all)."
)


def _no_device(machine: Machine) -> str:
    found = "an NVIDIA driver, but no GPU" if machine.driver else "no NVIDIA driver with a GPU"
    return f"This machine has {found}."


def _old_driver(have: tuple[int, int], what: str, version: str, needs: int, other: str) -> _Verdict:
    return (
        "wrong version",
        version,
        f"{what} is built for CUDA {needs}; the driver here runs CUDA {have[0]}.{have[1]} at most.",
        f"Update the driver, or install {other} built for CUDA {have[0]}.",
    )


def _cuda_of_packages(packages: Iterable[str]) -> int:
    """Return the CUDA version that TensorRT's packages are named after; 0 where none is.

    >>> _cuda_of_packages(["tensorrt", "tensorrt-cu13"])
    13
    """
    named = (re.fullmatch(r"tensorrt-cu(\d+)", name) for name in packages)
    return max((int(found.group(1)) for found in named if found), default=0)


def _too_old(name: str, version: str, least: tuple[int, ...]) -> _Verdict:
    wanted = ".".join(map(str, least))
    return (
        "wrong version",
        version,
        f"The package '{name}' has version {version}; {wanted} or newer is needed.",
        f"pip install --upgrade '{name}>={wanted}'",
    )


def _older(version: str, least: tuple[int, ...]) -> bool:
    found = tuple(int(part) for part in re.findall(r"\d+", version)[: len(least)])
    return bool(found) and found < least


def cuda_major(libraries: Iterable[str]) -> int:
    """Return the CUDA version that a provider is built for, from the runtime that it links; 0 when not known."""
    found = next((name for name in libraries if name.startswith("libcudart.so.")), "")
    return int(found.rpartition(".")[2]) if found else 0


def _list(libraries: Iterable[str], cuda: int) -> str:
    return ", ".join(f"{name} ({wheel_of(name, cuda)})" for name in libraries)


def wheel_of(library: str, cuda: int = 0) -> str:
    """Return the package on PyPI that brings a library, for that major version of CUDA; 0 where it is not known.

    >>> wheel_of("libcublasLt.so.12", 12)
    'nvidia-cublas-cu12'
    """
    cuda, stem = cuda or _UNSUFFIXED_CUDA, library.partition(".")[0]
    name = _WHEELS.get(stem, stem)
    if cuda >= _UNSUFFIXED_CUDA and name != "nvidia-cudnn":
        return name
    return f"{name}-cu{cuda}"


def _devices(machine: Machine) -> tuple[str, ...]:
    return machine.driver.devices if machine.driver else ()
