"""The panel in JupyterLab: what it writes, what it lives through, and where else it lives."""

import json
import os
import re
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from lab_panel import OPEN, SAMPLES, SOON_MS, PanelPage, painted, settles, shoot, spaced
from support.graphs import model, node, value
from support.jupyter import TOKEN, WAIT_MS, in_lab, run_cell, served

pytestmark = pytest.mark.browser

BLOCKED = 20  # layers that the finding's fix keeps in fp32


def export(lab, kind):
    """Returns the row of the Export tab that writes one kind of file."""
    lab.tab("Export")
    return lab.root.locator(".pe-i-file", has_text=kind)


def test_the_fix_of_a_finding_brings_the_accuracy_back(lab):
    lab.tab("Findings")
    lab.root.get_by_role("button", name=f"Keep {BLOCKED} layers in fp32").click()
    lab.until("return store.state.revision > 0;")
    lab.figures_are_right()
    exact, plan = lab.kernel.value("[x.accuracy().exact, x.accuracy().plan]")
    assert plan == exact > 0.98
    assert sum(each == "fp32" for each in lab.formats()) == BLOCKED
    settles(lab.page, lambda: spaced(lab.card("metric")), "98.9 % → 98.9 %")
    lab.until("return store.state.findings.some(each => each.tone === 'good');")
    lab.shot("fixed")


def test_a_plan_that_was_tried_comes_back(lab):
    lab.toggle(lab.layer("embed/Add"))
    lab.current()
    lab.until("return store.state.tried.length === 2;")
    lab.tab("Trade-off")
    lab.root.locator(".pe-i-plans").get_by_role("button", name="Go back").first.click()
    lab.until("return store.state.tried[0].current;")
    lab.current()
    assert lab.kernel.value("x.plan == explorer.Plan()")
    lab.page.wait_for_selector(".pe-inspector .js-plotly-plot", timeout=WAIT_MS)
    lab.shot("tradeoff")


def test_export_writes_and_asks_before_it_overwrites(lab, server):
    path = server.root / "digits_transformer.fp16.onnx"
    row = export(lab, "Mixed ONNX model")
    row.get_by_role("button", name="Write").click()
    row.get_by_text(re.compile("^Written to")).wait_for(timeout=WAIT_MS)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["class_scores"]
    before = path.stat().st_mtime_ns
    row.get_by_role("button", name="Write").click()
    again = row.get_by_role("button", name="Overwrite")
    again.wait_for(timeout=WAIT_MS)
    assert path.stat().st_mtime_ns == before, "it asks first"
    again.click()
    row.get_by_text(re.compile("^Written to")).wait_for(timeout=WAIT_MS)
    onnx.checker.check_model(str(path), full_check=True)
    assert path.stat().st_mtime_ns > before
    lab.shot("exported")


