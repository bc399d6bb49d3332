"""Emulation of low formats on any machine: one compile, then every plan is a run with other switches."""

from explorer.probe.emulator import AccumulatedError, Emulator, LocalError, Ranges
from explorer.probe.values import LayerValues

__all__ = ["AccumulatedError", "Emulator", "LayerValues", "LocalError", "Ranges"]
