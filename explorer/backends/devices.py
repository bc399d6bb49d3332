"""The GPU that latency is predicted for when the user names none."""

from __future__ import annotations

from explorer.backends.gpus import get_gpu
from explorer.backends.status import backend_status
from explorer.errors import BackendError

__all__ = ["device_here"]

_DEFAULT_GPU = "H100"  # of the GPUs in wide use the one that users ask for first; it is labelled as predicted


def device_here() -> str:
    """Return the GPU of this machine if the table has it, else one that many have."""
    for name in next((status.devices for status in backend_status() if status.devices), ()):
        try:
            return get_gpu(name).name
        except BackendError:  # a GPU that has no datasheet in the table
            continue
    return get_gpu(_DEFAULT_GPU).name
