"""Answers the panel's requests (`Requests` of js/src/protocol.ts): each a result, or a refusal in words."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.errors import ExportError, InputError
from explorer.export import replacing
from explorer.view import answers
from explorer.view.saved import checked_picture
from explorer.view.words import words_of

if TYPE_CHECKING:
    from explorer.session import Exploration
    from explorer.view.controller import Controller
    from explorer.view.searching import Ticket

__all__ = ["Desk"]

Json = dict[str, Any]
Buffers = list[bytes]
Send = Callable[[Json, Buffers], None]
Answer = tuple[Json, Buffers]


class Desk:
    """Answers requests: quick ones at once, slow ones from a thread of their own.

    Args:
        controller: of the panel.
    """

    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self._quick: dict[str, Callable[[Json], Json | Answer]] = {
            "edit": lambda ask: {"call": self._c.edit(_edit(ask))},
            "target": lambda ask: {"call": self._c.set_target(_text(ask, "name"))},
            "gpu": lambda ask: {"call": self._c.set_gpu(_text(ask, "name"))},
            "calibrate": lambda ask: {"call": self._c.measuring.calibrate(_text(ask, "method"))},
            "run": lambda _: _done(self._c.start),
            "cancel": lambda _: _done(self._c.cancel),
            "blacklist": lambda ask: answers.blacklist_json(self._c.x, _text(ask, "tool")),
            "tools": lambda _: {"tools": answers.tools_json()},
            "ping": lambda _: {},
            "plotly": lambda _: {"script": _plotly()},
            "picture": self._picture,
            "search": lambda _: {"call": self._c.searching.start()},
            "stop_search": lambda _: _done(self._c.searching.stop),
            "budget": lambda ask: self._c.searching.preview(_number(ask, "error")),
        }
        self._slow: dict[str, Callable[[Exploration, Json], Answer]] = {
            "values": self._values,
            "trial": self._trial,
            "layer": lambda fork, ask: (answers.layer_json(fork, self._layer(ask)), []),
            "export": lambda fork, ask: (exported(fork, ask, gpu_model=self._c.gpu_model), []),
        }

    def answer(self, ask: Json, send: Send) -> None:
        """Answer a request by ``send``, once, now or later; it never raises."""
        kind = str(ask.get("kind"))
        if kind == "take":
            ticket = self._c.searching.ticket()  # of this moment: a later wish, or an edit, is what counts then
            self._c.searching.desk.put(lambda: _answered(ask, send, lambda: (self._take(ticket, ask), [])))
        elif kind in self._slow:
            fork = self._c.x.fork()  # the plan of this moment, whatever is clicked meanwhile
            desk = {"layer": self._c.reader, "trial": self._c.searching.desk}.get(kind, self._c.desk)
            desk.put(lambda: _answered(ask, send, lambda: self._slow[kind](fork, ask)))
        else:
            _answered(ask, send, lambda: self._now(kind, ask))

    def _now(self, kind: str, ask: Json) -> Answer:
        if kind not in self._quick:
            raise InputError(
                f"There is no request '{kind}'.", fix="Panel and kernel may be of two versions: reload the page."
            )
        found = self._quick[kind](ask)
        return found if isinstance(found, tuple) else (found, [])

    def _picture(self, ask: Json) -> Json:
        self._c.set_picture(checked_picture(ask.get("png")))
        return {}

    def _layer(self, ask: Json) -> int:
        index = ask.get("layer")
        count = len(self._c.x.model.layers)
        if not isinstance(index, int) or not 0 <= index < count:
            raise InputError(f"The model of {count} layers has no layer number {index}.", fix="Run the cell again.")
        return index

    def _values(self, fork: Exploration, ask: Json) -> Answer:
        output = ask.get("output")
        revision = self._c.revision
        with self._c.way():
            return answers.values_json(fork, self._layer(ask), output if isinstance(output, int) else 0, revision)

    def _take(self, ticket: Ticket, ask: Json) -> Json:
        if "point" in ask:
            return {"call": self._c.searching.take(ticket, point=ask["point"])}
        return {"call": self._c.searching.take(ticket, budget=_number(ask, "error"))}

    def _trial(self, fork: Exploration, ask: Json) -> Answer:
        plan = self._c.planned(_edit(ask), fork.decisions())
        with self._c.way():
            return answers.trial_json(fork.trial(plan, gpu_model=self._c.gpu_model or None)), []


def _answered(ask: Json, send: Send, work: Callable[[], Answer]) -> None:
    try:
        result, buffers = work()
        message: Json = {"id": ask["id"], "result": result}
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, the panel waits for an answer
        message, buffers = {"id": ask["id"], "error": words_of(error)}, []
    send(message, buffers)


def _done(action: Callable[[], None]) -> Json:
    action()
    return {}


def _edit(ask: Json) -> Mapping[str, Any]:
    edit = ask.get("edit")
    if not isinstance(edit, Mapping):
        raise InputError("The request holds no edit.", fix="Reload the page.")
    return edit


def _number(ask: Json, name: str) -> float:
    value = ask.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InputError(f"The request holds no {name}.", fix="Reload the page.")


def _text(ask: Json, name: str) -> str:
    value = ask.get(name)
    if not isinstance(value, str):
        raise InputError(f"The request holds no {name}.", fix="Reload the page.")
    return value


def _plotly() -> str:
    file = importlib.resources.files("explorer.report") / "static" / "plotly-basic.min.js"
    return file.read_text(encoding="utf-8")


# -- exports -----------------------------------------------------------------------------------------------------------


def exported(x: Exploration, ask: Json, *, gpu_model: str) -> Json:
    """Write what is asked for; return where it is, a note, and the Python call that does the same.

    Raises:
        ExportError: the file exists and may not be overwritten, or cannot be written.
    """
    what, path = _text(ask, "what"), _target(_text(ask, "path"), overwrite=ask.get("overwrite") is True)
    if what == "onnx":
        conversion = x.export(path)
        note = f"{len(conversion.casts)} casts inserted; checked, and loaded in ONNX Runtime."
        return _written(path, " ".join([note, *conversion.notes]), f"x.export({str(path)!r})")
    if what == "report":
        x.report(path, gpu_model=gpu_model or None)
        more = f", gpu_model={gpu_model!r}" if gpu_model else ""
        return _written(path, "One file, which works offline.", f"x.report({str(path)!r}{more})")
    if what == "plan":
        _write(path, x.plan.to_json() + "\n")
        call = f"pathlib.Path({str(path)!r}).write_text(x.plan.to_json() + '\\n', encoding='utf-8')"
        return _written(path, "explorer.Plan.load(path) reads it.", f"import pathlib; {call}")
    if what == "csv":
        with replacing(path) as part:
            x.errors().to_csv(part, index=False, encoding="utf-8", errors="backslashreplace")
        call = f"x.errors().to_csv({str(path)!r}, index=False, encoding='utf-8', errors='backslashreplace')"
        return _written(path, "One row a layer.", call)
    if what == "blacklist":
        found = answers.blacklist_json(x, _text(ask, "tool"))
        _write(path, found["text"])
        return _written(path, found["note"], answers.blacklist_call(_text(ask, "tool"), str(path)))
    raise ExportError(f"There is no export '{what}'.", fix="Choose one of onnx, plan, report, csv, blacklist.")


def _target(path: str, *, overwrite: bool) -> Path:
    if not path.strip() or "\0" in path:
        raise ExportError("The file has no name.", fix="Give a path; it is relative to the folder of the kernel.")
    target = Path(os.path.abspath(Path(path.strip()).expanduser()))  # noqa: PTH100 - resolve() would follow links
    if target.is_dir():
        raise ExportError(f"'{target}' is a folder.", fix="Name a file inside it.")
    if target.exists() and not overwrite:
        raise ExportError(f"'{target}' exists.", why="It would be lost.", fix="Choose another name, or overwrite it.")
    return target


def _write(path: Path, content: str) -> None:
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8", errors="backslashreplace")


def _written(path: Path, note: str, call: str) -> Json:
    return {"path": str(path), "note": note, "call": call}
