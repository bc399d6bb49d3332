"""The options of what runs on a real backend, and of TensorRT engines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.errors import PlanError

if TYPE_CHECKING:
    from explorer.backends.tensorrt.build import BuildSettings

__all__ = ["EngineOptions", "RunsOn", "TimingOptions"]

_PANEL, _SAMPLES = "TensorRT", "Samples and latency"
_MIB = 1 << 20
_LEVEL = 3  # explorer.backends.tensorrt.build.DEFAULT_LEVEL, which `--help` must not import


class RunsOn(StrEnum):
    """Where a plan can be timed."""

    CPU = "onnxruntime-cpu"
    CUDA = "onnxruntime-cuda"
    TENSORRT = "tensorrt"


@dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """Where the plan is timed."""

    on: Annotated[
        RunsOn | None,
        typer.Option(
            "--on",
            metavar="BACKEND",
            help="Only time the plan, for real, on: onnxruntime-cpu (fp32 and int8), onnxruntime-cuda or tensorrt.",
            rich_help_panel=_SAMPLES,
        ),
    ] = None
    device: Annotated[
        int, typer.Option(min=0, metavar="N", help="Index of the GPU, with --on.", rich_help_panel=_SAMPLES)
    ] = 0


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is built."""

    recipe: Annotated[
        bool,
        typer.Option(
            "--recipe",
            help="Do not build here: write the mixed ONNX model and a script with the trtexec command line.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    level: Annotated[
        int,
        typer.Option(
            "--optimization-level", min=0, max=5, help="How long to look for kernels.", rich_help_panel=_PANEL
        ),
    ] = _LEVEL
    workspace: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Most memory that one layer may use besides.", rich_help_panel=_PANEL),
    ] = None
    weak: Annotated[
        bool,
        typer.Option(
            "--weak",
            help="TensorRT 10 and older: the fp32 model under builder flags and layer constraints.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    prefer: Annotated[
        bool,
        typer.Option("--prefer", help="With --weak: prefer the constraints, do not obey them.", rich_help_panel=_PANEL),
    ] = False
    device: Annotated[int, typer.Option(min=0, metavar="N", help="Index of the GPU.", rich_help_panel=_PANEL)] = 0

    def settings(self) -> BuildSettings:
        """Return what the builder is told."""
        from explorer.backends.tensorrt.build import BuildSettings  # noqa: PLC0415 - `--help` imports no numpy

        return BuildSettings(
            optimization_level=self.level, workspace_bytes=None if self.workspace is None else self.workspace * _MIB
        )

    def check(self) -> None:
        """Check that the options do not contradict each other.

        Raises:
            PlanError: they do.
        """
        if self.prefer and not self.weak:
            raise PlanError(
                "--prefer is given without --weak.",
                why="A strongly typed engine has no constraints: the types of the ONNX model decide.",
                fix="Add --weak (TensorRT 10 and older), or leave --prefer out.",
            )
        if self.recipe and self.weak:
            raise PlanError(
                "Both --recipe and --weak are given.",
                why="The recipe holds the weakly typed command line too, as a comment.",
                fix="Leave --weak out.",
            )
