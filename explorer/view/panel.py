"""The panel as a widget: traits carry what is shown, tagged messages carry requests; all else is the controller's."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from explorer.backends.devices import device_here
from explorer.view.answers import structure_json
from explorer.view.controller import Controller
from explorer.view.devices import device_named
from explorer.view.requests import Desk as Requests
from explorer.view.saved import Saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.session import Exploration

__all__ = ["Panel", "shared_controller"]


def _static(name: str) -> Path | str:
    """Return a built file: its path, or its text where the package is not in a folder."""
    file = importlib.resources.files("explorer.view") / "static" / name
    return file if isinstance(file, Path) else file.read_text(encoding="utf-8")


class Panel(anywidget.AnyWidget):
    """The model's graph with every layer's error, where a click changes the plan; made by ``Exploration.panel()``.

    Args:
        controller: what panels on one exploration share.
        height: in pixels.
    """

    _esm = _static("panel.js")
    _css = _static("panel.css")
    _structure = traitlets.Bytes().tag(sync=True)
    _state = traitlets.Dict().tag(sync=True)
    _figures = traitlets.Bytes().tag(sync=True)
    _tick = traitlets.Int().tag(sync=True)

    def __init__(self, controller: Controller, *, height: int) -> None:
        self.controller = controller
        self._saved = Saved(controller)
        self._requests = Requests(controller)
        super().__init__(
            _structure=structure_json(controller.x),
            _state=controller.state,
            _figures=controller.figures,
            layout={"height": f"{height}px", "width": "100%"},
        )
        self._unlisten = controller.listen(self._show)
        self.on_msg(self._asked)
        if controller.shown is None:
            controller.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the figures belong to the plan that is set; return whether they do in time.

        Args:
            timeout: in seconds; None waits as long as it takes.
        """
        return self.controller.wait(timeout)

    def close(self) -> None:
        """Take the panel off the notebook."""
        self._unlisten()
        super().close()

    def _show(self, state: dict[str, Any], figures: bytes | None) -> None:
        with self.hold_sync():
            self._state = state
            if figures is not None:
                self._figures = figures
            self._tick += 1
        self._saved.follow(state)

    def _asked(self, _widget: object, content: Any, _buffers: Sequence[Any]) -> None:
        if not isinstance(content, dict) or not isinstance(content.get("id"), int):
            return  # not one of the panel's own messages
        self._requests.answer(content, self._answer)

    def _answer(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        with self.controller.lock:  # answers come from several threads
            if self.comm is not None:
                self.send(message, buffers)

    def _ipython_display_(self) -> None:
        """Show the panel, and before it what a saved notebook shows in its place."""
        self._saved.display(*(self._repr_mimebundle_() or ({}, {})))


def shared_controller(exploration: Exploration, gpu_model: str | None) -> Controller:
    """Return the controller of an exploration, which all of its panels share."""
    known: Controller | None = exploration.controller
    if known is None:
        gpu_model = device_here() if gpu_model is None else gpu_model
        exploration.controller = known = Controller(exploration, gpu_model=gpu_model)
    elif gpu_model is not None and device_named(gpu_model) != known.gpu:
        known.set_gpu(gpu_model)
    return known
