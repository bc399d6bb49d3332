"""The options of int8: which layers run in it, and what its scales are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.calibrate import Calibration
    from explorer.model import Model
    from explorer.plan import Plan
    from explorer.session import Exploration

__all__ = ["Int8Options"]

_PANEL = "int8"
_SAMPLES = 500
_TENSORRT = "TRT-"  # how a calibration cache of TensorRT begins


class Method(StrEnum):
    """How a range is chosen from the values that were seen."""

    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MINMAX = "minmax"


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """Layers in int8 beside the low format, and the ranges of their tensors."""

    int8_op: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OP", help="Run this operator type in int8, in a plan of fp16 or bf16. Repeatable.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    int8: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Likewise, by id, name or glob.", rich_help_panel=_PANEL),
    ] = None
    int8_scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="Likewise, by scope.", rich_help_panel=_PANEL)
    ] = None
    calibrate_on: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Take the ranges from this .npz; else from --inputs. Not the data that you judge by.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Take the ranges from a calibration.json, or from a calibration cache of TensorRT.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    calibration_method: Annotated[
        Method,
        typer.Option(help="How a range is chosen from the values that were seen.", rich_help_panel=_PANEL),
    ] = Method.PERCENTILE
    calibration_samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rows to take ranges from, at most.", rich_help_panel=_PANEL)
    ] = _SAMPLES

    def with_int8(self, plan: Plan) -> Plan:
        """Return the plan with the layers in int8 that the options name.

        Raises:
            PlanError: the plan cannot have int8 beside its own format.
        """
        return plan.use("int8", op_types=self.int8_op or (), layers=self.int8 or (), scopes=self.int8_scope or ())

    def calibrate(self, x: Exploration, formats: Sequence[str]) -> None:
        """Give an exploration the ranges that the options name; without any it takes them from its own samples.

        Args:
            x: the exploration.
            formats: the low formats that will run.

        Raises:
            CalibrationError: two sources are named, or the file is no calibration.
            InputError: the data do not fit the model.
        """
        known = self._from_file(x.model)
        if known is not None:
            x.calibration = known
        elif "int8" in formats:
            method, most = str(self.calibration_method), self.calibration_samples
            x.calibrate(self.calibrate_on, method=method, samples=most)

    def calibration_of(self, model: Model, plan: Plan) -> Calibration | None:
        """Return the ranges for a plan without an exploration; None where it has no int8, or they are not named."""
        from explorer.calibrate import calibrate  # noqa: PLC0415 - `--help` imports no runtime
        from explorer.model import load_samples  # noqa: PLC0415

        if "int8" not in plan.formats:
            return None
        known = self._from_file(model)
        if known is not None:
            return known
        if self.calibrate_on is None:
            raise CalibrationError(
                "The plan asks for int8, and nothing says which ranges its tensors have.",
                why="A scale is made of the range of each tensor.",
                fix="Give --calibrate-on data.npz, or --calibration FILE.",
            )
        samples = load_samples(model, self.calibrate_on)
        return calibrate(model, samples, method=str(self.calibration_method), most=self.calibration_samples)

    def _from_file(self, model: Model) -> Calibration | None:
        from explorer.calibrate import Calibration, read_tensorrt_cache  # noqa: PLC0415

        if self.calibration is None:
            return None
        if self.calibrate_on is not None:
            raise CalibrationError(
                f"Both --calibration {self.calibration} and --calibrate-on {self.calibrate_on} are given.",
                why="Each says where the ranges come from.",
                fix="Leave one of them out.",
            )
        try:
            with self.calibration.open(encoding="utf-8", errors="replace") as file:
                begin = file.read(len(_TENSORRT))
        except OSError as error:
            raise CalibrationError(
                f"'{self.calibration}' cannot be read: {error.strerror}.", fix="Check the path."
            ) from error
        return (
            read_tensorrt_cache(self.calibration, model) if begin == _TENSORRT else Calibration.load(self.calibration)
        )