def test_plan_report_table_and_blacklist_can_be_had(lab, server):
    (server.root / "from_the_panel").mkdir()
    export(lab, "Plan")
    lab.root.get_by_role("textbox", name="Path of: Plan").fill("from_the_panel/plan.json")
    for index in (1, 2, 3):
        row = lab.root.locator(".pe-i-file").nth(index)
        row.get_by_role("button", name="Write").click()
        row.get_by_text(re.compile("^Written to")).wait_for(timeout=WAIT_MS)
    plan = json.loads((server.root / "from_the_panel" / "plan.json").read_text(encoding="utf-8"))
    assert plan == lab.kernel.value("x.plan.to_dict()")
    assert 'id="pe-scene"' in (server.root / "digits_transformer.report.html").read_text(encoding="utf-8")
    lines = (server.root / "digits_transformer.layers.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 113
    shown = lab.root.locator(".pe-i-blacklist")
    text = shown if shown.evaluate("each => 'value' in each") else shown.locator("textarea")
    settles(lab.page, lambda: "float16" in text.input_value(), True)


SLOW = """
import numpy as np
z = np.load(%r)
x = explorer.open(%r, inputs={name: np.tile(z[name], (40,) + (1,) * (z[name].ndim - 1)) for name in z.files})
x"""


def test_a_run_can_be_cancelled_and_a_newer_click_cancels_an_older_run(open_notebook):
    lab = open_notebook(
        "slow.ipynb",
        "import explorer" + SLOW % (str(SAMPLES / "digits_transformer.npz"), str(SAMPLES / "digits_transformer.onnx")),
    )
    lab.current(WAIT_MS * 2)
    first, second = lab.layer("embed/Reshape"), lab.layer("embed/Add")
    lab.toggle(first)
    lab.root.get_by_role("button", name="Cancel").click()
    lab.until("return store.state.run.state === 'cancelled';")
    lab.shot("cancelled")
    lab.root.get_by_role("button", name="again").first.click()
    lab.current(WAIT_MS * 2)
    lab.toggle(first)  # back, which is known, and once more with another, which is not
    lab.current(WAIT_MS * 2)
    lab.toggle(second)
    lab.until("return store.state.run.state === 'running';")
    lab.toggle(first)
    lab.until("return store.state.revision === 4;")
    lab.current(WAIT_MS * 2)
    assert lab.kernel.value("dict(x.plan.overrides)") == {"embed/Reshape": "fp32", "embed/Add": "fp32"}
    told = lab.kernel.value("[str(v) for v in x.errors()['acc_sqnr_db']]")
    np.testing.assert_array_equal(lab.column("acc_sqnr_db"), np.array(told, "float64").astype("float32"))


GROUND = "getComputedStyle(document.querySelector('.pe-panel')).backgroundColor"


def test_themes(lab):
    def ground():
        return lab.page.evaluate(GROUND)

    def pixels():
        return lab.js("return graph.picture();")

    light, bright = pixels(), ground()
    try:
        lab.theme("Dark")
        lab.page.wait_for_function(f"was => {GROUND} !== was", arg=bright, timeout=SOON_MS)
        lab.until("return graph.picture() !== arg;", light)
        settles(lab.page, lambda: sum(map(int, ground().strip("rgba()").split(",")[:3])) < 150, True)
        painted(lab.page)
        lab.shot("dark")
    finally:
        lab.theme("Light")
    lab.page.wait_for_function(f"was => {GROUND} === was", arg=bright, timeout=SOON_MS)


def test_a_kernel_that_restarts(open_notebook):
    """The panel says that its kernel is gone, stays readable, changes nothing; its cell brings it back."""
    lab = open_notebook("restart.ipynb", OPEN + "x")
    lab.current()
    lab.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    lab.until("return store.source.readOnly;", timeout=WAIT_MS)
    lab.root.get_by_text("run the cell again").first.wait_for(timeout=SOON_MS)
    layer = lab.layer("embed/Add")
    lab.bring(layer)
    lab.click_badge(layer)
    lab.until("return store.notice?.text.includes('run the cell again');")
    painted(lab.page)  # the notice has taken a line of the graph
    assert lab.formats()[layer] == "fp16"
    lab.shot("gone")
    lab.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=WAIT_MS)
    lab.page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    lab.page.keyboard.press("Control+Enter")
    lab.page.wait_for_function(
        "() => document.querySelector('.pe-panel')?.precisionExplorer?.store.source.readOnly === false",
        timeout=WAIT_MS,
    )
    lab.current(WAIT_MS)
    painted(lab.page)


def test_two_panels_and_the_notebook_follow_each_other(open_notebook, browser, server):
    lab = open_notebook("two.ipynb", OPEN + "x", "x")
    run_cell(lab.page, 1)
    lab.page.wait_for_function("document.querySelectorAll('.pe-panel').length === 2", timeout=WAIT_MS)
    other = PanelPage(lab.page, lab.kernel, nth=1)
    lab.current()
    other.current()
    lab.toggle(lab.layer("embed/Add"))
    other.until("return store.formatOf(arg) === 'fp32';", other.layer("embed/Add"))
    lab.kernel.run("x.plan = x.plan.block(op_types=['Softmax'])")
    for each in (lab, other):
        each.until("return store.state.ops.find(({ op }) => op === 'Softmax').blocked;")
        each.current()
    lab.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    lab.page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=WAIT_MS)
    lab.page.close()
    page = in_lab(browser, server, "two.ipynb", query="&reset")
    page.wait_for_selector(".pe-panel", timeout=WAIT_MS)
    lab = PanelPage(page)
    lab.current(WAIT_MS)
    assert lab.state["plan"]["layers"] == {"embed/Add": "fp32"}
    assert lab.state["undo"] == 2
    page.close()


def test_the_picture_stays_in_a_saved_notebook(open_notebook, browser, server, watch):
    lab = open_notebook("saved.ipynb", OPEN + "x")
    lab.current()
    lab.page.wait_for_function(
        "document.querySelector('.jp-OutputArea img')?.src.startsWith('data:image/png')", timeout=WAIT_MS
    )
    lab.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    deadline = time.monotonic() + 30
    while "data:image/png" not in (server.root / "saved.ipynb").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        lab.page.wait_for_timeout(100)
    lab.kernel.close()
    lab.page.close()
    server.end_kernels()
    page = in_lab(browser, server, "saved.ipynb", idle=False, query="&reset", watch=watch)
    picture = page.locator(".jp-OutputArea img")
    picture.wait_for(timeout=WAIT_MS)
    settles(page, lambda: picture.evaluate("each => each.naturalWidth") > 300, True)
    assert not page.get_by_text("Error displaying widget").is_visible()
    shoot(page, "saved")
    watch.trouble.clear()  # ipywidgets writes to the console that it has no model, which is so
    page.close()


