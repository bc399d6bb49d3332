"""Why the low format is not faster: the causes that practitioners name, each tested on this model and device."""

from explorer.advise.slow.causes import slow_findings

__all__ = ["slow_findings"]
