"""The tree of scopes: every layer in one group, no group with more boxes than can be read."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from explorer.scene.cut import MOST_CHILDREN, Flow, cut
from explorer.scene.pieces import Box, Edges, untangled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from explorer.model import Model
    from explorer.scene.wiring import Wiring

__all__ = ["Tree", "tree"]

_SCOPE, _SEGMENT = "scope", "segment"


@dataclass
class Tree:
    """Groups in columns, a parent always before its children; group 0 is the root.

    Attributes:
        label: what is shown.
        path: the whole scope; empty for the root, for segments, and for the bodies of control flow. The parts of a
            scope that is entered again behind other layers share a path.
        parent: -1 for the root.
        kind: ``scope`` or ``segment``.
        layer_group: by layer, the group that directly holds it.
    """

    label: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    layer_group: list[int] = field(default_factory=list)

    def add(self, label: str, path: str, parent: int, kind: str) -> int:
        """Add a group and return its number."""
        self.label.append(label)
        self.path.append(path)
        self.parent.append(parent)
        self.kind.append(kind)
        return len(self.label) - 1


def tree(model: Model, wires: Wiring, *, quiet: Iterable[str] = ()) -> Tree:
    """Return the groups of ``model``.

    A chain of scopes with a single child is one group; a scope of a single layer is none. Layers that lost their scope
    on export, and stand between layers of one deeper scope, are drawn there. A scope that is left and entered again (a
    module that is called twice) is drawn as several parts: as one box it would feed itself. A group of more boxes than
    can be read is cut into segments of the execution order.

    Args:
        model: the model.
        wires: its edges.
        quiet: tensors that separate no blocks, such as shapes.
    """
    return _Grower(model, wires, quiet).grown()


@dataclass
class _Task:
    """A group whose boxes are to be found.

    Attributes:
        group: its number.
        layers: what it holds, in execution order.
        depth: length of its scope; layers of shorter scopes were adopted.
        label: what its label begins with, where it is not named by its scope.
        above: length of the scope of the group around it.
        part: as in Box.
        boxes: its boxes, where they are known.
    """

    group: int
    layers: list[int]
    depth: int
    label: str = ""
    above: int = 0
    part: int = 0
    boxes: list[Box] | None = None


class _Grower:
    def __init__(self, model: Model, wires: Wiring, quiet: Iterable[str]) -> None:
        self.model, self.wires = model, wires
        self.tree = Tree(layer_group=[0] * wires.layers)
        split = {scope: tuple(filter(None, scope.split("/"))) for scope in {layer.scope for layer in model.layers}}
        self.scopes = [split[layer.scope] for layer in model.layers]
        self.quiet = {wires.tensors[name] for name in quiet if name in wires.tensors}
        self.before, self.after = _lifted(wires)
        self.bodies = _bodies(model) if any(container >= 0 for container in wires.containers) else {}
        self.sizes = [1] * wires.layers  # with what is in the bodies
        for layer in reversed(range(wires.layers)):
            if wires.containers[layer] >= 0:
                self.sizes[wires.containers[layer]] += self.sizes[layer]
        self.todo: deque[_Task] = deque()

    def grown(self) -> Tree:
        """Return the whole tree, grown from its root."""
        main = [layer for layer, container in enumerate(self.wires.containers) if container < 0]
        self._root(self.model.name, -1, main)
        while self.todo:
            task = self.todo.popleft()
            boxes = self._boxes(task) if task.boxes is None else task.boxes
            starts = cut(len(boxes), self._flow(boxes)) if len(boxes) > MOST_CHILDREN else [0]
            if len(starts) > 1:
                self._segment(task, boxes, starts)
            else:
                for box in boxes:
                    self._place(task, box)
        return self.tree

    def _root(self, label: str, parent: int, layers: list[int]) -> None:
        """Add a group that no scope names: the model, or a body."""
        group = self.tree.add(label, "", parent, _SCOPE)
        if layers:
            self.todo.append(_Task(group, layers, 0, label))

    # -- the boxes of one scope ------------------------------------------------------------------------------------

    def _boxes(self, task: _Task) -> list[Box]:
        """Return what an open scope shows, and name its group."""
        while True:
            scopes = [self.scopes[layer] for layer in task.layers if len(self.scopes[layer]) >= task.depth]
            prefix = _common(scopes)
            task.depth = len(prefix)
            inner = self._inner(task)
            if len(set(inner.values())) > 1 or None in inner.values():
                break
            task.depth += 1  # a single child: what it holds is shown instead
        if not task.label:
            name = "/".join(prefix[task.above :])
            self.tree.label[task.group] = f"{name} · part {task.part}" if task.part else name
            self.tree.path[task.group] = "/".join(prefix)
        held: dict[str | int, Box] = {}
        for layer in task.layers:
            name_of = inner[layer]
            if name_of is None:
                held[layer] = Box([layer])
            elif name_of in held:
                held[name_of].layers.append(layer)
            else:
                held[name_of] = Box([layer], name_of)
        return untangled(held.values(), self.before)

    def _inner(self, task: _Task) -> dict[int, str | None]:
        """Return by layer the scope inside the open one that it is drawn in; None for the open one itself."""
        inner: dict[int, str | None] = {}
        for layer in task.layers:
            scope = self.scopes[layer]
            inner[layer] = scope[task.depth] if len(scope) > task.depth else None
        if any(inner.values()):
            for stray in self._connected([layer for layer, name in inner.items() if name is None]):
                above = {inner.get(node, "") for layer in stray for node, _ in self.before[layer] if node not in stray}
                below = {inner.get(node, "") for layer in stray for node, _ in self.after[layer] if node not in stray}
                if len(above) == 1 and above == below and "" not in above:
                    inner.update(dict.fromkeys(stray, above.pop()))
        return inner

    def _connected(self, layers: Sequence[int]) -> list[set[int]]:
        """Return the layers in sets that edges connect."""
        left, found = set(layers), []
        for layer in layers:
            if layer not in left:
                continue
            left.discard(layer)
            reached, edge = {layer}, [layer]
            while edge:
                at = edge.pop()
                for node, _ in (*self.before[at], *self.after[at]):
                    if node in left:
                        left.discard(node)
                        reached.add(node)
                        edge.append(node)
            found.append(reached)
        return found

    # -- groups of boxes -------------------------------------------------------------------------------------------

    def _flow(self, boxes: Sequence[Box]) -> Flow:
        """Return the tensors between boxes that stand in a row."""
        position = {layer: at for at, box in enumerate(boxes) for layer in box.layers}
        made: dict[int, int] = {}
        takers: dict[int, list[int]] = {}
        for at, box in enumerate(boxes):
            for layer in box.layers:
                for source, tensor in self.before[layer]:
                    start = position.get(source, at)
                    if start != at and tensor not in self.quiet:
                        made[tensor] = start
                        takers.setdefault(tensor, []).append(at)
        taken = [sorted(set(takers[tensor])) for tensor in made]
        return Flow(
            made=list(made.values()),
            last=[places[-1] for places in taken],
            middle=[places[(len(places) - 1) // 2] for places in taken],
            takers=[len(places) for places in taken],
        )

    def _segment(self, task: _Task, boxes: list[Box], starts: Sequence[int]) -> None:
        """Put the boxes of a group into segments; a segment of one box is that box."""
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(boxes)], strict=True), start=1):
            held = boxes[start:end]
            if len(held) == 1:
                self._place(task, held[0])
                continue
            count = sum(self.sizes[layer] for box in held for layer in box.layers)
            ends = dict.fromkeys((self._word(held[0]), self._word(held[-1])))
            label = f"{number} · {' → '.join(ends)} ({count:,} layers)"
            group = self.tree.add(label, "", task.group, _SEGMENT)
            self.todo.append(_Task(group, [], task.depth, label, boxes=held))

    def _word(self, box: Box) -> str:
        return box.name if len(box.layers) > 1 else self.model.layers[box.layers[0]].op

    def _place(self, task: _Task, box: Box) -> None:
        """Put a box into its group: a layer with its bodies, or a scope."""
        if len(box.layers) > 1:
            group = self.tree.add("", "", task.group, _SCOPE)
            self.todo.append(_Task(group, box.layers, task.depth + 1, above=task.depth, part=box.part))
            return
        layer = box.layers[0]
        self.tree.layer_group[layer] = task.group
        for label, inside in self.bodies.get(layer, ()):
            self._root(label, task.group, inside)


def _common(scopes: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what all scopes begin with: the first and the last in order differ soonest."""
    first, last = min(scopes), max(scopes)
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:same] if same is not None else min(first, last, key=len)


def _lifted(wires: Wiring) -> tuple[Edges, Edges]:
    """Return what feeds each layer and what it feeds in its own graph: what a body takes, the layer around it takes."""
    containers, count = wires.containers, wires.layers
    before: Edges = [[] for _ in range(count)]
    after: Edges = [[] for _ in range(count)]
    for source, target, tensor in zip(wires.sources, wires.targets, wires.carried, strict=True):
        home = containers[source] if source < count else -1
        at = target
        while at < count and containers[at] != home:
            at = containers[at]
        if at < count:
            before[at].append((source, tensor))
        if source < count:
            after[source].append((at, tensor))
    return before, after


def _bodies(model: Model) -> dict[int, list[tuple[str, list[int]]]]:
    """Return by layer its bodies: a label, and the layers directly inside."""
    index = {layer.id: number for number, layer in enumerate(model.layers)}
    found: dict[int, list[tuple[str, list[int]]]] = {}
    for number, layer in enumerate(model.layers):
        for name, attribute in model.nodes[layer.id].attributes.items():
            for body in _graphs(attribute):
                inside = sorted(index[str(node.name)] for node in body)
                if inside:
                    found.setdefault(number, []).append((f"{layer.op} · {name.replace('_', ' ')}", inside))
    return found


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()
