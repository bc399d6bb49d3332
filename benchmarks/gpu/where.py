"""What has run where, as the record of the GPU suite tells it; without a record nothing has run on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu.tables import table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["tests_told", "where"]

NOT_RUN = "not run"


def where(record: dict[str, Any] | None) -> str:
    """Return the table: every part, what of it ran on a GPU, and how it is tested without one."""
    rows = [[part, (record and ran(record)) or NOT_RUN, without] for part, ran, without in _PARTS]
    return table(["part", "on a GPU", "without one"], rows)


def tests_told(record: dict[str, Any], name: str) -> str:
    """Return what became of the tests of one kind."""
    done = record["tests"][name]
    return NOT_RUN if done is None else done["summary"]


def _tested(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda record: f"tests: {tests_told(record, name)}" if record["tests"][name] else ""


def _counted(rows: str, what: str, word: str = "") -> Callable[[dict[str, Any]], str]:
    """Count the rows of a kind in the record; with ``word`` those alone whose provenance has it."""

    def told(record: dict[str, Any]) -> str:
        count = sum(word in row.get("provenance", "") for row in record[rows])
        return f"{count} {what}" if count else ""

    return told


_PARTS: tuple[tuple[str, Callable[[dict[str, Any]], str], str], ...] = (
    (
        "sessions, IO binding, choice of device",
        _counted("latency", "measurements"),
        "every refusal; the timing loop on the CPU",
    ),
    (
        "times by layer through CUPTI",
        _counted("latency", "measurements", "recorded by CUPTI"),
        "records by hand and drawn at random; a real profile of the CPU",
    ),
    (
        "isolated times by CUDA events",
        _counted("latency", "measurements", "isolated"),
        "the method, on the CPU with a stand-in for the events",
    ),
    (
        "layers that fall back to the CPU, their copies",
        _tested("gpu"),
        "graphs by hand; every node on the CPU",
    ),
    (
        "real errors: true fp16 operators behind the switches",
        _counted("fidelity", "comparisons"),
        "valid, typed; the fp32 model bit for bit",
    ),
    ("predicted against real times", _counted("roofline", "comparisons"), "published times of other GPUs"),
    ("kernel list, live", _tested("gpu"), "the way through another process, with the CPU's list"),
    (
        "TensorRT: engines, their times",
        _counted("engines", "measurements"),
        "a stand-in for its bindings; `trtexec`'s files",
    ),
    ("TensorRT: outputs, values inside engines", _tested("tensorrt"), "a stand-in for its bindings"),
)
