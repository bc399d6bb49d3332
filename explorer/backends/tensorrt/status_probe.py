"""Whether TensorRT could be used here."""

from __future__ import annotations

from explorer.backends.status import BackendStatus, backend_status

__all__ = ["probe"]


def probe() -> BackendStatus:
    """Return whether TensorRT is ready, and what is missing if not; it loads none of its libraries.

    >>> probe().name
    'tensorrt'
    """
    return next(status for status in backend_status() if status.name == "tensorrt")
