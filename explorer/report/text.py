"""How the report writes a number: one place, so that the same figure reads the same everywhere."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ABSENT",
    "Reading",
    "count",
    "decibel",
    "duration",
    "join",
    "percent",
    "plural",
    "quantity",
    "relative",
    "share",
    "shorten",
    "size",
    "sqnr",
    "superscript",
    "visible",
]

ABSENT: Final = "\N{EN DASH}"
NBSP: Final = "\N{NO-BREAK SPACE}"  # between a figure and its unit: a line never ends there
TIMES: Final = f"{NBSP}\N{MULTIPLICATION SIGN}{NBSP}10"
MINUS: Final = "\N{MINUS SIGN}"
ZERO_WIDTH_JOINER: Final = "\N{ZERO WIDTH JOINER}"  # joins emoji; it cannot reorder or hide text
DB_PER_DECADE: Final = 20.0  # amplitude ratio: dB = 20 log10(ratio), by definition of the decibel
_BYTES: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure in words, with the icon that goes with it: colour is never the only carrier.

    Args:
        text: the figure as the reader sees it.
        icon: name of a symbol of the page (``stop``, ``warn``, ``good``), or empty.
    """

    text: str
    icon: str = ""


def quantity(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits; scientific outside 0.001 to 1,000,000, words if not finite.

    >>> quantity(65504.0, 5), quantity(0.00612, 2), quantity(float("nan"))
    ('65,504', '0.0061', 'NaN')
    >>> quantity(9.9999e-6) == quantity(1e-5)
    True
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent < 6:
        text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")  # it rounds 9.996 up into the next decade
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}{TIMES}{superscript(int(power))}".replace("-", MINUS)


def superscript(number: int) -> str:
    """Return an integer in superscript digits.

    >>> superscript(-24)
    '⁻²⁴'
    """
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def count(value: float) -> str:
    """Return a count with thousands separators; a dash where it was not counted (NaN).

    >>> count(12345), count(float("nan")) == ABSENT
    ('12,345', True)
    """
    return ABSENT if math.isnan(value) else f"{int(value):,}"


def plural(number: float, noun: str, many: str = "") -> str:
    """Return ``number`` with its noun.

    >>> plural(1, "layer"), plural(2200, "layer")
    ('1 layer', '2,200 layers')
    """
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def decibel(value: float) -> str:
    """Return a finite ratio in dB to one decimal.

    >>> decibel(43.218).replace(NBSP, " ")
    '43.2 dB'
    """
    return f"{round(value, 1) + 0.0:.1f}{NBSP}dB".replace("-", MINUS)  # + 0.0: no "minus 0.0"


def sqnr(value: float, *, finite: bool = True) -> Reading:
    """Return a signal-to-quantization-noise ratio in words.

    Args:
        value: dB; +inf means no error at all, NaN not measured.
        finite: false when the low-precision values hold inf or NaN.
    """
    if not finite or value == -math.inf:
        return Reading("not finite", "stop")
    if math.isnan(value):
        return Reading("not measured")
    return Reading("exact", "good") if math.isinf(value) else Reading(decibel(value))


def relative(db: float) -> str:
    """Return the relative error that belongs to an SQNR in dB, in percent or as a power of ten.

    >>> [relative(x).replace(NBSP, " ") for x in (40.0, 6.02)]
    ['1 %', '50 %']
    """
    ratio = 10.0 ** (-db / DB_PER_DECADE)
    return share(ratio) if ratio >= 1e-4 else quantity(ratio, 2)  # below 0.01 % a power of ten reads better


def share(ratio: float, digits: int = 2) -> str:
    """Return a ratio in percent; 100 % and 0 % only when they are exact.

    >>> [share(x).replace(NBSP, " ") for x in (0.9866, 0.99999, 1.0)]
    ['98.7 %', '> 99.9 %', '100 %']
    """
    if math.isnan(ratio):
        return ABSENT
    if 0.9995 <= ratio < 1:  # rounding must not turn "nearly all" into "all"
        return f">{NBSP}99.9{NBSP}%"
    return f"{quantity(ratio * 100, digits if ratio < 0.1 else 3)}{NBSP}%"


def percent(ratio: float) -> str:
    """Return a ratio in percent to one decimal, for figures that stand side by side.

    >>> [percent(x).replace(NBSP, " ") for x in (0.1, 0.9866)]
    ['10.0 %', '98.7 %']
    """
    return ABSENT if math.isnan(ratio) else f"{ratio * 100:.1f}{NBSP}%"


def size(number_of_bytes: float) -> str:
    """Return a size in decimal units.

    >>> [size(x).replace(NBSP, " ") for x in (97_780_000, 812)]
    ['97.8 MB', '812 B']
    """
    step = 0
    value = float(number_of_bytes)
    while value >= 1000 and step < len(_BYTES) - 1:
        value, step = value / 1000, step + 1
    return f"{quantity(value)}{NBSP}{_BYTES[step]}"


def duration(us: float) -> str:
    """Return a time that is given in microseconds, in the unit that suits it.

    >>> [duration(x).replace(NBSP, " ") for x in (1990, 4.2, 2_500_000)]
    ['1.99 ms', '4.2 µs', '2.5 s']
    """
    if math.isnan(us):
        return ABSENT
    scale, unit = (1.0, "µs") if us < 1e3 else (1e-3, "ms") if us < 1e6 else (1e-6, "s")
    return f"{quantity(us * scale)}{NBSP}{unit}"


def shorten(name: str, width: int = 72) -> str:
    """Return a name on one line, its middle left out where it is longer than ``width``; control characters are shown.

    >>> shorten("encoder/layer.11/attention/MatMul", 16)
    'encoder/…/MatMul'
    """
    line = visible(name[: width * 4] + name[-width * 4 :] if len(name) > width * 8 else name)
    if len(line) <= width:
        return line
    head = width // 2
    return f"{line[:head]}…{line[-(width - head - 1) :]}"


def visible(name: str) -> str:
    """Return ``name`` with every invisible control or direction character replaced by a visible one.

    >>> visible("a" + chr(10) + "b")
    'a␊b'
    """
    if name.isprintable():
        return name
    return "".join(_visible(character) for character in name)


def _visible(character: str) -> str:
    code = ord(character)
    if character == ZERO_WIDTH_JOINER:
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's block of control pictures starts at U+2400
    return (
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character
    )


def join(words: list[str], last: str = "and") -> str:
    """Return a list in words.

    >>> join(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""
