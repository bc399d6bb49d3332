"""Results of plans: each is computed once, whoever asks, from whatever thread."""

from explorer.results.accuracy import Accuracy, accuracy_of
from explorer.results.provenance import provenance_of
from explorer.results.results import PlanErrors, Results
from explorer.results.trial import Trial, TrialFigures, trial
from explorer.results.tried import TriedPlan, label_of

__all__ = [
    "Accuracy",
    "PlanErrors",
    "Results",
    "Trial",
    "TrialFigures",
    "TriedPlan",
    "accuracy_of",
    "label_of",
    "provenance_of",
    "trial",
]
