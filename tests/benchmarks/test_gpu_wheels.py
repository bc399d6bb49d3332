"""Installing what the GPU suite needs from a folder: all of it or nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture
def wheels(monkeypatch):
    """The script's module; its package is not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from gpu import wheels  # noqa: PLC0415

    return wheels


def add_wheel(folder, name, version="99.0", needs=(), extras=()):
    """Writes a wheel that holds nothing but what it depends on."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    files = {
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")))


def test_a_folder_without_wheels_is_refused(wheels, tmp_path):
    with pytest.raises(SystemExit, match="no wheels"):
        wheels.install(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="there is no pip here")
def test_a_folder_that_lacks_a_dependency_changes_nothing(wheels, tmp_path, monkeypatch):
    """As cupti-python without pyelftools: `pip --no-deps` took that, and every layer was then timed alone."""
    add_wheel(tmp_path, "onnxruntime_gpu", extras=("cuda", "cudnn"))
    add_wheel(tmp_path, "cupti_python", needs=("a-package-that-the-folder-lacks>=1",))
    commands, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: commands.append(command) or run(command, **how))
    with pytest.raises(SystemExit, match=r"not all that is needed.*nothing was changed.*pip wheel"):
        wheels.install(tmp_path)
    (command,) = commands
    assert "--dry-run" in command
    assert not importlib.util.find_spec("cupti")


@pytest.mark.parametrize("more", [(), ("tensorrt",)])
def test_all_is_installed_with_its_dependencies_and_from_the_folder_alone(wheels, tmp_path, monkeypatch, more):
    for name in ("onnxruntime_gpu", "cupti_python", *more):
        add_wheel(tmp_path, name)
    commands = []

    def run(command, **_):
        commands.append(command[command.index("pip") + 2 :])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    wheels.install(tmp_path)
    check, remove, install = commands
    assert check == [*install, "--dry-run", "--quiet"]
    assert remove == ["uninstall", "--yes", "onnxruntime", "onnxruntime-gpu"]
    assert install[:4] == ["install", "--no-index", "--find-links", str(tmp_path)]
    assert "--no-deps" not in install
    names = [item.partition(">")[0].partition("[")[0] for item in install[4:]]
    assert names == ["onnxruntime-gpu", "cupti-python", *more]


def test_the_page_says_how_to_fill_the_folder(wheels):
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert wheels.COLLECT in page
    assert "cupti-python" in wheels.COLLECT
    assert sys.executable not in page
