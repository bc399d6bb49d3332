"""How far the roofline is from real engines: predicted against measured time of every layer.

    python benchmarks/roofline_fidelity.py FOLDER                   # print the table of docs/roofline.md
    python benchmarks/roofline_fidelity.py FOLDER --extract DIR     # also write the extracts that the tests read
    python benchmarks/roofline_fidelity.py FOLDER --fit             # also fit the constants again

FOLDER holds ``<engine>.graph.json`` and ``<engine>.profile.json`` as ``trtexec --exportLayerInfo --exportProfile``
writes them (NVIDIA/TensorRT, tools/experimental/trt-engine-explorer/examples, Apache-2.0).
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.backends import kernel_model
from explorer.backends.gpus import get_gpu
from explorer.backends.kernel_model import STORAGE_BYTES, Settings, kernel_time
from explorer.model.cost_types import GemmShape

# Median "GPU Compute Time" of the unprofiled engine: <engine>.profile.metadata.json beside each example, which also
# names the devices, "NVIDIA A100 80GB PCIe" and "NVIDIA GeForce RTX 3090", and "CUDA Graph: Enabled".
ENGINES = {
    "resnet18_a100_fp32": ("A100-PCIE-80GB", 1990.72, "fitted"),
    "resnet18_a100_fp16": ("A100-PCIE-80GB", 862.183, "fitted"),
    "resnet18_a100_int8_qat": ("A100-PCIE-80GB", 882.568, "held out"),
    "resnet50_rtx3090_fp16": ("RTX 3090", 4020.26, "held out"),
}
EXTRACTS = {
    "resnet18_a100_fp32": "trt_resnet18_a100_fp32",
    "resnet18_a100_fp16": "trt_resnet18_a100_fp16",
    "resnet18_a100_int8_qat": "trt_resnet18_a100_int8",
    "resnet50_rtx3090_fp16": "trt_resnet50_rtx3090_fp16",
}
KINDS = {"Reformat": "movement", "Shuffle": "movement", "Padding": "movement", "CudaSoftMax": "softmax"}
FORMATS = {"Float": "fp32", "Half": "fp16", "Int8": "int8", 4: "fp32", 2: "fp16", 1: "int8"}
SHARE = 0.01  # layers below this share of the time are left out of the tables
FACTOR = 1.5
COLD = "Input Tensor 0 to Conv_0"  # first kernel of the fp16 engine, timed once, cold: not fitted, but in the table


@dataclass(frozen=True)
class Row:
    name: str
    kind: str
    format: str
    flops: float
    moved_bytes: float
    gemm: GemmShape | None
    measured_us: float


def element_bytes(tensor: dict[str, Any]) -> int:
    text = tensor["Format/Datatype"]
    return 4 if "FP32" in text else 2 if "FP16" in text else 1


def row(layer: dict[str, Any], measured_us: float) -> Row:
    """What a layer of the engine computes and moves, from the dimensions and types that the engine states."""
    source, result = layer["Inputs"][0], layer["Outputs"][0]
    sizes = [math.prod(tensor["Dimensions"]) * element_bytes(tensor) for tensor in layer["Inputs"]]
    written = sum(math.prod(tensor["Dimensions"]) * element_bytes(tensor) for tensor in layer["Outputs"])
    if layer["LayerType"] != "CaskConvolution":
        kind = KINDS.get(layer["LayerType"], "pool")
        return Row(layer["Name"], kind, FORMATS[element_bytes(source)], 0, sum(sizes) + written, None, measured_us)
    channels, groups, kernel = source["Dimensions"][1], layer["Groups"], layer["Kernel"]
    out = result["Dimensions"]
    gemm = GemmShape(
        m=out[0] * math.prod(out[2:]),
        n=layer["OutMaps"] // groups,
        k=channels // groups * math.prod(kernel),
        batch=groups,
        k_inner=channels // groups,
    )
    fmt = FORMATS[layer["Weights"]["Type"]]
    sizes[0] *= math.prod(min(1, size / step) for size, step in zip(kernel, layer["Stride"], strict=True))
    moved = sum(sizes) + written + layer["Weights"]["Count"] * STORAGE_BYTES[fmt]
    kind = "matmul" if math.prod(out[2:]) == 1 else "conv"
    return Row(layer["Name"], kind, fmt, gemm.flops, moved, gemm, measured_us)


def read(folder: Path, engine: str) -> list[Row]:
    layers = json.loads((folder / f"{engine}.graph.json").read_text())["Layers"]
    profile = json.loads((folder / f"{engine}.profile.json").read_text())
    times = {entry["name"]: entry["averageMs"] * 1000 for entry in profile if "name" in entry}
    return [row(layer, times[layer["Name"]]) for layer in layers if layer["LayerType"] != "NoOp"]


def profiler_us(rows: list[Row], engine_us: float) -> float:
    """What the profiler adds to each layer: summed layer times exceed the engine's latency."""
    return (sum(item.measured_us for item in rows) - engine_us) / len(rows)


