"""Which TensorRT is installed, and what its Python interface can do.

Written against NVIDIA's documented Python interface of 10.12 to 11.x and *not run with TensorRT so far*: tests hold
this package to a stand-in that has the documented names, of both major versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from explorer._optional import require
from explorer.backends.status import BackendStatus, backend_status
from explorer.errors import BackendError

__all__ = ["BACKEND", "Api", "api_of", "load_tensorrt", "require_ready"]

BACKEND = "tensorrt"


@dataclass(frozen=True, slots=True)
class Api:
    """What the installed version can do.

    Attributes:
        version: as the package tells it, such as ``10.13.3.9``.
        major: first number of the version.
        strong_flags: flags of ``create_network`` that make a strongly typed network; 0 where every network is one.
        weak: weakly typed networks with precision flags and layer constraints exist (10 and older).
        inner_values: values inside an engine can be read without marking them as outputs (10.12 and newer).
    """

    version: str
    major: int
    strong_flags: int
    weak: bool
    inner_values: bool

    def require_weak(self) -> None:
        """Check that weakly typed networks exist.

        Raises:
            BackendError: this version builds strongly typed networks only.
        """
        if not self.weak:
            raise BackendError(
                f"TensorRT {self.version} builds strongly typed networks only.",
                why="Precision flags and layer constraints were removed in TensorRT 11: what a layer computes in is "
                "what the types in the ONNX file say.",
                fix="Build the mixed ONNX model (the default), or install TensorRT 10.",
            )


def load_tensorrt() -> tuple[Any, Api]:
    """Return the module ``tensorrt`` and what it can do.

    Raises:
        MissingDependency: the package is not installed.
        BackendError: it is installed and its libraries cannot be loaded.
    """
    try:
        trt = require("tensorrt", why="to build and run engines", extra="tensorrt")
        return trt, api_of(trt)
    except (OSError, AttributeError) as error:  # a library that is not found; a folder of that name that is no package
        raise _unusable(error) from error
    except ImportError as error:
        if hasattr(error, "fix"):  # our own MissingDependency: it tells all
            raise
        raise _unusable(error) from error


def _unusable(error: Exception) -> BackendError:
    return BackendError(
        f"The package 'tensorrt' cannot be loaded: {error}.",
        why="It needs TensorRT's own libraries (libnvinfer, libnvonnxparser).",
        fix="`precision-explorer backends` tells which one is missing.",
    )


def api_of(trt: Any) -> Api:
    """Return what a module ``tensorrt`` can do, by its version and by what it has."""
    version = str(trt.__version__)
    found = re.match(r"\d+", version)
    major = int(found.group()) if found else 0
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return Api(
        version=version,
        major=major,
        strong_flags=0 if strong is None else 1 << int(strong),
        weak=hasattr(trt.BuilderFlag, "FP16"),
        inner_values=hasattr(trt.INetworkDefinition, "mark_unfused_tensors_as_debug_tensors"),
    )


def require_ready(device: int = 0) -> BackendStatus:
    """Return the status of the backend, which is ready and has this GPU.

    Raises:
        BackendError: it is not ready, with what is missing and how to get it; or there is no such GPU.
    """
    status = next(item for item in backend_status() if item.name == BACKEND)
    if status.state != "ready":
        raise BackendError(f"{BACKEND} is not ready ({status.state}): {status.detail}", fix=status.fix)
    if not 0 <= device < len(status.devices):
        raise BackendError(
            f"There is no GPU {device}.",
            fix=f"There are: {', '.join(f'{index} ({name})' for index, name in enumerate(status.devices))}.",
        )
    return status
