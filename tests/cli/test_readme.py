"""README.md: whoever copies its blocks one after the other, in a fresh checkout, has each of them work."""

import re
import shlex
import shutil

import pytest
from cli_support import SAMPLES, cli

pytestmark = pytest.mark.slow

README = (SAMPLES.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LINES = [line for _, text in BLOCKS for line in text.replace("\\\n", " ").splitlines()]
COMMANDS = [line for line in LINES if line.startswith("precision-explorer ")]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the sample models that git has, and a cache of its own."""
    (tmp_path / "sample_models").mkdir()
    for path in [*SAMPLES.glob("*.onnx"), *SAMPLES.glob("*.npz")]:
        shutil.copy(path, tmp_path / "sample_models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(checkout, command):
    done = cli(*shlex.split(command)[1:])
    assert done.code == 0, done.err
    assert done.out


def test_the_blocks_of_python_run_in_their_order(checkout):
    names = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), names)
    assert (checkout / "model.fp16.onnx").stat().st_size
    assert (checkout / "report.html").stat().st_size
    taken = names["front"].take(max_error=1e-3)
    assert taken.low > 50, "the example shows what a search is for"
    assert 0 < taken.worst <= 1e-3
