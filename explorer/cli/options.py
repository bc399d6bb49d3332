"""The options that commands share, described once, and the plan and samples that they stand for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli.calibration import Int8Options
from explorer.errors import InputError, PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.plan import Plan
    from explorer.session import Exploration, Progress

__all__ = [
    "JsonOption",
    "LowFormat",
    "ModelArgument",
    "OutOption",
    "PlanOptions",
    "SampleOptions",
    "TopOption",
]

_PLAN, _SAMPLES, _OUTPUT = "Which layers run low", "Samples and latency", "Output"
_NO_BACKEND = "none"


class LowFormat(StrEnum):
    """The low formats; their facts are in explorer.formats, which `--help` must not import."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    TF32 = "tf32"
    FP8E4M3 = "fp8e4m3"
    FP8E5M2 = "fp8e5m2"


class Preset(StrEnum):
    """The presets; their meaning is in explorer.plan.presets, which `--help` must not import."""

    FULL = "full"
    SAFE = "safe"
    FP32 = "fp32"


class Target(StrEnum):
    """Whose kernels decide what may run low."""

    CUDA = "onnxruntime-cuda"
    CPU = "onnxruntime-cpu"
    TENSORRT = "tensorrt"
    NONE = _NO_BACKEND


ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model; it is never modified.")]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout, and nothing else there.", rich_help_panel=_OUTPUT),
]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.", rich_help_panel=_OUTPUT)]
TopOption = Annotated[
    int, typer.Option("--top", min=0, metavar="N", help="Rows of the table of worst layers.", rich_help_panel=_OUTPUT)
]


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Int8Options):
    """Which layers run low, as options; rules apply in the order: preset or plan, blocks, int8, allows."""

    low: Annotated[
        LowFormat | None,
        typer.Option("--format", help="The low format; fp16 unless the plan says another.", rich_help_panel=_PLAN),
    ] = None
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="full: all that can (the default); safe: without operators known to lose range or digits; fp32: none.",
            rich_help_panel=_PLAN,
        ),
    ] = None
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Start from a plan.json of [b]explore[/b].", rich_help_panel=_PLAN),
    ] = None
    block_op: Annotated[
        list[str] | None,
        typer.Option(metavar="OP", help="Keep this operator type in fp32. Repeatable.", rich_help_panel=_PLAN),
    ] = None
    block: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="Keep layers in fp32, by id, name or 'glob/*'. Repeatable.", rich_help_panel=_PLAN
        ),
    ] = None
    block_scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="Keep a scope and all below it in fp32.", rich_help_panel=_PLAN),
    ] = None
    allow_op: Annotated[
        list[str] | None,
        typer.Option(metavar="OP", help="Run low even if blocked above. Repeatable.", rich_help_panel=_PLAN),
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Likewise, by id, name or glob.", rich_help_panel=_PLAN),
    ] = None
    allow_scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="Likewise, by scope.", rich_help_panel=_PLAN)
    ] = None
    keep_io: Annotated[
        bool | None,
        typer.Option(
            "--keep-io/--no-keep-io",
            help="Inputs and outputs keep their types (the default), or take the low format.",
            rich_help_panel=_PLAN,
        ),
    ] = None
    backend: Annotated[
        Target,
        typer.Option(
            metavar="BACKEND",
            help="Whose kernels decide what may run low: onnxruntime-cuda, onnxruntime-cpu, tensorrt, or none.",
            rich_help_panel=_PLAN,
        ),
    ] = Target.CUDA
    clamp: Annotated[
        bool,
        typer.Option(
            "--clamp",
            help="Weights beyond the format's range become its largest value, not infinity.",
            rich_help_panel=_PLAN,
        ),
    ] = False

    @property
    def target(self) -> str | None:
        """The backend as the session wants it."""
        return None if self.backend is Target.NONE else str(self.backend)

    def for_backend(self, backend: str) -> PlanOptions:
        """Return the same options, with the kernels of another backend deciding what may run low."""
        return dataclasses.replace(self, backend=Target(backend))

    def plan(self) -> Plan:
        """Return the plan that the options ask for.

        Raises:
            PlanError: the plan file cannot be read, or options contradict each other.
        """
        from explorer.plan import Plan  # noqa: PLC0415 - `--help` imports no numpy

        if self.plan_file is None:
            made = Plan.preset(str(self.preset or Preset.FULL), format=str(self.low or LowFormat.FP16))
        else:
            self._check_alone()
            made = Plan.load(self.plan_file)
            self._check_agrees(made)
        if self.keep_io is not None:
            made = dataclasses.replace(made, keep_io=self.keep_io)
        made = made.block(op_types=self.block_op or (), layers=self.block or (), scopes=self.block_scope or ())
        made = self.with_int8(made)
        return made.allow(op_types=self.allow_op or (), layers=self.allow or (), scopes=self.allow_scope or ())

    def _check_alone(self) -> None:
        if self.preset is not None:
            raise PlanError(
                f"Both --preset {self.preset} and --plan {self.plan_file} are given.",
                why="Each says what to start from.",
                fix="Leave one of them out.",
            )

    def _check_agrees(self, plan: Plan) -> None:
        if self.low is not None and self.low != plan.format:
            raise PlanError(
                f"The plan '{self.plan_file}' is of {plan.format}, and --format asks for {self.low}.",
                why="The layers that one format needs in fp32 are not those that another needs.",
                fix=f"Leave --format out, or make a plan for {self.low}.",
            )


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What runs through the model, and where it is timed."""

    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An .npz with one array per input, and labels if there are any; else random ones, not to be trusted.",
            rich_help_panel=_SAMPLES,
        ),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows that run at once.", rich_help_panel=_SAMPLES)
    ] = None
    dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE", help="Size of a dynamic dimension, for random inputs.", rich_help_panel=_SAMPLES
        ),
    ] = None
    gpu_model: Annotated[
        str | None,
        typer.Option(metavar="GPU", help="Predict the latency on this GPU, such as H100.", rich_help_panel=_SAMPLES),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads inside one operator.", rich_help_panel=_SAMPLES),
    ] = None

    def dims(self) -> dict[str, int]:
        """Return the sizes of dynamic dimensions.

        Raises:
            InputError: one is not NAME=SIZE, or real inputs are given too.
        """
        if self.dim and self.inputs is not None:
            raise InputError(
                f"--dim {self.dim[0]} is given with --inputs.",
                why="It sets the size of random inputs; real ones have their own.",
                fix="Leave one of them out.",
            )
        found = {}
        for words in self.dim or ():
            name, equals, size = words.rpartition("=")
            if not (equals and name and size.isascii() and size.isdigit() and int(size)):
                raise InputError(
                    f"--dim '{words}' is not NAME=SIZE with a size of 1 or more.",
                    why="A dynamic dimension is asked for by its name.",
                    fix="Write it as in --dim seq=128.",
                )
            found[name] = int(size)
        return found

    def open(
        self, model: Path, plan: PlanOptions, *, command: str, progress: Progress, formats: Sequence[str] = ()
    ) -> Exploration:
        """Return the exploration that the options ask for; whatever can be refused at once is.

        Args:
            model: the model's file.
            plan: which layers run low.
            command: the shell command, for the report.
            progress: told how far it is.
            formats: low formats that will run; without any those of the plan.
        """
        from explorer.backends.gpus import get_gpu  # noqa: PLC0415 - `--help` imports no numpy
        from explorer.opening import open as open_session  # noqa: PLC0415

        dims = self.dims()
        if self.gpu_model is not None:
            get_gpu(self.gpu_model)  # refuses an unknown one now, not after minutes of measuring
        exploration = open_session(
            model,
            inputs=self.inputs,
            plan=plan.plan(),
            target=plan.target,
            batch_size=self.batch_size,
            dims=dims,
            threads=self.threads,
            progress=progress,
        )
        exploration.command = command
        plan.calibrate(exploration, formats or exploration.plan.formats)
        return exploration
