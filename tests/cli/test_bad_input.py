"""Whatever is wrong with what the user gives, the command line says it in one paragraph and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_support import COLUMNS, cli, process, sample, saved, small_model
from onnx import TensorProto, helper, numpy_helper

ROWS = np.ones((5, 4), np.float32)


def refused(outcome, *needles, out=None):
    """Exit code 2; one paragraph that holds every needle; nothing on stdout; nothing written."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines() if line and not line.startswith("[")]
    assert len(lines) == 1, "one paragraph"
    assert lines[0].startswith("Error: ")
    for needle in needles:
        assert needle in lines[0]
    if out is not None:
        assert not out.exists(), "no folder is left that was not there before"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def model(tmp_path):
    return saved(small_model(), tmp_path / "model.onnx")


def explore(model, out, *more):
    return cli("explore", model, "--out", out, *more)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


@pytest.mark.parametrize("command", ["explore", "measure", "inspect"])
def test_missing_model(tmp_path, command):
    """A model that is not there: its path, and where to look."""
    refused(cli(command, tmp_path / "none.onnx"), "There is no file", "none.onnx", "Check the path")


def test_empty_model(tmp_path, out):
    (tmp_path / "empty.onnx").touch()
    refused(explore(tmp_path / "empty.onnx", out), "is empty (0 bytes)", "Export the model again", out=out)


def test_folder_as_model(tmp_path, out):
    refused(explore(tmp_path, out), "is a folder", "Name the .onnx file inside it", out=out)


@pytest.mark.parametrize("content", [b"hello, this is no model at all", b"\x00" * 64, "cut"])
def test_corrupt_or_foreign_file(tmp_path, model, out, content):
    """A file of another kind, and a model that was cut short."""
    data = model.read_bytes()[:60] if content == "cut" else content
    (tmp_path / "bad.onnx").write_bytes(data)
    refused(explore(tmp_path / "bad.onnx", out), "not a readable ONNX model", "corrupt", "Export it again", out=out)


def test_weights_file_missing(tmp_path, out):
    """External data without its file: which file, which weight."""
    path = tmp_path / "big.onnx"
    onnx.save(small_model(width=64), path, save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    refused(explore(path, out), "'big.data'", "'w'", "Put 'big.data' into the folder", out=out)


def test_invalid_graph(tmp_path, out):
    broken = small_model()
    broken.graph.node[1].input[0] = "nowhere"
    refused(explore(saved(broken, tmp_path / "b.onnx"), out), "not a valid ONNX model", "nowhere", out=out)


def test_missing_inputs_file(tmp_path, model, out):
    refused(explore(model, out, "--inputs", tmp_path / "no.npz"), "no.npz", "one array per model input", out=out)


def test_inputs_file_of_another_kind(tmp_path, model, out):
    (tmp_path / "data.npz").write_text("1,2,3")
    result = explore(model, out, "--inputs", tmp_path / "data.npz")
    refused(result, "not a readable .npz file", "numpy.savez", out=out)


@pytest.mark.parametrize(
    ("arrays", "needles"),
    [
        ({"X": ROWS}, ["'X'", "no input of the model", "x: float32[batch, 4]", "Did you mean 'x'?"]),
        ({"labels": np.zeros(5, np.int64)}, ["lack the input 'x'", "x: float32[batch, 4]"]),
        ({"x": ROWS[:, :3]}, ["(5, 3)", "axis 1 must be 4"]),
        ({"x": ROWS[0]}, ["1 dimensions", "takes 2", "batch axis"]),
        ({"x": ROWS[:0]}, ["is empty", "at least one row"]),
        ({"x": ROWS.astype(np.float64)}, ["float64", "takes float32", "array.astype('float32')"]),
        ({"x": np.where(np.eye(5, 4) > 0, np.nan, ROWS).astype(np.float32)}, ["holds NaN, first in row 0", "Remove"]),
        ({"x": ROWS, "labels": np.zeros(4, np.int64)}, ["4 labels for 5 rows", "one label per row"]),
    ],
    ids=["name", "missing", "shape", "rank", "empty", "dtype", "nan", "labels"],
)
def test_inputs_that_do_not_fit(tmp_path, model, out, arrays, needles):
    """Names, shapes, dtypes, NaN and labels: the actual value, what the model takes, what to do."""
    refused(explore(model, out, "--inputs", npz(tmp_path, **arrays)), *needles, out=out)


def dynamic_model(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "seq"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "seq"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return saved(made, tmp_path / "dynamic.onnx")


def test_dynamic_dimension_is_asked_for_by_name(tmp_path, out):
    path = dynamic_model(tmp_path)
    refused(explore(path, out), "dynamic dimension 'seq'", "--dim seq=128", out=out)
    refused(explore(path, out, "--dim", "sq=8"), "no dynamic dimension 'sq'", "Did you mean 'seq'?", out=out)
    assert cli("measure", path, "--dim", "seq=8", "--runs", 5).code == 0


@pytest.mark.parametrize("words", ["seq", "seq=", "=8", "seq=0", "seq=-1", "seq=many"])
def test_dimension_without_a_size(tmp_path, out, words):
    refused(explore(dynamic_model(tmp_path), out, "--dim", words), words, "--dim seq=128", out=out)


def test_dimension_beside_real_inputs(tmp_path, model, out):
    """A size that would be ignored is refused."""
    result = explore(model, out, "--inputs", npz(tmp_path, x=ROWS), "--dim", "batch=3")
    refused(result, "--inputs", "Leave one", out=out)


def test_model_that_fails_while_it_runs(tmp_path, out):
    """The fp32 model itself fails: said as that, before anything is written."""
    bad = small_model(extra=[helper.make_node("Reshape", ["soft_out", "shape"], ["y"], name="bad")])
    bad.graph.initializer.append(numpy_helper.from_array(np.array([7, -1], np.int64), "shape"))
    result = explore(saved(bad, tmp_path / "bad.onnx"), out)
    refused(result, "does not run in fp32", "Reshape", "'bad'", "measured against the fp32 model", out=out)


def test_model_that_cannot_be_loaded_by_the_runtime(tmp_path, out):
    """An operator without a kernel: errors cannot be measured, converting still works."""
    extra = [helper.make_node("Magic", ["soft_out"], ["y"], domain="acme", name="magic")]
    path = saved(small_model(extra=extra, domains=["acme"]), tmp_path / "custom.onnx")
    refused(explore(path, out), "does not run in fp32", "acme:Magic", "converting it", out=out)
    assert cli("convert", path, tmp_path / "low.onnx").code == 0


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["--block-op", "Sofmax"], ["operator type 'Sofmax'", "Did you mean 'Softmax'?"]),
        (["--allow-op", "matmul"], ["operator type 'matmul'", "Did you mean 'MatMul'?"]),
        (["--block", "secnd"], ["layer 'secnd'", "protects nothing", "Did you mean 'second'?"]),
        (["--block", "zzz/*"], ["layer 'zzz/*'", "precision-explorer inspect"]),
        (["--block-scope", "encoder"], ["scope 'encoder'", "precision-explorer inspect"]),
    ],
)
def test_blacklist_that_names_nothing(tmp_path, model, out, words, needles):
    """An unknown operator, layer or scope, with the nearest names; from `convert` just the same."""
    refused(explore(model, out, *words), *needles, out=out)
    target = tmp_path / "low.onnx"
    refused(cli("convert", model, target, *words), *needles, out=target)


