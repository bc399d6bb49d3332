"""The command line: explore, convert, measure, inspect, backends."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process.

    It ends with 0, with 2 where what was given cannot be used (one paragraph on stderr says why), or with 130 after
    Ctrl-C. Anything else is a defect of this package and keeps its traceback.
    """
    from explorer.cli.app import app  # noqa: PLC0415 - `import explorer.cli` stays free of typer

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows another, no traceback
    app(prog_name="precision-explorer")
