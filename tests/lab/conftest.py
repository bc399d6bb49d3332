"""One JupyterLab for each module, and one notebook in it whose panel every test gets anew."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab_panel import OPEN, PanelPage, fresh
from support.jupyter import in_lab, run_cell, served

FRAME = re.compile(r"^\s*at .*$", re.MULTILINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keeps pictures of the pages of a test that failed, before its fixtures close them."""
    report = yield
    if report.failed and "watch" in item.funcargs:
        folder = Path(os.environ.get("EXPLORER_SCREENSHOTS", item.funcargs["tmp_path"]))
        name = re.sub(r"\W+", "_", item.name)
        for index, page in enumerate(each for each in item.funcargs["watch"].pages if not each.is_closed()):
            page.screenshot(path=folder / f"e2e_failed_{name}_{report.when}_{index}.png")
    return report


def of_the_splash(message, stack):
    """Tells a fault of JupyterLab 4.6 from all others: it may take its splash off a page twice.

    It shows the splash while a theme loads. Where one loads again before the splash of the last has faded, for 200 ms,
    two timers remove it. Such an error has one frame, the timer in jlab_core; one about what a notebook shows has more.
    """
    frames = FRAME.findall(stack)
    return "Failed to execute 'removeChild' on 'Node'" in message and len(frames) == 1 and "/jlab_core." in frames[0]


class Watch:
    """What a page does that it must not: errors, and requests to elsewhere."""

    def __init__(self, url):
        self.url, self.trouble, self.pages = url, [], []

    def __call__(self, page):
        self.pages.append(page)
        page.on("console", lambda said: self.trouble.append(said.text) if said.type == "error" else None)
        page.on("pageerror", self._failed)
        page.on("request", self._leaves)

    def _failed(self, error):
        if not of_the_splash(str(error), error.stack or ""):
            self.trouble.append(f"{error}\n{error.stack}")

    def _leaves(self, request):
        if request.url.startswith("http") and not request.url.startswith(self.url):
            self.trouble.append(request.url)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("lab"), flags=["--expose-app-in-browser"]) as running:
        yield running


@pytest.fixture(scope="module")
def watch(server):
    return Watch(server.url)


@pytest.fixture(autouse=True)
def quiet(watch, tmp_path):
    """Fails a test whose pages had errors or spoke to elsewhere."""
    watch.trouble.clear()
    yield
    assert watch.trouble == []


@pytest.fixture(scope="module")
def bench(browser, server, watch):
    """A notebook that the tests of a module share."""
    server.notebook("bench.ipynb", [OPEN + "x", "# another cell"])
    page = in_lab(browser, server, "bench.ipynb", watch=watch)
    run_cell(page)
    kernel = server.kernel("bench.ipynb")
    yield PanelPage(page, kernel)
    kernel.close()
    page.close()


@pytest.fixture
def lab(bench):
    """A panel on a new exploration, its figures current."""
    fresh(bench)
    return bench


@pytest.fixture
def open_notebook(browser, server, watch):
    """Opens a notebook of its own for a test that breaks it; returns the panel of its first cell."""
    opened = []

    def go(name, *code):
        server.notebook(name, code)
        page = in_lab(browser, server, name, query="&reset", watch=watch)  # else notebooks of other tests open too
        opened.append(SimpleNamespace(page=page, kernel=None))
        run_cell(page)
        opened[-1].kernel = server.kernel(name)
        return PanelPage(page, opened[-1].kernel)

    yield go
    for each in opened:
        if each.kernel:
            each.kernel.close()
        each.page.close()
