"""What a report shows of an exploration, as plain data; `explorer.report` only draws it."""

from explorer.reporting.data import report_data

__all__ = ["report_data"]
