"""The report in a real browser, without a network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from report_samples import HOSTILE, transformer
from scene_samples import with_graph

import explorer
from explorer.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report offline; fails the test for any message, failed script or request that leaves the page."""
    contexts, trouble = [], []

    def go(data, **settings):
        path = data if isinstance(data, Path) else write_report(data, tmp_path / "report.html")
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, "offline": True, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


def names(page):
    return page.eval_on_selector_all("#layer-table .name", "nodes => nodes.map(node => node.title)")


def column(page, label):
    heads = page.locator("#layer-table thead button").all_inner_texts()
    index = next(i for i, words in enumerate(heads) if words.replace("\n", " ").startswith(label))
    return page.locator(f"#layer-table tbody tr > :nth-child({index + 1})").all_inner_texts()


def eventually(page, expression, seconds=60):
    """Waits until an expression holds; Playwright's own waiting needs eval, which the page forbids."""
    for _ in range(seconds * 20):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def rows_shown(page, number):
    eventually(page, f"document.querySelectorAll('#layer-table .name').length === {number}")


def draw_all(page):
    for plot in page.query_selector_all(".plot"):
        plot.scroll_into_view_if_needed()
    eventually(page, "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn)")


def test_the_page_opens_at_its_top(visit):
    """The graph in it takes its place without moving the page to itself."""
    page = visit(with_graph(60), viewport={"width": 1280, "height": 400})
    page.locator(".pe-panel").wait_for()
    page.wait_for_timeout(500)  # a page that moves does so smoothly
    assert page.evaluate("scrollY") == 0


def test_charts_are_drawn_when_they_come_into_view(visit):
    page = visit(transformer())
    assert not page.get_attribute("#plot-latency-0", "data-drawn")
    draw_all(page)
    assert page.locator("#plot-errors .scatterlayer .trace").count() >= 4
    assert page.locator("#plot-ranges .shapelayer path, #plot-ranges .layer-below path").count() >= 4
    assert page.locator("#plot-latency-0 .bars .point").count() >= 20
    assert page.locator("[data-title*=loud]").count() == 0  # plotly offers to send the data to its makers' server


def test_charts_follow_the_theme_of_the_reader(visit):
    page = visit(transformer(40), color_scheme="dark")
    draw_all(page)
    assert page.get_attribute("#plot-errors", "data-drawn") == "dark"
    page.emulate_media(color_scheme="light")
    page.wait_for_selector('#plot-errors[data-drawn="light"]')


def test_a_click_on_a_chart_leads_to_the_row_of_the_layer(visit):
    page = visit(transformer(215))
    page.fill("#filter-text", "Softmax")
    draw_all(page)
    page.locator("#plot-errors").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('plot-errors').emit('plotly_click', {points: [{x: 150}]})")
    eventually(page, "document.querySelector('#layer-table tr.shown .name')?.dataset.row === '149'")
    eventually(page, "document.activeElement.dataset.row === '149'")
    eventually(page, "document.querySelectorAll('#layer-table tr.more').length === 1")


def test_the_table_sorts_by_a_column_both_ways_with_the_worst_first(visit):
    data = transformer()
    page = visit(data)
    assert names(page) == data.errors["name"].tolist()[:100]
    head = page.locator('#layer-table th[data-key="local"]')
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    first = column(page, "local SQNR")
    assert first[0] == "not finite"
    finite = [float(words.removesuffix(" dB")) for words in first if words.endswith("dB")]
    assert finite == sorted(finite)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "local SQNR")[0] == "exact"
    page.locator('#layer-table th[data-key="overflow"] button').click()
    counts = [int(words.replace(",", "")) for words in column(page, "overflow")]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == data.errors["overflow"].max()


def test_the_table_filters_by_words_and_kinds(visit):
    data = transformer()
    page = visit(data)
    page.fill("#filter-text", "LAYER.3/attention")
    expected = [name for name in data.errors["name"] if "layer.3/attention" in name]
    rows_shown(page, len(expected))
    assert names(page) == expected
    assert page.inner_text("#table-status") == f"{len(expected)} of 215 layers"
    page.click("button[type=reset]")
    rows_shown(page, 100)
    page.select_option("#filter-op", "Softmax")
    page.select_option("#filter-format", "fp32")
    rows_shown(page, ((data.errors["op"] == "Softmax") & (data.errors["format"] == "fp32")).sum())
    assert set(column(page, "op")) == {"Softmax"}
    page.click("button[type=reset]")
    page.select_option("#filter-state", "alone")
    rows_shown(page, (data.errors["overflow"] > 0).sum())


def test_the_table_works_from_the_keyboard(visit):
    page = visit(transformer(30))
    page.locator('#layer-table th[data-key="name"] button').focus()
    page.keyboard.press("Enter")
    assert page.locator('#layer-table th[data-key="name"]').get_attribute("aria-sort") == "ascending"
    assert names(page) == sorted(names(page), key=str.lower)
    page.locator("#layer-table .name").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#layer-table .name").first.get_attribute("aria-expanded") == "true"
    assert "Why this format" in page.inner_text("#layer-table tr.more")
    page.keyboard.press("Enter")
    assert page.locator("#layer-table tr.more").count() == 0


def test_ten_thousand_layers_stay_quick(visit):
    page = visit(transformer(10_000))
    assert page.locator("#layer-table tbody tr").count() == 100
    took = page.evaluate("""() => {
        const start = performance.now();
        document.querySelector('#layer-table th[data-key="local"] button').click();
        return performance.now() - start;
    }""")
    assert took < 1000  # milliseconds; tens of them on an idle machine
    page.click("#page-last")
    assert page.inner_text("#page-now") == "Page 100 of 100"
    assert page.is_disabled("#page-next")


