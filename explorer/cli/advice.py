"""The findings as the terminal shows them: what breaks, then why the low format is not faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.report import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from explorer.advise import Finding

__all__ = ["ICONS", "findings_document", "show_findings"]

ICONS: Final = {
    "stop": ("✗", "bold red"),
    "warn": ("!", "bold yellow"),
    "good": ("✓", "bold green"),
    "note": ("•", "bold"),
}
_NOT_CONFIRMED: Final = ("untested", "ruled out")


def show_findings(findings: Sequence[Finding], low: str, screen: Console) -> None:
    """Print what breaks, then what is known of speed; causes that were not confirmed only by their titles.

    Args:
        findings: most important first.
        low: the low format.
        screen: where to.
    """
    breaks = [each for each in findings if not each.of_speed]
    if breaks:
        _print_all("What was found", breaks, screen)
    speed = [each for each in findings if each.of_speed]
    if not speed:
        return
    still = " still" if not speed[0].verdict and speed[0].tone != "warn" else ""
    _print_all(
        f"Why {low} is not faster{still}", [each for each in speed if each.verdict not in _NOT_CONFIRMED], screen
    )
    grid = Table.grid(padding=(0, 1))
    for verdict in _NOT_CONFIRMED:
        if titles := [text.visible(each.title) for each in speed if each.verdict == verdict]:
            grid.add_row(Text(f"[{verdict}]", style="dim"), Text("; ".join(titles), style="dim"))
    screen.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _print_all(title: str, findings: Iterable[Finding], screen: Console) -> None:
    grid = Table.grid(padding=(0, 1))
    for each in findings:
        sign, style = ICONS[each.tone]
        words = f"[{each.verdict}] {each.title}" if each.verdict else each.title
        grid.add_row(Text(sign, style=style), Text(text.visible(words), style="bold"))
        if each.tone != "note" or each.of_speed:
            grid.add_row("", Text(text.visible(f"{each.text} {each.evidence}".strip()), style="dim"))
        if each.of_speed and each.fix is not None:
            grid.add_row("", Text.assemble(("Try  ", "dim"), (each.fix.options, "cyan")))
    screen.print()
    screen.print(Text(f"  {title}", style="bold"))
    screen.print(Padding(grid, (0, 0, 0, 2), expand=False))


def findings_document(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Return findings as plain values under the keys that docs/cli.md states."""
    return [
        {
            "id": each.id,
            "tone": each.tone,
            "verdict": each.verdict,
            "title": each.title,
            "text": each.text,
            "evidence": each.evidence,
            "layers": list(each.layers),
            "options": each.fix.options if each.fix is not None else "",
        }
        for each in findings
    ]
