"""Tables of the pages, in Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["table", "us", "whole"]


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def us(value: float | None) -> str:
    """Return microseconds; empty where they are not known."""
    return "" if value is None else f"{value:.0f}"


def whole(row: dict[str, Any]) -> str:
    """Return the median of a row with its spread."""
    return f"{row['whole_us']:.0f} ± {row['spread_us']:.0f}"
