"""Precision Explorer beside other converters: conversion, the toggle loop, local errors, and many layers.

    python benchmarks/against_peers.py --write-docs docs/benchmarks.md   # everything: about 12 minutes on 2 cores
    python benchmarks/against_peers.py --quick                           # ResNet-50 once, a shorter chain: 2 minutes
    python benchmarks/against_peers.py --from benchmarks/results/peers.json --redo local --write-docs docs/benchmarks.md

The peers get a virtual environment of their own (benchmarks/requirements-peers.txt); ours is the one that runs this
script. The models come from `python sample_models/make.py resnet50 bert_base unet_3000`. Every measurement runs in a
fresh process, the tools in turns; nothing else should run meanwhile: `--wait-quiet MINUTES` waits for that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from peers.environment import HERE, describe_machine, make_environment, our_versions, source_digest, versions
from peers.graphs import write_chain, write_trap
from peers.page import render
from peers.runs import Job, Runner, median, spread, wait_until_quiet

OUT = HERE / "out"
GENERATED = HERE.parent / "sample_models" / "generated"
KEPT = HERE / "results" / "peers.json"  # what docs/benchmarks.md was written from
OURS = "Precision Explorer"
COMMON, COMMON_BARE = "onnxconverter-common", "onnxconverter-common, no shape inference"
ORT, ORT_BARE = "onnxruntime.transformers", "onnxruntime.transformers, no shape inference"
AUTOCAST, AUTOCAST_SIMPLE = "ModelOpt AutoCast", "ModelOpt AutoCast convert_to_f16"
CONVERTERS = (ORT, ORT_BARE, COMMON, COMMON_BARE, AUTOCAST, AUTOCAST_SIMPLE)
TOGGLERS = (ORT, ORT_BARE, COMMON, AUTOCAST)
BUDGETS_S = {AUTOCAST: 30.0, AUTOCAST_SIMPLE: 15.0}  # they take most of the time of a whole run
ROWS = (1, 4)
CHAIN_LAYERS, QUICK_CHAIN_LAYERS = 10_000, 1_000
PARTS = ("conversion", "toggle", "trap", "local", "scale")
QUIET_LOAD = 0.5
DIGITS = 4


def main() -> None:
    options = _options()
    record = json.loads(options.record.read_text(encoding="utf-8")) if options.record else {"quick": options.quick}
    parts = options.redo if options.record else list(PARTS)
    if parts:
        wait_until_quiet(load=QUIET_LOAD, minutes=options.wait_quiet)
        measure(record, parts, Path(options.peers_env))
        _write(options.out, json.dumps(record, indent=1) + "\n")
    if options.write_docs:
        if parts:
            _write(KEPT, json.dumps(record, indent=1) + "\n")
        _write(options.write_docs, render(record))
    for target in record["targets"]:
        judged = "met   " if target["met"] else "MISSED"
        print(f"{judged} {target['what']}: {target['value']} (target {target['target']})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT / "peers.json", help="where the record goes")
    parser.add_argument(
        "--write-docs", type=Path, help=f"write this page too, and the record to {KEPT.name} in results/"
    )
    parser.add_argument("--from", dest="record", type=Path, help="start from this record and measure nothing")
    redo = "with --from: measure these parts again, on the same machine and versions"
    parser.add_argument("--redo", nargs="+", choices=PARTS, default=[], help=redo)
    parser.add_argument("--quick", action="store_true", help="one round of ResNet-50 and a shorter chain")
    parser.add_argument("--wait-quiet", type=float, default=0, metavar="MINUTES", help="wait for an idle machine first")
    parser.add_argument("--peers-env", default=OUT / "peers-venv", help="the peers' virtual environment")
    return parser.parse_args()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def measure(record: dict[str, Any], parts: list[str], environment: Path) -> None:
    """Measure the named parts and put them into the record, with what they were measured on."""
    OUT.mkdir(parents=True, exist_ok=True)
    names = ("resnet50",) if record["quick"] else ("resnet50", "bert_base")
    missing = [name for name in (*names, "unet_3000") if not (GENERATED / f"{name}.onnx").exists()]
    if missing:
        raise SystemExit(f"Make the models first: python sample_models/make.py {' '.join(missing)}")
    bench = Bench(make_environment(environment), quick=record["quick"])
    facts = {"machine": describe_machine(), "versions": {"ours": our_versions(), "peers": versions(bench.theirs)}}
    if any(record.get(key, value) != value for key, value in facts.items()):
        raise SystemExit("The record is of another machine or of other versions: measure all parts again.")
    record |= facts
    record.setdefault("commands", []).append(" ".join(["python", "benchmarks/against_peers.py", *_shown_arguments()]))
    if "models" not in record:
        record["models"] = {name: bench.pick(name) for name in names}
    load = record.setdefault("load", {})
    for part in parts:
        bench.runner, start, average = Runner(), time.monotonic(), os.getloadavg()[0]
        record[part] = _rounded(bench.part(part, record["models"]))
        load[part] = _rounded(
            {
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
                "source": source_digest(),
                "minutes": (time.monotonic() - start) / 60,
                "average_before": average,
                "foreign_cpus": spread(bench.runner.foreign),
                "repeated": bench.runner.repeated,
            }
        )
    record["targets"] = _targets(record)


def _shown_arguments() -> list[str]:
    """Return this run's arguments without folders of this machine."""
    return [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]


