"""What a report shows, as plain values: the session fills it, the report only draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from explorer.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from explorer.advise import Finding
    from explorer.formats import Census

__all__ = [
    "Accuracy",
    "ModelFacts",
    "ModelLatency",
    "PlanFacts",
    "ReportData",
    "SampleFacts",
    "TensorLike",
    "WeightFacts",
]

ERROR_COLUMNS: Final = (
    "id", "name", "op", "scope", "format", "reason", "local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db",
    "acc_rel_l2", "acc_max_abs", "overflow", "nan", "subnormal", "flushed", "provenance",
)  # fmt: skip
RANGE_COLUMNS: Final = ("id", "max_abs", "rms", "provenance")
LATENCY_COLUMNS: Final = ("id", "op", "format", "fp32_us", "provenance")
OUTPUT_COLUMNS: Final = ("output", "sqnr_db", "rel_l2", "max_abs", "overflow", "nan", "provenance")


class TensorLike(Protocol):
    """A model's input or output: anything with a name, an element type and a shape."""

    @property
    def name(self) -> str:
        """The tensor's name."""

    @property
    def dtype(self) -> str:
        """The element type, as in ``float32``."""

    @property
    def shape(self) -> Sequence[int | str | None] | None:
        """The shape; a string is a named dynamic dimension, None an unknown one or an unknown rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The model in figures.

    Args:
        path: file name or path of the model as the user gave it.
        opset: version of the default operator set.
        layers: number of layers.
        parameters: number of weight elements.
        weight_bytes: size of the weights as stored in the model that was given, bytes.
        inputs: the model's inputs.
        outputs: the model's outputs.
        producer: who wrote the file, such as ``pytorch 2.13``; may be empty.
    """

    path: str
    opset: int
    layers: int
    parameters: int
    weight_bytes: int
    inputs: Sequence[TensorLike] = ()
    outputs: Sequence[TensorLike] = ()
    producer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """The plan that the report is about.

    Args:
        format: the low format, such as ``fp16``.
        keep_io: whether the model's inputs and outputs keep their types.
        rules: the rules in words, one line each, in the order in which they apply.
        json: the plan as JSON text, from which it can be loaded again.
        casts: number of Cast nodes that conversion inserts; None when nothing was converted.
    """

    format: str
    keep_io: bool
    rules: Sequence[str]
    json: str
    casts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFacts:
    """The samples that the figures were taken on.

    Args:
        description: one line, such as ``360 samples from digits.npz, in batches of 32``.
        random: whether the values are random; every view then says that ranges are not to be trusted.
    """

    description: str
    random: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The user's metric under fp32 and under the plan.

    Args:
        before: of the fp32 model, from 0 to 1.
        after: under the plan, from 0 to 1.
        samples: number of labelled samples.
        provenance: how the figure came to be, such as ``emulated``.
        metric: its name.
    """

    before: float
    after: float
    samples: int
    provenance: str
    metric: str = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLatency:
    """Latency of the whole model on one device.

    Args:
        provenance: such as ``measured on onnxruntime-cpu, 2 threads`` or ``predicted for H100-SXM``.
        fp32_us: microseconds with every layer in fp32; None where only the plan was measured.
        plan_us: microseconds under the plan; None where a figure would mislead (fp16 on ONNX Runtime's CPU provider).
        spread_us: interquartile range of the fp32 runs, microseconds; None for a prediction.
    """

    provenance: str
    fp32_us: float | None
    plan_us: float | None = None
    spread_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """What conversion did to the weights.

    Args:
        total: census of all the weights that conversion stores in the low format.
        worst: name -> census of the weights that lose most, worst first.
        clamped: whether the user asked for values beyond the format's range to be clamped.
    """

    total: Census
    worst: Mapping[str, Census] = field(default_factory=dict)
    clamped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that a report shows; tables have the columns of the session's tables of the same name.

    Args:
        title: headline of the page, usually the model's file name.
        model: the model in figures.
        plan: the plan.
        samples: the samples.
        errors: one row a layer, in the order of execution.
        output_error: one row a model output.
        ranges: range of each layer's exact fp32 values; None when not measured.
        latency: time per layer; rows of several devices are told apart by ``provenance``; None when not measured.
        model_latency: latency of the whole model, the most telling device first; the first two are shown.
        accuracy: None when the samples have no labels.
        weights: None when nothing was converted.
        findings: what breaks and why, most important first, as ``explorer.advise`` tells it.
        warnings: what the reader must know before trusting the figures, in sentences.
        versions: name -> version of everything that took part, in the order to be shown.
        command: the shell command that makes this report again; may be empty.
        python: the Python code that does; may be empty.
        created: date and time in words; the caller's, so that a report can be made byte for byte again.
        scene: the model's graph with its figures, as the JSON that ``explorer.scene`` writes for a page; empty leaves
            the graph out.

    Raises:
        ExportError: a table lacks a column that the report needs.
    """

    title: str
    model: ModelFacts
    plan: PlanFacts
    samples: SampleFacts
    errors: pd.DataFrame
    output_error: pd.DataFrame
    ranges: pd.DataFrame | None = None
    latency: pd.DataFrame | None = None
    model_latency: Sequence[ModelLatency] = ()
    accuracy: Accuracy | None = None
    weights: WeightFacts | None = None
    findings: Sequence[Finding] = ()
    warnings: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    python: str = ""
    created: str = ""
    scene: bytes = b""

    def __post_init__(self) -> None:
        for table, frame, needed in (
            ("errors", self.errors, ERROR_COLUMNS),
            ("output_error", self.output_error, OUTPUT_COLUMNS),
            ("ranges", self.ranges, RANGE_COLUMNS),
            ("latency", self.latency, LATENCY_COLUMNS),
        ):
            missing = [] if frame is None else [column for column in needed if column not in frame.columns]
            if missing:
                raise ExportError(
                    f"The table '{table}' lacks {', '.join(missing)}.",
                    why="The report would show figures without what they mean.",
                    fix="Pass the session's table of that name unchanged, or None where it may be absent.",
                )
