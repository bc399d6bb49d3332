"""Explorations that tests of the panel share."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import explorer

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
ENDS_S = 30  # what begins takes minutes, on 43,200 samples one by one


def open_sample(name, **more):
    return explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", **more)


def ends_in_time(begin, what):
    """Tells whether an interpreter ends soon, and without a word, while something that takes minutes is under way.

    Args:
        begin: statements that begin it, with the controller ``c``.
        what: the part of the controller's state that says that it runs.
    """
    files = [str(SAMPLES / f"digits_transformer.{kind}") for kind in ("onnx", "npz")]
    code = (
        "import explorer, numpy as np, time; from explorer.view.controller import Controller\n"
        f"many = {{name: np.concatenate([array] * 120) for name, array in np.load({files[1]!r}).items()}}\n"
        f"c = Controller(explorer.open({files[0]!r}, inputs=many, batch_size=1), gpu_model='')\n"
        f"{begin}\n"
        f"print('end', c.state[{what!r}]['state'], time.time(), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    end, state, at = done.stdout.split()
    assert (end, state) == ("end", "running")
    assert not done.stderr
    return time.time() - float(at) < ENDS_S
