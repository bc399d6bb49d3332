"""The options of `import-profile`: the files that trtexec wrote, and what engine they are of.

There is no ``from __future__ import annotations`` here: typer reads the annotations when the module loads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from explorer.errors import PlanError

__all__ = ["ProfileOptions"]

_FILES = "What trtexec wrote"


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """What is imported."""

    layers: Annotated[
        Path,
        typer.Option("--layers", metavar="FILE", help="What --exportLayerInfo wrote.", rich_help_panel=_FILES),
    ]
    profile: Annotated[
        Path,
        typer.Option("--profile", metavar="FILE", help="What --exportProfile wrote.", rich_help_panel=_FILES),
    ]
    times: Annotated[
        Path | None,
        typer.Option(
            "--times",
            metavar="FILE",
            help="What --exportTimes wrote: the time of the whole engine, without the profiler.",
            rich_help_panel=_FILES,
        ),
    ] = None
    mixed_model: Annotated[
        Path | None,
        typer.Option(
            "--mixed-model",
            metavar="ONNX",
            help="The converted model that the engine was built from, in place of a plan.",
            rich_help_panel=_FILES,
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option("--device", metavar="GPU", help="Where it was measured, such as A100.", rich_help_panel=_FILES),
    ] = ""

    def check(self, *, has_plan: bool) -> None:
        """Check that what the plan is told once.

        Raises:
            PlanError: both a plan and a converted model are given.
        """
        if has_plan and self.mixed_model is not None:
            raise PlanError(
                f"Both a plan and --mixed-model {self.mixed_model} are given.",
                why="Each says what format every layer was asked to run in.",
                fix="Leave one of them out.",
            )
