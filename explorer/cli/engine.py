"""`export-engine`: a plan as a TensorRT engine, or what builds it on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from explorer.cli.analysis import LOAD
from explorer.cli.document import print_document
from explorer.cli.output import check_folder
from explorer.cli.progress import Stages
from explorer.cli.words import Facts, console, notes, show_written
from explorer.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.cli.engine_options import EngineOptions
    from explorer.cli.options import PlanOptions, SampleOptions
    from explorer.session import Exploration

__all__ = ["run_export_engine"]

_BUILD = "build the engine"


def run_export_engine(
    model: Path,
    out: Path,
    plan: PlanOptions,
    samples: SampleOptions,
    options: EngineOptions,
    *,
    command: str,
    as_json: bool,
) -> None:
    """Build the engine and write it, or write what builds it."""
    options.check()
    if out.suffix == ".onnx":
        raise ExportError(f"'{out}' names an ONNX model.", fix="Name the engine's file, such as model.engine.")
    if not options.recipe:
        from explorer.backends.tensorrt.versions import require_ready  # noqa: PLC0415

        require_ready(options.device)  # refuses now, not after the model was loaded and calibrated
    with Stages([LOAD, _BUILD]) as stages:
        with stages.stage(LOAD):
            check_folder(out.absolute().parent)
            x = samples.open(model, plan, command=command, progress=stages.report)
        with stages.stage(_BUILD):
            written = _write(x, out, options, stages)
    paths = {name: str(path) for name, path in written.items()}
    if as_json:
        document = {"written": paths, "recipe": options.recipe, "warnings": x.warnings(), "seconds": stages.seconds}
        print_document("export-engine", document)
        return
    screen = console()
    screen.print()
    done = "What builds the engine is written" if options.recipe else "The engine is built"
    screen.print(Text(f"✓ {done}", style="bold green"))
    if options.recipe:
        facts = Facts()
        facts.add("next", Text(f"sh {written['script'].name}", style="cyan"), "on the machine with TensorRT")
        screen.print(Padding(facts, (1, 0, 0, 2), expand=False))
    if warnings := x.warnings():
        screen.print()
        notes(warnings, screen)
    show_written(paths, screen, sum(stages.seconds.values()))


def _write(x: Exploration, out: Path, options: EngineOptions, stages: Stages) -> dict[str, Path]:
    from explorer.export.engine import export_engine, export_recipe  # noqa: PLC0415 - loads what builds engines

    if options.recipe:
        *models, script = export_recipe(x.results, x.plan, x.target, out, settings=options.settings())
        return {**dict(zip(("model", "weights"), models, strict=False)), "script": script}
    from explorer.results.engines import EngineRuns  # noqa: PLC0415

    runs = EngineRuns(
        x.results, device=options.device, settings=options.settings(), strong=not options.weak, obey=not options.prefer
    )
    report = stages.report

    def tell(phase: str, done: int, total: int) -> None:
        del phase  # TensorRT's phases nest, each with steps of its own
        report(_BUILD, done, total)

    engine, beside = export_engine(runs, x.model, x.plan, x.target, out, progress=tell)
    return {"engine": engine, "about": beside}
