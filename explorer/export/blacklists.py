"""The blacklist of a plan in the syntax of other tools, with what each of them cannot express.

Parameter names are those of:

- onnxconverter-common: ``float16.convert_float_to_float16(op_block_list=, node_block_list=, keep_io_types=)``,
  https://onnxruntime.ai/docs/performance/model-optimizations/float16.html
- ONNX Runtime: ``onnxruntime.transformers.float16.convert_float_to_float16``, same parameters (its own docstring)
- ModelOpt AutoCast: ``--nodes_to_exclude`` (regular expressions), ``--op_types_to_exclude``, ``--low_precision_type``,
  ``--keep_io_types``, https://nvidia.github.io/Model-Optimizer/guides/8_autocast.html
- TensorRT 10: ``trtexec --layerPrecisions --layerOutputTypes --precisionConstraints``; removed in TensorRT 11, whose
  networks are strongly typed
- Polygraphy: ``--trt-network-postprocess-script`` with a function ``postprocess(network)``
- PyTorch: ``torch.autocast(device_type, enabled=False)``, https://docs.pytorch.org/docs/stable/amp.html
- Olive: pass ``OnnxFloatToFloat16`` with ``op_block_list``, ``node_block_list``, ``keep_io_types``,
  https://microsoft.github.io/Olive/features/passes/convert_onnx.html
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Final

from explorer.errors import ExportError, nearest
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from explorer.convert import Decisions
    from explorer.model import Layer, Model

__all__ = ["TOOLS", "blacklist_text", "takes"]

TOOLS: Final[Mapping[str, str]] = {
    "onnxconverter-common": "onnxconverter-common (float16)",
    "onnxruntime": "ONNX Runtime (transformers.float16)",
    "modelopt": "ModelOpt AutoCast",
    "trtexec": "trtexec (TensorRT 10 and older)",
    "polygraphy": "Polygraphy (TensorRT 10 and older)",
    "torch": "PyTorch autocast",
    "olive": "Olive (OnnxFloatToFloat16)",
}
"""Every tool by name, with its label."""

_SPECIAL: Final = re.compile(r"[,:*]")  # what separates, or matches anything, in trtexec's specifications
_CONVERTED: Final = ("fp16", "bf16")  # formats that converters know
_TENSORRT: Final = ("trtexec", "polygraphy")
_FLAGS: Final = ("int8",)  # formats that TensorRT 10's builder has a flag for beside them
_UNNAMED: Final = 3  # layers that a note names


def takes(tool: str, low: str) -> bool:
    """Return whether a tool converts to a format, so that it can be given a blacklist of a plan of it."""
    return low in _CONVERTED or (tool in _TENSORRT and low in _FLAGS)


def blacklist_text(tool: str, model: Model, decisions: Decisions) -> tuple[str, str]:
    """Return the layers that stay in fp32 in the syntax of a tool, and a note on what that cannot express.

    Layers are named as in the source file, since that is what the tool will read.

    Args:
        tool: one of :data:`TOOLS`.
        model: the model.
        decisions: of the plan.

    Raises:
        ExportError: there is no such tool, or it does not convert to the plan's format.
    """
    if tool not in TOOLS:
        raise ExportError(
            f"There is no tool '{tool}' to write a blacklist for.",
            fix=nearest(tool, TOOLS) or f"Known: {', '.join(TOOLS)}.",
        )
    low = decisions.plan.format
    if not takes(tool, low):
        raise ExportError(
            f"{tool} takes no blacklist of a plan of {low}.",
            why=f"It converts to {' or '.join(_CONVERTED)}; what {low} needs is in the converted model itself.",
            fix="Export the ONNX model.",
        )
    # To TensorRT, layers that came quantised are int8 already; other tools would convert them, so they are kept there.
    left = (low, NO_FORMAT, "int8") if tool in _TENSORRT else (low, NO_FORMAT)
    kept = [layer for layer in model.layers if decisions[layer.id].format not in left]
    notes = _about_names(model, kept, by_name=tool != "torch")
    text, more = _WRITERS[tool](model, decisions, kept)
    return text, " ".join([*more, *notes])


def _names(layers: Iterable[Layer]) -> list[str]:
    return list(dict.fromkeys(layer.name for layer in layers if layer.name))


def _about_names(model: Model, kept: Sequence[Layer], *, by_name: bool) -> list[str]:
    """Return what the names in the source file cannot tell apart."""
    if not by_name:
        return []
    notes = []
    unnamed = [layer for layer in kept if not layer.name]
    if unnamed:
        ids = ", ".join(repr(layer.id[:60]) for layer in unnamed[:_UNNAMED])
        ids += " ..." if len(unnamed) > _UNNAMED else ""
        notes.append(
            f"{len(unnamed):,} of {len(kept):,} layers have no name in the source file ({ids}) "
            "and are left out here: the tool finds layers by name. Name the nodes first, for example with "
            "explorer.Plan.preset('fp32') and x.export('named.onnx'), and run the tool on that file."
        )
    counts = Counter(layer.name for layer in model.layers if layer.name)
    wanted = {layer.id for layer in kept}
    names = {layer.name for layer in kept}
    also = [
        layer for layer in model.layers if layer.id not in wanted and layer.name in names and counts[layer.name] > 1
    ]
    if also:
        notes.append(f"{len(also):,} other layers share a name with one of these, so the tool keeps them too.")
    return notes


# -- converters of ONNX files ------------------------------------------------------------------------------------------


_THROUGH: Final = (
    "Check the result: a converter that casts to fp16 and back between two neighbours that both stay in fp32 makes "
    "values beyond 65,504 infinite all the same."
)
_TIDY: Final = """\
made = set()
for node in list(mixed.graph.node):  # the converter casts a tensor once for each reader, under one name
    if made & set(node.output):
        mixed.graph.node.remove(node)
    made.update(node.output)
