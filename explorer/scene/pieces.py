"""Boxes side by side that feed each other one way only: what would feed itself is drawn as several."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Box", "Edges", "untangled"]

Edges = list[list[tuple[int, int]]]
"""By layer: the nodes on its other side, each with the tensor between them."""

_MOST_STEPS = 1_000_000  # about a second; beyond it boxes in a cycle are split together, which splits some needlessly


@dataclass(slots=True)
class Box:
    """What is drawn as one box in an open group: a layer, or the layers of a scope (or of a part of it).

    Attributes:
        layers: in execution order.
        name: of the scope, within the open one; empty for a layer that stands in the open scope itself.
        part: number of the part, where a scope had to be drawn as several; 0 where it is whole.
    """

    layers: list[int]
    name: str = ""
    part: int = 0


def untangled(boxes: Iterable[Box], before: Edges) -> list[Box]:
    """Return boxes that hold the same layers, feed each other in one direction, and stand in that order.

    Boxes that are left and entered again are split where they are entered; then those that feed each other both ways.

    Args:
        boxes: they hold each layer once.
        before: what feeds each layer.
    """
    row = sorted(boxes, key=lambda box: box.layers[0])
    if _runs_forward(row, before):
        return row
    for split in (_reentered, _tangled):
        feeds = _feeds(row, before)
        for ring in _rings(feeds):
            row += [part for at in ring for part in split(at, ring, row, before)]
            for at in ring:
                row[at] = Box([])
        row = [box for box in row if box.layers]
    _number(row)
    return _in_order(row, _feeds(row, before))


def _owners(row: Sequence[Box]) -> dict[int, int]:
    return {layer: at for at, box in enumerate(row) for layer in box.layers}


def _runs_forward(row: Sequence[Box], before: Edges) -> bool:
    owner = _owners(row)
    return all(
        owner.get(source, -1) <= at for at, box in enumerate(row) for layer in box.layers for source, _ in before[layer]
    )


def _feeds(row: Sequence[Box], before: Edges) -> list[set[int]]:
    """Return by box the boxes that it feeds."""
    owner = _owners(row)
    feeds: list[set[int]] = [set() for _ in row]
    for at, box in enumerate(row):
        for layer in box.layers:
            for source, _ in before[layer]:
                other = owner.get(source, at)
                if other != at:
                    feeds[other].add(at)
    return feeds


def _rings(feeds: Sequence[set[int]]) -> list[list[int]]:
    """Return the sets of boxes that reach each other (Tarjan's strongly connected components of more than one)."""
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    rings: list[list[int]] = []
    for root in range(len(feeds)):
        if root in number:
            continue
        way = [(root, iter(feeds[root]))]
        number[root] = lowest[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while way:
            at, rest = way[-1]
            following = next(rest, None)
            if following is None:
                way.pop()
                if way:
                    lowest[way[-1][0]] = min(lowest[way[-1][0]], lowest[at])
                if lowest[at] == number[at]:
                    ring = stack[stack.index(at) :] if stack[-1] != at else [at]
                    del stack[len(stack) - len(ring) :]
                    on_stack.difference_update(ring)
                    if len(ring) > 1:
                        rings.append(sorted(ring))
            elif following not in number:
                number[following] = lowest[following] = len(number)
                stack.append(following)
                on_stack.add(following)
                way.append((following, iter(feeds[following])))
            elif following in on_stack:
                lowest[at] = min(lowest[at], number[following])
    return rings


def _reentered(at: int, ring: Sequence[int], row: Sequence[Box], before: Edges) -> list[Box]:
    """Return the parts of one box of a ring: a new one wherever a way that left the box comes back."""
    box = row[at]
    layers = sorted(layer for other in ring for layer in row[other].layers)
    if len(box.layers) == 1 or len(ring) * len(layers) > _MOST_STEPS:
        return [Box(box.layers, box.name)]
    mine = set(box.layers)
    upstream: dict[int, int] = {}  # the latest part that is above a layer, or holds it; -1 for none
    for layer in layers:
        inside = layer in mine
        level = 0 if inside else -1
        for source, _ in before[layer]:
            above = upstream.get(source, -1)
            level = max(level, above + 1 if inside and source not in mine else above)
        upstream[layer] = level
    return _parts(box, upstream, before)


def _tangled(at: int, ring: Sequence[int], row: Sequence[Box], before: Edges) -> list[Box]:
    """Return the parts of one box of a ring: a new one for each layer that another box feeds, at the latest."""
    owner = {layer: other for other in ring for layer in row[other].layers}
    level: dict[int, int] = {}
    for layer in sorted(owner):
        level[layer] = max(
            (level[source] + (owner[source] != owner[layer]) for source, _ in before[layer] if source in level),
            default=0,
        )
    return _parts(row[at], level, before)


def _parts(box: Box, level: Mapping[int, int], before: Edges) -> list[Box]:
    """Return the layers of one box by level, and apart where nothing connects them."""
    if len({level[layer] for layer in box.layers}) == 1:
        return [Box(box.layers, box.name)]
    home = {layer: layer for layer in box.layers}

    def find(layer: int) -> int:
        while home[layer] != layer:
            home[layer] = layer = home[home[layer]]
        return layer

    for layer in box.layers:
        for source, _ in before[layer]:
            if source in home and level[source] == level[layer]:
                home[find(layer)] = find(source)
    found: dict[int, list[int]] = {}
    for layer in box.layers:
        found.setdefault(find(layer), []).append(layer)
    return [Box(layers, box.name) for layers in found.values()]


def _number(row: Sequence[Box]) -> None:
    """Number the parts of each scope in execution order."""
    parts: dict[str, list[Box]] = {}
    for box in sorted(row, key=lambda box: box.layers[0]):
        if box.name:
            parts.setdefault(box.name, []).append(box)
    for same in parts.values():
        for number, box in enumerate(same, start=1):
            box.part = number if len(same) > 1 else 0


def _in_order(row: Sequence[Box], feeds: Sequence[set[int]]) -> list[Box]:
    """Return the boxes so that each stands behind all that feed it, the earliest first."""
    waiting = [0] * len(row)
    for targets in feeds:
        for target in targets:
            waiting[target] += 1
    ready = [(box.layers[0], at) for at, box in enumerate(row) if not waiting[at]]
    heapq.heapify(ready)
    found = []
    while ready:
        _, at = heapq.heappop(ready)
        found.append(row[at])
        for target in feeds[at]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (row[target].layers[0], target))
    return found
