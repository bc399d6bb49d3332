"""TensorRT: what it says about an engine, read without it; engines built, run and timed where it is installed."""

from explorer.backends.tensorrt.status_probe import probe

__all__ = ["probe"]
