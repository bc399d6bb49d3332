"""Graphs for the scene: a U-Net of any depth, and what must hold of every tree of groups."""

from __future__ import annotations

from support.graphs import model, node, value, weight

MOST_CHILDREN = 60  # stated apart from the code: what a reader takes in at once


class Builder:
    """Writes nodes with names in scopes, as torch's exporter does."""

    def __init__(self) -> None:
        self.nodes, self.weights = [], [weight("one", [1.0])]

    def add(self, op: str, scope: str, *inputs: str) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [out], f"{scope}/{op}_{len(self.nodes)}"))
        return out


def _norm(b: Builder, scope: str, x: str) -> str:
    centred = b.add("Sub", scope, x, b.add("Relu", scope, x))
    scale = b.add("Sqrt", scope, b.add("Add", scope, b.add("Mul", scope, centred, centred), "one"))
    return b.add("Add", scope, b.add("Div", scope, centred, scale), "one")


def _silu(b: Builder, scope: str, x: str) -> str:
    return b.add("Mul", scope, x, b.add("Sigmoid", scope, x))


def _unit(b: Builder, scope: str, x: str, time: str) -> str:
    """A residual block whose one SiLU is called three times, and attention: 50 layers."""
    r = f"{scope}/residual"
    y = b.add("Mul", f"{r}/conv1", _silu(b, f"{r}/silu", _norm(b, f"{r}/norm1", x)), "one")
    y = b.add("Add", r, y, b.add("Mul", f"{r}/time", _silu(b, f"{r}/silu", time), "one"))
    y = b.add("Mul", f"{r}/conv2", _silu(b, f"{r}/silu", _norm(b, f"{r}/norm2", y)), "one")
    x = b.add("Add", r, y, x)
    a = f"{scope}/attention"
    n = _norm(b, f"{a}/norm", x)
    q, k, v = (b.add("Identity", a, b.add("Mul", f"{a}/{name}", n, "one")) for name in ("query", "key", "value"))
    y = b.add("Mul", a, b.add("Softmax", a, b.add("Add", a, q, k)), v)
    x = b.add("Add", a, b.add("Add", f"{a}/output", b.add("Mul", f"{a}/output", y, "one"), "one"), x)
    y = b.add("Mul", f"{a}/up", _norm(b, f"{a}/norm2", x), "one")
    y = b.add("Mul", a, y, b.add("Erf", "", b.add("Div", a, y, "one")))  # the exporter lost where Erf stood
    return b.add("Add", a, b.add("Mul", f"{a}/down", y, "one"), x)


def unet(units: int, *, scoped: bool = True):
    """A U-Net of ``units`` units on each of three levels down and up."""
    b = Builder()
    time = b.add("Tanh", "time", b.add("Mul", "time/up", "t", "one"))
    x, skips = b.add("Mul", "entry", "x", "one"), []
    for level in range(3):
        for unit in range(units):
            x = _unit(b, f"down.{level}/units.{unit}", x, time)
            skips.append(x)
    for level in range(3):
        for unit in range(units):
            x = b.add("Sum", f"up.{level}", x, skips.pop())
            x = _unit(b, f"up.{level}/units.{unit}", x, time)
    y = b.add("Mul", "exit", x, "one")
    nodes = b.nodes
    if not scoped:
        for each in nodes:
            each.name = ""
    return model(nodes, [value("x"), value("t")], [value(y)], b.weights)


def groups_of(made: dict) -> list[dict]:
    """The groups of a structure, each with its child groups and its layers."""
    groups = made["groups"]
    found = [
        {"label": label, "path": path, "parent": parent, "kind": kind, "groups": [], "layers": []}
        for label, path, parent, kind in zip(*(groups[key] for key in ("label", "path", "parent", "kind")), strict=True)
    ]
    for number, group in enumerate(found[1:], start=1):
        found[group["parent"]]["groups"].append(number)
    for layer, group in enumerate(made["layers"]["group"]):
        found[group]["layers"].append(layer)
    return found


def assert_tree(made: dict) -> None:
    """What holds of the groups of every structure."""
    groups = groups_of(made)
    assert groups[0]["parent"] == -1
    assert groups[0]["path"] == ""
    assert all(0 <= group["parent"] < number for number, group in enumerate(groups) if number)
    assert all(0 <= group < len(groups) for group in made["layers"]["group"])
    assert {group["kind"] for group in groups} <= {"scope", "segment"}
    containers = made["layers"]["container"]
    for number, group in enumerate(groups):
        bodies = {containers[layer] for layer in group["layers"]}
        assert len(bodies) <= 1, "a group holds layers of one graph"
        if any(container >= 0 for container in bodies):
            continue  # a body may be one layer, and hang beside many
        children = len(group["groups"]) + len(group["layers"])
        hung = sum(_is_body(made, groups, child) for child in group["groups"])
        assert children - hung <= MOST_CHILDREN, (group["label"], children)
        if number:
            assert children > 1, f"'{group['label']}' holds a single child"
            assert group["label"]
    assert not (len(groups[0]["groups"]) == 1 and not groups[0]["layers"]), "the root holds one group only"
    assert_acyclic(made, groups)


def _is_body(made: dict, groups: list[dict], number: int) -> bool:
    group = groups[number]
    layers = group["layers"]
    while not layers:
        group = groups[group["groups"][0]]
        layers = group["layers"]
    around = groups[groups[number]["parent"]]
    return made["layers"]["container"][layers[0]] in around["layers"]


def assert_acyclic(made: dict, groups: list[dict]) -> None:
    """In every open group the boxes feed each other one way, so that it can be drawn from top to bottom."""
    layers, containers = len(made["layers"]["id"]), made["layers"]["container"]

    def line(layer: int) -> list[int]:
        way, group = [-1 - layer], made["layers"]["group"][layer]
        while group >= 0:
            way.append(group)
            group = groups[group]["parent"]
        return way[::-1]

    lines = [line(layer) for layer in range(layers)]
    feeds: dict[int, set[tuple[int, int]]] = {}
    for source, taker in zip(made["edges"]["from"], made["edges"]["to"], strict=True):
        target = taker
        while source < layers and 0 <= target < layers and containers[target] != containers[source]:
            target = containers[target]
        if source >= layers or target >= layers:
            continue
        one, other = lines[source], lines[target]
        at = next(index for index in range(len(one)) if one[index] != other[index])
        feeds.setdefault(one[at - 1], set()).add((one[at], other[at]))
    for group, pairs in feeds.items():
        left = set(pairs)
        while left:
            fed = {target for _, target in left}
            forward = {pair for pair in left if pair[0] not in fed}
            assert forward, f"boxes of '{groups[group]['label']}' feed each other in a circle"
            left -= forward
