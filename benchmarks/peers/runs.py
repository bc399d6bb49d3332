"""Measurements in fresh processes: one after the other, in turns, with what the rest of the machine did meanwhile."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.worker import median

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Job", "Runner", "busy_cpus", "spread"]

HERE = Path(__file__).resolve().parent.parent
QUIET_POLL_S = 30
DISTURBED_CPUS = 0.25  # an eighth of the smallest machine that makes sense; on an idle one it is 0.02 (measured)
SHOWN_ERROR = 300  # characters of an error that go into the record
Measured = dict[str, Any]


@dataclass
class Job:
    """One thing to measure, several times.

    Attributes:
        tool: whose it is, as the tables name it.
        python: the interpreter.
        module: ``peers.ours`` or ``peers.theirs``.
        task: of that module.
        settings: what the task is told.
        rounds: how often at most.
        budget_s: no further round is begun when the rounds so far took longer.
        limit_s: a process that takes longer is stopped.
        retries: how many runs may be repeated because other programs disturbed them; what comes then is taken as it is.
    """

    tool: str
    python: Path
    module: str
    task: str
    settings: dict[str, Any]
    rounds: int = 3
    budget_s: float = 60.0
    limit_s: float = 240.0
    retries: int = 2
    found: list[Measured] = field(default_factory=list)
    error: str | None = None
    spent_s: float = 0.0

    @property
    def done(self) -> bool:
        return (
            self.error is not None
            or len(self.found) >= self.rounds
            or (bool(self.found) and self.spent_s > self.budget_s)
        )


class Runner:
    """Runs jobs, and keeps a log of how busy the machine was with other things."""

    def __init__(self) -> None:
        self.foreign: list[float] = []  # CPUs that other processes kept busy during each measurement that counts
        self.repeated = 0

    def in_turns(self, jobs: Iterable[Job]) -> None:
        """Run the jobs A B C A B C ... until each has its rounds."""
        waiting = list(jobs)
        while waiting := [job for job in waiting if not job.done]:
            for job in waiting:
                self.once(job)

    def once(self, job: Job) -> None:
        """Run a job once in a fresh process; what goes wrong is kept as its error."""
        print(f"  {job.task:8} {_short(job.settings):34} {job.tool:46}", end=" ", flush=True)
        os.sync()  # what earlier measurements wrote must not be written to the disk during this one
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            settings = json.dumps({**job.settings, "asked_at": time.monotonic()})
            command = [
                str(job.python), "-W", "ignore", "-m", job.module, job.task, settings, str(result),
            ]  # fmt: skip
            busy, own, start = busy_cpus(), _children_cpu(), time.monotonic()
            failure = _call(command, job.limit_s)
            took = time.monotonic() - start
            foreign = max(0.0, (busy_cpus() - busy) - (_children_cpu() - own)) / took
            found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else None
        said = failure or f"{took:.1f} s, of it {_headline(found or {})}"
        if found and not failure and foreign > DISTURBED_CPUS and job.retries:
            job.retries -= 1
            self.repeated += 1
            print(f"{said}; again, for other programs kept {foreign:.2f} CPUs busy", flush=True)
            return
        self.foreign.append(foreign)
        job.spent_s += took
        job.error = failure
        if found:
            job.found.append(found)
        print(said, flush=True)


def _call(command: list[str], limit_s: float) -> str | None:
    """Run a command in a group of processes of its own, and return what went wrong."""
    process = subprocess.Popen(
        command,
        cwd=HERE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, complaints = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"stopped after {limit_s:.0f} s"
    if process.returncode:
        lines = [line for line in complaints.strip().splitlines() if line.strip()]
        return (lines[-1] if lines else f"exit status {process.returncode}")[:SHOWN_ERROR]
    return None


def _short(settings: dict[str, Any]) -> str:
    name = Path(settings["model"]).stem
    return f"{name}, {settings['rows']} sample(s)" if "rows" in settings else name


def _headline(found: Measured) -> str:
    if "all_seconds" in found:
        return f"{median(found['all_seconds']):.3f} s a toggle"
    if "seconds" in found:
        return f"{found['seconds']:.3f} s measured"
    return ", ".join(f"{name} {value:.2f}" for name, value in found.get("phases", {}).items()) or "done"


def spread(values: list[float]) -> dict[str, Any]:
    """Return median, smallest, largest and number of values."""
    return {"median": median(values), "min": min(values), "max": max(values), "runs": len(values)}


def busy_cpus() -> float:
    """Return the CPU seconds that all processes of this machine have used so far; 0 where that is not told."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, soft = (int(part) for part in stat.read_text("ascii").split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_until_quiet(*, load: float, minutes: float, tell: Callable[[str], None] = print) -> tuple[bool, float]:
    """Wait for a load average of one minute below ``load``, and return whether it came and how long that took."""
    start = time.monotonic()
    while (now := os.getloadavg()[0]) >= load:
        waited = time.monotonic() - start
        if waited >= 60 * minutes:
            return False, waited
        tell(f"load average {now:.2f}: waiting for less than {load} ({waited / 60:.0f} of {minutes:.0f} minutes)")
        time.sleep(QUIET_POLL_S)
    return True, time.monotonic() - start
