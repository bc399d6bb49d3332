"""A real JupyterLab (or Notebook, or Voila) for the tests of the panel: served from a folder, driven from outside."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from jupyter_client import BlockingKernelClient

TOKEN = "of-the-tests"
START_S = 90
WAIT_MS = 90_000  # for what takes a kernel or a first load of JupyterLab


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def isolated(folder):
    """Returns an environment in which Jupyter reads and writes nothing of the user's."""
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    env = {**os.environ, **{name: str(folder / place) for name, place in places.items()}}
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet), encoding="utf-8")
    return env


class Server:
    """A running server: where it is, what folder it serves, and the kernels that it started."""

    def __init__(self, url, root, runtime):
        self.url, self.root, self.runtime = url, root, runtime

    def notebook(self, name, cells):
        """Writes a notebook of these code cells into the served folder."""
        made = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(made, self.root / name)

    def read(self, name):
        return nbformat.read(self.root / name, as_version=4)

    def kernel(self, name):
        """Returns a client of a notebook's kernel, beside the browser's."""
        (kernel,) = (each["kernel"]["id"] for each in self._asked("GET", "sessions") if each["path"] == name)
        return Kernel(self.runtime / f"kernel-{kernel}.json")

    def newest_kernel(self):
        """Returns a client of the kernel that was started last: Voila makes no sessions."""
        return Kernel(max(self.runtime.glob("kernel-*.json"), key=lambda path: path.stat().st_mtime))

    def end_kernels(self):
        """Ends all sessions, as a user does who closes them."""
        for each in self._asked("GET", "sessions"):
            self._asked("DELETE", f"sessions/{each['id']}")

    def _asked(self, method, what):
        request = urllib.request.Request(f"{self.url}/api/{what}?token={TOKEN}", method=method)
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            text = answer.read()
        return json.loads(text) if text else None


class Kernel:
    """Runs code in a kernel that a page uses, and returns what it evaluates to: what to hold the page to."""

    def __init__(self, connection_file):
        self._client = BlockingKernelClient(connection_file=str(connection_file))
        self._client.load_connection_file()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=START_S)

    def run(self, code, timeout=120):
        reply = self._client.execute_interactive(code, timeout=timeout, store_history=False, output_hook=lambda _: None)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", []))

    def value(self, expression, timeout=120):
        """Returns the value of an expression that JSON can hold."""
        reply = self._client.execute_interactive(
            "import json as _json", user_expressions={"it": f"_json.dumps({expression})"}, store_history=False,
            timeout=timeout, output_hook=lambda _: None,
        )["content"]["user_expressions"]["it"]  # fmt: skip
        assert reply["status"] == "ok", reply.get("evalue")
        return json.loads(eval(reply["data"]["text/plain"]))

    def close(self):
        self._client.stop_channels()


def in_lab(browser, server, name, *, idle=True, query="", watch=None):
    """Opens a notebook in JupyterLab and returns the page; by default its kernel waits then; ``watch`` sees it first"""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    if watch:
        watch(page)
    # After 12 s of loading JupyterLab asks whether to clear the workspace, and takes no clicks until it is told.
    page.add_locator_handler(
        page.get_by_role("button", name="Keep Waiting"),
        lambda button: button.evaluate_all("found => found.forEach(each => each.click())"),  # it may go by itself
    )
    # A cell that is run while its kernel still starts makes JupyterLab ask which kernel it is to be.
    page.add_locator_handler(
        page.locator(".jp-Dialog", has_text="Select Kernel").locator(".jp-mod-accept"),
        lambda button: button.evaluate_all("found => found.forEach(each => each.click())"),
    )
    page.goto(f"{server.url}/lab/tree/{name}?token={TOKEN}{query}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", timeout=WAIT_MS)
    if idle:
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=WAIT_MS)
    return page


def _page_timeout():
    return pytest.importorskip("playwright.sync_api").TimeoutError


def run_cell(page, index=0):
    """Runs a cell of the notebook as a user does, and waits for its first panel."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    begun = "cell => cell.querySelector('.jp-InputPrompt').textContent.trim() !== '[ ]:'"
    # While JupyterLab restores its layout it loses keys: the user presses them again.
    for _ in range(10):
        cell.locator(".cm-content").click(timeout=WAIT_MS)  # the splash may still lie over it
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(_page_timeout()):
            page.wait_for_function(begun, arg=cell.element_handle(), timeout=2000)
            break
    page.wait_for_selector(".pe-panel", timeout=WAIT_MS)


@contextlib.contextmanager
def served(folder, app=("jupyterlab",), flags=()):
    """Serves ``folder/root`` until the block ends."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    port = free_port()
    env = isolated(folder)
    command = [
        sys.executable, "-m", *app, "--no-browser", "--ip=127.0.0.1", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", "--allow-root", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", *flags,
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("wb") as out:
        running = subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=root)
    try:
        _wait(f"http://127.0.0.1:{port}/api?token={TOKEN}", running, log)
        yield Server(f"http://127.0.0.1:{port}", root, Path(env["JUPYTER_RUNTIME_DIR"]))
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=20)
        running.kill()
        running.wait()


def _wait(url, running, log):
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if running.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=5)
            return
        time.sleep(0.2)
    pytest.fail(f"Jupyter did not start:\n{log.read_text(errors='replace')[-4000:]}")
