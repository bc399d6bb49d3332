"""Formats and measured latency in JupyterLab: int8 by bar and by key, real times of this CPU, kernels of a profile."""

import numpy as np
import pytest
from lab_panel import SAMPLES, painted, settles, spaced

pytestmark = pytest.mark.browser

# A calibration is kept beside the model: each notebook has a copy of its own.
OPEN = (
    "import explorer, pathlib, shutil, tempfile\n"
    "folder = pathlib.Path(tempfile.mkdtemp())\n"
    f"files = [shutil.copy(path, folder) for path in pathlib.Path({str(SAMPLES)!r}).glob('lenet5_digits.[no]*')]\n"
    "x = explorer.open(folder / 'lenet5_digits.onnx', inputs=folder / 'lenet5_digits.npz')\n"
)
PROFILE = """
from explorer.backends.latency import KernelTime, LatencyResult, LayerTime
from explorer.measure.latency import MeasuredLatency
ids = [layer.id for layer in x.model.layers]
kernels = [
    KernelTime('__myln_k_conv_relu_pool', tuple(ids[0:3]), 7.0, 0.1, 'layer', 'fp16'),
    KernelTime('__myln_k_conv_relu', tuple(ids[3:5]), 5.0, 0.1, 'layer', 'fp32'),
    KernelTime('Reformatting CopyNode for Input Tensor 0', (ids[0],), 1.5, 0.1, 'reformat', 'fp16'),
]
times = dict(zip(ids, [7.0, 0, 0, 5.0, 0, 1, 1, 2, 0, 2, 0, 1]))
result = LatencyResult(
    backend='tensorrt', device='A10', provenance='measured on an A10 by trtexec 11.4, read from profile.json',
    formats='strongly typed', threads=1, runs=100, warmup_runs=10, whole_us=16.4, whole_spread_us=0.3,
    layers=tuple(LayerTime(key, us, 0.1) for key, us in times.items()), kernels=tuple(kernels), overhead_us=1.1,
)
x.results.latencies.take(x.plan, x.target, 'imported profile', MeasuredLatency(result, x.plan.format))
"""
LOOKED_AT = (1480, 1000)


@pytest.fixture
def lenet(open_notebook):
    def go(name, more=""):
        opened = open_notebook(f"{name}.ipynb", f"{OPEN}{more}x.panel(height=820)")
        opened.page.set_viewport_size(dict(zip(("width", "height"), LOOKED_AT, strict=True)))
        opened.current()
        return opened

    return go


def dark(panel, name):
    """Looks at the panel in the dark theme too."""
    for theme in ("Dark", "Light"):
        panel.theme(theme)
        painted(panel.page)
        panel.shot(f"{name}_{theme.lower()}")


def test_int8_by_the_bar_and_of_one_layer_in_an_fp16_plan(lenet):
    panel = lenet("formats")
    panel.choose("Format", value="int8")
    panel.until("return store.state.format === 'int8' && !store.stale;")
    panel.figures_are_right()
    told = panel.kernel.value("x.provenance")
    assert "percentile" in told
    assert panel.state["headline"]["output_error"]["provenance"] == told
    assert panel.root.locator(".pe-bar-keep input").is_disabled()
    panel.shot("int8")

    panel.choose("Format", value="fp16")
    panel.current()
    conv = panel.layer("features/conv1/Conv")
    panel.bring(conv)
    panel.click_layer(conv)
    panel.press("8")
    panel.until("return store.formatOf(arg) === 'int8' && !store.stale;", conv)
    panel.figures_are_right()
    assert panel.kernel.value("dict(x.plan.overrides)") == {"features/conv1/Conv": "int8"}
    settles(panel.page, lambda: spaced(panel.card("low_share")).replace("\u202f", " "), "100 %: 75 % fp16, 25 % int8")
    dark(panel, "mixed")

    panel.root.locator(".pe-i-choice").get_by_role("button", name="entropy").click()
    panel.until("return store.state.calibration.method === 'entropy' && !store.stale;")
    assert panel.kernel.value("x.calibration.method") == "entropy"
    assert "x.calibrate(method='entropy')" in panel.state["code"]


def test_an_int8_plan_is_timed_on_this_cpu(lenet):
    panel = lenet("timed", "x.plan = explorer.Plan(format='int8')\n")
    panel.choose("Latency on", value="this CPU")
    panel.until("return store.state.measured?.whole_us > 0;")
    whole, layers = panel.kernel.value(
        "(lambda found: [found.whole_us, [row.median_us for row in found.layers]])"
        "(x.results.latencies.known_measured(x.plan, x.target, 'onnxruntime-cpu').result)"
    )
    assert panel.state["headline"]["latency"]["value"] == whole
    np.testing.assert_allclose(panel.column("plan_us"), layers, rtol=1e-6)
    assert panel.js("return store.kernel(arg).layers.length;", panel.layer("features/conv1/Conv")) == 2
    panel.js("store.setColour('latency');")
    panel.shot("timed")


def test_an_imported_profile_frames_the_layers_of_a_kernel(lenet):
    panel = lenet("profile")
    panel.kernel.run(PROFILE)
    panel.choose("Latency on", value="imported profile")
    panel.until("return store.figures.kernels.length === 3;")
    panel.js("store.setColour('latency'); store.select([]);")
    panel.shot("profile_overview")
    conv = panel.layer("features/conv2/Conv")
    panel.bring(conv)
    panel.click_layer(conv)
    settles(panel.page, lambda: "Asked fp16, ran fp32" in panel.root.locator(".pe-i-layer").inner_text(), True)
    rect = panel.js("return graph.rectOf(arg);", conv)
    panel.page.mouse.move(rect["x"] + 60, rect["y"] + 12, steps=3)
    panel.page.wait_for_timeout(500)
    panel.shot("profile_hover")
    dark(panel, "profile")
    panel.click_layer(conv, button="right")
    panel.root.get_by_role("menuitem", name="Select what its kernel computes (2 layers)").click()
    panel.until("return store.selection.size === 2;")
    panel.tab("Table")
    panel.shot("profile_table")
