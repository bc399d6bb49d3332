"""Plan -> mixed-precision ONNX: decisions to a fixpoint, casts, weights, check."""

from explorer.convert.convert import Conversion, convert
from explorer.convert.decide import Decisions, decide
from explorer.convert.insert import InsertedCast
from explorer.convert.typing import DEFAULT_TARGET, LayerTyping, Typing, type_layers
from explorer.convert.weights import WeightReport, WeightSummary

__all__ = [
    "DEFAULT_TARGET",
    "Conversion",
    "Decisions",
    "InsertedCast",
    "LayerTyping",
    "Typing",
    "WeightReport",
    "WeightSummary",
    "convert",
    "decide",
    "type_layers",
]
