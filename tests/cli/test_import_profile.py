"""`precision-explorer import-profile`: latencies of another machine on the graph, with no GPU here."""

import csv

import onnx
import pytest
from cli_support import SAMPLES, cli
from support.tensorrt_files import FILES, IDS, convnet

from explorer.convert import convert
from explorer.export import save_onnx
from explorer.model import load_model
from explorer.plan import Plan


@pytest.fixture
def model(tmp_path):
    onnx.save(convnet(), tmp_path / "convnet.onnx")
    return tmp_path / "convnet.onnx"


def command(model, out, version="v10", **files):
    given = {"layers": FILES / f"{version}_layers.json", "profile": FILES / f"{version}_profile.json", **files}
    return [
        "import-profile",
        model,
        *(word for name, path in given.items() for word in (f"--{name}", path)),
        "--out",
        out,
    ]


def test_times_formats_and_provenance_are_shown_and_written(model, tmp_path):
    out = tmp_path / "out"
    done = cli(*command(model, out), "--block-op", "Softmax", "--device", "A100", env={"COLUMNS": "120"})
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert "convnet: 50" in words
    assert "measured on A100 by trtexec, imported from v10_layers.json" in words
    assert "conv1 + relu1" in words
    assert "the time stands once" in words
    with (out / "latency.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(IDS)
    assert float(rows["conv1"]["plan_us"]) == pytest.approx(20.0)
    assert rows["conv1"]["ran"] == "fp16"
    assert rows["relu1"]["shares_kernel_with"] == "conv1"
    assert rows["soft"]["format"] == "fp32"
    report = (out / "report.html").read_text()
    assert "measured on A100 by trtexec" in report
    assert "under the plan; fp32 was not measured" in report
    assert "this device tells nothing" not in report


def test_a_layer_that_ran_otherwise_is_named(model, tmp_path):
    done = cli(*command(model, tmp_path / "out", "v8"), "--preset", "full", "--json")
    assert done.code == 0, done.err
    found = done.document()
    assert found["differences"] == [{"layer_id": "soft", "asked": "fp16", "ran": "fp32", "kernel": "soft"}]
    shown = cli(*command(model, tmp_path / "out", "v8"), "--preset", "full", env={"COLUMNS": "120"})
    assert "Asked fp16, ran fp32: 1 layer: soft." in shown.out


def test_a_plan_file_says_what_was_asked(model, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(Plan().block(op_types=["Softmax"]).to_json())
    found = cli(*command(model, tmp_path / "out", "v8", plan=path), "--json").document()
    assert found["differences"] == []
    assert found["latency"]["backend"] == "tensorrt"
    assert {row["id"]: row["format"] for row in found["layers"]}["soft"] == "fp32"


def test_a_converted_model_says_what_was_asked(model, tmp_path):
    loaded = load_model(model)
    mixed = tmp_path / "mixed.onnx"
    save_onnx(convert(loaded, Plan().block(op_types=["Gemm"])), loaded, mixed)
    found = cli(*command(model, tmp_path / "out", "v8"), "--mixed-model", mixed, "--json").document()
    told = {each["layer_id"]: (each["asked"], each["ran"]) for each in found["differences"]}
    assert told == {"fc": ("fp32", "fp16"), "soft": ("fp16", "fp32")}


def test_without_a_plan_the_formats_that_ran_are_taken_and_it_is_said(model, tmp_path):
    found = cli(*command(model, tmp_path / "out", "v8"), "--json").document()
    assert {row["id"]: row["format"] for row in found["layers"]} == {**dict.fromkeys(IDS, "fp16"), "soft": "fp32"}
    assert any("No plan was named" in each for each in found["warnings"])
    assert found["differences"] == []


def test_times_of_the_whole_engine_are_the_headline(model, tmp_path):
    found = cli(*command(model, tmp_path / "out", "v11", times=FILES / "v11_times.json"), "--json").document()
    assert found["latency"]["whole_us"] == pytest.approx(40.0)
    assert found["latency"]["profiled_us"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"layers": FILES / "v10_profile.json"}, "given in each other's place"),
        ({"profile": FILES / "v10_layers.json"}, "given in each other's place"),
        ({"layers": FILES / "none.json"}, "cannot be read"),
        ({"times": FILES / "v10_profile.json"}, "--exportTimes"),
    ],
)
def test_wrong_files_end_in_one_paragraph_and_nothing_is_written(model, tmp_path, files, said):
    out = tmp_path / "out"
    done = cli(*command(model, out, **files))
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not out.exists()


def test_files_of_two_engines_that_share_a_name_are_told_to_differ(model, tmp_path):
    done = cli(*command(model, tmp_path / "out", profile=FILES / "v8_int8_profile.json"))
    assert done.code == 0, done.err
    assert "not among the engine's layers" in " ".join(done.out.split())


def test_a_plan_and_a_converted_model_exclude_each_other(model, tmp_path):
    done = cli(*command(model, tmp_path / "out"), "--preset", "full", "--mixed-model", model)
    assert done.code == 2
    assert "--mixed-model" in done.err


def test_json_keys_are_those_of_the_docs(model, tmp_path):
    text = (SAMPLES.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    found = cli(*command(model, tmp_path / "out", "v8"), "--preset", "full", "--json").document()
    keys = {*found, *found["latency"], *found["layers"][0], *found["differences"][0], *found["latency"]["kernels"][0]}
    assert not [key for key in sorted(keys - {"schema", "version", "command"}) if f"`{key}`" not in text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"name": "conv1 + relu1", "averageMs": 1, "medianMs": 1' + "0" * 400 + "}",
            "tells no time for 'conv1 + relu1'",
        ),
        ('{"name": "conv1 + relu1", "averageMs": 1e308, "medianMs": 1e308}', "tells no time for 'conv1 + relu1'"),
        ('{"name": "conv1 + relu1", "averageMs": 0.0, "medianMs": 0}', "every layer took 0 ms"),
    ],
    ids=["an integer of 400 digits", "beyond all runs", "zero"],
)
def test_times_of_layers_that_none_can_take_are_refused(model, tmp_path, text, said):
    profile = tmp_path / "profile.json"
    profile.write_text(f'[{{"count": 10}}, {text}]')
    done = cli(*command(model, tmp_path / "out", profile=profile))
    assert done.code == 2
    words = " ".join(done.err.split())
    assert said in words
    assert len(words) < 600
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("time", "said"), [("0.0", "the median run took 0 ms"), ("1" + "0" * 400, "tells no time for 'a run'")]
)
def test_times_of_the_whole_that_none_can_take_are_refused(model, tmp_path, time, said):
    times = tmp_path / "times.json"
    times.write_text(f'[{{"startComputeMs": 0, "computeMs": {time}}}]')
    done = cli(*command(model, tmp_path / "out", times=times))
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()
