"""Lines and tables as the terminal shows them; names are never taken for markup, and never run over the line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.report import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from explorer.convert import Conversion
    from explorer.report import WeightFacts

__all__ = ["Facts", "console", "decibels", "notes", "show_written", "weight_words", "weights_table"]

_FIGURES_WIDTH = 60  # characters that the other columns of the weights' table take
LABEL_WIDTH = 10  # characters: the longest label of a summary


def console() -> Console:
    """Return stdout as a console; it is made anew, so that a test's stdout is the one in use."""
    return Console(highlight=False, soft_wrap=False)


class Facts:
    """Rows of a summary: a label, what is so, and how the figure came to be."""

    def __init__(self) -> None:
        self._grid = Table.grid(padding=(0, 2), pad_edge=False)
        self._grid.add_column(style="dim", width=LABEL_WIDTH, no_wrap=True)
        self._grid.add_column(overflow="fold")

    def add(self, label: str, value: str | Text, aside: str = "") -> None:
        """Add a row; ``aside`` is how the figure came to be, or what else there is to say."""
        shown = value if isinstance(value, Text) else Text(value)
        self._grid.add_row(Text(label), Text.assemble(shown, (f"  {aside}" if aside else "", "dim")))

    def __rich__(self) -> Table:
        return self._grid


def decibels(value: float, *, finite: bool) -> Text:
    """Return an SQNR in a few characters; colour is never the only carrier.

    >>> decibels(43.218, finite=True).plain.replace(text.NBSP, " "), decibels(float("-inf"), finite=False).plain
    ('43.2 dB', 'inf/NaN')
    """
    reading = text.sqnr(value, finite=finite)
    if reading.icon == "stop":
        return Text("inf/NaN", style="bold red")
    return Text(text.ABSENT if reading.text == "not measured" else reading.text, justify="right")


def notes(lines: Iterable[str], out: Console) -> None:
    """Print what the reader must know, each once."""
    for line in dict.fromkeys(lines):
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text("•", style="yellow"), Text(text.visible(line), style="dim"))
        out.print(grid)


def show_written(written: Mapping[str, str], screen: Console, seconds: float) -> None:
    """Print the files that were written, with their sizes, and how long everything took."""
    facts = Facts()
    for label, path in written.items():
        facts.add(label, Text(text.visible(path), style="cyan"), text.size(Path(path).stat().st_size))
    screen.print()
    screen.print(Text(f"  Written in {seconds:.1f} s", style="bold"))
    screen.print(Padding(facts, (0, 0, 0, 2), expand=False))


def weight_words(facts: WeightFacts | None, low: str) -> str:
    """Return what conversion did to the weights, in one line."""
    if facts is None or not facts.total.elements:
        return f"none stored in {low}"
    total = facts.total
    counts = (
        (total.overflow, "overflow" if not facts.clamped else "overflowed and were clamped"),
        (total.flushed, "flush to zero"),
        (total.subnormal, "go subnormal"),
    )
    lost = [f"{text.count(number)} {word}" for number, word in counts if number]
    return f"{text.count(total.elements)} values stored in {low}: {text.join(lost) if lost else 'none is lost'}"


def weights_table(conversion: Conversion, top: int, width: int) -> Table | None:
    """Return the weights that suffer most, or None when none does."""
    worst = conversion.weights.worst(top)
    if not worst:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    table.add_column("weight", no_wrap=True)
    for name in ("overflow", "to zero", "subnormal", "values", "largest"):
        table.add_column(name, justify="right", no_wrap=True)
    for report in worst:
        census = report.census
        figures = (census.overflow, census.flushed, census.subnormal, census.elements)
        table.add_row(
            Text(text.shorten(report.name, max(16, width - _FIGURES_WIDTH))),
            *(Text(text.count(figure)) for figure in figures),
            Text(text.quantity(census.max_abs)),
        )
    return table
