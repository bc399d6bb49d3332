"""An error as one paragraph: what happened, why it matters, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from explorer.errors import ExplorerError

__all__ = ["print_error"]

_CONTROL_PICTURES = 0x2400  # Unicode's block of visible signs for the control characters


def print_error(error: ExplorerError, console: Console) -> None:
    """Print one paragraph; names in it are shown as they are, whatever markup or escape codes they hold."""
    parts = [
        Text("Error: ", style="bold red"),
        Text(_visible(error.what), style="bold"),
        *(Text(" " + _visible(error.why)) for _ in range(bool(error.why))),
        *(Text(" " + _visible(error.fix), style="cyan") for _ in range(bool(error.fix))),
    ]
    # Not highlighted, and not cut at a word that is longer than a line: a path must stay whole for the one who copies.
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=not console.is_terminal)


def _visible(words: str) -> str:
    return "".join(chr(_CONTROL_PICTURES + ord(sign)) if ord(sign) < ord(" ") else sign for sign in words)
