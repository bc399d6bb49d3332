"""The command line end to end, on the shipped sample models, as a user runs it."""

import io
import math
import re
import shlex

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from cli_support import SAMPLES, cli, process, sample, saved, small_model
from onnx import helper, numpy_helper
from rich.console import Console

import explorer
from explorer.cli.document import plain
from explorer.cli.progress import Stages

NAMES = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
FILES = {"model.fp16.onnx", "plan.json", "layers.csv", "report.html"}
NORMS = ["--block", "*norm*/Pow", "--block", "*norm*/ReduceMean_1", "--block", "*norm*/Add", "--block", "*norm*/Sqrt"]
PREDICTED_OR_MEASURED = re.compile(r"_us$|^cpu_(note|fused_with)$")


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """Returns a function that explores a sample model once: its folder and its JSON document."""
    known = {}

    def run(name, *more):
        if (name, more) not in known:
            out = tmp_path_factory.mktemp(name) / "out"
            result = cli("explore", *sample(name), "--out", out, "--json", *more)
            assert result.code == 0, result.err
            known[name, more] = out, result.document()
        return known[name, more]

    return run


def content(path):
    """Returns all that a model file holds, whatever the order in which weights are stored."""
    proto = onnx.load(path)
    for field in (proto.graph.initializer, proto.graph.value_info):
        field.sort(key=lambda item: item.name)
    return proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", NAMES)
