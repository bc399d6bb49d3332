"""Our search beside others: latency of the plans at the same error, and the time that each search takes.

    python benchmarks/search_against_peers.py --write-docs docs/benchmarks_search.md  # everything: about 20 minutes
    python benchmarks/search_against_peers.py --quick  # the small models, fewer random plans: 3 minutes
    python benchmarks/search_against_peers.py --from benchmarks/results/search.json --write-docs PAGE  # measure nothing
    python benchmarks/search_against_peers.py --from benchmarks/results/search.json --models bert_base --write-docs PAGE

The peers get a virtual environment of their own (benchmarks/requirements-peers.txt); ours is the one that runs this
script. Two of the models come from `python sample_models/make.py resnet50 bert_base`. Every search runs in a fresh
process, ours and theirs in turns; nothing else should run meanwhile: `--wait-quiet MINUTES` waits for that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.environment import HERE, describe_machine, make_environment, our_versions, source_digest, versions
from peers.runs import Job, Runner, spread, wait_until_quiet
from search.page import render
from search.verdict import AUTO_CONVERT, pareto, peer_plans, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

OUT = HERE / "out"
SAMPLES = HERE.parent / "sample_models"
KEPT = HERE / "results" / "search.json"  # what docs/benchmarks_search.md was written from
OURS, AUTOCAST = "Precision Explorer", "ModelOpt AutoCast"
BUDGETS = (3e-3, 1e-3, 5e-4, 2e-4)  # relative L2 error of the worst output
# Rows at once are the batch that latency is of. With fewer, or on an H100, the small models gain nothing by fp16: fp32
# is the best plan within any budget, and no search can be told from another. `auto` are the budgets that
# auto_convert_mixed_precision is given: on ResNet-50 one takes minutes, on BERT-base all fail alike.
MODELS: dict[str, dict[str, Any]] = {
    "lenet5_digits": {"gpu": "T4", "rows": 360, "batch_size": 360, "auto": BUDGETS},
    "digits_transformer": {"gpu": "T4", "rows": 360, "batch_size": 360, "auto": BUDGETS},
    "digits_transformer_mask": {"gpu": "T4", "rows": 360, "batch_size": 360, "auto": BUDGETS},
    "resnet50": {"gpu": "H100", "rows": 1, "batch_size": None, "auto": (1e-3,)},
    "bert_base": {"gpu": "H100", "rows": 1, "batch_size": None, "auto": (1e-3,)},
}
SMALL = ("lenet5_digits", "digits_transformer", "digits_transformer_mask")
RULE_LIMIT_S = 20.0  # of runs, for each of the other rules and each budget
AUTO_LIMIT_S = 400.0
LIMIT_S = 1200.0
RANDOM_PLANS, QUICK_RANDOM_PLANS = 100, 40
QUIET_LOAD = 0.5
DIGITS = 9  # significant


def main() -> None:
    options = _options()
    record: dict[str, Any] = {"commands": [], "models": {}}
    if options.record:
        record = json.loads(options.record.read_text(encoding="utf-8"))
    names = options.models or (() if options.record else SMALL if options.quick else tuple(MODELS))
    if names:
        wait_until_quiet(load=QUIET_LOAD, minutes=options.wait_quiet)
        measure(record, names, options)
        _write(options.out, json.dumps(record, indent=1) + "\n")
    if options.write_docs:
        if names:
            _write(KEPT, json.dumps(record, indent=1) + "\n")
        _write(options.write_docs, render(record))
    for target in targets(record):
        judged = "met   " if target["met"] else "MISSED"
        print(f"{judged} {target['what']}: {target['value']} (target {target['target']})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT / "search.json", help="where the record goes")
    parser.add_argument(
        "--write-docs", type=Path, help=f"write this page too, and the record to {KEPT.name} in results/"
    )
    parser.add_argument("--from", dest="record", type=Path, help="start from this record; measure only `--models`")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="measure only these")
    parser.add_argument("--quick", action="store_true", help="the small models, fewer random plans")
    parser.add_argument("--without-ours", action="store_true", help="leave our search out, to try the others")
    parser.add_argument("--wait-quiet", type=float, default=0, metavar="MINUTES", help="wait for an idle machine first")
    parser.add_argument("--peers-env", type=Path, default=OUT / "peers-venv", help="the peers' virtual environment")
    return parser.parse_args()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def _file(name: str) -> Path:
    path = SAMPLES / f"{name}.onnx"
    return path if path.exists() else SAMPLES / "generated" / f"{name}.onnx"


def measure(record: dict[str, Any], names: Sequence[str], options: argparse.Namespace) -> None:
    """Measure these models and put them into the record, with what they were measured on."""
    OUT.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in names if not _file(name).exists()]:
        raise SystemExit(f"Make the models first: python sample_models/make.py {' '.join(missing)}")
    theirs = make_environment(options.peers_env)
    facts = {"machine": describe_machine(), "versions": {"ours": our_versions(), "peers": versions(theirs)}}
    facts |= {"budgets": list(BUDGETS), "rule_limit_s": RULE_LIMIT_S}
    if any(record.get(key, value) != value for key, value in facts.items()):
        raise SystemExit("The record is of another machine, or of other versions or budgets: measure all models again.")
    record |= facts
    shown = [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]
    record["commands"].append(" ".join(["python", "benchmarks/search_against_peers.py", *shown]))
    bench = Bench(theirs, quick=options.quick, ours=not options.without_ours)
    for name in names:
        before, start = os.getloadavg()[0], time.monotonic()
        found = bench.model(name)
        found["run"] = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "source": source_digest(),
            "minutes": (time.monotonic() - start) / 60,
            "average_before": before,
            "foreign_cpus": spread(bench.foreign),
        }
        record["models"][name] = _finite(found)
        _write(
            options.out, json.dumps(record, indent=1) + "\n"
        )  # what is measured is not lost when a later model fails
    record["models"] = {name: record["models"][name] for name in MODELS if name in record["models"]}
    record["quick"] = options.quick or len(record["models"]) < len(MODELS)


def _finite(value: Any) -> Any:
    """Return a value for the record: few digits, and None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


