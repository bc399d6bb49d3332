"""The notebooks run from top to bottom, from either folder that people start them in, and carry no outputs."""

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.py"))
TIMEOUT_S = 300  # for one cell; the slowest takes seconds

jupytext = pytest.importorskip("jupytext", reason="notebooks need jupytext: pip install .[lab,dev]")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install .[lab,dev]")
pytest.importorskip("ipykernel", reason="notebooks need ipykernel: pip install .[lab,dev]")


def copy_of_the_repository(folder):
    """Returns a folder with the notebooks and small samples, so that what they write stays out of the repository."""
    for name in ("notebooks", "sample_models"):
        (folder / name).mkdir()
    samples = (path for name in ("digits_*.*", "lenet5_*.*") for path in (REPOSITORY / "sample_models").glob(name))
    for path in (*NOTEBOOKS, *samples):
        shutil.copy(path, folder / path.relative_to(REPOSITORY))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's client, not of the package: that runs in another process
@pytest.mark.parametrize("start", ["notebooks", "."])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, start, tmp_path):
    """Every cell runs, every assertion in it holds, and no cell warns."""
    folder = copy_of_the_repository(tmp_path)
    notebook = jupytext.read(folder / path.relative_to(REPOSITORY))
    client = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(folder / start)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert list((folder / "out").rglob("*.onnx"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_as_all_do(path):
    """The first cell tells what one will do, learn and need; code cells assert what the text claims."""
    cells = jupytext.read(path).cells
    assert cells[0].cell_type == "markdown"
    for word in ("**You will** ", "**You will learn**", "**You need**"):
        assert word in cells[0].source
    assert any("assert " in cell.source for cell in cells if cell.cell_type == "code")
    assert any("prediction" in cell.source for cell in cells if cell.cell_type == "markdown")


def test_no_outputs_in_git():
    """The sources are text; a notebook file beside them is generated, and git ignores it."""
    assert NOTEBOOKS
    assert "*.ipynb" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").split()
