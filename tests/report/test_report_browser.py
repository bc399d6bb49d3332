"""The report in a real browser, without a network."""

from __future__ import annotations

import os
import shutil

import pytest
from report_samples import HOSTILE, transformer

from explorer.report import write_report

pytestmark = pytest.mark.browser

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=found, args=FLAGS, env={**os.environ})
        yield running
        running.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report offline; fails the test for any message, failed script or request that leaves the page."""
    contexts, trouble = [], []

    def go(data, **settings):
        path = write_report(data, tmp_path / "report.html")
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
    assert page.locator("#layer-table tr.shown .name").get_attribute("data-row") == "149"
    assert page.evaluate("document.activeElement.dataset.row") == "149"
    assert page.locator("#layer-table tr.more").count() == 1


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