def test_explore_writes_four_files_that_hold_what_they_promise(explored, name):
    """The exported model passes the full check and loads, the plan loads again, the table has a row a layer."""
    out, document = explored(name)
    assert {path.name for path in out.iterdir()} == FILES
    onnx.checker.check_model(str(out / "model.fp16.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(out / "model.fp16.onnx", providers=["CPUExecutionProvider"])
    source = onnxruntime.InferenceSession(SAMPLES / f"{name}.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        (i.name, i.type, i.shape) for i in source.get_inputs()
    ]
    assert [o.name for o in session.get_outputs()] == [o.name for o in source.get_outputs()]
    plan = explorer.Plan.load(out / "plan.json")
    assert plan.to_dict() == document["plan"]
    table = pd.read_csv(out / "layers.csv", keep_default_na=False, na_values={"local_sqnr_db": [""]})
    model = explorer.open(SAMPLES / f"{name}.onnx").model
    assert list(table["id"]) == [layer.id for layer in model.layers]
    assert [row["id"] for row in document["layers"]] == list(table["id"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page) > 100_000
    assert table["id"].iloc[0] in page


def test_csv_holds_every_column_of_every_table(explored):
    """Errors, ranges, measured and predicted latency, each with its provenance."""
    out, _ = explored("digits_transformer", "--gpu-model", "H100")
    table = pd.read_csv(out / "layers.csv")
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    errors = x.errors()
    assert set(errors.columns) - {"provenance"} <= set(table.columns)
    for column in ("local_sqnr_db", "acc_rel_l2", "overflow", "subnormal"):
        np.testing.assert_allclose(table[column], errors[column], rtol=1e-12)
    assert table["error_provenance"].str.startswith("emulated").all()
    assert table["range_provenance"].str.startswith("measured").all()
    assert table["cpu_provenance"].str.startswith("measured").all()
    assert table["gpu_provenance"].str.startswith("predicted").all()
    assert table["max_abs"].max() > 65504
    assert {"cpu_fp32_us", "gpu_fp32_us", "gpu_fp16_us"} <= set(table.columns)
    assert not any(column.startswith("cpu_fp16") for column in table.columns), "no fp16 time on a CPU"


def test_full_fp16_shows_the_collapse_and_the_layers_that_cause_it(explored):
    """digits_transformer: accuracy before and after, the twenty layers that break, the first of them."""
    _, document = explored("digits_transformer")
    assert document["accuracy"]["exact"] == pytest.approx(0.9889, abs=1e-4)
    assert document["accuracy"]["plan"] < 0.15
    assert document["first_nonfinite"] == "blocks/0/norm1/Pow"
    broken = set(document["breaking_alone"])
    norms = ("blocks/0/norm1", "blocks/0/norm2", "blocks/1/norm1", "blocks/1/norm2", "norm")
    assert broken == {f"{norm}/{op}" for norm in norms for op in ("Pow", "ReduceMean_1", "Add", "Sqrt")}


def test_the_blacklist_restores_the_accuracy_exactly(explored):
    """The twenty layers, and no other, are kept in fp32; every prediction is as before."""
    out, document = explored("digits_transformer", *NORMS)
    assert document["accuracy"]["agreement"] == 1
    assert document["accuracy"]["plan"] == document["accuracy"]["exact"]
    assert document["first_nonfinite"] is None
    assert document["breaking_alone"] == []
    assert [row["format"] for row in document["layers"]].count("fp32") == 20
    assert "This plan holds in fp16" in (out / "report.html").read_text(encoding="utf-8")


def test_outputs_that_become_nan_are_counted(explored):
    """digits_transformer_mask: the output's NaN are told, as a number and in words; no figure is made of them."""
    _, document = explored("digits_transformer_mask")
    (row,) = document["output_error"]
    assert row["nan"] == 3570
    assert row["sqnr_db"] is None
    shown = cli("measure", *sample("digits_transformer_mask"), "--runs", 5)
    assert "3,570 NaN of 3,600 values" in shown.out
    assert "fp16 breaks this model" in shown.out


def test_plan_file_starts_where_explore_ended(explored, tmp_path):
    """`convert --plan plan.json` writes the model that `explore` wrote; further rules come on top."""
    out, document = explored("digits_transformer", *NORMS)
    source = SAMPLES / "digits_transformer.onnx"
    made = cli("convert", source, tmp_path / "again.onnx", "--plan", out / "plan.json", "--json")
    assert made.code == 0
    assert content(tmp_path / "again.onnx") == content(out / "model.fp16.onnx")
    assert made.document()["plan"] == document["plan"]
    more = cli("convert", source, tmp_path / "b.onnx", "--plan", out / "plan.json", "--allow-op", "Pow", "--json")
    assert [each["format"] for each in more.document()["decisions"]].count("fp32") == 15


def test_same_command_same_numbers(explored, tmp_path):
    """Errors, plan and exported model are deterministic; only what is timed varies."""
    out, document = explored("digits_transformer_mask")
    again = cli("explore", *sample("digits_transformer_mask"), "--out", tmp_path, "--json").document()
    for key in ("model", "plan", "output_error", "accuracy", "conversion", "breaking_alone"):
        assert again[key] == document[key], key
    for one, other in zip(document["layers"], again["layers"], strict=True):
        for key in one:
            assert PREDICTED_OR_MEASURED.search(key) or one[key] == other[key], (one["id"], key)
    assert content(tmp_path / "model.fp16.onnx") == content(out / "model.fp16.onnx")
    assert (tmp_path / "plan.json").read_bytes() == (out / "plan.json").read_bytes()


def test_report_states_the_command_that_makes_it_again(explored):
    """The command is quoted for a shell, globs and all."""
    _, document = explored("digits_transformer", *NORMS)
    words = shlex.split(document["shell"])
    assert words[:2] == ["precision-explorer", "explore"]
    assert words[words.index("--block") + 1] == "*norm*/Pow"
    assert "--block '*norm*/Pow'" in document["shell"]


JSON_COMMANDS = {
    "measure": lambda _: ["measure", *sample("lenet5_digits"), "--runs", 5],
    "convert": lambda tmp: ["convert", SAMPLES / "lenet5_digits.onnx", tmp / "low.onnx"],
    "inspect": lambda _: ["inspect", SAMPLES / "lenet5_digits.onnx"],
    "backends": lambda _: ["backends"],
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_json_is_one_document_and_nothing_else(command, tmp_path):
    """Valid JSON (no NaN tokens), with the documented keys at its head."""
    result = cli(*JSON_COMMANDS[command](tmp_path), "--json")
    assert result.code == 0
    document = result.document()
    assert list(document)[:3] == ["schema", "version", "command"]
    assert document["command"] == command
    assert document["version"] == explorer.__version__
    assert result.out.isascii()


def test_json_keys_are_those_of_the_docs(explored):
    """docs/cli.md names every key of every document."""
    text = (SAMPLES.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    documents = [explored("digits_transformer", "--gpu-model", "H100")[1]]
    documents.append(cli("inspect", SAMPLES / "lenet5_digits.onnx", "--json").document())
    documents.append(cli("backends", "--json").document())
    keys = {key for document in documents for key in document}
    keys |= set(documents[0]["layers"][0]) | set(documents[0]["conversion"]) | set(documents[1]["layers"][0])
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_numbers_that_json_has_no_word_for():
    """Infinities are strings, NaN is null, at any depth; counts stay integers."""
    frame = pd.DataFrame({"a": [1, 2], "b": [math.nan, -math.inf], "c": ["x", "y"]})
    assert plain(frame) == [{"a": 1, "b": None, "c": "x"}, {"a": 2, "b": "-inf", "c": "y"}]
    assert plain({"n": np.float32(np.inf), "k": (np.int64(3), np.array([1.5]))}) == {"n": "inf", "k": [3, [1.5]]}


def test_inspect_lists_ids_that_a_blacklist_takes(tmp_path):
    """Every id that `inspect` shows is a name for --block; --match shows what a pattern would take."""
    document = cli("inspect", SAMPLES / "digits_transformer.onnx", "--json").document()
    assert document["model"]["layers"] == 113 == len(document["layers"]) == sum(document["ops"].values())
    some = [layer["id"] for layer in document["layers"]][::20]
    words = [word for layer in some for word in ("--block", layer)]
    made = cli("convert", SAMPLES / "digits_transformer.onnx", tmp_path / "x.onnx", *words, "--json").document()
    assert [each["id"] for each in made["decisions"] if "blacklist" in each["reason"]] == some
    shown = cli("inspect", SAMPLES / "digits_transformer.onnx", "--match", "*norm*/Add")
    assert "5 of 113 layers match *norm*/Add" in shown.out
    assert "Add_1" not in shown.out
    ops = cli("inspect", SAMPLES / "digits_transformer.onnx", "--ops")
    assert "MatMul" in ops.out
    assert "blocks/0" not in ops.out


def test_convert_tells_the_weights_that_fp16_cannot_hold(tmp_path):
    """Overflow is counted and named; --clamp stores the largest value instead, and says so."""
    weight = np.full((4, 4), 1e-9, np.float32)
    weight[0] = 1e5
    path = saved(small_model(weight=weight), tmp_path / "m.onnx")
    plain_ = cli("convert", path, tmp_path / "a.onnx", "--json").document()["conversion"]["weights"]
    assert (plain_["total"]["overflow"], plain_["total"]["flushed"], plain_["clamped"]) == (4, 12, 0)
    assert plain_["worst"][0]["name"] == "w"
    shown = cli("convert", path, tmp_path / "b.onnx")
    assert "4 overflow and 12 flush to zero" in shown.out
    clamped = cli("convert", path, tmp_path / "c.onnx", "--clamp", "--json").document()["conversion"]["weights"]
    assert clamped["clamped"] == 4
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "c.onnx").graph.initializer}
    assert max(float(np.abs(array).max()) for array in stored.values()) == 65504
    result = cli("explore", path, "--clamp", "--out", tmp_path / "out", "--json").document()
    assert any("4 weights were clamped" in line for line in result["warnings"])


def test_bf16_names_its_file(tmp_path):
    document = cli("explore", *sample("lenet5_digits"), "--format", "bf16", "--out", tmp_path, "--json").document()
    assert document["written"]["model"] == str(tmp_path / "model.bf16.onnx")
    onnx.checker.check_model(str(tmp_path / "model.bf16.onnx"), full_check=True)


def test_fp32_preset_has_no_error(tmp_path):
    """The fp32 plan is the identity, and the summary says that nothing runs low."""
    shown = cli("explore", *sample("lenet5_digits"), "--preset", "fp32", "--out", tmp_path)
    assert shown.code == 0
    assert "Nothing runs in fp16 under this plan" in shown.out
    assert "class_scores: exact" in shown.out


def test_no_keep_io_changes_the_types(tmp_path):
    cli("convert", SAMPLES / "lenet5_digits.onnx", tmp_path / "m.onnx", "--no-keep-io")
    made = onnx.load(tmp_path / "m.onnx")
    assert made.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_the_terminal(columns, tmp_path):
    """No line is wider than the terminal, and long ids are cut in the middle, never at their ends."""
    long = "encoder/" + "very_long_scope_name/" * 4 + "MatMul"
    path = saved(small_model(names=(long, "second", "soft")), tmp_path / "m.onnx")
    env = {"COLUMNS": str(columns)}
    for words in (
        ["explore", *sample("digits_transformer"), "--out", tmp_path / "o", "--gpu-model", "H100"],
        ["measure", path, "--runs", 5],
        ["convert", path, tmp_path / "low.onnx"],
        ["inspect", SAMPLES / "digits_transformer.onnx"],
        ["backends"],
    ):
        shown = cli(*words, env=env)
        assert shown.code == 0, shown.err
        too_wide = [line for line in shown.out.splitlines() if len(line.rstrip()) > columns]
        assert not too_wide
    measured = cli("measure", path, "--runs", 5, env=env).out
    assert long not in measured
    assert re.search(r"encoder/\S*…\S*MatMul", measured)
    csv = tmp_path / "wide"
    assert cli("explore", path, "--out", csv).code == 0
    assert long in (csv / "layers.csv").read_text(encoding="utf-8")
    assert long in cli("inspect", path, env=env).out, "an id to copy is whole, however long its line is"


def test_hostile_names_are_shown_as_they_are(tmp_path):
    """Markup in a name is no markup, an escape code reaches no terminal."""
    path = saved(small_model(names=("[red]x[/red]", "a\x1b[2Jb", "[/]")), tmp_path / "m.onnx")
    for words in (["inspect", path], ["measure", path, "--runs", 5], ["convert", path, tmp_path / "low.onnx"]):
        shown = cli(*words)
        assert shown.code == 0, shown.err
        assert "\x1b[2J" not in shown.out
    listed = cli("inspect", path).out
    assert "[red]x[/red]" in listed
    assert "a␛[2Jb" in listed


def test_colour_only_where_it_is_wanted():
    """Piped output has no escape codes; NO_COLOR holds on a terminal too."""
    words = ["inspect", SAMPLES / "lenet5_digits.onnx"]
    assert "\x1b" not in process(*words).out
    forced = process(*words, env={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert "\x1b[" in forced.out
    quiet = process(*words, env={"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm-256color"})
    assert not re.search(r"\x1b\[[\d;]*3\dm", quiet.out)


def test_output_that_cannot_show_a_character_does_not_fail():
    """An ASCII terminal gets question marks, no traceback."""
    shown = process("inspect", SAMPLES / "lenet5_digits.onnx", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert shown.code == 0, shown.err
    assert "features/conv1/Conv" in shown.out


def test_stages_are_plain_lines_without_a_terminal():
    """One line a stage on stderr, nothing on stdout."""
    shown = cli("measure", *sample("lenet5_digits"), "--runs", 5, "--json")
    lines = shown.err.splitlines()
    assert lines[0] == "[1/6] load the model and the inputs"
    assert lines[-1] == "[6/6] convert and check"
    assert len(lines) == 6


def test_stages_are_bars_on_a_terminal(monkeypatch):
    """Every stage has a bar that ends full, and they make way for the result."""
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, legacy_windows=False)
    monkeypatch.setattr("explorer.cli.progress.Console", lambda **_: terminal)
    with Stages(["load", "local errors", "write"]) as stages:
        with stages.stage("load"):
            pass
        with stages.stage("local errors"):
            for done in (1, 2, 3):
                stages.report("local errors", done, 3)
        with stages.stage("write"):
            pass
    shown = screen.getvalue()
    assert "local errors" in shown
    assert "3/3" in shown
    assert list(stages.seconds) == ["load", "local errors", "write"]


def test_help_is_quick_and_light():
    """`--help` and `--version` load no runtime and no plotting library."""
    code = (
        "import sys\nfrom explorer.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'onnxruntime', 'pandas', 'plotly', 'onnx', 'numpy', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for words in (["--help"], ["explore", "--help"], ["convert", "-h"], ["--version"]):
        shown = process(*words, code=code)
        assert shown.code == 0, shown.err
    assert shown.out == f"precision-explorer {explorer.__version__}\n"


def test_help_has_every_command_and_examples():
    """Every command is there, each with its examples."""
    root = cli("--help")
    for command in ("explore", "convert", "measure", "inspect", "backends"):
        assert command in root.out
        assert cli(command, "--help").code == 0
    assert "precision-explorer explore model.onnx --inputs data.npz" in root.out
    assert "130" in root.out
    assert "--block-op" in cli("explore", "--help").out


def test_an_empty_command_line_shows_the_help():
    assert "Usage" in cli().out + cli().err


def test_backends_tell_what_is_missing():
    """Each backend with its state, and what to do where it is not ready."""
    found = {backend["name"]: backend for backend in cli("backends", "--json").document()["backends"]}
    assert set(found) == {"onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "roofline"}
    shown = cli("backends").out
    for name, backend in found.items():
        assert name in shown
        assert backend["state"] == "ready" or backend["fix"]


def test_target_none_asks_only_onnx(tmp_path):
    """The CPU provider lacks fp16 kernels; with `none` only what ONNX allows counts."""
    source = SAMPLES / "lenet5_digits.onnx"
    cpu = cli("convert", source, tmp_path / "a.onnx", "--backend", "onnxruntime-cpu", "--json").document()
    free = cli("convert", source, tmp_path / "b.onnx", "--backend", "none", "--json").document()
    assert any("onnxruntime-cpu has no" in each["reason"] for each in cpu["decisions"])
    assert free["conversion"]["low_share"] == 1
    assert free["backend"] is None


def test_a_model_without_floats_is_converted_as_it_is(tmp_path):
    """Nothing to convert is no reason to fail."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"], name="add")],
        "ints",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = saved(made, tmp_path / "i.onnx")
    shown = cli("convert", path, tmp_path / "low.onnx")
    assert shown.code == 0, shown.err
    assert "carries no floating-point tensor" in shown.out
    assert cli("inspect", path).code == 0
