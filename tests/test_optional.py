"""Optional packages: a missing one says how to get it, an interrupted one is an interrupt."""

from __future__ import annotations

import pytest

from explorer._optional import require
from explorer.errors import MissingDependency


def test_a_missing_package_names_the_extra():
    """The error tells what it is needed for and the line that installs it."""
    with pytest.raises(MissingDependency, match=r"needed to fly.*precision-explorer\[wings\]"):
        require("no_such_package_here", why="to fly", extra="wings")


def test_ctrl_c_while_an_extension_loads_is_no_import_error(tmp_path, monkeypatch):
    """pybind11 turns the interrupt into an ImportError; whoever pressed Ctrl-C must not read of a broken package."""
    source = """
try:
    raise KeyboardInterrupt
except KeyboardInterrupt as interrupt:
    raise ImportError("initialization failed") from interrupt
"""
    (tmp_path / "interrupted_extension.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        require("interrupted_extension", why="to test", extra="dev")
