"""The options of `search`: the budget, the metric, and how long to measure.

There is no ``from __future__ import annotations`` here: typer reads the annotations when the module loads.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explorer.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["BudgetOptions"]

_BUDGET, _SEARCH = "Budget: one of them, or none to see the front", "Search"


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """What may be spent, and what is judged by."""

    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR",
            help="Take the fastest plan whose output error is at most this: relative L2, 1e-3 is 60 dB SQNR.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    max_latency_us: Annotated[
        float | None,
        typer.Option(
            metavar="US",
            help="Take the most exact plan that takes at most so many microseconds.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="DROP",
            help="Take the fastest plan that loses at most so much of --metric: 0.005 is half a percent point.",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="top1 (needs labels) or agreement (with the fp32 model): shown for every plan.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels for --inputs, one class per row: an .npy, where the .npz has no key 'labels'.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Other samples to measure the metric on: an .npz like --inputs.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,LOW",
            help="Low formats to choose among beside fp32: one, or fp16,int8 (bf16,int8); by default the plan's.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    count_layers: Annotated[
        bool,
        typer.Option(
            "--count-layers",
            help="Look for as many layers in the low format as the error allows, whatever the latency.",
            rich_help_panel=_SEARCH,
        ),
    ] = False
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="S",
            help="Measure tensors for so long at most; by default until it no longer pays.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with what earlier searches of this model and these inputs measured (the default), or afresh.",
            rich_help_panel=_SEARCH,
        ),
    ] = True

    @property
    def given(self) -> dict[str, float]:
        """The budget by the name that `Front.best` has for it; empty without one."""
        named = {"max_error": self.max_error, "max_latency_us": self.max_latency_us, "max_drop": self.max_drop}
        return {name: value for name, value in named.items() if value is not None}

    def check(self, gpu_model: str | None) -> None:
        """Refuse options that contradict each other.

        Raises:
            InputError: more than one budget, or one without what it needs.
        """
        options = [f"--{name.replace('_', '-')}" for name in self.given]
        if len(options) > 1:
            raise InputError(
                f"{' and '.join(options)} are given.", why="Each names the plan to take.", fix="Leave all but one out."
            )
        for option, value in zip(options, self.given.values(), strict=True):
            if not 0 <= value < math.inf:
                raise InputError(f"{option} is {value}.", fix="Give a number of at least zero, such as 1e-3.")
        needing = [("--max-drop", self.max_drop), ("--labels", self.labels), ("--data", self.data)]
        if self.metric is None and (alone := next((name for name, value in needing if value is not None), "")):
            raise InputError(f"{alone} is given without --metric.", fix="Add --metric top1.")
        if self.count_layers and (gpu_model is not None or self.max_latency_us is not None):
            raise InputError(
                f"--count-layers is given with {'--gpu-model' if gpu_model is not None else '--max-latency-us'}.",
                why="It looks at no latency.",
                fix="Leave one of them out.",
            )
        if self.labels is not None and self.data is not None:
            raise InputError(
                "Both --labels and --data are given.",
                why="The labels of --data are its key 'labels'.",
                fix="Leave one of them out.",
            )

    def labelled(self, inputs: Path | None) -> "Path | dict[str, npt.NDArray[Any]] | None":
        """Return what the metric is measured on; None means the inputs themselves.

        Raises:
            InputError: the labels cannot be read, or there are no inputs that they are of.
        """
        if self.labels is None:
            return self.data
        import numpy as np  # noqa: PLC0415 - `--help` imports no numpy

        if inputs is None:
            raise InputError("--labels is given without --inputs.", fix="Name the inputs that the labels are of.")
        try:
            labels = np.load(self.labels, allow_pickle=False)
            with np.load(inputs, allow_pickle=False) as loaded:
                arrays = {key: loaded[key] for key in loaded.files}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"'{self.labels}' with '{inputs}' cannot be read: {error}.",
                fix="Save labels with numpy.save(path, labels): one class per row of the inputs.",
            ) from error
        if not isinstance(labels, np.ndarray):
            labels.close()
            raise InputError(
                f"'{self.labels}' holds several arrays.", fix="Save labels with numpy.save(path, labels), not savez."
            )
        return {**arrays, "labels": labels}
