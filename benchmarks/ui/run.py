"""How fast the panel is, in headless Chromium on this machine: first paint, pan and zoom, clicks.

    python benchmarks/ui/run.py --out benchmarks/results/ui.json --write-docs docs/benchmarks_ui.md   # 5 minutes
    python benchmarks/ui/run.py --quick                                                               # 2 minutes
    python benchmarks/ui/run.py --from benchmarks/results/ui.json --write-docs docs/benchmarks_ui.md  # only the page

It takes the bundle that is built into explorer/view/static. The models come from
`python sample_models/make.py resnet50 bert_base unet_3000`; what is absent is skipped, and the record says so. Nothing
else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.environment import describe_machine, source_digest

from ui.browser import STATIC, chromium, click, first_paint, moving, plotly_moving
from ui.judge import target
from ui.lab import in_the_lab
from ui.page import render
from ui.scenes import LARGE, Scene, large_scene, scene_of

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "sample_models"
PAINT_MS = {"resnet50": 500, "unet_3000": 1000, LARGE: 1500}  # issue 3, section Speed; so are the next three lines
FRAME_MS, FRAME_P95_MS = 17, 34
REPAINT_MS = 100
OVER_MS = 150
IN_THE_LAB = ("digits_transformer", "resnet50", "bert_base")


def main() -> None:
    options = _options()
    record = json.loads(options.record.read_text(encoding="utf-8")) if options.record else measure(quick=options.quick)
    if not options.record:
        _write(options.out, json.dumps(record, indent=1) + "\n")
    if options.write_docs:
        _write(options.write_docs, render(record))
    for each in record["targets"]:
        print("met   " if each["met"] else "MISSED", f"{each['what']}: {each['value_ms']} ms of {each['limit_ms']}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "ui.json", help="the record")
    parser.add_argument("--write-docs", type=Path, help="write this page too")
    parser.add_argument("--from", dest="record", type=Path, help="measure nothing, take this record")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to try the script")
    return parser.parse_args()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure everything and return the record."""
    rounds, seconds = (2, 2.0) if quick else (7, 6.0)
    before, skipped = os.getloadavg()[0], []
    record: dict[str, Any] = {
        "quick": quick,
        "command": " ".join(["python", "benchmarks/ui/run.py", *_shown_arguments()]),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "source": source_digest(),
        "front_end": hashlib.sha256((STATIC / "panel.js").read_bytes()).hexdigest()[:10],
        "machine": describe_machine(),
        "skipped": skipped,
    }
    scenes = _scenes(skipped)
    large = scenes[-1]
    with chromium() as browser:
        record["browser"] = browser.version
        record["first_paint"] = [_said(first_paint(browser, scene, rounds)) for scene in scenes]
        record["moving"] = [
            _said(row) for unfolded in (False, True) for row in moving(browser, large, seconds, unfolded=unfolded)
        ]
        record["plotly"] = [_said(row) for row in plotly_moving(browser, large, seconds)]
        record["click"] = [_said(click(browser, scene, rounds)) for scene in scenes]
        record["click"].append(_said(click(browser, large, rounds, unfolded=True)))
        found = [(name, _files(name)) for name in IN_THE_LAB]
        record["lab"] = [_said(in_the_lab(browser, name, *files, rounds)) for name, files in found if files]
    skipped += [f"{name} in JupyterLab, for its file is absent." for name, files in found if not files]
    record["load"] = {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)}
    record["targets"] = targets(record)
    return record


def _scenes(skipped: list[str]) -> list[Scene]:
    scenes = []
    for name in ("resnet50", "unet_3000"):
        if files := _files(name):
            scenes.append(scene_of(name, *files))
        else:
            skipped.append(f"{name}, for its file is absent: python sample_models/make.py {name}.")
    return [*scenes, large_scene()]


def _files(name: str) -> tuple[Path, Path] | None:
    for folder in (SAMPLES, SAMPLES / "generated"):
        model = folder / f"{name}.onnx"
        if model.exists():
            return model, model.with_suffix(".npz")
    return None


def _said(row: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(row), flush=True)
    return row


def _shown_arguments() -> list[str]:
    """Return this run's arguments without folders of this machine."""
    return [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]


def targets(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the targets of a record, each with its figure and the ratio."""
    painted = {row["scene"]: row["paint"]["median"] for row in record["first_paint"]}
    found = [target(f"first paint of {name}", painted.get(name), limit) for name, limit in PAINT_MS.items()]
    for row in record["moving"]:
        what = f"{row['gesture']} with 10,000 layers, {'all unfolded' if row['unfolded'] else 'as it opens'}"
        found.append(target(f"{what}: median frame", row["frames"]["median"], FRAME_MS))
        found.append(target(f"{what}: 95th percentile", row["frames"]["p95"], FRAME_P95_MS))
    for row in record["click"]:
        what = f"click to repaint, {row['scene']}{', all unfolded' if row['unfolded'] else ''}"
        found.append(target(what, row["repaint"]["median"], REPAINT_MS))
    over = {row["model"]: row["over"]["median"] for row in record["lab"]}
    what = "click to new figures, less the emulator"
    found += [target(f"{what}: {name}", over.get(name), OVER_MS) for name in IN_THE_LAB]
    return found


if __name__ == "__main__":
    main()
