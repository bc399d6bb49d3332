"""The device that the panel shows latency of: a GPU for which it is predicted, or the CPU that is here."""

from __future__ import annotations

from explorer.backends.gpus import get_gpu

__all__ = ["THIS_CPU", "device_named"]

THIS_CPU = "this CPU"  # stands among the GPUs: the fp32 model measured here, where others are predicted


def device_named(name: str) -> str:
    """Return the device by its name in the table; ``""``, none, and `THIS_CPU` are what they are.

    Raises:
        BackendError: the GPU is not known.
    """
    return name if name in ("", THIS_CPU) else get_gpu(name).name
