"""A notebook with the panel in a real JupyterLab: live, then saved and opened again without its kernel."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from support.chromium import chromium
from support.jupyter import TOKEN, served
from view_samples import SAMPLES

pytestmark = pytest.mark.browser

WAIT_MS = 90_000
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


@pytest.fixture(scope="module")
def browser():
    yield from chromium()


def opened(browser, server, *, reset=""):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{server.url}/lab/tree/saved.ipynb?token={TOKEN}{reset}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", timeout=WAIT_MS)
    return page


def end_kernels(server):
    with urllib.request.urlopen(f"{server.url}/api/sessions?token={TOKEN}") as answer:
        sessions = json.load(answer)
    for each in sessions:
        url = f"{server.url}/api/sessions/{each['id']}?token={TOKEN}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"))


def test_a_saved_notebook_shows_figures_and_picture_instead_of_an_error(browser, tmp_path):
    with served(tmp_path) as server:
        server.notebook("saved.ipynb", [CELL])
        page = opened(browser, server)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=WAIT_MS)
        page.click(".jp-CodeCell .cm-content")
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".pe-panel", timeout=WAIT_MS)
        assert len(page.evaluate(SHOWN)) == 1, "the page for later is hidden while the panel lives"
        kernel = server.newest_kernel()
        kernel.run(f"x.controller.set_picture({PNG!r})")
        assert kernel.value("x.shown.wait(60)")
        kernel.close()
        page.wait_for_selector(".pe-saved img", state="attached", timeout=WAIT_MS)
        page.keyboard.press("Control+s")
        until = time.monotonic() + WAIT_MS / 1000
        while PNG not in str(server.read("saved.ipynb").cells[0].outputs) and time.monotonic() < until:
            time.sleep(0.2)
        page.close()
        end_kernels(server)

        page = opened(browser, server, reset="&reset")
        page.wait_for_selector(".pe-saved img", timeout=WAIT_MS)
        page.wait_for_function(f"({GONE})()", timeout=WAIT_MS)
        (shown,) = page.evaluate(SHOWN)
        assert "Run this cell again" in shown
        assert "dB" in shown
        page.close()
