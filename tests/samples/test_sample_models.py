"""The shipped sample models are what sample_models/README.md says they are; no torch is needed to check that."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "sample_models"
NAMES = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
LARGEST = 2_000_000  # bytes, for the model and for its inputs
CHANCE = 0.15  # ten classes, some slack
REQUIRED = {  # accuracy that the samples must have, whatever the README says
    "lenet5_digits": 0.97,
    "digits_transformer": 0.97,
    "digits_transformer_mask": 0.97,
    "misaligned_cnn": 0.95,
}
README_ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<layers>\d+) \| (?P<fp32>[\d.]+)% \| (?P<fp16>[\d.]+)% \|",
    re.MULTILINE,
)
ABSOLUTE_PATH = re.compile(rb"(?<![\w.)/*-])/[A-Za-z][\w.-]*/[\w./-]+|[A-Z]:\\\\?[A-Za-z]|site-packages|file://")
FOREIGN_FRAME = re.compile(rb'File "(?!sample_models/)')


def load_script(name):
    """Returns the script sample_models/<name>.py as a module; the folder is no package."""
    spec = importlib.util.spec_from_file_location(f"sample_models_{name}", SAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


emulate = load_script("emulate")


def stated():
    """Returns what the README's table says: name -> (layers, fp32 accuracy, fp16 accuracy), in percent."""
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    return {
        row["name"]: (int(row["layers"]), float(row["fp32"]), float(row["fp16"])) for row in README_ROW.finditer(text)
    }


def blacklist(model, name):
    patterns = json.loads((SAMPLES / "blacklists.json").read_text(encoding="utf-8"))[name]
    return emulate.matching(model, patterns)


def accuracy_of(path, feeds, labels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["class_scores"], feeds)
    return (scores.argmax(axis=-1) == labels).mean()


def test_readme_states_every_shipped_model_and_no_other():
    """The README's table, the blacklists and the files in the folder name the same models."""
    files = {path.stem for path in SAMPLES.glob("*.onnx")}
    assert set(stated()) == files == set(NAMES) == set(json.loads((SAMPLES / "blacklists.json").read_text("utf-8")))


