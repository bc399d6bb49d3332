"""Number formats: their facts, how a value is rounded to them, and what is lost when an array is stored in them."""

from explorer.formats.counting import Census, census
from explorer.formats.quantise import activation_scale, dequantised, quantised, rounded_int8, weight_scales
from explorer.formats.rounding import cast_array, round_array, round_scalar, ulp
from explorer.formats.table import FORMATS, Format, get_format

__all__ = [
    "FORMATS",
    "Census",
    "Format",
    "activation_scale",
    "cast_array",
    "census",
    "dequantised",
    "get_format",
    "quantised",
    "round_array",
    "round_scalar",
    "rounded_int8",
    "ulp",
    "weight_scales",
]
