"""The panel in notebooks; loaded only where one is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from explorer._optional import require
from explorer.errors import InputError

if TYPE_CHECKING:
    from explorer.session import Exploration
    from explorer.view.panel import Panel

__all__ = ["Panel", "in_notebook", "open_panel", "show"]

_LEAST_HEIGHT = 240  # pixels: below, bar and inspector leave nothing of the graph
_HEIGHT = 720  # pixels of a panel that is shown by itself


def open_panel(exploration: Exploration, *, height: int = _HEIGHT, gpu_model: str | None = None) -> Panel:
    """Return a new panel on an exploration; all panels on it show the same.

    Raises:
        MissingDependency: the packages for notebooks are not installed.
        InputError: the height is none.
        BackendError: the GPU is not known.
    """
    for module in ("ipywidgets", "anywidget"):
        require(module, why="to show the panel", extra="lab")
    if type(height) is not int or height < _LEAST_HEIGHT:
        raise InputError(
            f"The height of the panel is {height!r}.", fix=f"Give a number of pixels, {_LEAST_HEIGHT} or more."
        )
    from explorer.view.panel import Panel, shared_controller  # noqa: PLC0415 - its packages are optional

    return Panel(shared_controller(exploration, gpu_model), height=height)


def show(exploration: Exploration) -> None:
    """Display the panel of an exploration as the output of a notebook's cell; the same one each time."""
    panel = exploration.shown
    if panel is None or panel.comm is None:  # closed
        exploration.shown = panel = open_panel(exploration)
    panel._ipython_display_()  # IPython's protocol


def in_notebook() -> bool:
    """Return whether this runs in a kernel that a notebook can talk to, not in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def __getattr__(name: str) -> object:
    if name == "Panel":
        from explorer.view.panel import Panel  # noqa: PLC0415

        return Panel
    raise AttributeError(f"module 'explorer.view' has no attribute '{name}'")
