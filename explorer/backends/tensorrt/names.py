r"""What the name of an engine layer says: which ONNX nodes were fused into it.

TensorRT builds the name of a fused layer from the names of its parts, which are those of the ONNX nodes:

- ``a + b``: fused; ``a || b``: merged side by side; ``PWN(a, b)``: pointwise operations in one kernel, nested too.
- ``{ForeignNode[a...b]}``: a block of everything between them, of which only the ends are named.
- ``Reformatting CopyNode for Input Tensor 0 to a``: a change of layout or type before it (``Output``: behind it).
- ``reshape_before_a``, ``squeeze_after_a``, ``a copy`` and the like: a step that TensorRT added for it.
- ``conv1.weight + QuantizeLinear_7 + Conv_9``: weights are named too, and quantisation of them.

Names of ONNX nodes may hold any of these signs, so known names are looked for before anything is taken apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["NameParts", "is_reformat", "parts_of"]

_REFORMAT: Final = re.compile(r"^Reformatting CopyNode for (?:Input|Output) Tensor \d+ to (.*)$", re.DOTALL)
_FOREIGN: Final = re.compile(r"\{ForeignNode\[(.*)\]\}", re.DOTALL)
_POINTWISE: Final = re.compile(r"^PWN\((.*)\)$", re.DOTALL)
_HELPER: Final = re.compile(
    r"^(?:copied_)?(?:reshape|squeeze|unsqueeze|shuffle|transpose)(?:_node)?_(?:before|after|between)_(.*)$", re.DOTALL
)
_COPY: Final = re.compile(r"^(.*) copy$", re.DOTALL)
_SEPARATORS: Final = (" + ", " || ", ", ")
_MOST_JOINED: Final = 6  # pieces that are tried as one name: more separators in one name are unheard of
_RANGE: Final = "..."


@dataclass(frozen=True, slots=True)
class NameParts:
    """What the name of an engine layer is made of.

    Attributes:
        nodes: known names of nodes that it computes.
        serves: known names of nodes that it was added for; it does none of their work.
        ends: first and last name of a block of which the inside is not named; empty when it is none.
        unknown: the other parts: weights, nodes that TensorRT added, nodes of another model.
    """

    nodes: tuple[str, ...]
    serves: tuple[str, ...]
    ends: tuple[str, ...]
    unknown: tuple[str, ...]


def parts_of(name: str, known: Collection[str]) -> NameParts:
    """Return what the name of an engine layer says.

    Args:
        name: of the engine layer.
        known: names of the model's nodes.

    >>> parts_of("PWN(PWN(sigmoid), mul) + conv1.weight", {"sigmoid", "mul"})
    NameParts(nodes=('sigmoid', 'mul'), serves=(), ends=(), unknown=('conv1.weight',))
    """
    if name in known:
        return NameParts((name,), (), (), ())
    reformat = _REFORMAT.match(name)
    if reformat:
        inner = parts_of(reformat[1], known)
        return NameParts((), inner.nodes or inner.serves or inner.ends, (), inner.unknown)
    foreign = _FOREIGN.search(name)
    if foreign:
        return NameParts((), (), _ends(foreign[1], known), ())
    nodes: dict[str, None] = {}
    serves: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for part in _split(name, known):
        helped = _HELPER.match(part) or _COPY.match(part)
        if part in known:
            nodes[part] = None
        elif helped and helped[1] in known:
            serves[helped[1]] = None
        elif part:
            unknown[part] = None
    return NameParts(tuple(nodes), tuple(serves), (), tuple(unknown))


def is_reformat(name: str) -> bool:
    """Return whether this is the name of a change of layout or type that TensorRT added.

    >>> is_reformat("Reformatting CopyNode for Input Tensor 0 to conv"), is_reformat("conv")
    (True, False)
    """
    return _REFORMAT.match(name) is not None


def _ends(inside: str, known: Collection[str]) -> tuple[str, ...]:
    """Return the two ends of a block; names may hold dots, so the split that gives most known names is taken."""
    places = [found.start() for found in re.finditer(re.escape(_RANGE), inside)]
    splits = [(inside[:at], inside[at + len(_RANGE) :]) for at in places] or [(inside, inside)]
    return max(splits, key=lambda pair: sum(_node_of(end, known) in known for end in pair))


def _node_of(end: str, known: Collection[str]) -> str:
    """Return the last known name in one end of a block, which may itself be a fused layer."""
    parts = [part for part in _split(end, known) if part in known]
    return parts[-1] if parts else end


def _split(name: str, known: Collection[str]) -> Iterator[str]:
    """Yield the parts of a name, known ones whole."""
    if name in known:
        yield name
        return
    pointwise = _POINTWISE.match(name)
    if pointwise and _closes(pointwise[1]):
        yield from _split(pointwise[1], known)
        return
    for separator in _SEPARATORS:
        pieces = _outside(name, separator)
        if len(pieces) > 1:
            for piece in _joined(pieces, separator, known):
                yield from _split(piece, known)
            return
    yield name


def _joined(pieces: list[str], separator: str, known: Collection[str]) -> Iterator[str]:
    """Yield the pieces, those joined again that make a known name together: a name may hold the separator."""
    start = 0
    while start < len(pieces):
        most = min(len(pieces), start + _MOST_JOINED)
        end = next((end for end in range(most, start + 1, -1) if separator.join(pieces[start:end]) in known), start + 1)
        yield separator.join(pieces[start:end])
        start = end


def _outside(name: str, separator: str) -> list[str]:
    """Split a name at a separator where no bracket is open."""
    pieces, depth, start, at = [], 0, 0, 0
    while at < len(name):
        sign = name[at]
        depth += (sign in "([{") - (sign in ")]}")
        if depth <= 0 and name.startswith(separator, at):
            pieces.append(name[start:at])
            at += len(separator)
            start = at
        else:
            at += 1
    return [*pieces, name[start:]]


def _closes(inside: str) -> bool:
    """Return whether no bracket closes that was not opened inside: ``PWN(a), PWN(b)`` is not one ``PWN``."""
    depth = 0
    for sign in inside:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return False
    return True
