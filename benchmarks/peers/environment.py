"""The peers' virtual environment, and what of this machine belongs into a record."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["PEERS_OF_INTEREST", "describe_machine", "make_environment", "our_versions", "source_digest", "versions"]

HERE = Path(__file__).resolve().parent.parent
REQUIREMENTS = HERE / "requirements-peers.txt"
PEERS_OF_INTEREST = ("onnxconverter-common", "nvidia-modelopt", "onnxruntime", "onnx", "numpy", "torch", "protobuf")
OURS_OF_INTEREST = ("precision-explorer", "onnxruntime", "onnx", "onnx-ir", "numpy", "protobuf")
INSTALL_LIMIT_S = 1800
_LIST = "import importlib.metadata as m, json, sys; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def make_environment(folder: Path) -> Path:
    """Return the interpreter of the peers' environment; it is made where it is missing or of other requirements."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing the peers into {folder} (once; about 1.4 GB with torch's CPU build) ...", flush=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    torch = next(line for line in wanted.splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*pip, torch])  # with what its build depends on
    _run([*pip, "--no-deps", "-r", str(REQUIREMENTS)])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_LIMIT_S
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stdout[-4000:]}")


def versions(python: Path, names: tuple[str, ...] = PEERS_OF_INTEREST) -> dict[str, str]:
    """Return the versions of the named packages in the environment of an interpreter."""
    listed = json.loads(subprocess.run([str(python), "-c", _LIST], check=True, capture_output=True, text=True).stdout)
    have = {name.lower().replace("_", "-"): version for name, version in listed.items()}
    return {name: have[name] for name in names if name in have}


def our_versions() -> dict[str, str]:
    return versions(Path(sys.executable), OURS_OF_INTEREST)


def source_digest() -> str:
    """Return a short digest of the package's code, by which two states of one version can be told apart."""
    spec = importlib.util.find_spec("explorer")
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations or [] if spec else []:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


def describe_machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    facts: dict[str, str] = {}
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or "unknown"
    return f"{name}, model {facts['model']}" if "model" in facts else name
