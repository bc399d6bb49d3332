"""Cause in the software: a runtime that is older than what is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import told
from explorer.backends.machine import ONNXRUNTIME_PACKAGES, TENSORRT_PACKAGES
from explorer.backends.status import MIN_ONNXRUNTIME, MIN_TENSORRT

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested

__all__ = ["runtime_version"]

# The newest releases when this was written (November 2026, PyPI); later ones only make a finding say less.
_NEWEST: Final = {"ONNX Runtime": (1, 31), "TensorRT": (11, 4)}
_LEAST: Final = {"ONNX Runtime": MIN_ONNXRUNTIME, "TensorRT": MIN_TENSORRT}
_ON_GPU: Final = ("onnxruntime-gpu", "ort-nightly-gpu")  # others say nothing of what runs on a GPU


def runtime_version(case: Case) -> Tested:
    """Test whether the runtime that the plan is for is old, as far as it is installed here."""
    name = "ONNX Runtime"
    packages: tuple[str, ...] = ONNXRUNTIME_PACKAGES
    if case.gpu is not None:
        name, packages = ("TensorRT", TENSORRT_PACKAGES) if case.target == "tensorrt" else (name, _ON_GPU)
    package = next((each for each in packages if each in case.packages), "")
    newest = ".".join(map(str, _NEWEST[name]))
    if not package:
        where = f" for {case.gpu.name}" if case.gpu is not None and name == "ONNX Runtime" else ""
        return told(
            "version", "untested", "An old runtime",
            f"{name}{where} is not installed here. Where the model runs it should be {newest} or newer.",
        )  # fmt: skip
    version = case.packages[package]
    figures = f"Installed: {package} {version}; newest known {newest}."
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found >= _NEWEST[name]:
        return told("version", "ruled out", "An old runtime", f"{name} is current.", figures)
    if found < _LEAST[name]:
        return told(
            "version", "confirmed", f"{name} {version} is too old",
            "It lacks kernels and fusions that the figures here take for granted. Update it.", figures,
        )  # fmt: skip
    return told(
        "version", "untested", "An old runtime",
        f"{name} {version} is not the newest. Whether a newer one is faster was not measured: it takes both to tell.",
        figures,
    )  # fmt: skip
