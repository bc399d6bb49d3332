"""`backends`: what is there, what is missing, and how to get it."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from explorer.backends.status import backend_status
from explorer.cli.document import print_document
from explorer.cli.words import console
from explorer.report import text

__all__ = ["run_backends"]

_STYLES = {"ready": ("✓", "green"), "not installed": (text.ABSENT, "dim"), "no device": (text.ABSENT, "yellow")}
_OTHERWISE = ("✗", "red")  # installed, and broken


def run_backends(*, as_json: bool) -> None:
    """Print the state of every backend."""
    found = backend_status()
    if as_json:
        print_document("backends", {"backends": found})
        return
    table = Table(box=None, padding=(0, 2, 1, 0), header_style="dim")
    table.add_column("backend", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("what is there, and how to get the rest", overflow="fold")
    for backend in found:
        sign, style = _STYLES.get(backend.state, _OTHERWISE)
        words = Text(text.visible(backend.detail))
        if backend.fix:
            words.append(f"\n{text.visible(backend.fix)}", style="cyan")
        table.add_row(Text(backend.name, style="bold"), Text(f"{sign} {backend.state}", style=style), words)
    screen = console()
    screen.print()
    screen.print(table)
