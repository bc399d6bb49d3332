"""The panel on a page, as tests drive it: by pointer, keys and words; and what its kernel says."""

import json
import os
import time
from pathlib import Path

import numpy as np
from support.jupyter import WAIT_MS

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = SAMPLES / "digits_transformer.onnx"
INPUTS = SAMPLES / "digits_transformer.npz"
OPEN = f"import explorer\nx = explorer.open({str(MODEL)!r}, inputs={str(INPUTS)!r})\n"
SOON_MS = 30_000  # a run of the sample takes one second; on a busy machine several

_PANEL = """([nth, arg]) => {
    const panel = document.querySelectorAll('.pe-panel')[nth]?.precisionExplorer;
    if (!panel) return null;
    const { store, graph } = panel;
    %s
}"""
_CURRENT = "return !store.stale && store.state.run.state === 'idle' && store.figures.errorsRevision >= 0;"
_STILL = """
    const now = JSON.stringify(graph.rectOf(arg));
    const same = panel.wasAt === now;
    panel.wasAt = now;
    return same && now !== 'null';
"""


class PanelPage:
    """A panel on a page.

    Args:
        page: a page of Playwright.
        kernel: what runs code beside it; None where no test asks.
        nth: which of the panels on the page.
    """

    def __init__(self, page, kernel=None, nth=0):
        self.page, self.kernel, self.nth = page, kernel, nth
        self.root = page.locator(".pe-panel").nth(nth)

    def js(self, body, arg=None):
        """Returns what the body of a function returns, that has store, graph and arg."""
        return self.page.evaluate(_PANEL % body, [self.nth, arg])

    def until(self, body, arg=None, timeout=SOON_MS):
        """Waits until such a body returns something true."""
        self.page.wait_for_function(_PANEL % body, arg=[self.nth, arg], timeout=timeout, polling=50)

    def current(self, timeout=SOON_MS):
        """Waits until the figures on screen belong to the plan."""
        self.until(_CURRENT, timeout=timeout)

    @property
    def state(self):
        return self.js("return store.state;")

    def layer(self, name):
        """Returns the index of a layer."""
        return self.js("return store.model.structure.layers.id.indexOf(arg);", name)

    def column(self, name):
        """Returns a column of the figures as the view holds it."""
        return np.array(self.js("return Array.from(store.figures[arg], String);", name), dtype="float64")

    def formats(self):
        return self.js("return store.model.structure.layers.id.map((_, layer) => store.formatOf(layer));")

    # -- as the user does ----------------------------------------------------------------------------------------------

    def bring(self, layer):
        """Brings a layer into sight, selects nothing, and waits until the graph stands still."""
        self.root.scroll_into_view_if_needed()
        self.js("store.reveal(arg); store.select([]);", layer)
        self.until(_STILL, layer)

    def _middle(self, rect):
        return rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2

    def _click(self, x, y, **options):
        self.until("return document.elementFromPoint(arg.x, arg.y)?.matches('.pe-graph-canvas');", {"x": x, "y": y})
        self.page.mouse.click(x, y, **options)

    def click_layer(self, layer, **options):
        x, y = self._middle(self.js("return graph.rectOf(arg);", layer))
        self._click(x - 20, y + 8, **options)

    def click_badge(self, layer):
        self._click(*self._middle(self.js("return graph.badgeOf(arg);", layer)))

    def toggle(self, layer):
        self.bring(layer)
        self.click_badge(layer)

    def focus(self):
        """Gives the graph the keyboard."""
        self.root.locator(".pe-graph-list").focus()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def tab(self, name):
        self.root.get_by_role("tab", name=name).click()

    def choose(self, label, **option):
        self.root.locator(".pe-bar-field", has_text=label).locator("select").select_option(**option)

    def card(self, figure):
        return self.root.locator(f".pe-card[data-figure={figure}] .pe-card-value").inner_text()

    def figures_are_right(self):
        """Holds every error on screen to what Python computes in a session of its own for the same plan."""
        self.current()
        names = ["local_sqnr_db", "acc_sqnr_db", "acc_max_abs", "acc_rel_l2"]
        self.kernel.run("y = explorer.open(x.model.path, inputs=x.samples.name, target=x.target)\ny.plan = x.plan")
        told = self.kernel.value(f"{{name: [str(v) for v in y.errors()[name]] for name in {names!r}}}")
        for name in names:
            expected = np.array(told[name], dtype="float64").astype("float32").astype("float64")
            np.testing.assert_array_equal(self.column(name), expected, err_msg=name)
        assert self.formats() == self.kernel.value("[f or 'none' for f in y.errors()['format']]")

    def theme(self, name):
        """Changes JupyterLab's theme, "Dark" or "Light", and waits until its splash is off the page again."""
        theme = f"JupyterLab {name}"
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme, timeout=WAIT_MS)
        self.page.wait_for_function("!document.getElementById('jupyterlab-splash')", timeout=WAIT_MS)

    def shot(self, name):
        shoot(self.page, name)


def settles(page, read, expected, timeout=SOON_MS):
    """Waits until what ``read`` returns is as expected: a page shows a little later what was done to it."""
    deadline = time.monotonic() + timeout / 1000
    while (found := read()) != expected and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert found == expected


def spaced(text):
    """Returns what a card says with plain spaces."""
    return text.replace("\xa0", " ")


def shoot(page, name):
    """Keeps a screenshot where somebody wants to look at them."""
    folder = os.environ.get("EXPLORER_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"e2e_{name}.png")


def cells(page):
    """Returns what the notebook is made of."""
    return page.evaluate("""() => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        return notebook.widgets.map(cell => [cell.model.type, cell.model.sharedModel.getSource()]);
    }""")


_PAINTED = """([nth, colours]) => {
    const canvas = document.querySelectorAll('.pe-panel')[nth]?.querySelector('canvas.pe-graph-canvas');
    if (!canvas) return false;
    const { width, height } = canvas;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    return new Set(new Uint32Array(pixels.buffer)).size > colours;
}"""


def painted(page, colours=20, nth=0):
    """Waits until the canvas of a panel has more than so many colours: a blank one has one.

    It is blank for an instant whenever its size changes, as when a notice takes a line: the next frame paints it.
    """
    page.wait_for_function(_PAINTED, arg=[nth, colours], timeout=SOON_MS, polling=50)


def fresh(lab):
    """Runs the notebook's first cell again: a new exploration, a new panel, whose figures are current."""
    lab.page.evaluate("""async () => {
        const { content } = window.jupyterapp.shell.currentWidget;
        for (const panel of document.querySelectorAll('.pe-panel')) panel.dataset.old = 'yes';
        content.activeCellIndex = 0;
        await window.jupyterapp.commands.execute('notebook:run-cell');
    }""")
    lab.page.wait_for_selector(".pe-panel:not([data-old])", timeout=WAIT_MS)
    lab.page.wait_for_function("document.querySelectorAll('.pe-panel[data-old]').length === 0", timeout=WAIT_MS)
    lab.current(WAIT_MS)


def quoted(text):
    return json.dumps(text)
