"""Engine layers and times as trtexec writes them, in the forms of TensorRT 8, 10 and 11, and files that are wrong."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tensorrt_files import FILES

from explorer.backends.tensorrt.engine_layers import METADATA_LIMIT, parse_engine_layers, read_engine_layers
from explorer.backends.tensorrt.names import parts_of
from explorer.backends.tensorrt.profile import read_profile, read_times
from explorer.errors import InputError

REAL_FILES = "TENSORRT_FILES"  # a folder of <name>.graph.json and <name>.profile.json that trtexec wrote

WORDS = st.from_regex(r"[A-Za-z/_][A-Za-z0-9/_.]{0,12}", fullmatch=True).filter(
    lambda name: "..." not in name and not name.startswith(("PWN", "reshape_", "squeeze_", "unsqueeze_", "copied_"))
)


def by_name(version):
    return {layer.name: layer for layer in read_engine_layers(FILES / f"{version}_layers.json").layers}


def engine(*rows, **more):
    return json.dumps({"Layers": list(rows), "Bindings": [], **more})


def test_version_8_tells_kinds_and_formats_without_metadata():
    layers = by_name("v8")
    reformat = layers["Reformatting CopyNode for Input Tensor 0 to conv1 + relu1"]
    assert (reformat.kind, reformat.inputs[0].format, reformat.outputs[0].format) == ("cast", "fp32", "fp16")
    conv = layers["conv1 + relu1"]
    assert (conv.kind, conv.format, conv.sources) == ("convolution", "fp16", ())
    assert conv.inputs[0].shape == (1, 1, 8, 8)
    assert conv.tactic.startswith("sm80_xmma_fprop")
    assert (layers["soft"].kind, layers["soft"].format) == ("layer", "fp32")


def test_version_10_names_the_onnx_nodes_behind_each_layer():
    layers = by_name("v10")
    assert layers["conv1 + relu1"].sources == ("conv1", "relu1")
    soft = layers["__myl_CastMaxSubExpSumDivMul_myl0_2"]
    assert soft.sources == ("fc_out_cast_fp32", "soft")
    assert soft.format == ""  # it reads fp16 and writes fp32: what it computes in is not told
    assert (layers["fc_myl0_1"].kind, layers["fc_myl0_1"].format) == ("matrix", "fp16")
    assert layers["x_cast_fp16"].kind == "cast"


def test_versions_10_and_11_tell_the_same():
    """What the two forms of one engine say is equal, but for the words on layouts."""
    ten, eleven = (read_engine_layers(FILES / f"{version}_layers.json") for version in ("v10", "v11"))
    assert (ten.version, eleven.version) == ("8 to 10", "11")
    for old, new in zip(ten.layers, eleven.layers, strict=True):
        assert (old.name, old.kind, old.format, old.sources) == (new.name, new.kind, new.format, new.sources)
        assert [(each.name, each.format, each.shape) for each in old.inputs] == [
            (each.name, each.format, each.shape) for each in new.inputs
        ]


def test_names_alone_are_read_and_the_way_to_more_is_told():
    found = read_engine_layers(FILES / "v10_names_layers.json")
    assert not found.detailed
    assert [layer.name for layer in found.layers][1] == "conv1 + relu1"
    assert "profilingVerbosity=detailed" in found.notes[0]
    assert found.layers[0].kind == "reformat"


@pytest.mark.parametrize(
    ("tactic", "kind", "read", "ran"),
    [
        ("sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_x", "CaskConvolution", "FP32", "tf32"),
        ("ampere_scudnn_128x64_relu_xregs_large_nn_v1", "CaskConvolution", "FP32", "fp32"),
        ("ampere_h16816cudnn_256x64_ldg8_relu_exp_v1", "CaskConvolution", "FP16", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw", "CaskConvolution", "Int8", "int8"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "gemm", "BFloat16", "bf16"),
        ("sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x64", "gemm", "FP8", "fp8e4m3"),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32x32x64", "gemm", "Float", "tf32"),
        ("", "kgen", "Half", "fp16"),
        ("", "kgen", "Int64", ""),
    ],
)
def test_what_a_kernel_computes_in(tactic, kind, read, ran):
    tensor = {"Name": "a", "Dimensions": [1], "Format/Datatype": read}
    row = {"Name": "k", "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "TacticName": tactic}
    assert parse_engine_layers(engine(row)).layers[0].format == ran


def test_a_residual_of_another_format_does_not_change_what_is_multiplied():
    inputs = [
        {"Name": name, "Dimensions": [1], "Format/Datatype": words} for name, words in (("a", "Int8"), ("b", "Half"))
    ]
    row = {"Name": "conv + add", "LayerType": "CaskConvolution", "Inputs": inputs, "Outputs": inputs[1:]}
    assert parse_engine_layers(engine(row)).layers[0].format == "int8"


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "\x1e\x1f", "\x1f\x1e", ""])
def test_metadata_is_split_whatever_separates_it(separator):
    names = ("/a/Conv", "b[0]/Relu", "c (d) + e")
    row = {"Name": "k", "LayerType": "kgen", "Metadata": separator.join(f"[ONNX Layer: {name}]" for name in names)}
    layer = parse_engine_layers(engine(row)).layers[0]
    assert layer.sources == names
    assert not layer.cut


def test_raw_control_characters_in_metadata_are_read():
    text = engine({"Name": "k", "LayerType": "kgen", "Metadata": "[ONNX Layer: a]@[ONNX Layer: b]"}).replace(
        "@", "\x1e"
    )
    assert parse_engine_layers(text).layers[0].sources == ("a", "b")


def test_metadata_that_was_cut_is_said_to_be():
    whole = "\x1e".join(f"[ONNX Layer: layer_{number}/MatMul]" for number in range(400))
    row = {"Name": "k", "LayerType": "kgen", "Metadata": whole[:METADATA_LIMIT]}
    found = parse_engine_layers(engine(row))
    assert found.layers[0].cut
    count = len(found.layers[0].sources)
    assert 0 < count < 400
    assert found.layers[0].sources == tuple(f"layer_{number}/MatMul" for number in range(count))
    assert "4,000 characters" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "nodes", "serves", "ends"),
    [
        ("conv", ("conv",), (), ()),
        ("conv + relu", ("conv", "relu"), (), ()),
        ("conv || fc", ("conv", "fc"), (), ()),
        ("PWN(sigmoid, mul)", ("sigmoid", "mul"), (), ()),
        ("PWN(PWN(sigmoid), mul) + relu", ("sigmoid", "mul", "relu"), (), ()),
        ("conv.w + conv.w_QuantizeLinear + conv", ("conv",), (), ()),
        ("Reformatting CopyNode for Input Tensor 1 to conv + relu", (), ("conv", "relu"), ()),
        ("reshape_after_fc", (), ("fc",), ()),
        ("copied_squeeze_after_fc", (), ("fc",), ()),
        ("fc + b + (Unnamed Layer* 6) [Shuffle]", ("fc",), (), ()),
        ("{ForeignNode[conv...fc]}", (), (), ("conv", "fc")),
        ("{ForeignNode[a.b...relu]}", (), (), ("a.b", "relu")),
        ("a + b (c), d", ("a + b (c), d",), (), ()),
        ("conv + a + b (c), d", ("conv", "a + b (c), d"), (), ()),
    ],
)
def test_what_the_name_of_an_engine_layer_says(name, nodes, serves, ends):
    known = {"conv", "relu", "fc", "sigmoid", "mul", "a.b", "a + b (c), d"}
    parts = parts_of(name, known)
    assert (parts.nodes, parts.serves, parts.ends) == (nodes, serves, ends)


@given(st.lists(WORDS, min_size=1, max_size=8, unique=True), st.sampled_from([" + ", " || "]))
def test_fused_names_are_taken_apart_again(names, separator):
    assert parts_of(separator.join(names), set(names)).nodes == tuple(names)


def test_a_profile_tells_medians_in_microseconds():
    found = read_profile(FILES / "v10_profile.json")
    assert (found.runs, found.medians) == (500, True)
    assert found.times_us["conv1 + relu1"] == pytest.approx(20.0)


def test_an_old_profile_tells_averages():
    found = read_profile(FILES / "v8_block_profile.json")
    assert not found.medians
    assert found.times_us["{ForeignNode[pool...soft]}"] == pytest.approx(30.0)


def test_times_of_whole_runs_are_of_the_gpu_alone():
    found = read_times(FILES / "v11_times.json")
    assert (found.median_us, found.spread_us, found.runs) == (pytest.approx(40.0), pytest.approx(1.0), 5)


@pytest.mark.parametrize(
    ("read", "name", "said"),
    [
        (read_engine_layers, "v10_profile.json", "--exportProfile"),
        (read_profile, "v10_layers.json", "--exportLayerInfo"),
        (read_engine_layers, "v11_times.json", "--exportTimes"),
        (read_profile, "v11_times.json", "--exportTimes"),
        (read_times, "v10_profile.json", "--exportTimes"),
        (read_profile, "nothing.json", "cannot be read"),
    ],
)
def test_a_file_in_the_place_of_another_is_named(read, name, said):
    with pytest.raises(InputError, match=said):
        read(FILES / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("[12:00] &&&& FAILED TensorRT.trtexec", "it starts with"),
        ('{"Layers": []}', "no engine layers"),
        ('{"layers": 3}', "Its keys are: layers"),
        ("[]", "no engine layers"),
        ('{"Layers": [{"LayerType": "kgen"}]}', "without a name"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_layer_file_is_refused(tmp_path, text, said):
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_engine_layers(path)


@pytest.mark.parametrize("time", [None, "fast", -1.0, True])
def test_a_profile_with_a_time_that_is_none_is_refused(tmp_path, time):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps([{"count": 3}, {"name": "conv", "averageMs": time, "medianMs": time}]))
    with pytest.raises(InputError, match="conv"):
        read_profile(path)


@pytest.mark.skipif(REAL_FILES not in os.environ, reason=f"{REAL_FILES} names no folder of real files")
def test_real_files_are_read_whole():
    """Every layer of a real engine has its time, and a known kind; every convolution a format."""
    paths = sorted(Path(os.environ[REAL_FILES]).glob("*.graph.json"))
    assert paths
    for path in paths:
        found = read_engine_layers(path)
        profile = read_profile(path.with_name(path.name.replace(".graph.", ".profile.")))
        assert set(profile.times_us) == {layer.name for layer in found.layers}
        assert all(layer.format for layer in found.layers if layer.multiplies)
