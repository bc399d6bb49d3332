"""Findings: what breaks under a plan, why it is not faster, and the edit that helps."""

from explorer.advise.finding import Finding, Fix, Tone, Verdict
from explorer.advise.findings import findings
from explorer.advise.slow import slow_findings

__all__ = ["Finding", "Fix", "Tone", "Verdict", "findings", "slow_findings"]