tidy = OnnxModel(mixed)
tidy.remove_cascaded_cast_nodes()  # else values pass through fp16 between two layers that both stay in fp32
tidy.remove_useless_cast_nodes()
tidy.topological_sort()
"""


def _converter(
    module: str, package: str, *, tidies: bool
) -> Callable[[Model, Decisions, Sequence[Layer]], tuple[str, list[str]]]:
    def write(model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
        plan = decisions.plan
        names = "\n".join(f"    {name!r}," for name in _names(kept))
        text = (
            f"import onnx\nfrom {module} import float16\n"
            f"{f'from {module}.onnx_model import OnnxModel' if tidies else ''}\n\n"
            f"model = onnx.load({str(model.path or 'model.onnx')!r})\n"
            f"keep = [\n{names}\n]\n"
            "mixed = float16.convert_float_to_float16(\n"
            f"    model, keep_io_types={plan.keep_io}, op_block_list=[], node_block_list=keep\n"
            f")\n{_TIDY if tidies else ''}"
            f"onnx.save({'tidy.model' if tidies else 'mixed'}, {f'{model.name}.mixed.onnx'!r})\n"
        )
        notes = [
            "op_block_list is empty on purpose: None would add the tool's own list of operators.",
            f"{package} clamps weights beyond its bounds; the plan here changes none.",
        ]
        if not tidies:
            notes.append(_THROUGH)
        return text, [*notes, *_only_fp16(plan.format, package)]

    return write


def _olive(_model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
    plan = decisions.plan
    config = {
        "type": "OnnxFloatToFloat16", "keep_io_types": plan.keep_io, "op_block_list": [],
        "node_block_list": _names(kept),
    }  # fmt: skip
    return json.dumps({"passes": {"mixed": config}}, indent=2) + "\n", [_THROUGH, *_only_fp16(plan.format, "This pass")]


def _modelopt(model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
    plan = decisions.plan
    words = ["python", "-m", "modelopt.onnx.autocast", "--onnx_path", str(model.path or "model.onnx")]
    words += ["--low_precision_type", plan.format]
    if plan.keep_io:
        words.append("--keep_io_types")
    whole = _whole_op_types(model, decisions)
    rest = [layer for layer in kept if layer.op not in whole]
    if whole:
        words += ["--op_types_to_exclude", *whole]
    if names := _names(rest):
        words += ["--nodes_to_exclude", *(f"^{re.escape(name)}$" for name in names)]
    note = (
        "AutoCast also keeps layers of its own choice in fp32 (outputs above --data_max, weights above --init_max); "
        "names are regular expressions here, escaped and anchored so that each matches one name."
    )
    return shlex.join(words) + "\n", [note]


def _whole_op_types(model: Model, decisions: Decisions) -> list[str]:
    """Return op types of which no layer runs in the plan's format and at least one has float32 tensors."""
    formats: dict[str, set[str]] = {}
    for layer in model.layers:
        formats.setdefault(layer.op, set()).add(decisions[layer.id].format)
    low = decisions.plan.format
    return sorted(op for op, found in formats.items() if found - {NO_FORMAT} and low not in found)


def _only_fp16(low: str, package: str) -> list[str]:
    return [] if low == "fp16" else [f"{package} converts to fp16 only; the plan is of {low}."]


