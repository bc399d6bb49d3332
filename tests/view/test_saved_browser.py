"""A notebook with the panel in a real JupyterLab: live, then saved and opened again without its kernel."""

from __future__ import annotations

import time

import pytest
from support.jupyter import WAIT_MS, in_lab, run_cell, served
from view_samples import SAMPLES

pytestmark = pytest.mark.browser

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6o"
    "AAAAAElFTkSuQmCC"
)
CELL = "\n".join(
    [
        "import explorer",
        f"x = explorer.open({str(SAMPLES / 'lenet5_digits.onnx')!r}, inputs={str(SAMPLES / 'lenet5_digits.npz')!r})",
        "x",
    ]
)
SHOWN = """() => [...document.querySelectorAll('.jp-OutputArea-child')]
    .filter(each => getComputedStyle(each).display !== 'none').map(each => each.innerText)"""

GONE = """() => [...document.querySelectorAll('.jp-OutputArea-child')]
    .some(each => each.textContent.includes('model not found'))"""


def test_a_saved_notebook_shows_figures_and_picture_instead_of_an_error(browser, tmp_path):
    with served(tmp_path) as server:
        server.notebook("saved.ipynb", [CELL])
        page = in_lab(browser, server, "saved.ipynb")
        run_cell(page)
        page.wait_for_selector(".pe-panel", timeout=WAIT_MS)
        page.wait_for_function(f"({SHOWN})().length === 1", timeout=WAIT_MS)  # the page for later is hidden meanwhile
        kernel = server.kernel("saved.ipynb")
        kernel.run(f"x.controller.set_picture({PNG!r})")
        assert kernel.value("x.shown.wait(60)")
        kernel.close()
        page.wait_for_selector(".pe-saved img", state="attached", timeout=WAIT_MS)
        page.keyboard.press("Control+s")
        until = time.monotonic() + WAIT_MS / 1000
        while PNG not in str(server.read("saved.ipynb").cells[0].outputs) and time.monotonic() < until:
            time.sleep(0.2)
        assert PNG in str(server.read("saved.ipynb").cells[0].outputs)
        page.close()
        server.end_kernels()

        page = in_lab(browser, server, "saved.ipynb", idle=False, query="&reset")
        page.wait_for_selector(".pe-saved img", timeout=WAIT_MS)
        page.wait_for_function(f"({GONE})()", timeout=WAIT_MS)
        page.wait_for_function(f"({SHOWN})().length === 1", timeout=WAIT_MS)  # the error is hidden
        (shown,) = page.evaluate(SHOWN)
        assert "Run this cell again" in shown
        assert "dB" in shown
        page.close()
