"""The part of docs/gpu.md that tells of TensorRT: engines, what they ran in, their slowest layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gpu.tables import table, us, whole

__all__ = ["engine_section"]

SHOWN = 5  # layers of each kind


def engine_section(record: dict[str, Any]) -> str:
    """Return the section; where no engine was measured it says why."""
    found, rows = record["tensorrt"], record["engines"]
    if found["version"] is None:
        return f"## TensorRT\n\n**Not run.** {found['why']}"
    if not rows:
        return f"## TensorRT\n\n**No engine was measured** with TensorRT {found['version']}; see what failed."
    return "\n\n".join([_head(record), _engines(record), *(_layers(row) for row in rows)])


def _head(record: dict[str, Any]) -> str:
    found = record["tensorrt"]
    return f"""## TensorRT

TensorRT {found["version"]} on {found["device"]}: an engine of each model under the same plans. Whole: median of
unprofiled runs between CUDA events ± interquartile range, inputs and outputs on the GPU. Layers: by TensorRT's own
profiler, in runs of their own, whose sum is longer than the whole. *CUDA* is the same plan on ONNX Runtime, above;
*other format* counts the layers whose kernels ran in another format than the plan asked for."""


def _engines(record: dict[str, Any]) -> str:
    fp32 = {_case(row): row["whole_us"] for row in record["engines"] if row["plan"] == "fp32"}
    cuda = {(*_case(row), row["plan"]): row["whole_us"] for row in record["latency"]}
    rows = []
    for row in record["engines"]:
        base = fp32.get(_case(row))
        rows.append(
            [
                row["model"], row["batch"], row["plan"], f"{row['low_share']:.0%}", row["casts"], whole(row),
                f"{base / row['whole_us']:.2f}x" if base and row["plan"] != "fp32" else "",
                us(cuda.get((*_case(row), row["plan"]))), us(row["layers_us"]), us(row["inserted_us"]),
                len(row["mismatches"]),
            ]
        )  # fmt: skip
    head = ["model", "batch", "plan", "low", "casts", "whole, µs", "gain", "CUDA, µs", "layers, µs", "added, µs"]
    return table([*head, "other format"], rows)


def _case(row: dict[str, Any]) -> tuple[str, int]:
    return row["model"], row["batch"]


def _layers(row: dict[str, Any]) -> str:
    parts = [f"### TensorRT: {row['model']}, batch {row['batch']}, {row['plan']}", f"{row['formats'].capitalize()}."]
    pairs = Counter((item["asked"], item["ran"]) for item in row["mismatches"])
    for (asked, ran), count in pairs.items():
        ids = [f"`{item['layer']}`" for item in row["mismatches"] if (item["asked"], item["ran"]) == (asked, ran)]
        more = " ..." if count > SHOWN else ""
        parts.append(f"- Asked {asked}, ran {ran}: {count}: {', '.join(ids[:SHOWN])}{more}")
    slow = [
        [f"`{item['layer']}`", item["op"], f"{item['us']:.1f}", ", ".join(item["ran"]) or "not told"]
        for item in row["slowest"][:SHOWN]
    ]
    if slow:
        parts.append(table(["layer", "op", "µs", "ran"], slow))
    return "\n\n".join(parts)
