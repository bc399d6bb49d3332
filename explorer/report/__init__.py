"""The report: one HTML file, offline, that tells what a plan does to a model."""

from explorer.report.data import (
    Accuracy,
    ModelFacts,
    ModelLatency,
    PlanFacts,
    ReportData,
    SampleFacts,
    TensorLike,
    WeightFacts,
)
from explorer.report.html import render, write_report

__all__ = [
    "Accuracy",
    "ModelFacts",
    "ModelLatency",
    "PlanFacts",
    "ReportData",
    "SampleFacts",
    "TensorLike",
    "WeightFacts",
    "render",
    "write_report",
]
