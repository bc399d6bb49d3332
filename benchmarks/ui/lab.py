"""A click in a real JupyterLab beside a run of the emulator in the same kernel, for the same plans, in turns."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import TimeoutError as TooLong

from ui.judge import summary

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["in_the_lab"]

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_MS = 180_000
SETTLE_MS = 1200  # the camera glides, the inspector asks for values; only then the next click
TRIES, STARTED_MS = 5, 4000
STARTED = "/[*0-9]/.test(document.querySelector('.jp-InputPrompt').textContent)"
TIMED = """
import time as _time
def _timed():
    emulator = x.results._emulator(x.plan.format, x.target)
    decisions = x.decisions()
    start = _time.perf_counter()
    emulator.accumulated(decisions)
    return 1000 * (_time.perf_counter() - start)
"""
WATCH = """layer => {
  const { store } = document.querySelector('.pe-panel').precisionExplorer;
  const before = store.state.revision;
  window.benchClick = new Promise(done => {
    let pressed = 0;
    addEventListener('pointerdown', event => { pressed = event.timeStamp; }, { capture: true, once: true });
    const stop = store.on('data', () => {
      if (store.state.revision === before || store.figures.errorsRevision !== store.state.revision) return;
      stop();
      requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => done(performance.now() - pressed);
        channel.port2.postMessage(0);
      });
    });
  });
}"""
BADGE = """layer => {
  const panel = document.querySelector('.pe-panel').precisionExplorer;
  const at = panel.graph.badgeOf(layer);
  return at && [at.x + at.width / 2, at.y + at.height / 2];
}"""


def in_the_lab(browser: Browser, name: str, model: Path, inputs: Path, rounds: int) -> dict[str, Any]:
    """Return times from the press of the mouse to the frame with the new figures, and of the emulator alone."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.jupyter import TOKEN, served  # noqa: PLC0415 - the tests' own harness, not installed

    cell = f"import explorer\nx = explorer.open({str(model)!r}, inputs={str(inputs)!r})\nx.panel(gpu_model='')"
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        server.notebook("bench.ipynb", [cell])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{server.url}/lab/tree/bench.ipynb?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        _run_cell(page)
        page.wait_for_selector(".pe-panel")
        kernel = server.newest_kernel()
        kernel.run(TIMED)
        assert kernel.value("x.controller.wait(120)", timeout=WAIT_MS / 1000)
        page.evaluate("document.querySelector('.pe-panel').scrollIntoView({ block: 'center' })")
        switchable = page.evaluate(
            """() => { const { store } = document.querySelector('.pe-panel').precisionExplorer;
            return [...store.figures.switchable.keys()].filter(each => store.isSwitchable(each)); }"""
        )
        clicks, runs = [], []
        for at in range(rounds):
            layer = switchable[(at + 1) * len(switchable) // (rounds + 1)]
            page.evaluate("l => document.querySelector('.pe-panel').precisionExplorer.store.reveal(l)", layer)
            page.wait_for_timeout(SETTLE_MS)
            assert kernel.value("x.controller.wait(120)", timeout=WAIT_MS / 1000)
            badge = page.evaluate(BADGE, layer)
            if badge is None:
                raise SystemExit(f"{name}: the badge of layer {layer} is not in sight.")
            page.evaluate(WATCH, layer)
            page.mouse.click(*badge)
            clicks.append(page.evaluate("window.benchClick"))
            assert kernel.value("x.controller.wait(120)", timeout=WAIT_MS / 1000)
            runs.append(kernel.value("_timed()", timeout=WAIT_MS / 1000))
        kernel.close()
        page.close()
    over = [click - run for click, run in zip(clicks, runs, strict=True)]
    return {"model": name, "click": summary(clicks), "emulator": summary(runs), "over": summary(over)}


def _run_cell(page: Page) -> None:
    """Run the only cell; a key that came before the notebook was ready for it is pressed again."""
    for _ in range(TRIES):
        page.click(".jp-CodeCell .cm-content")
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(TooLong):
            page.wait_for_function(STARTED, timeout=STARTED_MS)
            return
    page.screenshot(path=ROOT / "benchmarks" / "out" / "lab.png")
    raise SystemExit("JupyterLab did not run the cell: see benchmarks/out/lab.png.")
