"""The panel in JupyterLab: what it shows, and what pointer and keys do to the plan."""

import pytest
from lab_panel import cells, painted, settles, spaced

pytestmark = pytest.mark.browser

PAINTED = 30  # colours of a canvas with boxes, words and wires on it


def test_the_panel_shows_the_graph_and_the_figures_of_python(lab):
    painted(lab.page, PAINTED)
    db, right, before = lab.kernel.value(
        "[float(x.output_error()['sqnr_db'].min()), x.accuracy().plan, x.accuracy().exact]"
    )
    told = {
        "output_error": f"{db:.1f} dB".replace("-0.0", "0.0"),
        "metric": f"{before:.1%} → {right:.1%}".replace("%", " %"),
        "low_share": "100 %",
    }
    settles(lab.page, lambda: {figure: spaced(lab.card(figure)) for figure in told}, told)
    lab.figures_are_right()
    lab.shot("opened")


def test_a_click_selects_and_the_inspector_shows_the_layer(lab):
    layer = lab.layer("embed/Reshape")
    lab.bring(layer)
    lab.click_layer(layer)
    lab.until("return store.focus === arg && store.selection.size === 1;", layer)
    shown = lab.root.locator(".pe-i-layer")
    settles(lab.page, shown.locator("h2").inner_text, "Reshape")
    settles(lab.page, shown.locator(".pe-i-id").inner_text, "embed/Reshape")
    other = lab.layer("embed/Transpose")

    lab.page.keyboard.down("Shift")
    lab.click_layer(other)
    lab.page.keyboard.up("Shift")
    lab.until("return store.selection.size === 2;")
    lab.shot("selected")


def test_a_click_on_a_badge_toggles_at_once_and_the_figures_follow(lab):
    layer = lab.layer("blocks/0/norm1/Pow")
    lab.bring(layer)
    lab.js(
        """panel.seen = [];
        store.on('data', () => panel.seen.push([store.formatOf(arg), store.stale, store.state.revision]));""",
        layer,
    )
    revision = lab.state["revision"]
    lab.click_badge(layer)
    lab.until("return panel.seen.length > 0;")
    assert lab.js("return panel.seen[0];") == ["fp32", True, revision], (
        "shown before Python has answered, errors greyed"
    )
    lab.until("return store.state.revision > arg;", revision)
    lab.figures_are_right()
    assert lab.formats()[layer] == "fp32"
    assert lab.kernel.value("dict(x.plan.overrides)") == {"blocks/0/norm1/Pow": "fp32"}
    call = lab.root.locator(".pe-notice-code").inner_text()
    lab.kernel.run("kept = x\nx = explorer.open(kept.model.path, inputs=kept.samples.name)")
    lab.kernel.run(f"{call}\nsame = x.plan == kept.plan\nx = kept")
    assert lab.kernel.value("same")
    lab.shot("toggled")


def test_a_box_selects_and_space_toggles_all_in_it(lab):
    first, last = lab.layer("embed/Reshape"), lab.layer("embed/Add")
    lab.bring(first)
    a, b = (lab.js("return graph.rectOf(arg);", layer) for layer in (first, last))
    lab.page.keyboard.down("Shift")
    lab.page.mouse.move(a["x"] - 30, a["y"] - 6)
    lab.page.mouse.down()
    lab.page.mouse.move(b["x"] + 40, b["y"] + 10, steps=4)
    lab.shot("box")
    lab.page.mouse.up()
    lab.page.keyboard.up("Shift")
    lab.until("return store.selection.size === 3;")
    lab.press("Space")
    lab.until(
        "return arg.every((layer) => store.figures.formats[store.figures.format[layer]] === 'fp32');", [first, last]
    )
    lab.figures_are_right()
    assert set(lab.formats()[first : last + 1]) == {"fp32"}
    lab.press("Space")
    lab.current()
    lab.until("return store.runsLow(arg);", first)


def test_keys_walk_the_graph_and_change_the_plan(lab):
    conv = lab.layer("embed/project/Conv")
    lab.bring(conv)
    lab.click_layer(conv)
    lab.press("ArrowDown")
    lab.until("return store.focus === arg;", lab.layer("embed/Reshape"))
    lab.press("b")
    lab.until("return store.figures.blacklisted[arg] === 1;", lab.layer("embed/Reshape"))
    lab.press("ArrowUp", "Space")
    lab.until("return store.figures.formats[store.figures.format[arg]] === 'fp32';", conv)
    lab.press("?")
    lab.root.get_by_role("dialog", name="Keys of the graph").wait_for()
    lab.shot("keys")
    lab.press("Escape")
    lab.root.locator(".pe-graph-cover").wait_for(state="hidden")
    lab.press("Escape")
    lab.until("return store.selection.size === 0;")
    lab.figures_are_right()


