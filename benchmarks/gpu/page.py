"""The record of the GPU suite -> docs/gpu.md and docs/fidelity.md; without a record the pages say that nothing ran.

python benchmarks/gpu/page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu.engine_section import engine_section  # noqa: E402 - the scripts' own package is not installed
from gpu.tables import table, us, whole  # noqa: E402
from gpu.wheels import COLLECT  # noqa: E402
from gpu.where import tests_told, where  # noqa: E402

__all__ = ["fidelity_page", "gpu_page", "read"]

RECORD = ROOT / "benchmarks" / "results" / "gpu.json"
ACCUMULATION = ROOT / "benchmarks" / "results" / "accumulation.json"
GPU_PAGE, FIDELITY_PAGE = ROOT / "docs" / "gpu.md", ROOT / "docs" / "fidelity.md"

HOW = f"""
## How to run it

On a machine with an NVIDIA GPU and its driver:

```sh
make test-gpu RUNTIME=gpu                  # the tests that need a CUDA device; without TensorRT, its tests are skipped
pip install cupti-python                   # times by layer on the device; for CUDA 12: 'cupti-python<13'
pip install '.[tensorrt]'                  # engines; without it the record says that none was measured
python sample_models/make.py resnet50 bert_base     # the large models; needs the extra 'training'
python benchmarks/gpu/run_gpu_suite.py     # writes benchmarks/results/gpu.json
python benchmarks/gpu/page.py              # writes this page and docs/fidelity.md from it
```

`--quick` takes the small models only. What fails becomes a row that says why. Where CUPTI does not record, the suite
does not start: every layer would be timed alone. `--isolated` accepts that.

For a machine without network, fill a folder where there is one, with the same Python and system, in a checkout:

```sh
{COLLECT}    # for engines: '.[gpu,tensorrt]'
```

and give it: `python benchmarks/gpu/run_gpu_suite.py --wheels FOLDER`. The folder must hold all that these packages
depend on; if anything is missing, nothing is changed.
"""


NEVER_RAN = """
# On the GPU: what has run where

**Nothing of this has run on a GPU so far**, neither through ONNX Runtime nor through TensorRT. There is no record
(`benchmarks/results/gpu.json`), so this page has no figures. It is written by `benchmarks/gpu/page.py`, which fills it
as soon as there is one.
"""

WILL_STAND = """
What will stand here: latency of the whole model and by layer in fp32, in full fp16 and under a searched plan, for
ResNet-50 (batch 1 and 32), BERT-base (batch 1 and 16) and the shipped samples; beside it the models that ModelOpt's
AutoCast makes, on the same runtime; what the kernels really computed in; and predicted against real times. Where
TensorRT's Python package loads, engines of the same models under the same plans too, with the layers that ran in
another format than was asked for. Emulated against real errors is on [its own page](fidelity.md).
"""


def read(path: Path = RECORD) -> dict[str, Any] | None:
    """Return the committed record, or None where the suite has never been run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def gpu_page(record: dict[str, Any] | None) -> str:
    """Return docs/gpu.md."""
    if record is None:
        return _joined([NEVER_RAN, where(None), WILL_STAND, HOW])
    opening = [_opening(record), where(record)]
    return _joined(
        [*opening, _latency(record), _layers(record), _roofline(record), engine_section(record), _failures(record), HOW]
    )


def fidelity_page(record: dict[str, Any] | None, accumulation: dict[str, Any]) -> str:
    """Return docs/fidelity.md."""
    real = _no_kernels() if record is None else _fidelity(record)
    return _joined([FIDELITY_HEAD, real, _accumulation(accumulation)])


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _opening(record: dict[str, Any]) -> str:
    device, machine, tensorrt = record["device"], record["machine"], record["tensorrt"]
    quick = (
        "\n!!! warning\n    A quick run, to try the script. Do not quote these figures.\n" if record["quick"] else ""
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record["versions"].items()))
    return f"""
# On the GPU: what has run where

Measured on one **{device["name"]}**; nothing here holds for another GPU. This page is written by
`benchmarks/gpu/page.py` from the run's record, `benchmarks/results/gpu.json`; edit neither by hand.
{quick}
- Command: `{record["command"]}`; {record["date"]}, our code {record["source"]}.
- Machine: {device["name"]}, driver for CUDA {device["cuda"]}; {machine["cpu"]}, {machine["threads"]} threads.
- Versions: {versions}.
- TensorRT: {tensorrt["version"] or "not there, no engine was measured"}.
- Tests that need a CUDA device: {tests_told(record, "gpu")}.
- Tests that need TensorRT: {tests_told(record, "tensorrt")}.
"""


