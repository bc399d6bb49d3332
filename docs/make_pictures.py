"""Takes the pictures of the documentation from real output: `make pictures`.

It runs the command line on a sample model, draws what it printed as a terminal, and photographs that, the report, and
the panel in a real JupyterLab, all in a headless Chromium. Needs the extras `lab` and `dev`, and Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests"))  # the tests know how to serve JupyterLab and drive the panel

from lab.lab_panel import PanelPage  # noqa: E402
from support.jupyter import in_lab, run_cell, served  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = REPOSITORY / "docs" / "images"
SAMPLE = "sample_models/digits_transformer"
COLUMNS = 96  # of the terminal
CONTINUED = "\\\n"
LARGEST_BYTES = 300_000  # a page of the documentation shall load at once
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def main() -> None:
    """Writes terminal.png, report.png, report_layers.png, and the pictures of the panel and its search."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        sys.exit("There is no Chromium here; on Debian: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        terminal = explore(Path(folder))
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(terminal.as_uri())
        photograph(page, "terminal.png", "svg")
        page.goto((Path(folder) / "out" / "report.html").as_uri())
        page.wait_for_timeout(1500)  # plotly draws, then its fonts settle
        photograph(page, "report.png")
        page.set_viewport_size({"width": 1400, "height": 860})
        for _ in range(2):  # charts are drawn when they come into view, which moves what lies below them
            page.evaluate("document.querySelector('#layer-table').closest('section').scrollIntoView()")
            page.wait_for_timeout(1000)
        photograph(page, "report_layers.png")
        photograph_panel(browser, Path(folder))
        browser.close()


CELL = """import explorer

x = explorer.open("digits_transformer.onnx", inputs="digits_transformer.npz")
x"""


def photograph_panel(browser: Browser, folder: Path) -> None:
    """Writes panel.png, panel_layer.png, panel_findings.png and panel_dark.png, as one sees them in JupyterLab."""
    with served(folder, flags=("--expose-app-in-browser",)) as server:
        for ending in ("onnx", "npz"):
            shutil.copy(REPOSITORY / f"{SAMPLE}.{ending}", server.root)
        server.notebook("explore.ipynb", [CELL])
        page = in_lab(browser, server, "explore.ipynb")
        page.set_viewport_size({"width": 1440, "height": 960})
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        run_cell(page)
        panel = PanelPage(page)
        panel.current()
        page.wait_for_timeout(1500)  # findings follow the figures
        pow_layer = panel.layer("blocks/0/norm1/Pow")
        panel.js("store.reveal(arg);", pow_layer)
        page.wait_for_timeout(2500)  # the view glides there; the values of the layer are run for
        photograph(page, "panel.png", ".pe-panel")
        page.get_by_text("Values of the output").scroll_into_view_if_needed()
        page.locator(".pe-inspector .js-plotly-plot").last.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        photograph(page, "panel_layer.png", ".pe-inspector")
        page.get_by_role("tab", name="Findings").click()
        page.wait_for_timeout(500)
        photograph(page, "panel_findings.png", ".pe-inspector")
        photograph_search(page, panel)
        page.get_by_role("tab", name="Findings").click()
        page.get_by_role("button", name="Keep 20 layers in fp32").click()
        panel.current()
        panel.theme("Dark")
        page.get_by_role("tab", name="Trade-off").click()
        page.wait_for_timeout(2500)
        photograph(page, "panel_dark.png", ".pe-panel")


def photograph_search(page: Page, panel: PanelPage) -> None:
    """Writes panel_search.png: the front, and the graph while the budget is dragged; nothing is set."""
    gpu = panel.state["gpu"]
    panel.choose("Latency on", value="")
    page.get_by_role("tab", name="Trade-off").click()
    page.get_by_role("button", name="Find the best plans").click()
    panel.until("return store.state.search.state === 'done' && store.state.search.points.length > 4;", timeout=120_000)
    box = page.get_by_role("slider", name=re.compile("Error budget")).bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.72 * box["width"], middle, steps=5)
    panel.until("return store.preview !== null && store.preview.budget > 0;")
    page.wait_for_timeout(1500)
    photograph(page, "panel_search.png", ".pe-panel")
    page.keyboard.press("Escape")
    page.mouse.up()
    panel.choose("Latency on", value=gpu)
    panel.current()


def explore(folder: Path) -> Path:
    """Runs the command and returns its output as an SVG of a terminal."""
    command = ["precision-explorer", "explore", f"{SAMPLE}.onnx", "--inputs", f"{SAMPLE}.npz", "--gpu-model", "H100"]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    done = subprocess.run(
        [sys.executable, "-m", "explorer", *command[1:], "--out", str(folder / "out")],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed = done.stdout.replace(f"{folder}/", "")
    start, _, _ = printed.partition("What was found")  # the findings would make a long picture
    printed = start[: start.rindex("Try")]
    console = Console(record=True, width=COLUMNS, file=(folder / "ignored").open("w"), force_terminal=True)
    console.print(Text(f"$ {' '.join(command).replace(' --inputs', f' {CONTINUED}      --inputs')}", style="bold"))
    console.print(Text.from_ansi(printed))
    console.print(Text("  ... what to try, what was found, why fp16 is not faster, and what was written", style="dim"))
    page = folder / "terminal.html"
    svg = console.export_svg(title="precision-explorer")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # the fonts of this machine; nothing is loaded
    body = f"<body style='margin:0;background:#fff'><div style='width:1080px'>{svg}</div></body>"
    page.write_text(body, encoding="utf-8")
    return page


def photograph(page: Page, name: str, selector: str | None = None) -> None:
    """Writes a picture of the window, or of one element."""
    target = page if selector is None else page.locator(selector).first
    target.screenshot(path=IMAGES / name)
    size = (IMAGES / name).stat().st_size
    print(f"docs/images/{name}: {size / 1000:.0f} kB")
    if size > LARGEST_BYTES:
        sys.exit(f"{name} has {size:,} bytes; {LARGEST_BYTES:,} is the most.")


if __name__ == "__main__":
    main()
