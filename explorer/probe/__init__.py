"""Emulation of low formats on any machine: one compile, then every plan is a run with other switches."""

from explorer.probe.emulator import AccumulatedError, Emulator, LocalError, Ranges

__all__ = ["AccumulatedError", "Emulator", "LocalError", "Ranges"]
