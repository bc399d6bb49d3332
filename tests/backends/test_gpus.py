"""The GPU table: names are found as people write them, and the datasheet's numbers hang together."""

from __future__ import annotations

import pytest

from explorer.backends.gpus import GPUS, get_gpu
from explorer.errors import BackendError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "H100-SXM"),
        ("A100", "A100-SXM-80GB"),
        ("a100 40gb", "A100-SXM-40GB"),
        ("A100-SXM4-40GB", "A100-SXM-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB"),
        ("a100 40gb pcie", "A100-PCIE-40GB"),
        ("A100 PCIe", "A100-PCIE-80GB"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("v100", "V100-SXM2"),
        ("v100-sxm2-32gb", "V100-SXM2"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("l40s", "L40S"),
        ("h200", "H200"),
    ],
)
def test_names_are_forgiven_case_vendor_and_suffix(written, name):
    assert get_gpu(written).name == name


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_is_found_by_its_own_name(name):
    assert get_gpu(name) is GPUS[name]


def test_an_unknown_gpu_is_refused_with_the_nearest_names():
    with pytest.raises(BackendError, match="RTX 4090"):
        get_gpu("RTX 4080")
    with pytest.raises(BackendError, match="Known: T4"):
        get_gpu("")


def test_a_slower_form_factor_does_not_pass_for_the_faster_one():
    with pytest.raises(BackendError):
        get_gpu("H100 PCIe")


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM-64GB", "A100-PCIE-64GB", "H100 SXM 96GB"])
def test_a_card_with_other_memory_is_another_card(name):
    """Its bandwidth differs with its memory; sizes that the table does not state are forgiven."""
    with pytest.raises(BackendError, match="No GPU named"):
        get_gpu(name)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=str)
def test_narrower_formats_are_never_slower(gpu):
    rates = gpu.tensor_tflops
    assert rates["fp16"] > gpu.fp32_tflops
    assert rates.get("tf32", 0) <= rates["fp16"] <= rates.get("int8", float("inf"))
    assert gpu.fp16_accumulate_tflops in (0, 2 * rates["fp16"]) or gpu.fp16_accumulate_tflops == pytest.approx(
        2 * rates["fp16"], rel=0.01
    )
    assert gpu.sm_count > 0
    assert gpu.bandwidth_gbs > 0
