r"""The layers of an engine, read from the engine inspector's JSON; TensorRT is not needed for it.

``trtexec --exportLayerInfo`` writes the JSON, and ``get_engine_information(LayerInformationFormat.JSON)`` returns it.
Its forms differ between versions:

- 8 to 10 name inputs and outputs of the engine under ``Bindings``, 11 describes them under ``I/O Tensors``.
- 8 to 10 tell layout and type of a tensor in one text, ``Format/Datatype``; 11 in two, ``Format`` and ``Datatype``.
- From 8.6 on, ``Metadata`` names the ONNX nodes behind a layer: ``[ONNX Layer: a]``, separated by the characters
  \x1e and \x1f, and cut at 4,000 characters.
- Built without detailed profiling verbosity, an engine tells no more of a layer than its name.

Source:
    NVIDIA TensorRT documentation, "Engine Inspector", and "Migrating IEngineInspector Usage from TensorRT 10.x to
    11.x". Forms of version 8 were checked on files of NVIDIA's; 10 and 11 are read as they are documented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.tensorrt.json_file import is_profile, is_times, parse, read
from explorer.backends.tensorrt.names import is_reformat
from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["EngineLayer", "EngineLayers", "EngineTensor", "parse_engine_layers", "read_engine_layers"]

METADATA_LIMIT: Final = 4000  # characters after which TensorRT cuts a layer's metadata, measured by users of version 10
_ENTRY: Final = re.compile(r"\[ONNX Layer: (.*?)\](?=\s*(?:$|\[ONNX Layer: ))", re.DOTALL)
_SEPARATORS: Final = re.compile("[\x1e\x1f]")

# The words that TensorRT has for a type, in any version, as the last word of a text; formats by this project's names.
_TYPES: Final = (
    (re.compile(r"\bBF16\b|\bBFloat16\b", re.IGNORECASE), "bf16"),
    (re.compile(r"\bFP32\b|\bFloat\b|\bkFLOAT\b|\bFloat32\b", re.IGNORECASE), "fp32"),
    (re.compile(r"\bFP16\b|\bHalf\b|\bkHALF\b|\bFloat16\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\bFP8(?:E4M3)?\b", re.IGNORECASE), "fp8e4m3"),  # TensorRT's only 8-bit float
    (re.compile(r"\bINT8\b", re.IGNORECASE), "int8"),
)
# `..._f16f16_f16f32_f32_...` in the name of a kernel: types of input and output, of what it multiplies and adds up in,
# of scaling. So are the names of the kernels in NVIDIA's own libraries built.
_SCHEME: Final = re.compile(r"_([a-z]+\d\w*?)_(tf32|bf16|f16|f32|i8|e4m3|e5m2)(?:f32|f16|i32)_(?:f|bf)\d+(?:_|$)")
_MULTIPLIES: Final = {
    "tf32": "tf32", "bf16": "bf16", "f16": "fp16", "f32": "fp32", "i8": "int8", "e4m3": "fp8e4m3", "e5m2": "fp8e5m2",
}  # fmt: skip
_MATRIX: Final = re.compile(r"conv|gemm|matrix|fully|matmul", re.IGNORECASE)
_OPAQUE: Final = re.compile(r"\{ForeignNode\[", re.IGNORECASE)
_KINDS: Final = {
    "cast": "cast", "quantize": "cast", "dequantize": "cast", "myelin": "myelin", "constant": "constant",
    "copy": "copy", "move": "copy", "devicetoshapehost": "copy", "shapehosttodevice": "copy",
}  # fmt: skip
_CONVERSIONS: Final = frozenset({"QDQ", "CAST"})
_NAMES_ONLY: Final = (
    "The engine tells names of layers only: what format each ran in is not known, and layers are found by their names. "
    "Build it with --profilingVerbosity=detailed (ProfilingVerbosity.DETAILED)."
)
_CUT: Final = (
    f"{{many}} more ONNX nodes than TensorRT tells: it cuts the list after {METADATA_LIMIT:,} characters. What else is "
    "covered is taken from the tensors between which they stand."
)
_SWAPPED: Final = "They may have been given in each other's place."


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """A tensor that an engine layer reads or writes.

    Attributes:
        name: as in the engine; mostly the name of the ONNX value.
        format: ``fp32 fp16 bf16 fp8e4m3 int8``; empty for integers, booleans, and where it is not told.
        layout: TensorRT's own words on layout and type.
        shape: its dimensions; -1 for a dynamic one.
    """

    name: str
    format: str
    layout: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer of an engine: what the profiler gives one time for.

    Attributes:
        name: as the profiler tells it too.
        type: TensorRT's own word, such as ``CaskConvolution``, ``Reformat`` or ``kgen``; empty where it is not told.
        kind: ``reformat`` (layout), ``cast`` (type), ``copy``, ``constant``, ``myelin`` (a block of many layers),
            ``convolution``, ``matrix`` or ``layer``.
        format: what it computes in: of a matrix product what is multiplied, by the kernel's name where it says so;
            else the one float format that it reads and writes. Empty where that is not told.
        inputs: tensors that it reads.
        outputs: tensors that it writes.
        tactic: name of the kernel; empty where it is not told.
        sources: names of the ONNX nodes behind it, from its metadata.
        cut: the metadata is longer than TensorRT writes: ``sources`` are not all.
    """

    name: str
    type: str = ""
    kind: str = "layer"
    format: str = ""
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    tactic: str = ""
    sources: tuple[str, ...] = ()
    cut: bool = False

    @property
    def multiplies(self) -> bool:
        """Whether it is a matrix product or a convolution."""
        return self.kind in ("matrix", "convolution")