def test_pattern_that_lists_nothing(model):
    refused(cli("inspect", model, "--match", "secod"), "'secod'", "Did you mean 'second'?")


def test_opset_too_old_for_bf16(tmp_path, out):
    path = saved(small_model(opset=12), tmp_path / "old.onnx")
    needles = ["opset 12", "bfloat16 from opset 13", "convert_version(model, 13)"]
    refused(explore(path, out, "--format", "bf16"), *needles, out=out)
    target = tmp_path / "low.onnx"
    refused(cli("convert", path, target, "--format", "bf16"), *needles, out=target)


def test_unknown_gpu_is_refused_before_any_measurement(model, out):
    result = explore(model, out, "--gpu-model", "H1000")
    refused(result, "No GPU named 'H1000'", "Did you mean", out=out)
    assert "[2/" not in result.err


def test_plan_files(tmp_path, model, out):
    """A plan that is missing, is none, is of another format, or stands beside a preset."""
    refused(explore(model, out, "--plan", tmp_path / "no.json"), "no.json", "Check the path", out=out)
    (tmp_path / "p.json").write_text('{"hello": 1}')
    refused(explore(model, out, "--plan", tmp_path / "p.json"), "This is no plan", "plan.json", out=out)
    result = explore(model, out, "--plan", tmp_path / "p.json", "--preset", "safe")
    refused(result, "--preset safe", "Leave one", out=out)
    good = out.with_name("good")
    assert explore(model, good).code == 0
    result = explore(model, out, "--plan", good / "plan.json", "--format", "bf16")
    refused(result, "is of fp16", "--format asks for bf16", out=out)


