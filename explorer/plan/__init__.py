"""What the user asks of each layer (plan), and what conversion made of it (decisions)."""

from explorer.plan.decision import NO_FORMAT, Decision
from explorer.plan.plan import Plan, Rule, Wish
from explorer.plan.presets import PRESETS

__all__ = ["NO_FORMAT", "PRESETS", "Decision", "Plan", "Rule", "Wish"]
