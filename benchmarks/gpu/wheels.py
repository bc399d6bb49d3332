"""What the GPU suite needs, from a folder of wheels, for a machine without network."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["COLLECT", "install"]

ROOT = Path(__file__).resolve().parents[2]
CUPTI = "cupti-python"
COLLECT = "pip wheel '.[gpu]' cupti-python --wheel-dir FOLDER"


def install(folder: Path) -> None:
    """Install what the suite needs from a folder of wheels; the CPU build of ONNX Runtime goes first.

    Nothing is changed where the folder lacks anything, dependencies included.
    """
    if not any(folder.glob("*.whl")):
        raise SystemExit(f"There are no wheels in {folder}. Where there is network: {COLLECT}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "install", "--no-index", "--find-links", str(folder), *_wanted(folder)]
    if subprocess.run([*command, "--dry-run", "--quiet"], check=False).returncode:
        raise SystemExit(
            f"The wheels in {folder} are not all that is needed (pip says above what is missing); nothing was changed. "
            f"Where there is network, for the same Python: {COLLECT}"
        )
    if any(folder.glob("onnxruntime_gpu-*.whl")):  # both builds own one folder
        subprocess.run([*pip, "uninstall", "--yes", "onnxruntime", "onnxruntime-gpu"], check=True)
    subprocess.run(command, check=True)


def _wanted(folder: Path) -> list[str]:
    """The requirements of the extra `gpu`, CUPTI, and where the folder has it TensorRT."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*extras["gpu"], CUPTI, *(extras["tensorrt"] if any(folder.glob("tensorrt-*.whl")) else [])]
