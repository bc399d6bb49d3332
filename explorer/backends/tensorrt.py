"""TensorRT: whether it could be used here. Building and timing engines is a later issue."""

from __future__ import annotations

from explorer.backends.status import BackendStatus, backend_status

__all__ = ["probe"]


def probe() -> BackendStatus:
    """Return whether TensorRT is ready, and what is missing if not; it loads none of its libraries.

    >>> probe().name
    'tensorrt'
    """
    return next(status for status in backend_status() if status.name == "tensorrt")
