"""Explorations that tests of the panel share."""

from __future__ import annotations

from pathlib import Path

import explorer

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def open_sample(name, **more):
    return explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", **more)
