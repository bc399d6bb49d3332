"""A record as the GPU suite writes it, with nothing measured yet."""

from __future__ import annotations


def record_of(**parts):
    """Returns a record of a machine without TensorRT, with these parts replaced."""
    return {
        "date": "2026-01-01",
        "command": "test",
        "quick": True,
        "source": "0",
        "device": {"name": "Test GPU", "cuda": "13.0", "roofline": "H100"},
        "tensorrt": {"version": None, "device": None, "why": "TensorRT is not installed."},
        "cupti": "No CUPTI here.",
        "machine": {"cpu": "Test CPU", "threads": 2},
        "versions": {"onnx": "1"},
        "tests": {"gpu": {"returncode": 0, "summary": "19 passed", "lines": []}, "tensorrt": None},
        "plans": {},
        "latency": [],
        "engines": [],
        "fidelity": [],
        "roofline": [],
        "failed": [],
    } | parts
