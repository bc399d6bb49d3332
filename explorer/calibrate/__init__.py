"""Calibration: the range of each tensor that int8 is to represent, found by running the samples, and kept."""

from explorer.calibrate.calibration import METHODS, Calibration
from explorer.calibrate.run import MOST_ROWS, calibrate
from explorer.calibrate.tensorrt_cache import read_tensorrt_cache, write_tensorrt_cache

__all__ = ["METHODS", "MOST_ROWS", "Calibration", "calibrate", "read_tensorrt_cache", "write_tensorrt_cache"]
