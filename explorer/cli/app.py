"""The commands and their options; what they do is in the module of each, imported when it runs.

There is no ``from __future__ import annotations`` here: typer reads the annotations when the module loads.
"""

from pathlib import Path
from typing import Annotated

import typer

from explorer import __version__
from explorer.cli.budget import BudgetOptions
from explorer.cli.engine_options import EngineOptions, TimingOptions
from explorer.cli.group import PROGRAM, Commands, shell_command, spread
from explorer.cli.options import JsonOption, ModelArgument, OutOption, PlanOptions, SampleOptions, TopOption
from explorer.cli.profile_options import ProfileOptions

__all__ = ["app"]

_RUNS = 30  # explorer.backends.onnxruntime_cpu.DEFAULT_RUNS, which `--help` must not import
_TOP = 10

_EXAMPLES = """[dim]Examples[/dim]

[cyan]precision-explorer explore model.onnx --inputs data.npz --gpu-model H100[/cyan]

[cyan]precision-explorer explore model.onnx --inputs data.npz --block-op Softmax --block 'encoder/*/norm*'[/cyan]

[cyan]precision-explorer search model.onnx --inputs data.npz --max-error 1e-3 --gpu-model H100[/cyan]

[cyan]precision-explorer inspect model.onnx --match '*norm*/Pow'[/cyan]

[cyan]precision-explorer convert model.onnx model.fp16.onnx --plan out/plan.json[/cyan]

[dim]Exit codes: 0 done, 2 what was given cannot be used (stderr says why), 130 interrupted.[/dim]"""

_EXPLORE = """[dim]Examples[/dim]

[cyan]precision-explorer explore model.onnx --inputs data.npz[/cyan]

[cyan]precision-explorer explore model.onnx --dim seq=128 --gpu-model H100 --out out/bert[/cyan]

[cyan]precision-explorer explore model.onnx --inputs data.npz --preset safe --allow-op Softmax[/cyan]"""

_CONVERT = """[dim]Examples[/dim]

[cyan]precision-explorer convert model.onnx model.fp16.onnx --block-op Softmax[/cyan]

[cyan]precision-explorer convert model.onnx model.bf16.onnx --format bf16 --no-keep-io[/cyan]

[cyan]precision-explorer convert model.onnx model.int8.onnx --format int8 --calibrate-on train.npz[/cyan]"""

_SEARCH = """[dim]Examples[/dim]

[cyan]precision-explorer search model.onnx --inputs data.npz --gpu-model H100[/cyan]

[cyan]precision-explorer search model.onnx --inputs data.npz --max-error 1e-3 --out out/best[/cyan]

[cyan]precision-explorer search model.onnx --inputs data.npz --metric top1 --max-drop 0.005[/cyan]"""

_ENGINE = """[dim]Examples[/dim]

[cyan]precision-explorer export-engine model.onnx --inputs data.npz --plan plan.json --out model.engine[/cyan]

[cyan]precision-explorer export-engine model.onnx --inputs data.npz --recipe --out model.engine[/cyan]"""

_IMPORT = """[dim]Examples[/dim]

[cyan]precision-explorer import-profile model.onnx --layers layers.json --profile profile.json --device A100[/cyan]

[cyan]precision-explorer import-profile model.onnx --layers l.json --profile p.json --plan plan.json[/cyan]"""

_INSPECT = """[dim]Examples[/dim]

[cyan]precision-explorer inspect model.onnx --ops[/cyan]

[cyan]precision-explorer inspect model.onnx --match '*attention*/Softmax'[/cyan]"""

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a defect of ours shows Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXAMPLES,
)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _takes_default(ctx: typer.Context, parameter: str) -> bool:
    """Return whether an option was left out."""
    source = ctx.get_parameter_source(parameter)
    return source is None or source.name == "DEFAULT"


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """See what half precision does to every layer of an ONNX model, and export the mixed-precision model that holds."""
    del version


@app.command(epilog=_EXPLORE)
@spread
def explore(
    *,
    ctx: typer.Context,
    model: ModelArgument,
    plan: PlanOptions,
    samples: SampleOptions,
    out: OutOption = Path("out"),
    top: TopOption = _TOP,
    as_json: JsonOption = False,
) -> None:
    """Measure the error and latency of every layer, and write the mixed-precision model, plan, table and report.

    Errors are emulated: exact storage rounding, fp32 arithmetic. The CPU is timed in fp32 only: it does not compute in
    fp16. With --gpu-model both are predicted for that GPU.
    """
    from explorer.cli.explore import run_explore  # noqa: PLC0415 - `--help` imports no runtime

    command = shell_command(ctx)
    run_explore(model, out, plan, samples, command=command, runs=_RUNS, top=top, as_json=as_json)