HOSTILE = [
    "<img src=x onerror=window.pwned=1>", "</script><script>window.pwned=1</script>", "a\nb\r\tc", "__proto__",
    "\"quotes' `and` ${ticks}", "😀 \u202e right to left", "x" * 10_000, "{{ 7 * 7 }} %(name)s", "a/b/../c",
    "&lt;b&gt;",
]  # fmt: skip


def test_hostile_names_neither_break_nor_run_anything(open_notebook, server):
    nodes = [
        node("Exp" if at % 3 == 1 else "Relu", [f"v{at}"], [f"v{at + 1}"], name) for at, name in enumerate(HOSTILE)
    ]
    onnx.save(model(nodes, [value("v0")], [value(f"v{len(nodes)}")]), server.root / "hostile.onnx")
    lab = open_notebook("hostile.ipynb", "import explorer\nx = explorer.open('hostile.onnx')\nx")
    lab.current(WAIT_MS)
    painted(lab.page)
    for layer in range(len(HOSTILE)):
        lab.js("store.reveal(arg);", layer)
        lab.until("return store.focus === arg;", layer)
        lab.root.locator(".pe-i-layer h2").wait_for()
    for tab in ("Table", "Findings", "Export", "Layer"):
        lab.root.get_by_role("tab", name=tab).click()
    lab.toggle(1)
    lab.current()
    assert "fp32" in lab.kernel.value("list(x.plan.overrides.values())")
    assert lab.page.evaluate("window.pwned") is None
    width = lab.page.evaluate("""() => [...document.querySelectorAll('.pe-inspector *')]
        .every(each => each.getBoundingClientRect().width < 2000)""")
    assert width, "10,000 letters stay in their place"
    lab.shot("hostile")


def test_every_control_has_a_name_and_tabs_go_by_arrows(lab):
    nameless = lab.page.evaluate("""() =>
        [...document.querySelectorAll('.pe-panel :is(button, select, input)')]
            .filter(each => each.offsetParent)
            .filter(each => !(each.ariaLabel || each.title || each.textContent.trim() || each.labels?.length))
            .map(each => each.outerHTML)""")
    assert nameless == []
    lab.root.get_by_role("tab", name="Layer").focus()
    lab.press("ArrowRight")
    settles(lab.page, lambda: lab.root.get_by_role("tab", name="Table").get_attribute("aria-selected"), "true")
    lab.js("store.select([arg]);", lab.layer("embed/Add"))
    listed = lab.root.locator(".pe-graph-list [aria-selected=true]").first
    settles(lab.page, lambda: "Add" in (listed.get_attribute("aria-label") or listed.inner_text()), True)


@pytest.mark.parametrize("place", ["notebook", "voila"])
def test_elsewhere(browser, place, tmp_path):
    """The panel shows and toggles in Notebook 7 and under Voila."""
    pytest.importorskip(place, reason=f"{place} is not installed: pip install .[dev]")
    with served(tmp_path, app=("notebook" if place == "notebook" else "jupyterlab",)) as server:
        server.notebook("elsewhere.ipynb", [OPEN + "x"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        trouble = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        if place == "voila":
            page.goto(f"{server.url}/voila/render/elsewhere.ipynb?token={TOKEN}")
            page.wait_for_selector(".pe-panel", timeout=WAIT_MS)
        else:
            page.goto(f"{server.url}/notebooks/elsewhere.ipynb?token={TOKEN}")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", timeout=WAIT_MS)
            run_cell(page)
        kernel = server.newest_kernel()
        panel = PanelPage(page, kernel)
        panel.current(WAIT_MS)
        painted(page)
        panel.toggle(panel.layer("embed/Add"))
        panel.until("return store.state.revision === 1;")
        panel.current(WAIT_MS)
        assert kernel.value("dict(x.plan.overrides)") == {"embed/Add": "fp32"}
        if place == "voila" or os.environ.get("EXPLORER_SCREENSHOTS"):
            shoot(page, place)
        # Notebook 7 has a fault of its own where the settings folder is empty.
        assert [each for each in trouble if "reading 'schema'" not in each] == []
        kernel.close()
        page.close()