def test_unwritable_folder(tmp_path, model):
    """The results' folder is a file, lies in a file, or cannot be made: said before the work is done."""
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        result = explore(model, folder)
        refused(result, "cannot take the results", "is a file", "--out")
        assert "[2/" not in result.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which not even root can write")
def test_folder_that_cannot_be_made(model):
    refused(explore(model, "/proc/results"), "'/proc/results' cannot take the results", "--out")


def test_results_that_cannot_be_written(model, out):
    """A folder in a result's place: the error comes late, and nothing was written."""
    (out / "model.fp16.onnx").mkdir(parents=True)
    refused(explore(model, out), "model.fp16.onnx' is a folder", "Name a file inside it")
    assert [path.name for path in out.iterdir()] == ["model.fp16.onnx"]


def test_the_source_model_is_never_overwritten(tmp_path, model):
    before = model.read_bytes()
    refused(cli("convert", model, model), "source model's own file", "Write to another path")
    again = tmp_path / "results"
    again.mkdir()
    source = again / "model.fp16.onnx"
    source.write_bytes(before)
    refused(explore(source, again), "source model's own file")
    assert [path.name for path in again.iterdir()] == ["model.fp16.onnx"]
    assert model.read_bytes() == source.read_bytes() == before


def test_convert_into_a_missing_folder(tmp_path, model):
    refused(cli("convert", model, tmp_path / "no" / "low.onnx"), "cannot be written", "Check that the folder exists")


@pytest.mark.parametrize(
    "words", ["--format fp8", "--preset fast", "--backend tpu", "--threads 0", "--batch-size 0", "--nonsense"]
)
def test_options_that_do_not_exist(model, out, words):
    """A wrong option or value ends with the usage and exit code 2."""
    result = explore(model, out, *words.split())
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert words.split()[0] in result.err
    assert not out.exists()


def test_errors_go_to_stderr_with_json_too(tmp_path):
    """stdout stays empty: whoever parses it sees no half document."""
    refused(cli("inspect", tmp_path / "none.onnx", "--json"), "There is no file")


def test_names_are_not_taken_for_markup(tmp_path, model):
    """Square brackets and escape codes in a name reach the reader as they are, or visible."""
    refused(cli("inspect", model, "--match", "[bold]x[/bold]\x1b[31m"), "'[bold]x[/bold]␛[31m'")
    refused(cli("inspect", tmp_path / "[red]no.onnx"), "[red]no.onnx")


def test_in_a_process_of_its_own(tmp_path, model, out):
    """The installed entry point behaves like the tests' runner."""
    refused(process("explore", tmp_path / "none.onnx", "--out", out), "There is no file", out=out)
    refused(process("explore", model, "--block-op", "Sofmax", "--out", out), "Did you mean 'Softmax'?", out=out)
    code = "import runpy, sys; sys.argv[0] = 'explorer'; runpy.run_module('explorer', run_name='__main__')"
    refused(process("inspect", tmp_path / "none.onnx", code=code), "There is no file")


def test_defects_keep_their_traceback(monkeypatch, model):
    """An error that this package does not raise on purpose is not dressed up as the user's."""

    def fail(*_args, **_settings):
        raise RuntimeError("a defect")

    monkeypatch.setattr("explorer.cli.inspect.run_inspect", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        cli("inspect", model)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_interrupted(out):
    """Ctrl-C ends with 130 and a message, no traceback, and nothing is written."""
    words = ["explore", *sample("digits_transformer"), "--out", out]
    # A shell starts its background jobs with SIGINT ignored, and children inherit that: undo it, or CI ignores Ctrl-C.
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{restore}; from explorer.cli import main; main()"
    job = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **COLUMNS},
    )
    first = job.stderr.readline()
    second = job.stderr.readline()
    assert second.startswith("[2/"), first + second
    time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    printed, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert printed == ""
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert not out.exists()