@pytest.mark.parametrize("name", NAMES)
def test_model_is_small_and_valid(name):
    """Every shipped model and its inputs fit in 2 MB and pass the full checker."""
    assert (SAMPLES / f"{name}.onnx").stat().st_size <= LARGEST
    assert (SAMPLES / f"{name}.npz").stat().st_size <= LARGEST
    onnx.checker.check_model(str(SAMPLES / f"{name}.onnx"), full_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_at_least_what_the_readme_states(name):
    """ONNX Runtime reaches the stated fp32 accuracy on the shipped inputs, and the README's layer count is right."""
    model, feeds, labels = emulate.open_sample(name)
    layers, fp32, _ = stated()[name]
    reached = accuracy_of(SAMPLES / f"{name}.onnx", feeds, labels)
    assert round(100 * reached, 2) >= fp32 >= 100 * REQUIRED[name]
    assert len(model.graph.node) == layers


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_size_runs(name):
    """The first dimension is dynamic: one image gives the scores that it has among others."""
    model, feeds, _ = emulate.open_sample(name)
    together = emulate.run(model, {key: array[:3] for key, array in feeds.items()})["class_scores"]
    alone = emulate.run(model, {key: array[:1] for key, array in feeds.items()})["class_scores"]
    np.testing.assert_allclose(alone, together[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_layers_have_unique_names_and_scopes(name):
    """Every layer has its own name, begun by its scope, and the metadata that torch's exporter gives."""
    graph = onnx.load(SAMPLES / f"{name}.onnx").graph
    names = [node.name for node in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    keys = [{item.key for item in node.metadata_props} for node in graph.node]
    assert all({"pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"} <= found for found in keys)


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_the_exporting_machine_is_left(name):
    """Neither names nor metadata hold an absolute path; source lines are relative to the repository."""
    model = onnx.load(SAMPLES / f"{name}.onnx")
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")  # random bytes could look like a path
    text = model.SerializeToString()
    assert not ABSOLUTE_PATH.findall(text)
    assert not FOREIGN_FRAME.findall(text)
    assert b'File "sample_models/' in text


@pytest.mark.parametrize("name", ["digits_transformer", "digits_transformer_mask"])
def test_layer_norms_are_decomposed(name):
    """The five norms are spelled out: their squares and means are layers of their own."""
    operators = [node.op_type for node in onnx.load(SAMPLES / f"{name}.onnx").graph.node]
    assert "LayerNormalization" not in operators
    for operator in ("Pow", "Sub", "Sqrt"):
        assert operators.count(operator) == 5


def test_mask_model_keeps_its_tiny_epsilon():
    """All five norms add 1e-12: the exporter's optimizer would drop it as if it were zero."""
    graph = onnx.load(SAMPLES / "digits_transformer_mask.onnx").graph
    constants = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    added = [
        constants[name]
        for node in graph.node
        if node.op_type == "Add" and "norm" in node.name
        for name in node.input
        if name in constants and constants[name].ndim == 0
    ]
    assert added == [np.float32(1e-12)] * 5


def test_misaligned_model_has_no_aligned_channel_count():
    """Every convolution's channels, in and out, miss the multiples of 8."""
    graph = onnx.load(SAMPLES / "misaligned_cnn.onnx").graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    convolutions = [shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 6
    assert all(size % 8 for shape in convolutions for size in shape[:2])


@pytest.mark.parametrize("name", ["lenet5_digits", "misaligned_cnn"])
def test_fp16_is_harmless(name):
    """Storing every tensor in fp16 changes no prediction."""
    model, feeds, labels = emulate.open_sample(name)
    low = emulate.classes(emulate.emulate_fp16(model), feeds)
    np.testing.assert_array_equal(low, emulate.classes(model, feeds))
    assert (low == labels).mean() >= REQUIRED[name]


@pytest.mark.parametrize("name", ["digits_transformer", "digits_transformer_mask"])
def test_fp16_destroys_and_the_blacklist_restores_every_prediction(name):
    """Full fp16 falls to chance, as stated; with the blacklist every prediction is that of fp32."""
    model, feeds, labels = emulate.open_sample(name)
    low = emulate.classes(emulate.emulate_fp16(model), feeds)
    assert (low == labels).mean() < CHANCE
    assert round(100 * (low == labels).mean(), 2) == stated()[name][2]
    blocked = blacklist(model, name)
    mixed = emulate.classes(emulate.emulate_fp16(model, blocked), feeds)
    np.testing.assert_array_equal(mixed, emulate.classes(model, feeds))


@pytest.mark.parametrize("name", ["digits_transformer", "digits_transformer_mask"])
def test_blacklist_has_no_layer_to_spare(name):
    """Taking any one layer off the blacklist changes predictions."""
    model, feeds, _ = emulate.open_sample(name)
    exact = emulate.classes(model, feeds)
    blocked = blacklist(model, name)
    for layer in blocked:
        mixed = emulate.classes(emulate.emulate_fp16(model, blocked - {layer}), feeds)
        assert (mixed != exact).any(), layer


def test_massive_stream_overflows_only_when_squared():
    """In fp32, what leaves the fp16 range is the output of Pow, ReduceMean_1 and Add in the norms, nothing else."""
    model, feeds, _ = emulate.open_sample("digits_transformer")
    makers = {name: node.name for node in model.graph.node for name in node.output}
    typed = onnx.shape_inference.infer_shapes(model)
    typed.graph.output.extend(value for value in typed.graph.value_info if value.name in makers)
    values = emulate.run(typed, feeds)
    overflowing = {makers[name] for name, value in values.items() if np.abs(value).max() > np.finfo(np.float16).max}
    norms = ["norm", *(f"blocks/{block}/norm{number}" for block in (0, 1) for number in (1, 2))]
    assert overflowing == {f"{norm}/{layer}" for norm in norms for layer in ("Pow", "ReduceMean_1", "Add")}


def test_masked_tokens_become_nan_in_fp16():
    """In fp16 the scores of every image with a padding token are NaN; in fp32 none is."""
    model, feeds, _ = emulate.open_sample("digits_transformer_mask")
    padded = (feeds["mask"] == 0).any(axis=1)
    assert padded.mean() > 0.9
    assert np.isfinite(emulate.run(model, feeds)["class_scores"]).all()
    low = emulate.run(emulate.emulate_fp16(model), feeds)["class_scores"]
    np.testing.assert_array_equal(np.isnan(low).all(axis=1), padded)


@pytest.mark.slow
def test_script_makes_lenet5_again(tmp_path):
    """The committed script trains the shipped LeNet-5 to the accuracy that it must have."""
    missing = [name for name in ("torch", "onnxscript", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs the `training` extra; not installed: {', '.join(missing)}")
    command = [sys.executable, str(SAMPLES / "make.py"), "lenet5_digits", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    with np.load(tmp_path / "lenet5_digits.npz") as arrays:
        feeds, labels = {"image": arrays["image"]}, arrays["labels"]
    _, shipped_feeds, shipped_labels = emulate.open_sample("lenet5_digits")
    np.testing.assert_array_equal(feeds["image"], shipped_feeds["image"])
    np.testing.assert_array_equal(labels, shipped_labels)
    assert accuracy_of(tmp_path / "lenet5_digits.onnx", feeds, labels) >= REQUIRED["lenet5_digits"]
