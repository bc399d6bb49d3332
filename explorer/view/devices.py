"""The device that the panel shows latency of: where plans are measured, or a GPU for which they are predicted."""

from __future__ import annotations

import functools
from typing import Any, Final

from explorer.backends.gpus import GPUS, get_gpu
from explorer.backends.status import backend_status
from explorer.results.latencies import IMPORTED

__all__ = ["IMPORTED", "THIS_CPU", "backend_of", "device_named", "devices_json"]

Json = dict[str, Any]

THIS_CPU: Final = "this CPU"  # stands among the GPUs: the model measured here, where others are predicted
_CPU: Final = "onnxruntime-cpu"
_TENSORRT: Final = "tensorrt"
_BACKENDS: Final = {THIS_CPU: _CPU, "onnxruntime-cuda": "onnxruntime-cuda", _TENSORRT: _TENSORRT, IMPORTED: IMPORTED}
_LABELS: Final = {
    THIS_CPU: "this CPU, ONNX Runtime (int8 and fp32 plans)",
    "onnxruntime-cuda": "ONNX Runtime, CUDA",
    _TENSORRT: "TensorRT",
}
_NO_IMPORT: Final = "Nothing is imported: x.import_profile(...) reads what trtexec --exportProfile wrote elsewhere."


def device_named(name: str) -> str:
    """Return the device by its name in the table; ``""``, none, and those that measure are what they are.

    Raises:
        BackendError: the GPU is not known.
    """
    if name == _CPU:
        return THIS_CPU
    return name if not name or name in _BACKENDS else get_gpu(name).name


def backend_of(device: str) -> str:
    """Return the backend that measures on a device; empty where latency is predicted, or not asked for."""
    return _BACKENDS.get(device, "")


def builds(device: str) -> bool:
    """Return whether plans are built into engines on a device: that takes minutes, and nothing else need wait for it.

    Other devices time plans from the host, for seconds, and have the machine to themselves while they do.
    """
    return backend_of(device) == _TENSORRT


def devices_json(*, imported: bool) -> list[Json]:
    """Return `DeviceState` of js/src/protocol.ts for every device that can be chosen.

    Args:
        imported: a profile was imported.
    """
    elsewhere = {
        "name": IMPORTED,
        "label": IMPORTED,
        "group": "measured elsewhere",
        "ready": imported,
        "missing": "" if imported else _NO_IMPORT,
    }
    return [*_here(), elsewhere, *_predicted()]


@functools.cache
def _here() -> tuple[Json, ...]:
    known = {status.name: status for status in backend_status()}
    found = []
    for device, label in _LABELS.items():
        status = known[_BACKENDS[device]]
        ready = status.state == "ready"
        missing = "" if ready else " ".join(part for part in (status.detail, status.fix) if part)
        found.append({"name": device, "label": label, "group": "measured here", "ready": ready, "missing": missing})
    return tuple(found)


@functools.cache
def _predicted() -> tuple[Json, ...]:
    return tuple({"name": each, "label": each, "group": "predicted", "ready": True, "missing": ""} for each in GPUS)
