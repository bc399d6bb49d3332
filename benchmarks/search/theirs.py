"""Run a peer's search in a process of its own; runs in the peers' environment, as `python -m search.theirs`."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from peers.worker import main, peak_mb, since_start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["error_of"]

SHOWN_ERROR = 300  # characters of an error that go into the record


class OutOfTimeError(Exception):
    """The search has had its time."""


def error_of(exact: Sequence[Any], low: Sequence[Any]) -> float:
    """Return the relative L2 error of the worst output; inf where one is not finite."""
    worst = 0.0
    for reference, value in zip(exact, low, strict=True):
        wide = np.asarray(reference, np.float64)
        error = float(np.linalg.norm(np.asarray(value, np.float64) - wide) / np.linalg.norm(wide))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def autocast(settings: dict[str, Any]) -> dict[str, Any]:
    """ModelOpt's AutoCast with its default settings: random calibration data, limits on values; no budget to give."""
    from modelopt.onnx.autocast import convert_to_mixed_precision  # noqa: PLC0415 - only this peer's cost

    logging.getLogger("modelopt").setLevel(logging.ERROR)
    return _timed(settings, lambda: convert_to_mixed_precision(settings["model"], keep_io_types=True))


def auto_convert(settings: dict[str, Any]) -> dict[str, Any]:
    """onnxconverter-common's `auto_convert_mixed_precision`: it validates with ONNX Runtime's CPU provider."""
    from onnxconverter_common.auto_mixed_precision import auto_convert_mixed_precision  # noqa: PLC0415

    errors: list[float] = []
    start = time.perf_counter()

    def validate(exact: Sequence[Any], low: Sequence[Any]) -> bool:
        if time.perf_counter() - start > settings["limit_s"]:
            raise OutOfTimeError(f"stopped after {settings['limit_s']:.0f} s and {len(errors)} attempts")
        errors.append(error_of(exact, low))
        return errors[-1] <= settings["budget"]

    def run() -> onnx.ModelProto:
        with np.load(settings["samples"]) as arrays:
            feeds = {name: arrays[name][: settings["rows"]] for name in arrays.files if name != "labels"}
        return auto_convert_mixed_precision(onnx.load(settings["model"]), feeds, validate, keep_io_types=True)

    found = _timed(settings, run)
    # Before its first attempt it validates the fp32 model against itself.
    return {**found, "attempts": max(0, len(errors) - 1), "own_error": errors[-1] if errors else None}


def _timed(settings: dict[str, Any], convert: Callable[[], onnx.ModelProto]) -> dict[str, Any]:
    """Run a conversion with its import and its loading, and write what it made; what goes wrong is told in words."""
    warnings.simplefilter("ignore")
    start, failure, stopped = time.perf_counter(), None, False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints every attempt with all its layers
            made = convert()
    except OutOfTimeError as error:
        failure, stopped = str(error), True
    except Exception as error:  # noqa: BLE001 - another tool's failure, whatever it is, is what is measured here
        failure = " ".join(str(error).split())[:SHOWN_ERROR] or type(error).__name__
    seconds = time.perf_counter() - start
    if failure is None:
        onnx.save(made, settings["out"])
    found = {"seconds": seconds, "start_s": since_start(settings) - seconds, "peak_mb": peak_mb()}
    return {**found, "failure": failure, "stopped": stopped}


if __name__ == "__main__":
    main({"autocast": autocast, "auto_convert": auto_convert})