def test_hostile_names_do_not_run(visit):
    page = visit(transformer(60, names=HOSTILE, title=HOSTILE[1], warnings=list(HOSTILE)))
    draw_all(page)
    for row in range(len(HOSTILE)):
        page.locator(f'#layer-table button[data-row="{row}"]').click()
    page.locator("#plot-errors .nsewdrag").hover(position={"x": 30, "y": 100})
    assert page.evaluate("window.hacked") is None
    assert (
        page.locator("#layer-table").evaluate("node => node.querySelectorAll('script, img, a, [onerror]').length") == 0
    )
    assert names(page)[0] == HOSTILE[0]
    assert page.locator("#layer-table tr.more dd").first.inner_text() == HOSTILE[0]


def test_fits_a_phone_without_scrolling_sideways(visit):
    page = visit(transformer(60, names=HOSTILE), viewport={"width": 400, "height": 800})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_prints_all_charts_in_light_colours(visit):
    page = visit(transformer(40), color_scheme="dark")
    assert page.pdf(format="A4")[:4] == b"%PDF"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    eventually(page, "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn === 'light')")


# -- the graph ---------------------------------------------------------------------------------------------------------

COLOURS = """canvas => {
    const { width, height } = canvas;
    const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer);
    return new Set(pixels).size;
}"""
DRAWN = 30  # colours of a canvas with boxes, text and edges on it; a blank one has one


def graph_drawn(page):
    eventually(page, "document.querySelector('#pe-root .pe-graph canvas') !== null")
    eventually(page, f"({COLOURS})(document.querySelector('#pe-root .pe-graph canvas')) > {DRAWN}")


def show(page, row):
    page.evaluate("row => document.dispatchEvent(new CustomEvent('show-layer', { detail: row }))", row)


def in_layer_tab(page, words):
    eventually(page, f"document.querySelector('#pe-root .pe-inspector').textContent.includes({json.dumps(words)})")


def test_graph_charts_and_table_are_shown_offline(visit):
    page = visit(with_graph(215))
    graph_drawn(page)
    draw_all(page)
    assert page.locator("#layer-table .name").count() == 100
    assert page.locator("#pe-root [role=tab]").all_inner_texts() == ["Layer"]


def test_a_real_models_report_shows_its_graph(visit, tmp_path):
    samples = Path(__file__).parents[2] / "sample_models"
    x = explorer.open(samples / "lenet5_digits.onnx", inputs=samples / "lenet5_digits.npz")
    page = visit(x.report(tmp_path / "real.html"))
    graph_drawn(page)
    show(page, 0)
    in_layer_tab(page, x.model.layers[0].id)
    eventually(page, "document.querySelector('#pe-root .pe-inspector .main-svg') !== null")  # its histogram


def test_the_layer_of_a_chart_or_a_row_is_shown_in_the_graph(visit):
    data = with_graph(60)
    page = visit(data)
    graph_drawn(page)
    page.locator('#layer-table button[data-row="7"]').click()
    page.get_by_text("Show in the graph").click()
    in_layer_tab(page, data.errors["name"][7])
    draw_all(page)
    page.evaluate("document.getElementById('plot-errors').emit('plotly_click', {points: [{x: 20}]})")
    in_layer_tab(page, data.errors["name"][19])


def test_selecting_in_the_graph_scrolls_nothing(visit):
    page = visit(with_graph(60))
    graph_drawn(page)
    page.locator("#graph").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    before = page.evaluate("scrollY")
    page.locator("#pe-root .pe-graph canvas").first.click(position={"x": 250, "y": 200})
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") == before


def test_nothing_can_be_changed_and_the_graph_says_why(visit):
    page = visit(with_graph(60))
    graph_drawn(page)
    show(page, 5)
    page.locator("#pe-root .pe-graph-list").focus()
    page.keyboard.press("Space")
    eventually(page, "document.querySelector('#pe-root .pe-notice').textContent.includes('This is a report')")


def test_the_graph_fills_the_screen_and_comes_back(visit):
    page = visit(with_graph(60))
    graph_drawn(page)
    page.click(".pe-full-button")
    eventually(page, "document.querySelector('#pe-root').getBoundingClientRect().height === innerHeight")
    page.locator("#pe-root .pe-card").first.wait_for()
    page.click(".pe-full-button")
    eventually(page, "document.querySelector('#pe-root').getBoundingClientRect().height < innerHeight")


def test_hostile_names_do_not_run_in_the_graph(visit):
    page = visit(with_graph(60, names=HOSTILE, title=HOSTILE[1], warnings=list(HOSTILE)))
    graph_drawn(page)
    for row in range(len(HOSTILE)):
        show(page, row)
        page.wait_for_timeout(60)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('#pe-root :is(script, a, img:not(.pe-picture))').length") == 0


def test_the_graph_of_ten_thousand_layers_opens_in_time(visit):
    start = time.perf_counter()
    page = visit(with_graph(10_000, detailed=False))
    graph_drawn(page)
    assert time.perf_counter() - start < 60  # seconds, with making the sample; about 5 on an idle machine
    draw_all(page)


def test_on_paper_a_picture_takes_the_place_of_the_graph(visit):
    page = visit(with_graph(60), color_scheme="dark")
    graph_drawn(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.locator(".pe-picture").wait_for()
    page.locator("#pe-root .pe-panel").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_graph_fits_a_phone(visit, scheme):
    page = visit(with_graph(60, names=HOSTILE), viewport={"width": 400, "height": 800}, color_scheme=scheme)
    graph_drawn(page)
    show(page, 12)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_report_says_what_is_missing(browser, tmp_path):
    path = write_report(with_graph(20), tmp_path / "report.html")
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "The graph needs JavaScript" in page.content()
    assert page.locator("#story-title").is_visible()
    context.close()