@app.command(epilog=_SEARCH)
@spread
def search(
    *,
    ctx: typer.Context,
    model: ModelArgument,
    plan: PlanOptions,
    samples: SampleOptions,
    budget: BudgetOptions,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Find the best plans: the least latency for every output error; with a budget, export the one that keeps it.

    The blacklist that the options give is kept; all other layers are chosen. Latency is predicted for --gpu-model (by
    default the GPU that is here, else an H100). Every plan that is shown was run (emulated).
    """
    from explorer.cli.search import run_search  # noqa: PLC0415

    run_search(model, out, plan, samples, budget, command=shell_command(ctx), as_json=as_json)


@app.command(epilog=_CONVERT)
@spread
def convert(
    *,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The ONNX model; it is never modified.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The file to write.")],
    plan: PlanOptions,
    top: TopOption = _TOP,
    as_json: JsonOption = False,
) -> None:
    """Write the mixed-precision model, checked, and tell why each layer runs in its format."""
    from explorer.cli.convert import run_convert  # noqa: PLC0415

    run_convert(source, target, plan, top=top, as_json=as_json)


@app.command()
@spread
def measure(
    *,
    ctx: typer.Context,
    model: ModelArgument,
    plan: PlanOptions,
    samples: SampleOptions,
    timing: TimingOptions,
    runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs to take medians of.", rich_help_panel="Samples and latency")
    ] = _RUNS,
    top: TopOption = _TOP,
    as_json: JsonOption = False,
) -> None:
    """Measure errors and latency of every layer, without writing anything.

    With --on, only the latency of the plan is measured, for real, on that backend.
    """
    command = shell_command(ctx)
    if timing.on is not None:
        from explorer.cli.timing import run_timing  # noqa: PLC0415

        if _takes_default(ctx, "backend"):
            plan = plan.for_backend(str(timing.on))
        run_timing(model, plan, samples, timing, command=command, runs=runs, top=top, as_json=as_json)
        return
    from explorer.cli.explore import run_measure  # noqa: PLC0415

    run_measure(model, plan, samples, command=command, runs=runs, top=top, as_json=as_json)


@app.command("export-engine", epilog=_ENGINE)
@spread
def export_engine(
    *,
    ctx: typer.Context,
    model: ModelArgument,
    plan: PlanOptions,
    samples: SampleOptions,
    options: EngineOptions,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The engine's file.")] = Path("model.engine"),
    as_json: JsonOption = False,
) -> None:
    """Build the plan's TensorRT engine and write it, with what it came from beside it; or what builds it elsewhere.

    An engine runs only with the version of TensorRT and on the kind of GPU that built it; --recipe needs neither here.
    """
    from explorer.cli.engine import run_export_engine  # noqa: PLC0415

    if _takes_default(ctx, "backend"):
        plan = plan.for_backend("tensorrt")
    run_export_engine(model, out, plan, samples, options, command=shell_command(ctx), as_json=as_json)


@app.command("import-profile", epilog=_IMPORT)
@spread
def import_profile(
    *,
    ctx: typer.Context,
    model: ModelArgument,
    plan: PlanOptions,
    samples: SampleOptions,
    files: ProfileOptions,
    out: OutOption = Path("out"),
    top: TopOption = _TOP,
    as_json: JsonOption = False,
) -> None:
    """Put the latencies that trtexec measured on another machine on the model's graph; no GPU is needed here.

    Shows the time of every layer, the kernels, and where TensorRT ran another format than was asked for; writes the
    table and the report. Without a plan, the formats that ran are taken for it.
    """
    from explorer.cli.import_profile import run_import_profile  # noqa: PLC0415

    if _takes_default(ctx, "backend"):
        plan = plan.for_backend("tensorrt")
    run_import_profile(model, out, plan, samples, files, command=shell_command(ctx), top=top, as_json=as_json)


@app.command(epilog=_INSPECT)
def inspect(
    *,
    model: ModelArgument,
    match: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Only layers that --block with this name or glob would take.")
    ] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Operator types only, no list of layers.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a model's inputs, outputs, operators and scopes, and the id of every layer."""
    from explorer.cli.inspect import run_inspect  # noqa: PLC0415

    run_inspect(model, match=match, ops_only=ops, as_json=as_json)


@app.command()
def backends(*, as_json: JsonOption = False) -> None:
    """Show which backends are ready, what the others lack, and how to get it."""
    from explorer.cli.backends import run_backends  # noqa: PLC0415

    run_backends(as_json=as_json)