def _latency(record: dict[str, Any]) -> str:
    base = {(row["model"], row["batch"]): row["whole_us"] for row in record["latency"] if row["plan"] == "fp32"}
    rows = []
    for row in record["latency"]:
        fp32 = base.get((row["model"], row["batch"]))
        gain = f"{fp32 / row['whole_us']:.2f}x" if fp32 and row["plan"] != "fp32" else ""
        share = f"{row['low_share']:.0%}" if "low_share" in row else ""
        parts = [us(row.get(name)) for name in ("layers_us", "inserted_us", "overhead_us")]
        rows.append([row["model"], row["batch"], row["plan"], share, row.get("casts", ""), whole(row), gain, *parts])
    head = ["model", "batch", "plan", "low", "casts", "whole, µs", "gain", "layers, µs", "inserted, µs", "rest, µs"]
    return f"""
## Latency

Whole: median of unprofiled runs ± interquartile range, inputs and outputs on the GPU. Layers and inserted nodes (casts,
copies): device time, in runs of their own. The rest is what the GPU waits: launches, and the executor.
{_provenance(record)}

{table(head, rows)}
"""


def _provenance(record: dict[str, Any]) -> str:
    """Say it loudly where layers were timed alone."""
    rows = [row for row in record["latency"] if "layers_us" in row]
    alone = [row for row in rows if "isolated" in row["provenance"]]
    if not alone:
        return ""
    return f"""
!!! warning "Times by layer are isolated in {len(alone)} of {len(rows)} measurements"
    Each layer was run alone, unfused, because CUPTI did not record. They say which layers are slow, not what they cost
    inside the model. {record["cupti"] or "The record's notes say why."}
"""


def _layers(record: dict[str, Any]) -> str:
    parts = []
    for row in record["latency"]:
        if not row.get("slowest"):
            continue
        formats = ", ".join(f"{name} {us:.0f} µs" for name, us in sorted(row["formats_run_us"].items()))
        body = [
            [f"`{item['layer']}`", item["op"], f"{item['us']:.1f}", ", ".join(f"`{name}`" for name in item["kernels"])]
            for item in row["slowest"][:5]
        ]
        parts.append(
            f"### {row['model']}, batch {row['batch']}, {row['plan']}\n\n"
            + (f"By the names of the kernels, layers were computed in: {formats}.\n\n" if formats else "")
            + table(["layer", "op", "µs", "kernels"], body)
        )
    return "## The slowest layers\n\n" + "\n\n".join(parts) if parts else ""


def _roofline(record: dict[str, Any]) -> str:
    if not record["roofline"]:
        return ""
    rows = [
        [
            row["model"], row["batch"], row["plan"], f"{row['predicted_us']:.0f}", f"{row['device_us']:.0f}",
            f"{row['measured_us']:.0f}", "" if row["median_factor"] is None else f"{row['median_factor']:.2f}",
            "" if row["within"] is None else f"{row['within']:.0%}",
        ]
        for row in record["roofline"]
    ]  # fmt: skip
    head = ["model", "batch", "plan", "predicted, µs", "layers, µs", "whole, µs", "median factor", "within 1.5x"]
    return f"""
## Predicted and real times

The [roofline](roofline.md) against this GPU. Factor: measured over predicted, of layers with at least 1% of the time.

{table(head, rows)}
"""


