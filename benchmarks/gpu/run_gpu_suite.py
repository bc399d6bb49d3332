"""Measure on a machine with an NVIDIA GPU, and write one record: benchmarks/results/gpu.json.

    python benchmarks/gpu/run_gpu_suite.py                     # in an environment with precision-explorer[gpu,dev]
    python benchmarks/gpu/run_gpu_suite.py --wheels FOLDER     # first install onnxruntime-gpu, cupti-python ... from it
    python benchmarks/gpu/run_gpu_suite.py --quick             # the small models only, to try the script
    python benchmarks/gpu/page.py                              # then write docs/gpu.md and docs/fidelity.md from it

It runs the tests that need a CUDA device, times every model in fp32, in full fp16 and under a searched plan, as a whole
and by layer, times AutoCast's model on the same runtime where ModelOpt is installed, and compares emulated with real
errors, and the roofline with real times. What fails is a row that says why; the rest goes on.
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

from peers.environment import describe_machine, our_versions, source_digest  # noqa: E402

from gpu import measuring  # noqa: E402 - the scripts' own package is not installed

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = ROOT / "benchmarks" / "results" / "gpu.json"
TEST_LIMIT_S = 3600
QUICK = ("lenet5_digits", "digits_transformer")


def install(folder: Path) -> None:
    """Install the wheels of a folder into this environment; the CPU build of ONNX Runtime goes first."""
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"There are no wheels in {folder}.")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if any("onnxruntime_gpu" in name for name in wheels):  # both builds own one folder
        subprocess.run([*pip, "uninstall", "--yes", "onnxruntime", "onnxruntime-gpu"], check=True)
    subprocess.run([*pip, "install", "--no-index", "--find-links", str(folder), "--no-deps", *wheels], check=True)


def run_tests() -> dict[str, Any]:
    """Run the tests that need a CUDA device."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q", "-ra"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="install every wheel of this folder first")
    parser.add_argument("--quick", action="store_true", help="small models only; the record says so")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument("--out", type=Path, default=RECORD, help="where the record goes")
    options = parser.parse_args()
    if options.wheels:
        install(options.wheels)
        # This process has loaded the package's old world by now: go on in a fresh one.
        rest = [item for item in sys.argv[1:] if item != "--wheels" and item != str(options.wheels)]
        raise SystemExit(subprocess.run([sys.executable, __file__, *rest], check=False).returncode)
    device = describe_gpu(options.device)  # refuses, with what is missing, before anything is measured
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/gpu/run_gpu_suite.py",
        "quick": options.quick,
        "source": source_digest(),
        "device": device,
        "machine": describe_machine(),
        "versions": our_versions(),
        "tests": None if options.no_tests else run_tests(),
        "plans": {},
        "latency": [],
        "fidelity": [],
        "roofline": [],
        "failed": [],
    }
    wanted = {name: sizes for name, sizes in measuring.MODELS.items() if not options.quick or name in QUICK}
    seen = set()
    for case in measuring.cases(wanted):
        if isinstance(case, str):
            record["failed"].append({"what": case.partition(":")[0], "why": case.partition(": ")[2]})
            continue
        print(f"{case.title}, batch {case.batch}", flush=True)
        measure_case(case, record, {"device": options.device}, device["roofline"])
        if case.name not in seen:
            seen.add(case.name)
            rows = attempt(
                record,
                f"{case.title}: emulated and real errors",
                lambda c=case: measuring.fidelity_rows(c, c.open(), device=options.device),
            )
            record["fidelity"] += rows or []
    record["plans"] = {
        name: {label: plan if isinstance(plan, str) else json.loads(plan.to_json()) for label, plan in plans.items()}
        for name, plans in record["plans"].items()
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"Wrote {options.out}. Now: python benchmarks/gpu/page.py")


if __name__ == "__main__":
    main()
