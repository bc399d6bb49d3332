"""`inspect`: what is in a model, and the names by which a blacklist knows its layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from explorer.cli.document import layer_document, model_document, print_document
from explorer.cli.words import Facts, console, notes
from explorer.errors import PlanError, nearest
from explorer.model import load_model
from explorer.model.quantised import source_layers
from explorer.plan import Rule
from explorer.report import text
from explorer.scene.quantised import quantisation_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from explorer.model import Layer, Model

__all__ = ["run_inspect"]

_DEPTH = 2  # levels of the scope tree that are spelled out
_LISTED_WIDTH = 34  # characters of an operator's or a shape's column, at most; longer ones push the line out
_BRANCHES = 12  # scopes that are shown below one scope


def run_inspect(path: Path, *, match: str | None, ops_only: bool, as_json: bool) -> None:
    """Print what is in a model."""
    model = load_model(path)
    layers = _matching(model, match) if match is not None else model.layers
    counts = Counter(layer.qualified_op for layer in layers)
    tree = _scopes(layers)
    if as_json:
        listed = {} if ops_only else {"layers": [layer_document(layer) for layer in layers]}
        content = {
            "model": model_document(model),
            "ops": dict(counts.most_common()),
            "scopes": tree.document(),
            "quantisation": _quantisation(model, layers),
        }
        print_document("inspect", {**content, **listed})
        return
    screen = console()
    if match is not None:
        count = f"{len(layers):,} of {text.plural(len(model.layers), 'layer')} match {match}"
        screen.print(Text(f"\n  {text.visible(count)}", style="bold"))
        _show_layers(model, layers, screen)
        _show_scales(model, layers, screen)
        return
    facts = Facts()
    for label, specs in (("inputs", model.inputs), ("outputs", model.outputs)):
        for index, spec in enumerate(specs):
            facts.add(label if not index else "", text.visible(str(spec)))
    weights = model.weights.values()
    facts.add("opset", str(model.opset))
    facts.add("layers", f"{len(model.layers):,}")
    bytes_ = sum(weight.bytes for weight in weights)
    facts.add("parameters", f"{sum(weight.elements for weight in weights):,} ({text.size(bytes_)})")
    if words := _quantised_words(model):
        facts.add("quantised", words)
    screen.print()
    screen.print(Text(text.visible(model.name), style="bold"))
    screen.print(Padding(facts, (0, 0, 1, 2), expand=False))
    screen.print(_operators(counts))
    if ops_only:
        return
    if tree.children:
        screen.print()
        screen.print(Padding(tree.drawn(), (0, 0, 0, 2), expand=False))
    screen.print()
    _show_layers(model, layers, screen)
    if model.notes:
        screen.print()
        notes(model.notes, screen)


def _matching(model: Model, pattern: str) -> tuple[Layer, ...]:
    matches = Rule("layer", pattern, "fp32").matcher(model)
    found = tuple(layer for layer in model.layers if matches(layer))
    if not found:
        raise PlanError(
            f"No layer of the model matches '{pattern}'.",
            why="A blacklist with this pattern would protect nothing.",
            fix=nearest(pattern, (layer.id for layer in model.layers)) or "Leave --match out to list all layers.",
        )
    return found


def _quantisation(model: Model, layers: Sequence[Layer]) -> dict[str, Any]:
    """Return what the source model quantises by itself, as plain values."""
    formats = source_layers(model).formats
    entries = {each["tensor"]: each for layer in layers for each in quantisation_entries(model, layer)}
    return {
        "layers": {layer.id: formats[layer.id] for layer in layers if layer.id in formats},
        "tensors": list(entries.values()),
    }


def _quantised_words(model: Model) -> str:
    """Return what the source model quantises by itself, in words; nothing where it does not."""
    formats = Counter(each or "other" for each in source_layers(model).formats.values())
    tensors = {each["tensor"] for layer in model.layers for each in quantisation_entries(model, layer)}
    if not formats and not tensors:
        return ""
    layers = [f"{text.plural(number, 'layer')} in {name}" for name, number in sorted(formats.items())]
    where = f"{' and '.join(layers) or 'weights only'}, {text.plural(len(tensors), 'tensor')} with scales"
    return f"{where} (--match PATTERN lists them)"


def _show_scales(model: Model, layers: Sequence[Layer], screen: Console) -> None:
    """Print the scales that the source model gives the tensors of these layers."""
    entries = {each["tensor"]: each for layer in layers for each in quantisation_entries(model, layer)}
    if not entries:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title="scales in the model", title_justify="left")
    for head in ("codes", "scale", "zero", "of", "tensor"):
        table.add_column(head, overflow="fold")
    for each in entries.values():
        least, largest = (f"{each[name]:.4g}" for name in ("least", "largest"))
        scale = least if each["scales"] == 1 else f"{least} to {largest}"
        block = f" in blocks of {each['block']}" if each["block"] else ""
        of = "tensor" if each["axis"] is None else f"axis {each['axis']}: {each['scales']:,}{block}"
        table.add_row(each["dtype"], scale, each["zero"], of, Text(text.visible(each["tensor"])))
    screen.print()
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))


def _operators(counts: Counter[str]) -> Padding:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layers", justify="right", no_wrap=True)
    table.add_column("operator", overflow="fold")
    for op, number in counts.most_common():
        table.add_row(f"{number:,}", Text(text.visible(op)))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _show_layers(model: Model, layers: Sequence[Layer], screen: Console) -> None:
    """Print all layers by id, last on their lines: neither shortened nor folded, for then they name nothing."""
    rows = []
    for layer in layers:
        made = [model.types[name] for name in layer.outputs if name]
        more = f" +{len(made) - 1}" if len(made) > 1 else ""
        shape = f"{made[0].dtype or '?'}{_dims(made[0].shape)}{more}" if made else ""
        rows.append((text.visible(layer.qualified_op), text.visible(shape), text.visible(layer.id)))
    heads = ("operator", "makes", "layer (id, for --block)")
    widths = [min(max(len(row[column]) for row in (heads, *rows)), _LISTED_WIDTH) for column in range(2)]
    for row in (heads, *rows):
        op, shape = (word.ljust(width) for word, width in zip(row, widths, strict=False))
        line = Text(f"  {op}  {shape}  {row[2]}", style="dim" if row is heads else "")
        if row is not heads:
            line.stylize("dim", len(op) + 4, len(op) + 4 + len(shape))
        screen.print(line, soft_wrap=True)


def _dims(shape: tuple[int | str | None, ...] | None) -> str:
    return "[?]" if shape is None else f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"


@dataclass
class _Scope:
    """A scope: how many layers stand in it and below, and the scopes inside it."""

    layers: int = 0
    children: dict[str, _Scope] = field(default_factory=dict)

    def document(self) -> list[dict[str, Any]]:
        """Return the scopes inside, as plain values."""
        return [
            {"scope": name, "layers": inner.layers, "scopes": inner.document()} for name, inner in self.children.items()
        ]

    def drawn(self) -> Tree:
        """Return the first levels as a tree."""
        tree = Tree(Text("scopes (for --block-scope)", style="dim"), guide_style="dim")
        self.grow(tree, _DEPTH)
        return tree

    def grow(self, tree: Tree, depth: int) -> None:
        """Add the scopes inside as branches, ``depth`` levels deep."""
        for name, inner in list(self.children.items())[:_BRANCHES]:
            deeper = f", {len(inner.children)} scopes inside" if inner.children and depth == 1 else ""
            branch = tree.add(Text.assemble(text.visible(name), (f"  {inner.layers:,}{deeper}", "dim")))
            if depth > 1:
                inner.grow(branch, depth - 1)
        if len(self.children) > _BRANCHES:
            tree.add(Text(f"{len(self.children) - _BRANCHES} more", style="dim"))


def _scopes(layers: Sequence[Layer]) -> _Scope:
    root = _Scope()
    for layer in layers:
        root.layers += 1
        where = root
        for part in filter(None, layer.scope.split("/")):
            where = where.children.setdefault(part, _Scope())
            where.layers += 1
    return root