def _failures(record: dict[str, Any]) -> str:
    if not record["failed"]:
        return ""
    return "## What failed\n\n" + "\n".join(f"- {item['what']}: {_line(item['why'])}" for item in record["failed"])


FIDELITY_HEAD = """
# How close is emulation to real kernels?

[Emulation](emulation.md) rounds inputs, weights and results exactly as storage in the format does, and computes in
fp32. A GPU's kernels also sum in another order, some of them in fp16, and fuse layers. This page compares the two,
layer by layer; it is written by `benchmarks/gpu/page.py` from committed records.
"""


def _no_kernels() -> str:
    return """
## Against real kernels

**Not measured so far: nothing has run on a GPU** (see [what has run where](gpu.md)). The suite runs the switchable
graph with true fp16 operators on CUDA and puts its errors beside the emulated ones: of each layer alone, and under the
full fp16 plan. Here will stand, for every operator type, how many results lie within 3 dB, the median, and the layer
farthest off.
"""


def _fidelity(record: dict[str, Any]) -> str:
    parts = [
        f"""
## Against real kernels

Measured on one {record["device"]["name"]} with ONNX Runtime's CUDA provider: the switchable graph with true fp16
operators, against the emulated errors of the same samples. In decibels of real over emulated error: 0 is equal,
positive means that the real kernel loses more; within ±3 dB counts as close."""
    ]
    for item in record["fidelity"]:
        scope = "each layer alone" if item["scope"] == "local" else "under the full plan"
        rows = [
            [
                row["op"], row["count"], f"{row['close']:.0%}", _db(row["median_db"]), _db(row["worst_db"]),
                f"`{row['worst_layer']}`",
            ]
            for row in item["by_op"]
        ]  # fmt: skip
        close = "-" if item["close"] is None else f"{item['close']:.0%}"
        parts.append(
            f"### {item['model']}, {item['format']}, {scope}\n\n{item['results']} results, {close} of them close.\n\n"
            + table(["op", "results", "close", "median, dB", "farthest, dB", "at"], rows)
        )
    if not record["fidelity"]:
        parts.append("The run compared no model; [what failed](gpu.md) says why.")
    return "\n\n".join(part.strip() for part in parts)


def _accumulation(record: dict[str, Any]) -> str:
    rows = [
        [
            row["op"],
            f"{row['terms']:,}",
            *(f"{row[name]:.1e}" for name in ("storage", "emulated", "fp32_sums", "fp16_sums")),
        ]
        for row in record["rows"]
    ]
    head = ["op", "terms", "rounding of the result alone", "emulated", "fp32 sums", "fp16 sums"]
    return f"""
## What summation alone can change

This part is **numpy {record["numpy"]} on a CPU, not a GPU**: single operators on seeded fp16 inputs, their partial sums
stored in fp32 or in fp16 after each term, one after the other. Relative L2 error against float64 on the same inputs;
`{record["command"]}` makes it.

{table(head, rows)}

- Conv is the product of its unfolded patches, as a GPU computes it.
- With fp32 sums the error is that of rounding the result, and emulation gives it: the order of a sum does not show.
- With fp16 sums the error grows with the number of terms, and emulation does not see it. This is the worst case:
  kernels that sum in fp16 add in pieces, whose error grows more slowly.
- ONNX Runtime's CUDA provider sums fp16 products in fp32 unless the environment variable `ORT_CUDA_GEMM_OPTIONS` asks
  for fp16 (its source). TensorRT may sum fp16 layers in fp16: the tactic names in NVIDIA's published profiles say so.
"""


def _db(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:+.1f}"


def _line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    record = read()
    GPU_PAGE.write_text(gpu_page(record), encoding="utf-8")
    accumulation = read(ACCUMULATION)
    if accumulation is None:
        raise SystemExit("First: python benchmarks/gpu/accumulation.py")
    FIDELITY_PAGE.write_text(fidelity_page(record, accumulation), encoding="utf-8")
    print(f"Wrote {GPU_PAGE} and {FIDELITY_PAGE}.")


if __name__ == "__main__":
    main()