class Bench:
    """Runs all searches on one model after the other.

    Attributes:
        foreign: CPUs that other processes kept busy, by measurement of the last model.
    """

    def __init__(self, theirs: Path, *, quick: bool, ours: bool) -> None:
        self.theirs, self.quick, self.ours = theirs, quick, ours
        self.foreign: list[float] = []

    def model(self, name: str) -> dict[str, Any]:
        """Return what stands in the record about a model."""
        print(f"\n{name}", flush=True)
        self.foreign = []
        told = MODELS[name]
        path = _file(name)
        settings = {"model": str(path), "samples": str(path.with_suffix(".npz"))}
        settings |= {key: told[key] for key in ("gpu", "rows", "batch_size")} | {"cache": str(OUT / "search-cache")}
        time_job, jobs = self._timed(settings, told["auto"], small=name in SMALL)
        files = {key: job.settings["out"] for key, job in jobs.items()}
        judged = self._ask("converted", {**settings, "files": files}).get("figures", {})
        rules = self._ask("rules", {**settings, "budgets": BUDGETS, "limit_s": RULE_LIMIT_S})
        for file in files.values():
            Path(file).unlink(missing_ok=True)
        found = {
            "settings": {key: told[key] for key in ("gpu", "rows", "batch_size")},
            "facts": rules.get("facts", {}),
            "peers": [_peer_row(job, judged.get(key, {})) for key, job in jobs.items()],
            "rules": rules.get("rows", [{"tool": "rules", "failure": rules.get("error")}]),
            "time": {},
            "ours": {"failure": "left out of this run"},
        }
        if time_job.found:
            found["time"] = {key: spread([run[key] for run in time_job.found]) for key in ("seconds", "peak_mb")}
            found["time"] |= {key: time_job.found[0][key] for key in ("plans", "noise_runs")}
        if self.ours:
            errors = [row["error"] for row in pareto(peer_plans(_finite(found)))]
            count = QUICK_RANDOM_PLANS if self.quick else RANDOM_PLANS
            told = {**settings, "budgets": BUDGETS, "errors": errors, "random_plans": count}
            found["ours"] = self._ask("compare", told)
            if time_job.error or "error" in found["ours"]:
                found["ours"]["failure"] = time_job.error or found["ours"]["error"]
        return found

    def _timed(
        self, settings: dict[str, Any], budgets: tuple[float, ...], *, small: bool
    ) -> tuple[Job, dict[str, Job]]:
        """Run our search and theirs, in turns; return the job of ours, and those of theirs by key."""
        rounds = 1 if self.quick or not small else 2
        ours = Job(OURS, Path(sys.executable), "search.ours", "whole_front", settings, rounds=rounds, limit_s=LIMIT_S)
        jobs = {}
        for index, budget in enumerate((None, *budgets)):
            told = {**settings, "out": str(OUT / f"searched_{index}.onnx")}
            Path(told["out"]).unlink(missing_ok=True)
            tool, task = AUTOCAST, "autocast"
            if budget is not None:
                tool, task = AUTO_CONVERT, "auto_convert"
                told |= {"budget": budget, "limit_s": AUTO_LIMIT_S}
            jobs[str(index)] = Job(
                tool, self.theirs, "search.theirs", task, told, rounds=rounds, limit_s=LIMIT_S, retries=0
            )
        runner = Runner()
        runner.in_turns([*([ours] if self.ours else []), *jobs.values()])
        self.foreign += runner.foreign
        return ours, jobs

    def _ask(self, task: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Run a task of ours that nobody times from outside, once."""
        job = Job(OURS, Path(sys.executable), "search.ours", task, settings, rounds=1, limit_s=LIMIT_S, retries=0)
        Runner().once(job)
        found = job.found[0] if job.found else {}
        return {**found, "error": job.error} if job.error else found


def _peer_row(job: Job, judged: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"tool": job.tool, "budget": job.settings.get("budget"), "failure": job.error}
    if not job.found:
        return row
    last = job.found[-1]
    row["seconds"] = spread([run["seconds"] for run in job.found])
    row |= {"failure": last["failure"], "stopped": bool(last.get("stopped"))}
    row |= {key: last[key] for key in ("attempts", "own_error") if key in last}
    return row | (judged if not last["failure"] else {})


if __name__ == "__main__":
    main()
