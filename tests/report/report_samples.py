"""Reports about models that do not exist, with figures that such models have: what the tests of the report draw."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd

from explorer.formats import Census
from explorer.report import Accuracy, ModelFacts, ModelLatency, PlanFacts, ReportData, SampleFacts, WeightFacts

MEASURED = "measured on onnxruntime-cpu, 2 threads"
PREDICTED = "predicted for H100-SXM"
FP16_MAX = 65504.0

BLOCK = (  # op, name, median microseconds
    ("Pow", "norm1/Pow", 4), ("ReduceMean", "norm1/ReduceMean", 3), ("Sqrt", "norm1/Sqrt", 2), ("Div", "norm1/Div", 4),
    ("MatMul", "attention/query/MatMul", 30), ("MatMul", "attention/key/MatMul", 30),
    ("MatMul", "attention/value/MatMul", 30), ("Reshape", "attention/Reshape", 1),
    ("Transpose", "attention/Transpose", 5), ("MatMul", "attention/scores/MatMul", 12),
    ("Softmax", "attention/Softmax", 9), ("MatMul", "attention/context/MatMul", 12),
    ("MatMul", "attention/output/MatMul", 30), ("Add", "attention/residual/Add", 3), ("MatMul", "mlp/up/MatMul", 110),
    ("Gelu", "mlp/Gelu", 14), ("MatMul", "mlp/down/MatMul", 105), ("Add", "mlp/residual/Add", 3),
)  # fmt: skip


def tensor(name, dtype="float32", shape=(1, 64)):
    return SimpleNamespace(name=name, dtype=dtype, shape=shape)


def transformer(layers=215, *, broken=True, random=False, names=None, blocked=("Softmax",), **changes):
    """A transformer of `layers` layers whose Pow overflows in the later blocks when it is `broken`."""
    rng = np.random.default_rng(7)
    rows, ranges, times = [], [], []
    stream, noise, dead = 40.0, 0.0, False
    for index in range(layers):
        block, (op, tail, cost) = index // len(BLOCK), BLOCK[index % len(BLOCK)]
        scope = f"encoder/layer.{block}/{tail.rsplit('/', 1)[0]}"
        name = names[index] if names and index < len(names) else f"encoder/layer.{block}/{tail}"
        largest = {"Pow": stream**2, "ReduceMean": stream**1.7, "Softmax": 1.0, "Sqrt": stream}.get(
            op, stream * rng.uniform(0.2, 1)
        )
        if op == "Add":
            stream = min(stream * 1.22, 2600.0 if broken else 180.0)
        low = op not in blocked
        overflow = int(rng.integers(3, 900)) if low and largest > FP16_MAX else 0
        dead = dead or overflow > 0
        moves = op in {"Reshape", "Transpose"}
        local = math.inf if moves or not low else float(rng.normal(69, 3)) - (6 if op == "ReduceMean" else 0)
        noise += 0.0 if moves else 10 ** (-local / 10) if math.isfinite(local) else 0.0
        acc = -10 * math.log10(noise) + float(rng.normal(0, 0.8)) if noise else math.inf
        nan = 16384 if dead and not overflow else 0
        why = "follows its producer" if moves else "in the plan's low format" if low else "op type Softmax is blocked"
        rows.append({
            "id": name, "name": name, "op": op, "scope": scope, "format": "fp16" if low else "fp32",
            "reason": why, "local_sqnr_db": -math.inf if overflow else local,
            "local_rel_l2": math.inf if overflow else 10 ** (-local / 20),
            "local_max_abs": math.inf if overflow else stream * 5e-4, "acc_sqnr_db": math.nan if dead else acc,
            "acc_rel_l2": math.nan if dead else 10 ** (-acc / 20), "acc_max_abs": math.nan if dead else stream * 1e-3,
            "overflow": overflow, "nan": nan, "subnormal": int(rng.integers(0, 40)) if op == "Softmax" else 0,
            "flushed": int(rng.integers(0, 9)) if op == "Softmax" else 0, "elements": 16384, "provenance": "emulated",
            "note": "",
        })  # fmt: skip
        ranges.append({
            "id": name, "name": name, "op": op, "scope": scope, "max_abs": largest, "rms": largest / rng.uniform(6, 60),
            "elements": 16384, "overflow": overflow, "subnormal": 0, "flushed": 0, "provenance": MEASURED,
        })  # fmt: skip
        wide = cost * float(rng.uniform(0.9, 1.1))
        times.append({
            "id": name, "name": name, "op": op, "scope": scope, "format": "fp16" if low else "fp32", "fp32_us": wide,
            "fp32_spread_us": math.nan, "fp16_us": wide * (0.55 if op == "MatMul" else 0.8), "fused_with": "",
            "provenance": PREDICTED,
        })  # fmt: skip
    fp32_us = sum(row["fp32_us"] for row in times)
    plan_us = sum(row["fp16_us"] if row["format"] == "fp16" else row["fp32_us"] for row in times)
    fields = {
        "title": "digits-transformer.onnx",
        "model": ModelFacts(
            path="models/digits-transformer.onnx", opset=18, layers=layers, parameters=22_713_216,
            weight_bytes=90_852_864, inputs=[tensor("input_ids", "int64", ("batch", 128)), tensor("mask")],
            outputs=[tensor("logits", shape=("batch", 10))], producer="pytorch 2.13",
        ),
        "plan": PlanFacts(
            format="fp16", keep_io=True, rules=["block op type Softmax", "block layers encoder/layer.0/*"],
            json='{\n  "format": "fp16",\n  "rules": [{"block": {"op_types": ["Softmax"]}}]\n}', casts=24,
        ),
        "samples": SampleFacts(
            description="32 random samples, seed 0" if random else "360 samples of digits.npz in batches of 32",
            random=random,
        ),
        "errors": pd.DataFrame(rows),
        "output_error": pd.DataFrame([{
            "output": "logits", "sqnr_db": math.nan if dead else -10 * math.log10(noise), "rel_l2": math.nan,
            "max_abs": math.nan if dead else 0.02, "cosine": 0.99999, "overflow": 0, "nan": 3600 if dead else 0,
            "elements": 3600, "provenance": "emulated",
        }]),
        "ranges": pd.DataFrame(ranges),
        "latency": pd.DataFrame(times),
        "model_latency": [ModelLatency(provenance=PREDICTED, fp32_us=fp32_us, plan_us=plan_us)],
        "accuracy": None if random else Accuracy(
            before=0.9861, after=0.1 if dead else 0.9861, samples=360, provenance="emulated"
        ),
        "weights": WeightFacts(
            total=Census(elements=22_713_216, subnormal=8_114, flushed=57, max_abs=14.2),
            worst={"encoder.layer.3.mlp.up.weight": Census(elements=589_824, subnormal=812, flushed=31, max_abs=0.4)},
        ),
        "versions": {
            "precision-explorer": "0.1.0", "python": "3.11.2", "numpy": "2.4.6", "onnx": "1.23.2",
            "onnxruntime": "1.31.1", "system": "Linux 6.1", "cpu": "2 cores, AVX2",
        },
        "command": "precision-explorer explore models/digits-transformer.onnx --inputs digits.npz --block-op Softmax",
        "python": 'import explorer\n\nx = explorer.open("models/digits-transformer.onnx", inputs="digits.npz")\n'
        'x.plan = x.plan.block(op_types=["Softmax"])\nx.report("report.html")',
        "created": "21 November 2026, 14:05",
    }  # fmt: skip
    return ReportData(**{**fields, **changes})


HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '"><svg onload=window.hacked=3>',
    "a\"b'c`d${window.hacked=4}{{7*7}}{% raw %}",
    "line one\nline two\ttab\x00nul\x1b[31m",
    "<!--<script>",
    '<a href="javascript:window.hacked=5">link</a>',
    "\N{ROCKET} emoji \N{FACE WITH TEARS OF JOY} und Umlaute äöü 層",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}",
    "&lt;b&gt;already escaped&amp;",
    "__proto__",
    "%{y}%{customdata}",
    "long/" + "x" * 10_000,
)