@dataclass(frozen=True, slots=True)
class EngineLayers:
    """All layers of an engine.

    Attributes:
        layers: in the order in which they run.
        version: what the form of the file tells of TensorRT's version: ``8 to 10`` or ``11``; empty where nothing.
        notes: what a reader must know: what the file does not tell, and how to make one that does.
    """

    layers: tuple[EngineLayer, ...]
    version: str = ""
    notes: tuple[str, ...] = ()

    @property
    def detailed(self) -> bool:
        """Whether the file tells more than names."""
        return any(layer.type for layer in self.layers)


def read_engine_layers(path: str | Path) -> EngineLayers:
    """Return the layers that ``trtexec --exportLayerInfo`` wrote to a file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    return parse_engine_layers(read(path), f"'{path}'")


def parse_engine_layers(text: str, name: str = "The engine inspector's answer") -> EngineLayers:
    """Return the layers that the engine inspector's JSON tells of.

    Args:
        text: the JSON.
        name: what to call it in an error.

    Raises:
        InputError: it is no JSON, or tells of no layers.

    >>> parse_engine_layers('{"Layers": ["Conv_0 + Relu_1"], "Bindings": []}').layers[0].name
    'Conv_0 + Relu_1'
    """
    content = parse(text, name)
    rows = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise _no_layers(content, name)
    layers = tuple(_layer(row, name) for row in rows)
    version = "11" if "I/O Tensors" in content else "8 to 10" if "Bindings" in content else ""
    found = EngineLayers(layers, version)
    return EngineLayers(layers, version, tuple(_notes(found)))


def _notes(found: EngineLayers) -> list[str]:
    cut = sum(layer.cut for layer in found.layers)
    if not found.detailed:
        return [_NAMES_ONLY]
    return [_CUT.format(many="1 engine layer covers" if cut == 1 else f"{cut:,} engine layers cover")] if cut else []


def _no_layers(content: Any, name: str) -> InputError:
    if is_profile(content):
        return InputError(
            f"{name} holds the times of layers (trtexec --exportProfile), not the layers (--exportLayerInfo).",
            why=_SWAPPED,
            fix="Give the file of --exportLayerInfo as layers, and this one as profile.",
        )
    if is_times(content):
        return InputError(
            f"{name} holds the times of whole runs (trtexec --exportTimes), not the layers (--exportLayerInfo).",
            fix="Give the file of --exportLayerInfo as layers.",
        )
    said = f" Its keys are: {', '.join(map(str, list(content)[:8]))}." if isinstance(content, dict) and content else ""
    return InputError(
        f"{name} tells of no engine layers.{said}",
        why="An engine that was built with ProfilingVerbosity.NONE tells nothing.",
        fix="Build it with trtexec --profilingVerbosity=detailed --exportLayerInfo=layers.json.",
    )


def _layer(row: Any, name: str) -> EngineLayer:
    if isinstance(row, str):
        kind = "reformat" if is_reformat(row) else "myelin" if _OPAQUE.search(row) else "layer"
        return EngineLayer(row, kind=kind)
    if not isinstance(row, dict) or not isinstance(row.get("Name"), str):
        raise InputError(
            f"{name} holds a layer without a name: {str(row)[:80]}.",
            fix="Give the file as trtexec --exportLayerInfo wrote it.",
        )
    inputs, outputs = (_tensors(row.get(key)) for key in ("Inputs", "Outputs"))
    kind = _kind(row, inputs, outputs)
    tactic = str(row.get("TacticName") or "")
    sources, cut = _sources(str(row.get("Metadata") or ""))
    return EngineLayer(
        name=row["Name"],
        type=str(row.get("LayerType") or ""),
        kind=kind,
        format=_format(kind, row["Name"], inputs, outputs, tactic),
        inputs=inputs,
        outputs=outputs,
        tactic=tactic,
        sources=sources,
        cut=cut,
    )


def _tensors(rows: Any) -> tuple[EngineTensor, ...]:
    return tuple(_tensor(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _tensor(row: Mapping[str, Any]) -> EngineTensor:
    joined = row.get("Format/Datatype")
    kind = row.get("Datatype", row.get("DataType"))
    layout = str(joined if joined is not None else " ".join(str(x) for x in (row.get("Format"), kind) if x))
    dims = row.get("Dimensions")
    return EngineTensor(
        name=str(row.get("Name", "")),
        format=format_of(str(kind) if kind is not None else layout),
        layout=layout,
        shape=tuple(int(x) for x in dims if isinstance(x, int)) if isinstance(dims, list) else (),
    )


def format_of(words: str) -> str:
    """Return the format that TensorRT's words on a type mean; empty for integers, booleans and unknown words.

    >>> format_of("Channel major FP16 format where channel % 8 == 0"), format_of("Half"), format_of("Int32")
    ('fp16', 'fp16', '')
    """
    return next((name for pattern, name in _TYPES if pattern.search(words)), "")


def _kind(row: Mapping[str, Any], inputs: tuple[EngineTensor, ...], outputs: tuple[EngineTensor, ...]) -> str:
    kind, name, origin = str(row.get("LayerType") or ""), str(row["Name"]), str(row.get("Origin") or "").upper()
    folded = kind.casefold()
    if folded == "reformat" or is_reformat(name):
        changes = {each.format for each in inputs} != {each.format for each in outputs}
        return "cast" if origin in _CONVERSIONS or changes else "reformat"
    if _OPAQUE.search(name):
        return "myelin"
    if _MATRIX.search(kind):
        return "convolution" if "conv" in folded else "matrix"
    return _KINDS.get(folded, "layer")


def _format(
    kind: str, name: str, inputs: tuple[EngineTensor, ...], outputs: tuple[EngineTensor, ...], tactic: str
) -> str:
    if kind == "myelin" and _OPAQUE.search(name):
        return ""  # a block: what its inside computes in is not told
    scheme = _SCHEME.search(tactic)
    if scheme:
        return _MULTIPLIES[scheme[2]]
    took = [each.format for each in inputs if each.format]
    if kind in ("convolution", "matrix") and took:
        # A residual that is added may be of another format; the first input is what is multiplied.
        return "tf32" if took[0] == "fp32" and "tf32" in tactic else took[0]
    formats = {*took, *(each.format for each in outputs if each.format)}
    return formats.pop() if len(formats) == 1 else ""  # between two formats, what it computes in is not told


def _sources(metadata: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of ONNX nodes in a layer's metadata, each once, and whether it was cut."""
    names: dict[str, None] = {}
    for part in _SEPARATORS.split(metadata):
        names.update(dict.fromkeys(found.group(1) for found in _ENTRY.finditer(part)))
    unfinished = metadata.rfind("[ONNX Layer: ") > metadata.rfind("]")
    return tuple(names), len(metadata) >= METADATA_LIMIT or unfinished
