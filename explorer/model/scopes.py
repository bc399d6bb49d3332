"""Where a layer stands in the source model."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["code_of", "scope_of", "source_of"]

_NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # written by torch.onnx.export(dynamo=True)
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_FRAME_AND_CODE = re.compile(r'File "[^"]+", line \d+[^\n]*(?:\n([^\n]*))?')


def scope_of(node_name: str, metadata: Mapping[str, str]) -> str:
    """Return the ``/``-separated scope of a node, from the exporter's metadata, else from its name.

    >>> scope_of("node_3", {"pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.layer.3', 'linear_1']"})
    'encoder/layer.3'
    >>> scope_of("/encoder/layer.3/MatMul", {})
    'encoder/layer.3'
    >>> scope_of("features.0.conv", {})
    'features/0'
    """
    if _NAME_SCOPES in metadata:
        modules = _module_names(metadata[_NAME_SCOPES])
        if modules is not None:
            return _nested(modules[:-1])
    if "/" in node_name:
        return "/".join(part for part in node_name.split("/")[:-1] if part)
    if "." in node_name:
        return "/".join(part for part in node_name.split(".")[:-1] if part)
    return ""


def source_of(metadata: Mapping[str, str]) -> str:
    """Return ``file.py:line`` of the innermost frame that the exporter recorded, or an empty string."""
    frames = _FRAME.findall(metadata.get(_STACK_TRACE, ""))
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


def code_of(metadata: Mapping[str, str]) -> str:
    """Return the line of source code at :func:`source_of`, where the exporter recorded it, or an empty string."""
    lines: list[str] = _FRAME_AND_CODE.findall(metadata.get(_STACK_TRACE, ""))
    line = lines[-1].strip() if lines else ""
    return "" if _FRAME.match(line) else line


def _module_names(text: str) -> list[str] | None:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    return None


def _nested(modules: list[str]) -> str:
    """Return the dotted module names, each holding the next, as one path of what each adds."""
    parts: list[str] = []
    outer = ""
    for module in modules:
        if not module:
            continue
        parts.append(module.removeprefix(f"{outer}.") if outer else module)
        outer = module
    return "/".join(parts)
