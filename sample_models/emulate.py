"""What half precision does to a model, emulated plainly: every float tensor that a low layer touches goes through fp16.

Each layer that is not blocked gets explicit pairs of Cast layers (fp32 to fp16 and back) on all its float inputs,
weights included, and on its float outputs; its own arithmetic stays fp32. ONNX Runtime honours such pairs, while on a
CPU it silently runs a graph that is typed fp16 in fp32. This is the check behind the figures in README.md, kept apart
from the package on purpose: `python sample_models/emulate.py` prints them. Needs onnx, onnxruntime and numpy only.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

HERE = Path(__file__).resolve().parent
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def emulate_fp16(model: onnx.ModelProto, blocked: Collection[str] = ()) -> onnx.ModelProto:
    """Returns a copy of `model`, without subgraphs, in which every layer but the `blocked` ones stores in fp16."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    floats = {
        value.name
        for value in [*typed.value_info, *typed.input, *typed.output]
        if value.type.tensor_type.elem_type == FLOAT
    }
    floats |= {weight.name for weight in typed.initializer if weight.data_type == FLOAT}
    low = onnx.ModelProto()
    low.CopyFrom(model)
    del low.graph.node[:]
    for number, node in enumerate(model.graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        before: list[onnx.NodeProto] = []
        after: list[onnx.NodeProto] = []
        if node.name not in blocked:
            for index, name in enumerate(node.input):
                if name in floats:
                    copy.input[index] = f"{name}/rounded/{number}/{index}"
                    before += _round(name, copy.input[index])
            for index, name in enumerate(node.output):
                if name in floats:
                    copy.output[index] = f"{name}/exact"
                    after += _round(copy.output[index], name)
        low.graph.node.extend([*before, copy, *after])
    return low


def _round(source: str, target: str) -> list[onnx.NodeProto]:
    """Returns the two Cast layers that round `source` to fp16 and give `target`."""
    down = onnx.helper.make_node("Cast", [source], [f"{target}/fp16"], name=f"{target}/down", to=FLOAT16)
    up = onnx.helper.make_node("Cast", [f"{target}/fp16"], [target], name=f"{target}/up", to=FLOAT)
    return [down, up]


def matching(model: onnx.ModelProto, patterns: Iterable[str]) -> set[str]:
    """Returns the names of the layers that match one of the glob `patterns`."""
    wanted = list(patterns)
    return {node.name for node in model.graph.node if any(fnmatch(node.name, pattern) for pattern in wanted)}


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of `model` on `feeds`, with ONNX Runtime's graph optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def open_sample(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]:
    """Returns model, inputs and labels of a shipped sample."""
    with np.load(HERE / f"{name}.npz") as arrays:
        feeds = {key: arrays[key] for key in arrays.files if key != "labels"}
        labels = arrays["labels"]
    return onnx.load(HERE / f"{name}.onnx"), feeds, labels


def classes(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the predicted class of every image; -1, which is no class, where a score is NaN."""
    scores = run(model, feeds)["class_scores"]
    return np.where(np.isnan(scores).any(axis=-1), -1, np.nan_to_num(scores).argmax(axis=-1))


def main() -> None:
    """Prints, for each shipped model, the accuracy in fp32, in fp16, and in fp16 with its blacklist."""
    blacklists = json.loads((HERE / "blacklists.json").read_text(encoding="utf-8"))
    for name, patterns in blacklists.items():
        model, feeds, labels = open_sample(name)
        exact = classes(model, feeds)
        blocked = matching(model, patterns)
        low = classes(emulate_fp16(model), feeds)
        mixed = classes(emulate_fp16(model, blocked), feeds)
        shares = [f"{(predicted == labels).mean():.2%}" for predicted in (exact, low, mixed)]
        print(f"{name}: {len(model.graph.node)} layers, fp32 {shares[0]}, fp16 {shares[1]}, blacklist {shares[2]}")
        print(f"  blocked: {len(blocked)} layers; predictions that differ from fp32: {(mixed != exact).sum()}")


if __name__ == "__main__":
    main()
