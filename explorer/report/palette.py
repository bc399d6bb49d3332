"""Colours of the charts: told apart by people with any colour vision, on light and on dark paper."""

from __future__ import annotations

from typing import Final

__all__ = ["ACCUMULATED", "BAND", "BROKEN", "DARK", "FORMAT", "GRID", "INK", "LOCAL", "LOST", "MUTED", "WIDE"]

# Okabe and Ito, "Color Universal Design" (2008): blue, vermillion, bluish green, sky blue, reddish purple, orange.
BLUE: Final = "#0072b2"
VERMILLION: Final = "#d55e00"
GREEN: Final = "#009e73"
SKY: Final = "#56b4e9"
PURPLE: Final = "#cc79a7"
ORANGE: Final = "#e69f00"

INK: Final = "#1b1f24"
MUTED: Final = "#5a6572"
GRID: Final = "#e4e7eb"
WIDE: Final = "#9aa5b1"  # fp32, the neutral ground against which a low format stands out
LOCAL: Final = SKY
ACCUMULATED: Final = BLUE
BROKEN: Final = VERMILLION
LOST: Final = PURPLE
BAND: Final = {"overflow": "#fbe3d6", "normal": "#eef5f1", "subnormal": "#f6ebf2", "flushed": "#eadbe6"}
FORMAT: Final = {"fp16": BLUE, "bf16": GREEN, "tf32": SKY, "fp8e4m3": ORANGE, "fp8e5m2": PURPLE, "int8": VERMILLION}

DARK: Final = {
    INK: "#e6e9ed",
    MUTED: "#a0abb8",
    GRID: "#2b323b",
    WIDE: "#66727f",
    BLUE: "#4ea3e0",
    VERMILLION: "#ff8a4c",
    GREEN: "#2fc294",
    SKY: "#8fd0f7",
    PURPLE: "#e39cc3",
    BAND["overflow"]: "#3d261b",
    BAND["normal"]: "#18251f",
    BAND["subnormal"]: "#2a1f28",
    BAND["flushed"]: "#38253a",
}
"""Light colour -> the one that takes its place on dark paper; the page swaps them when it draws."""
