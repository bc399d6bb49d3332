"""The search in JupyterLab: from its button to a plan that was dragged from the front, run, and kept its budget."""

import re

import numpy as np
import pytest
from lab_panel import SOON_MS, PanelPage
from support.jupyter import WAIT_MS

pytestmark = pytest.mark.browser

SEARCH_MS = 4 * WAIT_MS
PLACE = 0.6  # of the slider: neither end, where one format is everywhere

UNSEARCHABLE = """
import explorer, numpy as np
from onnx import TensorProto, helper as h
nodes = [h.make_node("Relu", ["x"], ["r"]), h.make_node("ArgMax", ["r"], ["y"])]
x = h.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
y = h.make_tensor_value_info("y", TensorProto.INT64, [1, 4])
proto = h.make_model(h.make_graph(nodes, "g", [x], [y]), opset_imports=[h.make_opsetid("", 17)], ir_version=9)
x = explorer.open(proto, inputs={"x": np.eye(4, dtype="float32")})
x"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """What is measured here goes to a folder of its own: the kernel inherits the variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path_factory.mktemp("noise")))
        yield


def found(lab):
    """Searches for the plans with most layers in fp16, and waits for the front."""
    lab.choose("Latency on", value="")
    lab.until("return store.state.gpu === '';")
    lab.tab("Trade-off")
    lab.root.get_by_role("button", name="Find the best plans").click()
    lab.until("return store.state.search.state === 'done' && store.state.search.points.length > 4;", timeout=SEARCH_MS)


def slider(lab):
    return lab.root.get_by_role("slider", name=re.compile("Error budget"))


def at(lab, place):
    box = slider(lab).bounding_box()
    return box["x"] + place * box["width"], box["y"] + box["height"] / 2


def test_a_search_is_watched_and_stopped(lab):
    lab.choose("Latency on", value="")
    lab.tab("Trade-off")
    lab.root.get_by_role("button", name="Find the best plans").click()
    lab.until("return store.state.search.state === 'running' && store.state.search.total > 0;")
    lab.shot("searching")
    lab.root.get_by_role("button", name="Stop").click()
    lab.until("return store.state.search.state === 'cancelled';")
    lab.root.get_by_role("button", name=re.compile("Go on searching|Find the best plans")).wait_for(timeout=SOON_MS)
    lab.figures_are_right()


def test_a_plan_is_dragged_from_the_front(lab):
    found(lab)
    calls = lab.state["calls"]
    assert calls[-1] == "front = x.search(gpu_model='')"
    assert lab.kernel.value("[point.error for point in x.front.points]") == [
        point["error"] for point in lab.state["search"]["points"]
    ]
    lab.shot("front")
    before = lab.formats()
    plan = lab.kernel.value("x.plan == explorer.Plan()")
    assert plan

    slider(lab).scroll_into_view_if_needed()
    lab.page.mouse.move(*at(lab, 0.1))
    lab.page.mouse.down()
    lab.page.mouse.move(*at(lab, 0.3), steps=3)
    lab.until("return store.preview !== null;")
    lab.page.mouse.move(*at(lab, PLACE), steps=5)
    lab.until("return store.preview !== null && store.preview.budget > 0;")
    shown = lab.formats()
    assert shown != before, "the graph shows what the front gives while the slider is dragged"
    assert {"fp16", "fp32"} <= set(shown)
    lab.shot("preview")
    assert lab.kernel.value("x.plan == explorer.Plan()"), "and nothing has changed yet"

    lab.page.mouse.up()
    lab.until("return store.taking === null && store.preview === null && store.state.revision > 0;", timeout=WAIT_MS)
    budget = lab.state["search"]["chosen"]
    assert lab.state["calls"][-1] == f"x.plan = x.front.best(max_error={budget!r})"
    lab.figures_are_right()
    error = lab.kernel.value("float(x.output_error()['rel_l2'].max())")
    assert 0 < error <= budget
    assert lab.kernel.value("dict(x.plan.overrides) != {}")
    lab.shot("taken")

    lab.page.keyboard.press("Escape")
    lab.focus()
    lab.press("Control+z")
    lab.until("return store.state.search.chosen === null;")
    assert lab.kernel.value("x.plan == explorer.Plan()")
    lab.current()


def test_columns_of_the_search_follow_the_plan(lab):
    found(lab)
    assert np.isfinite(lab.column("sensitivity_db")).any()
    assert np.isnan(lab.column("costs")).all(), "the outputs are NaN, whatever one layer does"
    lab.choose("Preset", value="fp32")
    lab.until("return store.state.preset === 'fp32' && store.figures.costs.some(each => each > 0);")
    told = lab.kernel.value("[str(each) for each in x.front.explain(x.decisions()).costs]")
    np.testing.assert_array_equal(lab.column("costs"), np.array(told, "float64").astype("float32").astype("float64"))
    lab.current()


def test_another_format_makes_the_front_stale(lab):
    found(lab)
    lab.kernel.run("x.plan = explorer.Plan(format='bf16')")
    lab.until("return store.state.search.stale !== '';")
    assert slider(lab).is_disabled()
    lab.root.get_by_text(re.compile("The front does not fit any more: the format is bf16 now")).first.wait_for()
    lab.kernel.run("x.plan = explorer.Plan()")
    lab.until("return store.state.search.stale === '';")
    lab.current()


def test_a_front_that_a_cell_finds_is_shown(lab):
    lab.kernel.run("front = x.search(gpu_model='')")
    lab.choose("Latency on", value="")
    lab.until("return store.state.search.points.length > 4 && store.state.search.state === 'done';", timeout=SEARCH_MS)
    slider(lab).wait_for(timeout=SOON_MS)


def test_the_front_goes_into_a_report(lab, server, browser):
    found(lab)
    path = server.root / "searched.html"
    lab.kernel.run(f"x.report({str(path)!r})")
    page = browser.new_page()
    try:
        page.goto(path.as_uri())
        page.wait_for_selector(".pe-panel")
        report = PanelPage(page)
        assert report.state["search"]["points"] == lab.state["search"]["points"]
        assert np.isfinite(report.column("sensitivity_db")).any()
    finally:
        page.close()


def test_the_search_of_a_model_that_cannot_be_searched_says_why(open_notebook):
    lab = open_notebook("unsearchable.ipynb", UNSEARCHABLE)
    lab.choose("Latency on", value="")
    lab.tab("Trade-off")
    lab.root.get_by_role("button", name="Find the best plans").click()
    lab.until("return store.state.search.state === 'failed';", timeout=WAIT_MS)
    assert lab.state["search"]["error"]["fix"]
    lab.root.get_by_role("alert").first.wait_for(timeout=SOON_MS)
