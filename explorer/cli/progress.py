"""What is being done: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from rich.console import RenderableType
    from rich.progress import Task

__all__ = ["Stages"]

_BAR_WIDTH = 30  # characters; with stage, count and time it fits in 80 columns


class Stages(AbstractContextManager["Stages"]):
    """Shows the stages of a job on stderr; use it as a context manager.

    Args:
        names: the stages, in order; those of the session (``local errors`` ...) advance by its own report.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = Progress(
            _Sign(),
            TextColumn("{task.description}", table_column=Column(min_width=max(map(len, self._names)))),
            _Bar(_BAR_WIDTH, complete_style="cyan", finished_style="green", pulse_style="cyan"),
            _Count(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._tasks = {name: self._bars.add_task(f"[dim]{name}", start=False, total=None) for name in self._names}
        self._started: tuple[str, float] | None = None
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name what the block does; the session may move on to later stages inside it."""
        self._begin(name)
        yield

    def report(self, what: str, done: int, total: int) -> None:
        """Take the session's own report of its progress."""
        if what not in self._tasks:
            return
        self._begin(what)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def _begin(self, name: str) -> None:
        if self._started is not None and self._started[0] == name:
            return
        self._finish()
        self._started = (name, time.perf_counter())
        if self._live:
            self._bars.start_task(self._tasks[name])
            self._bars.update(self._tasks[name], description=f"[bold]{name}")
        else:
            line = f"[{self._names.index(name) + 1}/{len(self._names)}] {name}"
            self._console.print(line, markup=False, highlight=False)

    def _finish(self) -> None:
        if self._started is None:
            return
        name, begin = self._started
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        task = self._bars.tasks[self._names.index(name)]
        total = task.total or 1
        self._bars.update(self._tasks[name], description=name, completed=total, total=total)
        self._started = None


class _Sign(ProgressColumn):
    """A spinner while a stage runs, then a tick; a dot before it starts."""

    def __init__(self) -> None:
        super().__init__()
        self._spinner = Spinner("dots", style="cyan")

    def render(self, task: Task) -> RenderableType:
        if task.start_time is None:
            return Text("·", style="dim")
        return Text("✓", style="green") if task.finished else self._spinner.render(task.get_time())


class _Bar(BarColumn):
    """A bar that lies still before its stage starts."""

    def render(self, task: Task) -> ProgressBar:
        if task.start_time is None:
            return ProgressBar(total=1, completed=0, width=self.bar_width)
        return super().render(task)


class _Count(ProgressColumn):
    """Batches done, and the time that a stage takes; nothing before it starts."""

    def render(self, task: Task) -> Text:
        if task.start_time is None:
            return Text("")
        parts = f"{int(task.completed)}/{int(task.total)}  " if task.total and task.total > 1 else ""
        seconds = task.finished_time if task.finished_time is not None else task.elapsed
        return Text(f"{parts}{seconds or 0.0:.1f} s", style="dim")
