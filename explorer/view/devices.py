"""The device that the panel shows latency of: a GPU for which it is predicted, or the CPU that is here."""

from __future__ import annotations

from explorer.backends.gpus import get_gpu
from explorer.backends.status import backend_status
from explorer.errors import BackendError

__all__ = ["THIS_CPU", "device_here", "device_named"]

THIS_CPU = "this CPU"  # stands among the GPUs: the fp32 model measured here, where others are predicted
_DEFAULT_GPU = "H100"  # of the GPUs in wide use the one that users ask for first; it is labelled as predicted


def device_named(name: str) -> str:
    """Return the device by its name in the table; ``""``, none, and `THIS_CPU` are what they are.

    Raises:
        BackendError: the GPU is not known.
    """
    return name if name in ("", THIS_CPU) else get_gpu(name).name


def device_here() -> str:
    """Return the GPU of this machine if the table has it, else one that many have."""
    for name in next((status.devices for status in backend_status() if status.devices), ()):
        try:
            return get_gpu(name).name
        except BackendError:  # a GPU that has no datasheet in the table
            continue
    return _DEFAULT_GPU