class Bench:
    """The parts of a run."""

    def __init__(self, theirs: Path, *, quick: bool) -> None:
        self.theirs, self.quick = theirs, quick
        self.rounds = 1 if quick else 3
        self.repeats = 3 if quick else 7
        self.runner = Runner()

    def _job(self, tool: str, task: str, settings: dict[str, Any], **limits: Any) -> Job:
        if tool == OURS:
            return Job(tool, Path(sys.executable), "peers.ours", task, settings, **limits)
        limits.setdefault("budget_s", BUDGETS_S.get(tool, 60.0))
        return Job(tool, self.theirs, "peers.theirs", task, {**settings, "tool": tool}, **limits)

    def _ask(self, task: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Run a task of ours that is no measurement, once."""
        job = self._job(OURS, task, settings, retries=0)
        Runner().once(job)  # not a measurement: it does not count in the log
        return {"error": job.error} if job.error else job.found[0]

    def part(self, name: str, models: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of one part of the record."""
        if name == "trap":
            return self.trap()
        if name == "scale":
            return self.scale()
        parts = {"conversion": self.conversion, "local": self.local_errors}
        if name in parts:
            return [row for model in models for row in parts[name](model)]
        return [row for model, facts in models.items() for row in self.toggles(model, facts["layers"])]

    def pick(self, name: str) -> dict[str, Any]:
        found = self._ask("pick", {"model": _model(name), "count": 2 if self.quick else 5})
        if "error" in found:
            raise SystemExit(f"{name} cannot be loaded: {found['error']}")
        return found

    def conversion(self, name: str) -> list[dict[str, Any]]:
        print(f"Conversion: {name}", flush=True)
        files = {tool: OUT / f"converted_{index}.onnx" for index, tool in enumerate((OURS, *CONVERTERS))}
        jobs = [
            self._job(tool, "convert", {"model": _model(name), "out": str(file)}, rounds=self.rounds)
            for tool, file in files.items()
        ]
        for file in files.values():
            file.unlink(missing_ok=True)
        self.runner.in_turns(jobs)
        rows = []
        for job in jobs:
            row: dict[str, Any] = {"model": name, "tool": job.tool, "error": job.error}
            if job.found:
                row |= {key: spread([run[key] for run in job.found]) for key in ("seconds", "peak_mb")}
                row |= {key: median([run[key] for run in job.found]) for key in ("start_s", "after_import_mb")}
                row["phases"] = _phases([run["phases"] for run in job.found])
                row["result"] = self._ask("validity", {"model": str(files[job.tool])})
            rows.append(row)
            files[job.tool].unlink(missing_ok=True)
        return rows

    def toggles(self, name: str, layers: list[str]) -> list[dict[str, Any]]:
        rows = []
        for count in ROWS:
            print(f"Toggle loop: {name}, {count} sample(s)", flush=True)
            settings = {"model": _model(name), "samples": _samples(name), "rows": count}
            jobs = [self._job(OURS, "toggle", {**settings, "layers": layers}, rounds=min(self.rounds, 2))]
            for tool in TOGGLERS:
                told = {**settings, "layers": layers[:2]}
                jobs.append(self._job(tool, "toggle", told, rounds=min(self.rounds, 2), budget_s=20.0))
            self.runner.in_turns(jobs)
            rows += [_toggle_row(job, name, count) for job in jobs]
        return rows

    def trap(self) -> list[dict[str, Any]]:
        print("What is seen of the error of (x + 65504) - 65504", flush=True)
        path = OUT / "trap.onnx"
        write_trap(path)
        settings = {"model": str(path), "samples": str(path.with_suffix(".npz"))}
        jobs = [self._job(tool, "trap", settings, rounds=1) for tool in (OURS, ORT, COMMON, AUTOCAST)]
        self.runner.in_turns(jobs)
        return [{"tool": job.tool, "error": job.error, **(job.found[0] if job.found else {})} for job in jobs]

    def local_errors(self, name: str) -> list[dict[str, Any]]:
        rows = []
        for count in ROWS:
            print(f"Local errors: {name}, {count} sample(s)", flush=True)
            settings = {"model": _model(name), "samples": _samples(name), "rows": count, "repeats": self.repeats}
            jobs = [self._job(OURS, task, settings, rounds=self.rounds) for task in ("forward", "local")]
            self.runner.in_turns(jobs)
            plain, local = jobs
            row: dict[str, Any] = {"model": name, "samples": count, "error": plain.error or local.error}
            if plain.found and local.found:
                row["forward"] = spread([run["seconds"] for run in plain.found])
                row["local"] = spread([run["seconds"] for run in local.found])
                # Round by round: when the machine is slower for a while, it is so for both of a round.
                pairs = zip(local.found, plain.found, strict=False)
                row["passes"] = spread([one["seconds"] / other["seconds"] for one, other in pairs])
                for key in ("compile_s", "ranges_s", "ranges_compile_s", "measured", "batches", "peak_mb"):
                    row[key] = median([run[key] for run in local.found])
            rows.append(row)
        return rows

    def scale(self) -> list[dict[str, Any]]:
        layers = QUICK_CHAIN_LAYERS if self.quick else CHAIN_LAYERS
        chain = OUT / f"chain_{layers}.onnx"
        write_chain(chain, layers)
        rows = []
        for path in (chain, Path(_model("unet_3000"))):
            print(f"Many layers: {path.stem}", flush=True)
            settings = {"model": str(path), "out": str(OUT / "converted_0.onnx")}
            told = {**settings, "samples": str(path.with_suffix(".npz")), "repeats": self.repeats}
            jobs = [self._job(OURS, "scale", told, rounds=1, limit_s=60.0)]
            peers = (ORT, COMMON, AUTOCAST)
            jobs += [self._job(tool, "convert", settings, rounds=1, limit_s=20.0) for tool in peers]
            self.runner.in_turns(jobs)
            rows += [
                {"model": path.stem, "tool": job.tool, "error": job.error} | (job.found or [{}])[0] for job in jobs
            ]
        (OUT / "converted_0.onnx").unlink(missing_ok=True)
        return rows


def _model(name: str) -> str:
    return str(GENERATED / f"{name}.onnx")


def _samples(name: str) -> str:
    return str(GENERATED / f"{name}.npz")


def _toggle_row(job: Job, name: str, samples: int) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "samples": samples, "tool": job.tool, "error": job.error}
    if not job.found:
        return row
    row["seconds"] = spread([value for run in job.found for value in run["all_seconds"]])
    row["once"] = _phases([run["once"] for run in job.found])
    row["peak_mb"] = median([run["peak_mb"] for run in job.found])
    row["compared"] = job.found[0]["compared"]
    if "all_phases" in job.found[0]:
        row["phases"] = _phases([phases for run in job.found for phases in run["all_phases"]])
    if "table_seconds" in job.found[0]:
        row["table_seconds"] = spread([value for run in job.found for value in run["table_seconds"]])
    return row


