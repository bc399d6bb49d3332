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

    def newest_kernel(self):
        """Returns a client of the kernel that was started last, beside the browser's."""
        return Kernel(max(self.runtime.glob("kernel-*.json"), key=lambda path: path.stat().st_mtime))


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