# -- TensorRT ----------------------------------------------------------------------------------------------------------

_OLD_TENSORRT: Final = (
    "Only for TensorRT 10 and older: TensorRT 11 builds strongly typed networks and has no precision flags; export the "
    "mixed ONNX file and build that instead. TensorRT may fuse layers or add some; their precision is its choice."
)


def _trtexec(model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
    names = [name for name in _names(kept) if not _SPECIAL.search(name)]
    left = len(_names(kept)) - len(names)
    words = ["trtexec", f"--onnx={model.path or 'model.onnx'}", f"--{decisions.plan.format}", "--noTF32"]
    if names:
        chosen = ",".join(f"{name}:fp32" for name in names)
        words += ["--precisionConstraints=obey", f"--layerPrecisions={chosen}", f"--layerOutputTypes={chosen}"]
    notes = [_OLD_TENSORRT]
    if left:
        notes.append(
            f"{left:,} layers have ',', ':' or '*' in their names, which trtexec's syntax gives a meaning and cannot "
            "quote: they are left out. Use the Polygraphy script instead."
        )
    return shlex.join(words) + "\n", notes


def _polygraphy(model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
    names = "\n".join(f"    {name!r}," for name in _names(kept))
    path = shlex.quote(str(model.path or "model.onnx")).replace("\n", "?")
    text = (
        f"# polygraphy convert {path!a} --{decisions.plan.format} --precision-constraints obey \\\n"
        "#   --trt-network-postprocess-script keep.py -o model.engine\n"
        "import tensorrt as trt\n\n"
        f"KEEP = {{\n{names}\n}}\n\n\n"
        "def postprocess(network):\n"
        "    for index in range(network.num_layers):\n"
        "        layer = network.get_layer(index)\n"
        "        if layer.name not in KEEP:\n"
        "            continue\n"
        "        layer.precision = trt.float32\n"
        "        for output in range(layer.num_outputs):\n"
        "            if layer.get_output(output).dtype in (trt.float32, trt.float16):\n"
        "                layer.set_output_type(output, trt.float32)\n"
    )
    if not names:
        text = text.replace("KEEP = {\n\n}", "KEEP = set()")
    return text, [_OLD_TENSORRT]


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def _torch(model: Model, decisions: Decisions, kept: Sequence[Layer]) -> tuple[str, list[str]]:
    scopes = list(dict.fromkeys(layer.scope.replace("/", ".") for layer in kept if layer.scope))
    low_scopes = {
        layer.scope.replace("/", ".") for layer in model.layers if decisions[layer.id].format == decisions.plan.format
    }
    dtype = {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[decisions.plan.format]
    names = "\n".join(f"    {scope!r}," for scope in scopes)
    text = (
        "import functools\n\nimport torch\n\n"
        f"KEEP = [\n{names}\n]\n\n\n"
        "def as_float32(value):\n"
        "    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value\n\n\n"
        "def keep_in_fp32(model, device='cuda'):\n"
        "    for name in KEEP:\n"
        "        module = model.get_submodule(name)\n"
        "        forward = module.forward\n\n"
        "        @functools.wraps(forward)\n"
        "        def wide(*args, _forward=forward, **kwargs):\n"
        "            with torch.autocast(device, enabled=False):\n"
        "                args = [as_float32(value) for value in args]\n"
        "                return _forward(*args, **{key: as_float32(value) for key, value in kwargs.items()})\n\n"
        "        module.forward = wide\n"
        "    return model\n\n\n"
        f"# with torch.autocast('cuda', dtype={dtype}):\n#     keep_in_fp32(model)(inputs)\n"
    )
    shared = sum(scope in low_scopes for scope in scopes)
    outside = sum(not layer.scope for layer in kept)
    notes = ["autocast works on whole modules, and keeps some operators in fp32 by its own list."]
    if shared:
        notes.append(f"{shared:,} of these modules also hold layers that the plan runs low: they stay in fp32 here.")
    if outside:
        notes.append(f"{outside:,} layers stand in no named module and cannot be told to PyTorch.")
    return text, notes


_WRITERS: Final[Mapping[str, Callable[[Model, Decisions, Sequence[Layer]], tuple[str, list[str]]]]] = {
    "onnxconverter-common": _converter("onnxconverter_common", "onnxconverter-common", tidies=False),
    "onnxruntime": _converter("onnxruntime.transformers", "ONNX Runtime's converter", tidies=True),
    "modelopt": _modelopt,
    "trtexec": _trtexec,
    "polygraphy": _polygraphy,
    "torch": _torch,
    "olive": _olive,
}
