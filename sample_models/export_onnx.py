"""Writes a torch module as an ONNX file whose layers carry readable names, scopes and repository-relative source lines.

torch's exporter records for every node the module that made it (`pkg.torch.onnx.name_scopes`) and the Python lines
(`pkg.torch.onnx.stack_trace`), but names the nodes `node_linear_17` and writes absolute paths of the machine that
exported. This module turns the first into names (`blocks/0/norm1/Pow`) and cuts the second down to the lines of this
repository, so that a shipped file reads well and says nothing about where it was made.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
OPSET = 18  # the newest that every peer converter we compare with can read, and the default of torch 2.6 to 2.13

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
TRACE_KEY = "pkg.torch.onnx.stack_trace"
KEPT_KEYS = (SCOPES_KEY, "pkg.torch.onnx.class_hierarchy", TRACE_KEY)  # what a reader of the model can use
ROLES = {"MatMul": "weight", "Mul": "weight", "Add": "bias"}  # what a constant of more than one value is to its module
TRACE_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n(?P<code>[^\n]*)')


def export(
    module: torch.nn.Module,
    example: Sequence[torch.Tensor],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    optimize: bool = True,
) -> onnx.ModelProto:
    """Writes `module` to `path` with a dynamic first dimension on every input, and returns the checked model.

    Args:
        module: In evaluation mode.
        example: One tensor an input, batch first, batch size 2 (a batch of 1 would be baked in as a constant).
        path: The `.onnx` file to write; weights stay inside it.
        input_names: One name an input.
        output_names: One name an output.
        optimize: Whether torch's exporter may fold constants and drop what is unused.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple({0: batch} for _ in example),
            opset_version=OPSET,
            dynamo=True,
            optimize=optimize,
            verbose=False,
        )
    model = program.model_proto
    _tidy(model)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return model


def _tidy(model: onnx.ModelProto) -> None:
    """Renames the nodes of `model` after their scopes and strips what only the exporting machine needs."""
    model.producer_name = "precision-explorer sample_models"
    model.producer_version = torch.__version__
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        kept = {item.key: item.value for item in node.metadata_props if item.key in KEPT_KEYS}
        base = "/".join([*_scope(kept), node.op_type])
        node.name = base if not taken[base] else f"{base}_{taken[base]}"
        taken[base] += 1
        node.doc_string = ""
        if TRACE_KEY in kept:
            kept[TRACE_KEY] = _relative_trace(kept[TRACE_KEY])
        del node.metadata_props[:]
        for key, value in kept.items():
            if value:
                node.metadata_props.add(key=key, value=value)
    _name_weights(model.graph)


def _name_weights(graph: onnx.GraphProto) -> None:
    """Gives the weights that the exporter reshaped (and called `val_13`) the names of their modules back."""
    weights = {item.name: item for item in graph.initializer}
    renamed: dict[str, str] = {}
    for node in graph.node:
        scope, _, _ = node.name.rpartition("/")
        role = ROLES.get(node.op_type)
        new = f"{scope.replace('/', '.')}.{role}"
        for name in node.input:
            weight = weights.get(name)
            if not (role and scope and weight and name.startswith("val_")) or new in weights or name in renamed:
                continue
            if weight.data_type == onnx.TensorProto.FLOAT and math.prod(weight.dims) > 1:
                renamed[name] = weight.name = new
                weights[new] = weight
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _scope(metadata: Mapping[str, str]) -> list[str]:
    """Returns the module path of a node: ['blocks', '0', 'norm1'], empty for the model itself."""
    scopes: list[str] = ast.literal_eval(metadata.get(SCOPES_KEY, "[]"))
    modules = scopes[:-1]  # the last entry is the torch operation, not a module
    return modules[-1].split(".") if modules and modules[-1] else []


def _relative_trace(trace: str) -> str:
    """Returns the frames of `trace` that lie in this repository, in torch's form, with relative paths."""
    frames: list[str] = []
    for frame in TRACE_FRAME.finditer(trace):
        path = Path(frame["path"])
        if path.is_relative_to(REPOSITORY) and "site-packages" not in path.parts:
            where = path.relative_to(REPOSITORY).as_posix()
            frames.append(f'File "{where}", line {frame["line"]}, in {frame["function"]}\n{frame["code"].rstrip()}')
    return "\n".join(frames)
