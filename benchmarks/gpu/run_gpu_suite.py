"""Measure on a machine with an NVIDIA GPU, and write one record: benchmarks/results/gpu.json.

    python benchmarks/gpu/run_gpu_suite.py                     # in an environment with precision-explorer[gpu,dev]
    python benchmarks/gpu/run_gpu_suite.py --wheels FOLDER     # first install what it needs from a folder of wheels
    python benchmarks/gpu/run_gpu_suite.py --quick             # the small models only, to try the script
    python benchmarks/gpu/page.py                              # then write docs/gpu.md and docs/fidelity.md from it

It runs the tests that need a CUDA device, times every model in fp32, in full fp16 and under a searched plan, as a whole
and by layer, times AutoCast's model on the same runtime where ModelOpt is installed, and compares emulated with real
errors, and the roofline with real times. Where TensorRT's Python package loads it also runs the tests that need it, and
builds and times an engine of every model under the same plans; where it does not, the record says why. What fails is a
row that says why; the rest goes on, and the record is written after each step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

from peers.environment import describe_machine, our_versions, source_digest, versions  # noqa: E402

from gpu import engines, measuring, wheels  # noqa: E402 - the scripts' own package is not installed

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = ROOT / "benchmarks" / "results" / "gpu.json"
TEST_LIMIT_S = 3600
QUICK = ("lenet5_digits", "digits_transformer")
GPU_PACKAGES = ("onnxruntime-gpu", "cupti-python", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "nvidia-modelopt")
MARKS = {"gpu": "gpu and not tensorrt", "tensorrt": "tensorrt"}  # together what `make test-gpu` runs


def check_cupti(*, isolated: bool) -> str:
    """Return why CUPTI does not record here; empty where it does.

    Raises:
        CuptiUnavailable: it does not, and isolated times are not accepted: every time by layer would be one.
    """
    from explorer.backends.cupti import CuptiUnavailable, Recorder, find_cupti  # noqa: PLC0415 - after the wheels

    try:
        with Recorder(find_cupti()):
            return ""
    except CuptiUnavailable as error:
        if isolated:
            print(f"Every layer will be timed alone. {error.what}", flush=True)
            return error.what
        raise CuptiUnavailable(
            error.what,
            why=f"{error.why} Every layer would be timed alone: times that say little of the whole model.".strip(),
            fix=f"{error.fix} Or accept isolated times: --isolated.".strip(),
        ) from error


def run_tests(marks: str) -> dict[str, Any]:
    """Run the tests that a marker expression chooses."""
    command = [sys.executable, "-m", "pytest", "-m", marks, "-p", "no:cacheprovider", "-q", "-ra"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TEST_LIMIT_S)
    lines = done.stdout.strip().splitlines()
    told = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return {"returncode": done.returncode, "summary": lines[-1] if lines else "", "lines": told}


def attempt(record: dict[str, Any], what: str, measure: Callable[[], Any]) -> Any:
    """Return what is measured; None where it fails, which the record then tells."""
    print(f"  {what} ...", flush=True)
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - one failure must not cost the rest of a run on a rented machine
        record["failed"].append({"what": what, "why": f"{type(error).__name__}: {str(error)[:500]}"})
        return None


def measure_case(case: measuring.Case, record: dict[str, Any], settings: dict[str, Any], gpu_model: str | None) -> None:
    """Measure all plans of one model with one batch size."""
    x = attempt(record, f"{case.title}: open", case.open)
    if x is None:
        return
    plans = record["plans"].get(case.name)
    if plans is None:
        plans = record["plans"][case.name] = attempt(
            record, f"{case.title}: search", lambda: measuring.plans_of(x, gpu_model)
        ) or {}  # fmt: skip
    for label, plan in plans.items():
        what = f"{case.title}, batch {case.batch}, {label}"
        if isinstance(plan, str):
            record["failed"].append({"what": what, "why": plan})
            continue
        found = attempt(record, what, lambda p=plan, n=label: measuring.latency_row(case, x, p, n, **settings))
        if found is None:
            continue
        record["latency"].append(found.row)
        if gpu_model:
            row = attempt(
                record,
                f"{what}, roofline",
                lambda p=plan, f=found: measuring.roofline_row(case, x, p, f, gpu_model),
            )
            record["roofline"] += [row] if row else []
    peer = attempt(
        record, f"{case.title}, batch {case.batch}, AutoCast", lambda: measuring.autocast_row(case, **settings)
    )
    record["latency"] += [peer] if peer else []


def measure_engines(case: measuring.Case, record: dict[str, Any], settings: dict[str, Any]) -> None:
    """Build and time the engines of one model with one batch size, under the plans that were timed before."""
    x = attempt(record, f"{case.title}, TensorRT: open", lambda: case.open_batch("tensorrt"))
    if x is None:
        return
    for label, plan in record["plans"].get(case.name, {}).items():
        if isinstance(plan, str):  # told by what was measured before
            continue
        what = f"{case.title}, batch {case.batch}, {label}, TensorRT"
        row = attempt(record, what, lambda p=plan, n=label: engines.engine_row(case, x, p, n, **settings))
        record["engines"] += [row] if row else []


def describe_gpu(device: int) -> dict[str, Any]:
    """The device, and whether the roofline's table has it."""
    from explorer.backends.gpus import get_gpu  # noqa: PLC0415 - after the wheels are installed
    from explorer.backends.machine import look  # noqa: PLC0415
    from explorer.backends.onnxruntime_cuda import require_device  # noqa: PLC0415
    from explorer.errors import BackendError  # noqa: PLC0415

    name = require_device(device)
    driver = look().driver
    try:
        table = get_gpu(name).name
    except BackendError:
        table = None
    return {"name": name, "cuda": ".".join(map(str, driver.cuda)) if driver else "", "roofline": table}


