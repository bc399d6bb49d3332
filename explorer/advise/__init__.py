"""Findings: what breaks under a plan, why, and the edit that helps."""

from explorer.advise.finding import Finding, Fix, Tone
from explorer.advise.findings import findings

__all__ = ["Finding", "Fix", "Tone", "findings"]
