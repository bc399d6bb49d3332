"""The panel in headless Chromium: the bundle that ships, on a page that plays the notebook."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from ui.judge import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Route

    from ui.scenes import Scene

__all__ = ["FLAGS", "chromium", "click", "first_paint", "moving", "plotly_moving"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STATIC = ROOT / "explorer" / "view" / "static"
PLOTLY = ROOT / "explorer" / "report" / "static" / "plotly-basic.min.js"
ORIGIN = "http://127.0.0.1:9"  # nothing listens there: every request is answered by this script
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWPORT = {"width": 1400, "height": 860}
HTML = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="panel.css">
<style>body { margin: 0 } #here { height: 720px }</style><div id="here"></div>
<script src="plotly.js"></script><script type="module" src="bench.js"></script>"""
LIMIT_MS = 120_000
EVENT_S = 0.008  # a mouse reports about 125 times a second
REACH = 0.3  # of the canvas's size: how far a drag goes from the middle
TURN_S = 1.0  # for a drag there and back
WHEEL_PX = 12


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser until the block ends."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("There is no Chromium here: install it (apt-get install chromium).")
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=found, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def _page(browser: Browser, scene: Scene) -> Iterator[Page]:
    files = {
        "/": ("text/html", HTML),
        "/bench.js": ("text/javascript", (HERE / "bench.js").read_text(encoding="utf-8")),
        "/panel.js": ("text/javascript", (STATIC / "panel.js").read_text(encoding="utf-8")),
        "/panel.css": ("text/css", (STATIC / "panel.css").read_text(encoding="utf-8")),
        "/plotly.js": ("text/javascript", PLOTLY.read_text(encoding="utf-8")),
        "/scene.json": ("application/json", scene.text),
    }

    def answer(route: Route) -> None:
        kind, text = files.get(route.request.url.removeprefix(ORIGIN), ("", None))
        if text is None:
            route.fulfill(status=404, body="")
        else:
            route.fulfill(content_type=f"{kind}; charset=utf-8", body=text)

    page = browser.new_page(viewport=VIEWPORT)
    page.set_default_timeout(LIMIT_MS)
    page.route("**/*", answer)
    page.goto(f"{ORIGIN}/")
    page.wait_for_function("window.ready === true")
    try:
        yield page
    finally:
        page.close()


def first_paint(browser: Browser, scene: Scene, rounds: int) -> dict[str, Any]:
    """Return the time from the bytes being there to the first frame with boxes; each in a fresh page."""
    found = []
    for _ in range(rounds):
        with _page(browser, scene) as page:
            found.append(page.evaluate("bench.mount('scene.json')"))
    if not all(each["drawn"] for each in found):
        raise SystemExit(f"{scene.name}: no box was painted.")
    return {
        "scene": scene.name,
        "layers": scene.layers,
        "paint": summary([each["ms"] for each in found]),
        "mount": summary([each["mount_ms"] for each in found]),
    }


def moving(browser: Browser, scene: Scene, seconds: float, *, unfolded: bool) -> list[dict[str, Any]]:
    """Return frame times while a mouse pans, and while its wheel zooms."""
    with _page(browser, scene) as page:
        page.evaluate("bench.mount('scene.json')")
        unfold = page.evaluate("bench.unfoldAll()") if unfolded else None
        time.sleep(2)  # the picture for the notebook is taken once things are still
        rows = _moved(page, seconds)
    told = {"scene": scene.name, "layers": scene.layers, "unfolded": unfolded, "unfold_ms": unfold}
    return [{**told, **row} for row in rows]


def plotly_moving(browser: Browser, scene: Scene, seconds: float) -> list[dict[str, Any]]:
    """Return the same of Plotly with the same boxes and edges."""
    with _page(browser, scene) as page:
        page.evaluate("bench.mount('scene.json')")
        page.evaluate("bench.unfoldAll()")
        told = page.evaluate("bench.plotly()")
        return [{"scene": scene.name, **told, **row} for row in _moved(page, seconds)]


def _moved(page: Page, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for gesture, drive in (("pan", _pan), ("zoom", _zoom)):
        area = page.evaluate("bench.canvas()")
        page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
        page.evaluate("bench.startFrames()")
        drive(page, area, seconds)
        found = page.evaluate("bench.stopFrames()")
        rows.append({"gesture": gesture, "frames": summary(found["deltas"]), "drawn": found["drawn"]})
    return rows


def _pan(page: Page, area: dict[str, float], seconds: float) -> None:
    """Drag the graph in circles, down and back."""
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    page.mouse.down()
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        turn = 2 * math.pi * now / TURN_S
        page.mouse.move(
            x + REACH * area["width"] * math.sin(turn) / 2, y - REACH * area["height"] * (1 - math.cos(turn)) / 2
        )
        time.sleep(EVENT_S)
    page.mouse.up()


def _zoom(page: Page, _area: dict[str, float], seconds: float) -> None:
    """Turn the wheel with ctrl, as a pinch on a touchpad does: out for a half of each second pair, then in."""
    page.keyboard.down("Control")
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        page.mouse.wheel(0, WHEEL_PX if now % (2 * TURN_S) < TURN_S else -WHEEL_PX)
        time.sleep(EVENT_S)
    page.keyboard.up("Control")


def click(browser: Browser, scene: Scene, rounds: int, *, unfolded: bool = False) -> dict[str, Any]:
    """Return the time from the press of the mouse on a badge to the frame with the new format."""
    times = []
    with _page(browser, scene) as page:
        page.evaluate("bench.mount('scene.json')")
        if unfolded:
            page.evaluate("bench.unfoldAll()")
        switchable = page.evaluate("bench.switchable()")
        for at in range(rounds):
            page.evaluate(f"bench.reveal({switchable[(at + 1) * len(switchable) // (rounds + 1)]})")
            time.sleep(1)  # the camera has glided there
            found = page.evaluate("bench.badge()")
            if not found:
                raise SystemExit(f"{scene.name}: no badge is in sight.")
            page.evaluate(f"bench.watchClick({found['layer']})")
            page.mouse.click(found["x"], found["y"])
            times.append(page.evaluate("bench.click")["ms"])
            time.sleep(1)  # the answer has come
    return {"scene": scene.name, "layers": scene.layers, "unfolded": unfolded, "repaint": summary(times)}
