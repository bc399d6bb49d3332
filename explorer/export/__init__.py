"""Files for other tools: the mixed-precision ONNX model, from a conversion or from a file in one call."""

from explorer.export.files import replacing
from explorer.export.one_call import convert_to_mixed_precision
from explorer.export.onnx_file import save_onnx

__all__ = ["convert_to_mixed_precision", "replacing", "save_onnx"]
