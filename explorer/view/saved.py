"""What a saved notebook shows where the panel was: headline figures and a picture, as plain HTML.

JupyterLab prints "Error displaying widget: model not found" for a widget without its kernel. So the panel comes as two
outputs: this page first, then the widget. Style rules of the page hide it while the panel lives below it, and hide the
widget's message when it does not. Where the rules find nothing (other hosts, untrusted notebooks), both are seen.
"""

from __future__ import annotations

import re
import uuid
from html import escape
from typing import TYPE_CHECKING, Any

from explorer.errors import InputError
from explorer.report import text

if TYPE_CHECKING:
    from explorer.view.controller import Controller

__all__ = ["Saved"]

_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
_PICTURE_BYTES = 4 << 20  # of the data: URL; it is kept in the notebook's file
_NAME_WIDTH = 120  # characters of the model's name
_VSCODE = "__vsc_ipynb_file__"  # in the namespace of notebooks in VS Code, which shows outputs in frames of its own
_FIGURES = (
    ("output_error", "output error"),
    ("metric", "accuracy"),
    ("low_share", "layers in low precision"),
    ("casts", "casts"),
    ("latency", "latency"),
)


class Saved:
    """Keeps the HTML of one panel up to date in the notebook.

    Args:
        controller: of the panel.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._id = uuid.uuid4().hex[:12]
        self._shown = False
        self._told = ""  # what the notebook holds

    def display(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Display the page and then the panel, given as MIME bundle and its metadata."""
        from IPython import get_ipython  # noqa: PLC0415 - only where it displays
        from IPython.display import display  # noqa: PLC0415

        shell = get_ipython()
        if shell is not None and _VSCODE in shell.user_ns:
            display({**data, **self._bundle()}, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
            return
        self._told = self.html()
        self._shown = True
        display(self._bundle(), raw=True, display_id=self._id)  # type: ignore[no-untyped-call]
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]

    def follow(self, state: dict[str, Any]) -> None:
        """Bring the page up to date when a run has ended."""
        if not self._shown or state["run"]["state"] == "running" or self.html() == self._told:
            return
        from IPython.display import update_display  # noqa: PLC0415

        self._told = self.html()
        update_display(self._bundle(), raw=True, display_id=self._id)  # type: ignore[no-untyped-call]

    def _bundle(self) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self._controller.x)}

    def html(self) -> str:
        """Return the page, every name in it escaped."""
        c = self._controller
        name = escape(text.shorten(c.x.model.name, _NAME_WIDTH))
        rows = "".join(_row(label, c.state["headline"][key]) for key, label in _FIGURES if c.state["headline"][key])
        plan = escape(text.shorten(c.state["plan"]["text"], _NAME_WIDTH))
        picture = f'<img src="{c.picture}" alt="The graph of {name}" style="max-width:100%">' if c.picture else ""
        return (
            f'<div class="pe-saved pe-saved-{self._id}">{self._style()}'
            f"<p><strong>Precision Explorer: {name}</strong><br>{plan}</p>{picture}<table>{rows}</table>"
            "<p><em>The panel needs its kernel. Run this cell again to bring it back.</em></p></div>"
        )

    def _style(self) -> str:
        child, saved = ".jp-OutputArea-child", f".pe-saved-{self._id}"
        return (
            f"<style>{child}:has({saved}):has(+ {child} .pe-panel){{display:none}}"
            # An output with nothing but text is the widget's message; a panel that fails to start stays in sight.
            f"{child}:has({saved}) + {child}:not(:has(.jp-OutputArea-output > *)){{display:none}}</style>"
        )


def _row(label: str, found: dict[str, Any]) -> str:
    return (
        f'<tr><th style="text-align:left">{label}</th><td style="text-align:left">{escape(found["text"])}</td>'
        f'<td style="text-align:left">{escape(found["provenance"])}</td></tr>'
    )


def checked_picture(url: object) -> str:
    """Return the data: URL of a picture if it is one.

    Raises:
        InputError: it is none, or too large for a notebook.
    """
    if not isinstance(url, str) or len(url) > _PICTURE_BYTES or not _PICTURE.fullmatch(url):
        raise InputError("The picture of the graph is no PNG of at most 4 MB.", why="It is kept in the notebook.")
    return url
