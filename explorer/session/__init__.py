"""The session: one object that CLI, widgets and report share."""

from explorer.results import Accuracy
from explorer.session.exploration import Exploration
from explorer.session.planned import Progress

__all__ = ["Accuracy", "Exploration", "Progress"]
