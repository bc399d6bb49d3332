"""Runs the real command line, in this process or in its own, on small models built in code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from explorer.cli.app import app

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
COLUMNS = {"COLUMNS": "80", "TERM": "dumb"}


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def document(self):
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(name):
    raise AssertionError(f"{name} is no JSON")


def cli(*words, env=None):
    """Runs the command line in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={**COLUMNS, **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def process(*words, env=None, timeout=120, code="from explorer.cli import main; main()"):
    """Runs the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **COLUMNS, "PYTHONIOENCODING": "utf-8", **(env or {})},
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def sample(name):
    """Returns the arguments that name a shipped sample model and its inputs."""
    return [SAMPLES / f"{name}.onnx", "--inputs", SAMPLES / f"{name}.npz"]


def small_model(
    *, opset=17, batch="batch", width=4, names=("first", "second", "soft"), weight=None, extra=None, domains=()
):
    """Returns MatMul, Add, Softmax on an input `x`; `extra` are further nodes from `soft_out` on to `y`."""
    weight = np.linspace(-1, 1, width * width, dtype=np.float32).reshape(width, width) if weight is None else weight
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name=names[0]),
        helper.make_node("Add", ["a", "b"], ["c"], name=names[1]),
        helper.make_node("Softmax", ["c"], ["y" if extra is None else "soft_out"], name=names[2], axis=1),
        *(extra or ()),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(width, np.float32), "b")],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(model, path):
    onnx.save(model, path)
    return path
