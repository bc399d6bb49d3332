"""How findings write names and figures: plain text, one line, short however long or hostile a name is."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["decibels", "duration", "join", "named", "names", "plural", "quantity", "share", "size", "times"]

WIDTH: Final = 60  # characters of a name in a sentence
NAMED: Final = 3  # names that a sentence spells out


def named(name: str) -> str:
    """Return a name on one line, in quotes, its middle left out where it is long.

    >>> named("a" + chr(10) + "b")
    "'a?b'"
    """
    cut = f"{name[: WIDTH // 2]}\N{HORIZONTAL ELLIPSIS}{name[-WIDTH // 2 :]}" if len(name) > WIDTH else name
    shown = "".join("?" if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") else each for each in cut)
    return f"'{shown}'"


def names(listed: Sequence[str]) -> str:
    """Return some names in words, the rest counted.

    >>> names(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    shown = [named(name) for name in listed[:NAMED]]
    more = len(listed) - len(shown)
    return join([*shown, f"{more} more"] if more else shown)


def join(words: Sequence[str]) -> str:
    """Return a list in words."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def plural(number: int, noun: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> plural(2200, "layer"), plural(1, "layer")
    ('2,200 layers', '1 layer')
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def quantity(value: float) -> str:
    """Return a figure with three significant digits.

    >>> quantity(65504.0), quantity(3.4028e38), quantity(1e-12), quantity(float("nan"))
    ('65,504', '3.4e+38', '1e-12', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.3g}" if abs(value) < 1e3 else f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """Return a share in percent; never 0 or 100 % when it is not.

    >>> share(1, 3), share(1, 10**6), share(999999, 10**6), share(0, 0)
    ('33 %', 'less than 0.1 %', 'more than 99.9 %', 'an unknown share')
    """
    if not whole:
        return "an unknown share"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "less than 0.1 %"
    return "more than 99.9 %" if 99.9 < percent < 100 else f"{percent:.2g} %" if percent < 99.5 else f"{percent:.4g} %"


def duration(us: float) -> str:
    """Return a time that is given in microseconds.

    >>> duration(4.234), duration(1991), duration(2_500_000), duration(float("nan"))
    ('4.23 us', '1.99 ms', '2.5 s', 'NaN')
    """
    if us < 1e3 or math.isnan(us):
        return f"{us:.3g} us" if not math.isnan(us) else "NaN"
    return f"{us / 1e3:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"


def decibels(sqnr_db: float) -> str:
    """Return an SQNR.

    >>> decibels(66.71), decibels(-0.01), decibels(float("inf"))
    ('66.7 dB SQNR', '0.0 dB SQNR', 'no error')
    """
    return "no error" if sqnr_db == math.inf else f"{round(sqnr_db, 1) + 0:.1f} dB SQNR"


def times(ratio: float) -> str:
    """Return how many times as fast something is.

    >>> times(2.04), times(0.786), times(1.01), times(12.3)
    ('2.0x', '0.79x', '1.01x', '12x')
    """
    return f"{ratio:.2f}x" if ratio < 1.95 else f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def size(count: float) -> str:
    """Return a number of bytes in decimal units.

    >>> size(812), size(15_400), size(97_780_000)
    ('812 B', '15.4 kB', '97.8 MB')
    """
    for step, unit in enumerate(("B", "kB", "MB")):
        if count < 1000 ** (step + 1):
            return f"{count / 1000**step:.3g} {unit}"
    return f"{count / 1e9:.3g} GB"