def save(record: dict[str, Any], path: Path) -> None:
    """Write the record, whole or not at all."""
    plans = {
        name: {label: plan if isinstance(plan, str) else json.loads(plan.to_json()) for label, plan in found.items()}
        for name, found in record["plans"].items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record | {"plans": plans}, indent=1, sort_keys=True) + "\n"
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main() -> None:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--wheels", type=Path, help="first install onnxruntime-gpu, CUPTI ... from this folder")
    folder, rest = first.parse_known_args()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, parents=[first]
    )
    parser.add_argument("--quick", action="store_true", help="small models only; the record says so")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--isolated", action="store_true", help="go on where CUPTI does not record: layers run alone")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument("--out", type=Path, default=RECORD, help="where the record goes")
    options = parser.parse_args()
    if folder.wheels:
        wheels.install(folder.wheels)
        # This process has loaded the package's old world by now: go on in a fresh one.
        raise SystemExit(subprocess.run([sys.executable, __file__, *rest], check=False).returncode)
    device = describe_gpu(options.device)  # refuses, with what is missing, before anything is measured
    found = {"cupti": check_cupti(isolated=options.isolated), "tensorrt": engines.find_tensorrt(options.device)}
    record = blank_record(quick=options.quick) | {"device": device, **found}
    measure_all(record, options)
    print(f"Wrote {options.out}. Now: python benchmarks/gpu/page.py")


def blank_record(*, quick: bool) -> dict[str, Any]:
    """A record before anything is measured; what the GPU, CUPTI and TensorRT are is added to it."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/gpu/run_gpu_suite.py",
        "quick": quick,
        "source": source_digest(),
        "machine": describe_machine(),
        "versions": our_versions() | versions(Path(sys.executable), GPU_PACKAGES),
        "tests": dict.fromkeys(MARKS),
        "plans": {},
        "latency": [],
        "engines": [],
        "fidelity": [],
        "roofline": [],
        "failed": [],
    }


def measure_all(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Run the tests and measure everything; TensorRT last, so that a crash in it costs nothing else."""
    with_tensorrt = record["tensorrt"]["version"] is not None
    if not with_tensorrt:
        print(f"No engines will be measured. {record['tensorrt']['why']}", flush=True)
    for name, marks in MARKS.items():
        if not options.no_tests and (with_tensorrt or name != "tensorrt"):
            record["tests"][name] = attempt(record, f"tests of {name}", lambda m=marks: run_tests(m))
    wanted = {name: sizes for name, sizes in measuring.MODELS.items() if not options.quick or name in QUICK}
    settings, there = {"device": options.device}, []
    for case in measuring.cases(wanted):
        if isinstance(case, str):
            record["failed"].append({"what": case.partition(":")[0], "why": case.partition(": ")[2]})
            continue
        print(f"{case.title}, batch {case.batch}", flush=True)
        measure_case(case, record, settings, record["device"]["roofline"])
        if case.name not in [each.name for each in there]:
            rows = attempt(
                record,
                f"{case.title}: emulated and real errors",
                lambda c=case: measuring.fidelity_rows(c, c.open(), device=options.device),
            )
            record["fidelity"] += rows or []
        there.append(case)
        save(record, options.out)
    for case in there if with_tensorrt else ():
        print(f"{case.title}, batch {case.batch}, TensorRT", flush=True)
        measure_engines(case, record, settings)
        save(record, options.out)
    save(record, options.out)


if __name__ == "__main__":
    main()
