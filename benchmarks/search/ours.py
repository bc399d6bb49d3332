"""What runs in our environment, as `python -m search.ours`: the rules, the judge of all plans, and our own search."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peers.worker import main, peak_mb, since_start

import explorer
from explorer.errors import ExplorerError
from explorer.plan import Plan
from search.judge import Judge
from search.rules import Asking, bisect, halve, order_by, raise_in_order, searched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__: list[str] = []

SEED = 4
SHARES = (0.05, 0.95)  # of layers that run low in random plans
STEPS = 100  # greedy rules raise so many groups of layers, so that they end on large models
ABOVE = 1 + 1e-9  # a budget that is another plan's own error, in the last digits


def _judge(settings: dict[str, Any]) -> Judge:
    return Judge(
        settings["model"],
        settings["samples"],
        rows=settings["rows"],
        gpu=settings["gpu"],
        batch_size=settings["batch_size"],
    )


def _facts(judge: Judge) -> dict[str, Any]:
    """Return what the tables need to be read: layers, and the figures of the two plain plans."""
    return {
        "layers": len(judge.x.model.layers),
        "switchable": len(judge.switchable),
        "full": judge.figures(Plan()),
        "fp32": judge.figures(Plan.preset("fp32")),
        "setup_s": judge.setup_s,
    }


def converted(settings: dict[str, Any]) -> dict[str, Any]:
    """Judge the models that other tools made: name to file."""
    judge = _judge(settings)
    return {"figures": {name: judge.converted(path) for name, path in settings["files"].items() if Path(path).exists()}}


def rules(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Search by each rule within each budget.

    A plan is run once, and its seconds are counted for every search that asks for it: what the search takes on its own.
    """
    judge = _judge(settings)
    facts = _facts(judge)

    def run(high: frozenset[str]) -> tuple[float, float]:
        return judge.error(judge.plan_without(high))

    rows: list[dict[str, Any]] = []
    for name, rule, extra_s in _rules(judge, run):
        for budget in settings["budgets"]:
            asking = Asking(run, budget, settings["limit_s"])
            found = searched(rule, asking)
            row = {"tool": name, "budget": budget, "runs": found.runs, "stopped": found.stopped}
            row["seconds"] = judge.setup_s + extra_s + found.seconds
            if found.high is not None:
                row |= judge.figures(judge.plan_without(found.high))
            rows.append(row)
            yield {"rows": rows, "facts": facts, "peak_mb": peak_mb()}


def _rules(
    judge: Judge, run: Callable[[frozenset[str]], tuple[float, float]]
) -> Iterator[tuple[str, Callable[[Asking], frozenset[str] | None], float]]:
    """Yield name and rule, and the seconds that it takes before its first plan."""
    layers, free = judge.layers, judge.switchable
    yield "prefix bisection, forward", lambda asking: bisect(layers, asking, forward=True), 0.0
    yield "prefix bisection, reverse", lambda asking: bisect(layers, asking, forward=False), 0.0
    yield "halving segments", lambda asking: halve(free, asking), 0.0
    step = math.ceil(len(free) / STEPS)
    start = time.perf_counter()
    by_local = order_by(judge.local_errors())
    local_s = time.perf_counter() - start
    yield "greedy by local error", lambda asking: raise_in_order(by_local, asking, step=step), local_s
    everything = frozenset(free)
    alone = {layer: run(everything - {layer}) for layer in free}
    by_output = order_by({layer: error for layer, (error, _) in alone.items()})
    output_s = sum(seconds for _, seconds in alone.values())
    yield "greedy by sensitivity", lambda asking: raise_in_order(by_output, asking, step=step), output_s


def _opened(settings: dict[str, Any]) -> explorer.session.Exploration:
    with np.load(settings["samples"]) as arrays:
        inputs = {name: arrays[name][: settings["rows"]] for name in arrays.files}
    return explorer.open(settings["model"], inputs=inputs, batch_size=settings["batch_size"])


def _searched(x: Any, settings: dict[str, Any]) -> Any:
    """Search with a cache of the benchmark's own, as a user would with the default one."""
    os.environ["PRECISION_EXPLORER_CACHE"] = settings["cache"]
    return x.search(gpu_model=settings["gpu"])


def whole_front(settings: dict[str, Any]) -> dict[str, Any]:
    """Time our search from the file to the verified front, with nothing known before."""
    shutil.rmtree(settings["cache"], ignore_errors=True)
    start = time.perf_counter()
    front = _searched(_opened(settings), settings)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "start_s": since_start(settings) - seconds,
        "plans": len(front.points),
        "noise_runs": front.noise.runs,
        "peak_mb": peak_mb(),
    }


def compare(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield our plans within the budgets, then at the errors that other tools' plans have, then how well we predict.

    What :func:`whole_front` measured is used again.
    """
    judge = _judge(settings)
    front = _searched(judge.x, settings)
    found: dict[str, Any] = {
        "points": [judge.figures(point.plan) for point in front.points],
        "pinned": len(front.pinned),
        "rows": [_best(judge, front, budget) for budget in settings["budgets"]],
        "at_errors": [],
    }
    yield found
    for error in settings["errors"]:
        found["at_errors"].append(_best(judge, front, error * ABOVE))
        yield found
    found["fidelity"] = _fidelity(judge, front, settings["random_plans"])
    yield {**found, "peak_mb": peak_mb()}


def _best(judge: Judge, front: Any, budget: float) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        plan = front.best(max_error=budget)
    except ExplorerError as error:
        return {"budget": budget, "failure": str(error)}
    return {"budget": budget, "seconds": time.perf_counter() - start, **judge.figures(plan)}


def _fidelity(judge: Judge, front: Any, count: int) -> dict[str, Any]:
    """Return predicted and measured errors of random plans whose pinned layers are high."""
    generator = np.random.default_rng(SEED)
    free = [layer for layer in judge.switchable if layer not in front.pinned]
    pairs = []
    for share in generator.uniform(*SHARES, count):
        low = {layer for layer, chosen in zip(free, generator.random(len(free)) < share, strict=True) if chosen}
        plan = judge.plan_of(low)
        judge.x.plan = plan
        decided = judge.x.decisions().low_layers
        mask = np.array([layer.id in decided for layer in judge.x.model.layers])
        predicted = float(np.sqrt(front.noise.predict(mask, keep_io=True).max(initial=0.0)))
        pairs.append((predicted, judge.error(plan)[0]))
    return {"pairs": pairs, "pinned": len(front.pinned)}


if __name__ == "__main__":
    main({"converted": converted, "rules": rules, "whole_front": whole_front, "compare": compare})
