"""Few readable patterns that name exactly the layers that are meant."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from explorer.plan import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from explorer.model import Layer

__all__ = ["patterns"]

_LONGEST: Final = 200  # characters of an id that is still looked at for a pattern
_WILD: Final = frozenset("*?[")
_SHORTEST_WORD: Final = 3  # letters of a word that the scopes share, for it to tell anything


def patterns(meant: Iterable[str], layers: Sequence[Layer], others: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return patterns that together match the meant layers, and ids of those that no pattern names alone.

    Args:
        meant: ids of layers.
        layers: all layers of the model.
        others: ids of layers that no pattern may match: those that the plan runs low and that are not meant.
    """
    wanted = dict.fromkeys(meant)
    foreign = set(others) - set(wanted)
    known = [layer for layer in layers if layer.id in wanted or layer.id in foreign]
    leaves: dict[str, list[str]] = defaultdict(list)
    for layer_id in wanted:
        leaves[layer_id.rpartition("/")[2]].append(layer_id)
    found: list[str] = []
    single: list[str] = []
    for leaf, ids in leaves.items():
        if pattern := _pattern(leaf, ids, known):
            found.append(pattern)
            continue
        for near in _by_parent(ids):  # norms and attentions have an Add each: no pattern names all, but one the norms'
            if pattern := _pattern(leaf, near, known):
                found.append(pattern)
                continue
            for layer_id in near:
                (found if _matched(layer_id, known) == {layer_id} else single).append(layer_id)
    return found, single


def _pattern(leaf: str, ids: Sequence[str], known: Sequence[Layer]) -> str:
    return next((pattern for pattern in _candidates(leaf, ids) if _matched(pattern, known) == set(ids)), "")


def _by_parent(ids: Iterable[str]) -> list[list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for layer_id in ids:
        found[layer_id.rpartition("/")[0].rpartition("/")[2]].append(layer_id)
    return list(found.values())


def _matched(pattern: str, layers: Iterable[Layer]) -> set[str]:
    matches = Rule("layer", pattern, "fp32").matcher()
    return {layer.id for layer in layers if matches(layer)}


def _candidates(leaf: str, ids: Sequence[str]) -> Iterator[str]:
    """Yield patterns that might name the ids, the most telling first."""
    if len(ids) == 1 or any(len(each) > _LONGEST or _WILD & set(each) for each in ids):
        return
    scopes = [each.rpartition("/")[0] for each in ids]
    head = _common_start(scopes)
    tail = _common_start([scope[::-1] for scope in scopes])[::-1]
    head, tail = head[: head.rfind("/") + 1], tail[tail.find("/") :] if "/" in tail else ""
    if head and tail:
        yield f"{head}*{tail}/{leaf}"
    if word := _shared_word(scopes):
        yield f"*{word}*/{leaf}"
    if tail:
        yield f"*{tail}/{leaf}"
    if head:
        yield f"{head}*/{leaf}"
    yield f"*/{leaf}"


def _common_start(words: Sequence[str]) -> str:
    first, last = min(words), max(words)
    return first[: next((index for index, letter in enumerate(first) if letter != last[index]), len(first))]


def _shared_word(scopes: Sequence[str]) -> str:
    """Return the longest run of letters in the last part of the shortest scope that all scopes hold."""
    last = min(scopes, key=len).rpartition("/")[2]
    words = {last[start:end] for start in range(len(last)) for end in range(start + _SHORTEST_WORD, len(last) + 1)}
    shared = [word for word in words if word.isalpha() and all(word in scope for scope in scopes)]
    return max(shared, key=lambda word: (len(word), word), default="")
