"""Precision Explorer: what half precision does to every layer of an ONNX model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorer.calibrate import Calibration, read_tensorrt_cache, write_tensorrt_cache
    from explorer.convert import Conversion
    from explorer.errors import ExplorerError
    from explorer.export import convert_to_mixed_precision
    from explorer.opening import open  # noqa: A004 - the public name
    from explorer.plan import Decision, Plan
    from explorer.session import Exploration

__all__ = [
    "Calibration",
    "Conversion",
    "Decision",
    "Exploration",
    "ExplorerError",
    "Plan",
    "__version__",
    "convert_to_mixed_precision",
    "open",
    "read_tensorrt_cache",
    "write_tensorrt_cache",
]

__version__ = "0.1.0"

_HOMES = {
    # Public name -> where it lives; loaded at first use, so that `import explorer` stays light.
    "Calibration": "explorer.calibrate",
    "Conversion": "explorer.convert",
    "Decision": "explorer.plan",
    "Exploration": "explorer.session",
    "ExplorerError": "explorer.errors",
    "Plan": "explorer.plan",
    "convert_to_mixed_precision": "explorer.export",
    "open": "explorer.opening",
    "read_tensorrt_cache": "explorer.calibrate",
    "write_tensorrt_cache": "explorer.calibrate",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'explorer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