def _phases(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: median([run.get(name, 0.0) for run in runs]) for name in runs[0]}


def _targets(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the targets, the figures that stand for them, and whether they are met."""
    model = "resnet50" if record["quick"] else "bert_base"
    found = []
    valid = [row for row in record["conversion"] if row["model"] == model and "seconds" in row]
    valid = [row for row in valid if row["tool"] == OURS or row["result"].get("loads") == "loads"]
    single = [row for row in record["toggle"] if row["model"] == model and row["samples"] == 1 and "seconds" in row]
    several = [row for row in record["toggle"] if row["model"] == model and row["samples"] != 1 and "seconds" in row]
    for what, rows, least in (
        (f"conversion of {model}", valid, 10),
        (f"toggle loop on {model}, 1 sample", single, 20),
        (f"toggle loop on {model}, {ROWS[-1]} samples", several, 20),
    ):
        ours = next((row["seconds"]["median"] for row in rows if row["tool"] == OURS), None)
        for bare, setting in ((False, "with its default settings"), (True, "shape inference switched off allowed")):
            peers = {row["tool"]: row["seconds"]["median"] for row in rows if row["tool"] != OURS}
            peers = {tool: value for tool, value in peers.items() if bare or tool not in (ORT_BARE, COMMON_BARE)}
            if ours is None or not peers:
                continue
            fastest = min(peers, key=lambda tool: peers[tool])
            ratio = peers[fastest] / ours
            found.append(
                {
                    "what": f"{what}: faster than the fastest peer ({fastest.partition(',')[0]}), {setting}",
                    "target": f">= {least} times",
                    "value": f"{ratio:.1f} times",
                    "met": ratio >= least,
                }
            )
    for row in record["local"]:
        if "passes" in row:
            passes = row["passes"]["median"]
            what = f"all local errors of {row['model']}, {row['samples']} sample(s)"
            shown = f"{passes:.2f} forward passes"
            found.append({"what": what, "target": "<= 2.5 forward passes", "value": shown, "met": passes <= 2.5})
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


if __name__ == "__main__":
    main()
