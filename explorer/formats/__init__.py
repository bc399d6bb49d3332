"""Number formats: their facts, how a value is rounded to them, and what is lost when an array is stored in them."""

from explorer.formats.counting import Census, census
from explorer.formats.rounding import cast_array, round_array, round_scalar, ulp
from explorer.formats.table import FORMATS, Format, get_format

__all__ = [
    "FORMATS",
    "Census",
    "Format",
    "cast_array",
    "census",
    "get_format",
    "round_array",
    "round_scalar",
    "ulp",
]
