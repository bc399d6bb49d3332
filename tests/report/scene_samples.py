"""The graph of a report's sample: what explorer.scene would write of a model that does not exist."""

from __future__ import annotations

import base64
import dataclasses
import json

import numpy as np
from report_samples import transformer

from explorer.scene.frame import encode_frame

SHAPE = "8\N{MULTIPLICATION SIGN}128\N{MULTIPLICATION SIGN}768"
ERRORS = ("local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db", "acc_rel_l2", "acc_max_abs")
COUNTS = ("overflow", "nan", "subnormal", "flushed", "elements")


def with_graph(*arguments, detailed=True, **changes):
    """Returns a report's sample that carries its graph."""
    data = transformer(*arguments, **changes)
    scene = {
        "structure": structure(data), "state": state(data), "figures": base64.b64encode(frame(data)).decode(),
        "details": details(data) if detailed else [], "values": values(data) if detailed else {},
    }  # fmt: skip
    return dataclasses.replace(data, scene=json.dumps(scene).encode())


def structure(data):
    """Returns a chain of layers with a residual edge at every Add, in the scopes that the table names."""
    ids, ops, scopes = (data.errors[name].tolist() for name in ("name", "op", "scope"))
    kinds, count = sorted(set(ops)), len(ids)
    groups = {"label": [data.title], "path": [""], "parent": [-1], "kind": ["scope"]}

    def group(path):
        if not path:
            return 0
        if path not in groups["path"]:
            above, _, label = path.rpartition("/")
            parent = group(above)
            for key, value in (("label", label), ("path", path), ("parent", parent), ("kind", "scope")):
                groups[key].append(value)
        return groups["path"].index(path)

    edges = [(count, 0, 0), *((at, at + 1, at + 1) for at in range(count))]
    edges = [(a, count + 1 if b == count else b, t) for a, b, t in edges]
    edges += [(at - 3, at, at - 2) for at, op in enumerate(ops) if op == "Add" and at > 3]
    tensors = count + 1
    return {
        "version": 1, "name": data.title, "digest": "0", "opset": 18, "producer": "pytorch 2.13", "ops": kinds,
        "sources": [""], "dtypes": ["float32"],
        "layers": {
            "id": ids, "op": [kinds.index(op) for op in ops], "group": [group(scope) for scope in scopes],
            "source": [0] * count, "container": [-1] * count,
        },
        "inputs": {"name": ["x"], "tensor": [0]}, "outputs": {"name": ["logits"], "tensor": [count]},
        "tensors": {
            "name": [f"t{at}" for at in range(tensors)], "dtype": [0] * tensors, "shape": [SHAPE] * tensors,
        },
        "edges": {key: [edge[at] for edge in edges] for at, key in enumerate(("from", "to", "tensor"))},
        "groups": groups,
    }  # fmt: skip


def state(data):
    """Returns what the panel's bar shows of a report."""
    known = {"value": None, "text": "unknown", "provenance": ""}
    ops = data.errors["op"].value_counts()
    return {
        "revision": 0, "format": "fp16", "formats": [{"name": "fp16", "about": "", "off": ""}],
        "uses": ["fp16"], "preset": "full",
        "presets": [{"name": "full", "label": "full"}], "keep_io": True, "io_choice": False,
        "plan": {"rules": [], "layers": {}, "text": ""},
        "target": "", "targets": [], "gpu": "", "devices": [], "measured": None,
        "calibration": {"wanted": False, "method": "", "methods": [], "text": "", "notes": []},
        "run": {"state": "idle", "stage": "", "done": 0, "total": 0, "seconds": None, "error": None},
        "undo": 0, "redo": 0,
        "ops": [{"op": op, "count": int(n), "low": int(n), "blocked": op == "Softmax"} for op, n in ops.items()],
        "headline": {
            "output_error": {"value": "nan", "text": "not finite", "provenance": "emulated"}, "metric": None,
            "low_share": {**known, "value": 0.9, "text": "90 %"}, "casts": None, "latency": None,
        },
        "search": {
            "state": "idle", "stage": "", "done": 0, "total": 0, "seconds_left": None, "error": None, "points": [],
            "budget": None, "chosen": None, "device": "", "error_provenance": "", "latency_provenance": "",
            "summary": "", "stale": "",
        },
        "outputs": [], "tried": [], "findings": [], "warnings": list(data.warnings),
        "samples": data.samples.description, "random": data.samples.random, "calls": [], "code": "",
        "created": data.created,
    }  # fmt: skip


def frame(data):
    """Returns the frame of the table's figures."""
    rows = data.errors
    count, edges = len(rows), structure(data)["edges"]
    low = (rows["format"] == "fp16").to_numpy(np.uint8)
    reasons = sorted(set(rows["reason"]))
    columns = {
        "format": low + 1, "asked": low + 1, "blacklisted": 1 - low, "switchable": np.ones(count, np.uint8),
        "reason": np.array([reasons.index(word) for word in rows["reason"]], np.uint16),
        **{name: rows[name].to_numpy(np.float32) for name in ERRORS},
        **dict.fromkeys(("sensitivity_db", "saves_us", "costs"), np.zeros(0, np.float32)),
        **{name: rows[name].to_numpy(np.float64) for name in COUNTS},
        **{name: data.ranges[name].to_numpy(np.float32) for name in ("max_abs", "rms")},
        "fp32_us": data.latency["fp32_us"].to_numpy(np.float32),
        "plan_us": data.latency["fp16_us"].to_numpy(np.float32),
        "latency_us": data.latency["fp16_us"].to_numpy(np.float32), "cast": np.zeros(len(edges["from"]), np.uint8),
    }  # fmt: skip
    columns["acc_sqnr_db"] = np.where(np.isnan(columns["acc_sqnr_db"]), -np.inf, columns["acc_sqnr_db"])
    columns["acc_sqnr_db"] = columns["acc_sqnr_db"].astype(np.float32)
    facts = {
        "revision": 0, "errorsRevision": 0, "formats": ["none", "fp32", "fp16"], "reasons": reasons,
        "errorProvenance": "emulated", "rangeProvenance": "measured on onnxruntime-cpu",
        "latencyProvenance": "predicted for H100-SXM", "firstNonfinite": -1,
        "latencyStandsIn": False, "kernels": [],
    }  # fmt: skip
    return encode_frame(facts, columns)


def details(data):
    return [
        {
            "layer": at, "name": name, "domain": "", "scope": "", "attributes": [{"name": "axis", "value": "-1"}],
            "inputs": [{"name": "x", "dtype": "float32", "shape": SHAPE, "kind": "value"}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": SHAPE, "kind": "value"}], "weights": [],
            "quantisation": [], "source": "", "code": "",
        }
        for at, name in enumerate(data.errors["name"])
    ]  # fmt: skip


def values(data):
    histogram = {
        "first": -20, "exact": [1 + (at * 37) % 90 for at in range(30)], "plan": None, "exact_zeros": 3,
        "plan_zeros": None, "exact_nonfinite": 0, "plan_nonfinite": None,
    }  # fmt: skip
    bands = {"overflow": 65520.0, "normal": 2**-14, "subnormal": 2**-25}
    return {
        str(at): {
            "layer": at, "revision": 0, "output": "y", "outputs": ["y"], "format": "fp16", "histogram": histogram,
            "bands": bands, "scatter": None, "provenance": "measured on onnxruntime-cpu", "note": "",
        }
        for at in range(len(data.errors))
    }  # fmt: skip