def predict(item: Row, gpu: str, extra_us: float) -> float:
    """The tactic names of the fixtures say that fp16 is accumulated in fp16 (``f16f16_f16f16_f16``)."""
    time = kernel_time(
        get_gpu(gpu),
        item.format,
        flops=item.flops,
        moved_bytes=item.moved_bytes,
        gemm=item.gemm,
        kind=item.kind,
        settings=Settings(allow_tf32=True, accumulate="fp16"),
    )
    return time.us + extra_us


def table(folder: Path) -> str:
    lines = [
        "| engine | use | layer kind | layers | of the time | geometric mean | within 1.5x | worst |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    totals = ["| engine | measured, unprofiled | predicted | ratio |", "|---|--:|--:|--:|"]
    for engine, (gpu, engine_us, use) in ENGINES.items():
        rows = read(folder, engine)
        extra, whole = profiler_us(rows, engine_us), sum(item.measured_us for item in rows)
        ratios: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for item in rows:
            if item.measured_us >= SHARE * whole:
                ratio = predict(item, gpu, extra) / item.measured_us
                ratios[item.kind].append((ratio, item.measured_us))
                ratios["all"].append((ratio, item.measured_us))
        for kind in sorted(ratios, key=lambda name: (name == "all", name)):
            values = [ratio for ratio, _ in ratios[kind]]
            mean = math.exp(sum(map(math.log, values)) / len(values))
            inside = sum(1 / FACTOR <= value <= FACTOR for value in values)
            worst = max(values, key=lambda value: abs(math.log(value)))
            share = sum(us for _, us in ratios[kind]) / whole
            cells = (engine, use, kind, len(values), f"{share:.0%}", f"{mean:.2f}", f"{inside}/{len(values)}")
            lines.append(f"| {' | '.join(map(str, cells))} | {worst:.2f} |")
        predicted = sum(predict(item, gpu, 0.0) for item in rows)
        totals.append(
            f"| {engine} | {engine_us / 1000:.2f} ms | {predicted / 1000:.2f} ms | {predicted / engine_us:.2f} |"
        )
    return "\n".join([*lines, "", *totals])


def extract(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for engine, name in EXTRACTS.items():
        rows = read(folder, engine)
        gpu, engine_us, use = ENGINES[engine]
        header = {"gpu": gpu, "use": use, "engine_us": engine_us, "profiler_us": round(profiler_us(rows, engine_us), 3)}
        columns = ["name", "kind", "format", "flops", "bytes", "gemm [m, n, k, batch, k_inner]", "measured_us"]
        body = [
            [
                item.name,
                item.kind,
                item.format,
                item.flops,
                item.moved_bytes,
                item.gemm and [item.gemm.m, item.gemm.n, item.gemm.k, item.gemm.batch, item.gemm.k_inner],
                round(item.measured_us, 3),
            ]
            for item in rows
        ]
        parts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in {**header, "columns": columns}.items()]
        listed = ",\n".join(f"    {json.dumps(line)}" for line in body)
        joined = ",\n".join(parts)
        (target / f"{name}.json").write_text(f'{{\n{joined},\n  "rows": [\n{listed}\n  ]\n}}\n')


def fit(folder: Path) -> None:
    """Least squares in log space over the fitted engines' layers above one percent; prints, changes nothing."""
    from scipy.optimize import differential_evolution  # noqa: PLC0415 - only needed here

    names = ("TILE_COST", "TILE_LATENCY_BYTES", "MEMORY_CEILING", "OVERLAP")
    bounds = [(0, 80), (0, 600), (0.5, 1), (0, 1)]
    cases = []
    for engine, (gpu, engine_us, use) in ENGINES.items():
        rows = read(folder, engine)
        whole, extra = sum(item.measured_us for item in rows), profiler_us(rows, engine_us)
        kept = [item for item in rows if item.measured_us >= SHARE * whole and COLD not in item.name]
        cases += [(item, gpu, extra) for item in kept if use == "fitted"]

    def loss(values: list[float]) -> float:
        for name, value in zip(names, values, strict=True):
            setattr(kernel_model, name, value)
        kernel_model.product_us.cache_clear()
        errors = [math.log(predict(item, gpu, extra) / item.measured_us) for item, gpu, extra in cases]
        return math.sqrt(sum(error * error for error in errors) / len(errors))

    shipped = loss([getattr(kernel_model, name) for name in names])
    found = differential_evolution(loss, bounds, seed=0, maxiter=40, popsize=12)
    print(f"\nshipped constants: rms log error {shipped:.4f} over {len(cases)} layers; best fit {found.fun:.4f} at")
    for name, value in zip(names, found.x, strict=True):
        print(f"  {name} = {value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extract", type=Path, metavar="DIR")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    print(table(options.folder))
    if options.extract:
        extract(options.folder, options.extract)
    if options.fit:
        fit(options.folder)


if __name__ == "__main__":
    main()