def test_no_key_in_the_panel_changes_the_notebook(lab):
    lab.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1")  # the panel's is not active
    before = cells(lab.page)
    conv = lab.layer("embed/project/Conv")
    keys = [
        "a",
        "b",
        "d",
        "d",
        "x",
        "c",
        "v",
        "m",
        "y",
        "r",
        "1",
        "Enter",
        "Shift+Enter",
        "Control+Enter",
        "Alt+Enter",
        "z",
        "0",
        "0",
        "i",
        "i",
        "Shift+M",
        "j",
        "k",
        "Shift+L",
        "h",
        "Delete",
    ]
    places = [
        lambda: (lab.bring(conv), lab.click_layer(conv)),
        lab.root.get_by_role("tab", name="Layer").focus,
        lab.root.locator(".pe-card").first.focus,
        lab.root.locator(".pe-inspector h2").first.click,  # plain words
        lab.root.locator(".pe-bar-select").first.focus,
    ]
    for place in places:
        place()
        for key in keys:
            lab.press(key)
            if lab.page.locator(".jp-Dialog").count():
                pytest.fail(f"{key} asks the notebook for something")
    assert cells(lab.page) == before


def test_undo_and_redo_by_buttons_and_keys(lab):
    layer = lab.layer("embed/Reshape")
    undo, redo = (lab.root.locator(".pe-bar-history button").nth(at) for at in (0, 1))
    settles(lab.page, undo.is_disabled, True)
    lab.toggle(layer)
    lab.until("return store.state.undo === 1;")
    undo.click()
    lab.until("return store.state.redo === 1 && store.runsLow(arg);", layer)
    redo.click()
    lab.until("return store.state.undo === 1 && !store.runsLow(arg);", layer)
    lab.focus()
    lab.press("Control+z")
    lab.until("return store.state.redo === 1 && store.runsLow(arg);", layer)
    lab.press("Control+Shift+z")
    lab.until("return store.state.undo === 1 && !store.runsLow(arg);", layer)
    lab.press("Control+z")
    lab.until("return store.state.undo === 0;")
    lab.current()  # what the run says comes in the same place
    lab.press("Control+z")
    lab.until("return store.notice.text === 'Nothing to undo.';")
    lab.figures_are_right()
    assert lab.kernel.value("not x.plan.overrides")


def test_search_finds_and_jumps(lab):
    lab.focus()
    lab.press("/")
    lab.page.keyboard.type("norm2 pow")
    lab.root.locator(".pe-graph-found li").first.wait_for()
    settles(lab.page, lab.root.locator(".pe-graph-found li b").all_inner_texts, ["Pow"] * 2)
    lab.shot("search")
    lab.press("ArrowDown", "Enter")
    lab.until("return store.focus === arg;", lab.layer("blocks/1/norm2/Pow"))
    lab.press("Escape")
    lab.until("return store.selection.size === 0;")
    settles(lab.page, lab.root.get_by_label("Search layers by name").input_value, "")


def test_scopes_fold_by_double_click_and_enter(lab):
    layer = lab.layer("embed/Reshape")
    lab.bring(layer)
    group = lab.js("return store.model.groupOf(arg);", layer)
    frame = lab.js("return graph.rectOfGroup(arg);", group)
    lab.page.mouse.dblclick(frame["x"] + 60, frame["y"] + 12)
    lab.until("return !store.open.has(arg);", group)
    lab.until("return graph.rectOf(arg) === null;", layer)
    lab.shot("folded")
    lab.focus()
    lab.press("Enter")
    lab.until("return store.open.has(arg);", group)
    lab.until("return graph.rectOf(arg) !== null;", layer)


def test_the_bar_blocks_op_types(lab):
    lab.root.locator(".pe-ops-open").click()
    lab.root.get_by_label("Filter op types").fill("Pow")
    lab.root.locator(".pe-ops-option", has_text="Pow").click()
    lab.until("return store.state.ops.find((op) => op.op === 'Pow').blocked;")
    lab.shot("ops")
    lab.press("Escape")
    settles(lab.page, lab.root.locator(".pe-ops-open").inner_text, "Pow")
    lab.figures_are_right()
    assert lab.kernel.value("[f for f, op in zip(x.errors().format, x.errors().op) if op == 'Pow']") == ["fp32"] * 5


@pytest.mark.parametrize("preset", ["safe", "fp32"])
def test_the_bar_chooses_a_preset(lab, preset):
    lab.choose("Preset", value=preset)
    lab.until("return store.state.preset === arg;", preset)
    lab.figures_are_right()
    assert lab.kernel.value(f"x.plan == explorer.Plan.preset({preset!r})")


def test_the_bar_chooses_format_backend_and_io_types(lab):
    lab.choose("Format", value="bf16")
    lab.until("return store.state.format === 'bf16';")
    lab.figures_are_right()
    assert lab.kernel.value("x.plan.format") == "bf16"
    lab.shot("bf16")
    lab.choose("Format", value="fp16")
    lab.root.get_by_role("checkbox").uncheck()
    lab.until("return !store.state.keep_io && store.state.format === 'fp16';")
    assert lab.kernel.value("x.plan.keep_io") is False
    lab.choose("Backend", value="")
    lab.until("return store.state.target === '';")
    lab.figures_are_right()
    assert lab.kernel.value("x.target") is None
