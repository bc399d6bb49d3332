"""The samples in int8: accuracy before and after, and what ONNX Runtime's CPU provider takes for them.

    python benchmarks/int8_samples.py           # measure, write benchmarks/results/int8.json, and the table of the page
    python benchmarks/int8_samples.py --page    # write the table of docs/int8.md from the record again

Calibrated on `sample_models/digits_train.npz` (of the training set), evaluated on the test set that each sample ships
with. "Run" is the exported file in ONNX Runtime, all optimizations on, in integers; "emulated" is what the panel shows.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import explorer
from explorer import Plan

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, RECORD, PAGE = ROOT / "sample_models", ROOT / "benchmarks" / "results" / "int8.json", ROOT / "docs" / "int8.md"
CPU = "onnxruntime-cpu"
NAMES = ("lenet5_digits", "digits_transformer", "misaligned_cnn")
METHODS = ("percentile", "minmax", "entropy")  # the first is the default, whose model is exported and timed
BATCHES = (1, 64)
RUNS = 200
INT8 = Plan(format="int8")
BEGIN, END = "<!-- int8 samples: begin -->\n", "<!-- int8 samples: end -->\n"


def main() -> None:
    """Measures, or writes the page alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page from the record; measure nothing")
    if not parser.parse_args().page:
        RECORD.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


def measured() -> dict[str, Any]:
    """Returns the record."""
    return {
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "models": [measured_model(name) for name in NAMES],
    }


def opened(name: str, method: str, batch: int | None = None) -> explorer.Exploration:
    """Returns a sample with the int8 plan, calibrated on rows of the training set."""
    path = SAMPLES / f"{name}.onnx"
    x = explorer.open(path, inputs=path.with_suffix(".npz"), target=CPU, batch_size=batch, threads=1)
    x.calibrate({"image": training_images(x.model.inputs[0].shape[1])}, method=method, cache=False)
    x.plan = INT8
    return x


def training_images(channels: int) -> np.ndarray:
    """Returns images of the training set, their one channel as often as the model takes it."""
    with np.load(SAMPLES / "digits_train.npz") as arrays:
        return np.repeat(arrays["image"], channels, axis=1)


def measured_model(name: str) -> dict[str, Any]:
    """Returns accuracies and latencies of one sample."""
    x = opened(name, METHODS[0])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        conversion = x.export(file)
        run, size = accuracy_of(file, name), file.stat().st_size
    return {
        "name": name,
        "layers": len(x.model.layers),
        "int8_layers": len(x.decisions().low_layers),
        "low_share": conversion.low_share,
        "calibration": x.calibration.description,
        "test_rows": x.samples.rows,
        "fp32": x.accuracy().exact,
        "run": run,
        "bytes": {"fp32": (SAMPLES / f"{name}.onnx").stat().st_size, "int8": size},
        "emulated": {method: emulated(opened(name, method)) for method in METHODS},
        "latency": [timed(name, batch) for batch in BATCHES],
    }


def emulated(x: explorer.Exploration) -> dict[str, Any]:
    """Returns what emulation tells of the int8 plan."""
    accuracy = x.accuracy()
    return {
        "accuracy": accuracy.plan,
        "agreement": accuracy.agreement,
        "sqnr_db": float(x.output_error().iloc[0].sqnr_db),
    }


def accuracy_of(file: Path, name: str) -> float:
    """Returns the share of test images that the exported file labels rightly."""
    with np.load(SAMPLES / f"{name}.npz") as arrays:
        images, labels = arrays["image"], arrays["labels"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": images})
    return float((scores.argmax(axis=-1) == labels).mean())


def timed(name: str, batch: int) -> dict[str, Any]:
    """Returns the latency of the fp32 and of the int8 model, of whole runs without profiling."""
    x = opened(name, METHODS[0], batch)
    found = {}
    for key, plan in (("fp32", Plan.preset("fp32")), ("int8", INT8)):
        result = explorer.results.measuring.measure_plan(x.results, plan, CPU, CPU, runs=RUNS)
        found[key] = {"us": result.whole_us, "spread_us": result.whole_spread_us, "provenance": result.provenance}
        found[key]["notes"] = [note for note in result.notes if "asked for int8" in note]
        found["device"] = result.device
        found["threads"] = result.threads
    return {"batch": batch, **found}


def placed(page: str, record: dict[str, Any]) -> str:
    """Returns the page with its table written anew between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table(record) + END + rest.split(END)[1]


def table(record: dict[str, Any]) -> str:
    """Returns the tables of the page."""
    models = record["models"]
    times = [each for model in models for each in model["latency"]]
    device = f"{times[0]['device']}, ONNX Runtime {record['onnxruntime']} CPU, {times[0]['threads']} thread"
    lines = [
        "| model | layers in int8 | fp32 | int8, run | int8, emulated | file |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{each['name']}` | {each['int8_layers']} of {each['layers']} | {each['fp32']:.2%} | {each['run']:.2%} "
            f"| {each['emulated'][METHODS[0]]['accuracy']:.2%} "
            f"| {each['bytes']['fp32'] / 1e3:.0f} → {each['bytes']['int8'] / 1e3:.0f} kB |"
            for each in models
        ),
        "",
        f"Accuracy on {models[0]['test_rows']} test images, calibrated with {models[0]['calibration']} (training set).",
        "By method, emulated (accuracy, output SQNR):",
        "",
        f"| model | {' | '.join(METHODS)} |",
        f"|---|{'---|' * len(METHODS)}",
        *(
            f"| `{each['name']}` | "
            + " | ".join(
                f"{each['emulated'][method]['accuracy']:.2%}, {each['emulated'][method]['sqnr_db']:.1f} dB"
                for method in METHODS
            )
            + " |"
            for each in models
        ),
        "",
        f"Latency: measured on {device}, median of up to {RUNS} runs (beside it the interquartile range):",
        "",
        "| model | batch | fp32 | int8 | |",
        "|---|---|---|---|---|",
        *(
            f"| `{model['name']}` | {each['batch']} | {_time(each['fp32'])} | {_time(each['int8'])} "
            f"| {_factor(each['fp32']['us'] / each['int8']['us'])} |"
            for model in models
            for each in model["latency"]
        ),
    ]
    return "\n".join([*lines, ""])


def _time(found: dict[str, Any]) -> str:
    return f"{found['us']:.0f} µs (± {found['spread_us']:.0f})"


def _factor(times: float) -> str:
    return f"{times:.2f}x as fast" if times >= 1 else f"{1 / times:.2f}x as slow"


if __name__ == "__main__":
    main()
