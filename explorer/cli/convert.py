"""`convert`: a plan becomes a mixed-precision model, with the reason for every layer."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from explorer.cli.document import conversion_document, model_document, print_document
from explorer.cli.words import Facts, console, notes, weight_words, weights_table
from explorer.convert import Conversion, convert
from explorer.export import save_onnx
from explorer.model import load_model
from explorer.plan import NO_FORMAT
from explorer.report import WeightFacts, text

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.cli.options import PlanOptions
    from explorer.model import Model

__all__ = ["reason_kind", "run_convert"]

_INDIVIDUAL = (
    # Reasons that name another layer: counted together, with that name left out.
    (re.compile(r"^(moves data, so it follows) .*", re.DOTALL), r"\1 what feeds it"),
    (re.compile(r"^(joins streams and takes the widest): .*", re.DOTALL), r"\1, which is fp32"),
)


def run_convert(source: Path, target: Path, plan: PlanOptions, *, top: int, as_json: bool) -> None:
    """Convert, write, and print what became of the layers and weights."""
    wanted = plan.plan()
    model = load_model(source)
    calibration = plan.calibration_of(model, wanted)
    conversion = convert(model, wanted, backend=plan.target, clamp=plan.clamp, calibration=calibration)
    written = save_onnx(conversion, model, target)
    if as_json:
        print_document(
            "convert",
            {
                "model": model_document(model),
                "backend": plan.target,
                "plan": wanted.to_dict(),
                "conversion": conversion_document(conversion),
                "decisions": [
                    {
                        "id": each.layer_id,
                        "op": model.layer(each.layer_id).qualified_op,
                        "format": each.format,
                        "reason": each.reason,
                        "asked": each.asked,
                    }
                    for each in conversion.decisions
                ],
                "reasons": [
                    {"format": fmt, "reason": reason, "layers": number}
                    for (fmt, reason), number in _reasons(conversion).most_common()
                ],
                "written": written,
            },
        )
        return
    _show(model, conversion, written, top=top)


def reason_kind(reason: str) -> str:
    """Return a decision's reason without the name of the other layer in it, so that like ones can be counted.

    >>> reason_kind("moves data, so it follows encoder/Conv_3")
    'moves data, so it follows what feeds it'
    """
    for pattern, kind in _INDIVIDUAL:
        reason = pattern.sub(kind, reason)
    return reason


def _reasons(conversion: Conversion) -> Counter[tuple[str, str]]:
    return Counter((each.format, reason_kind(each.reason)) for each in conversion.decisions)


def _show(model: Model, conversion: Conversion, written: tuple[Path, ...], *, top: int) -> None:
    screen, low = console(), " and ".join(conversion.decisions.formats)
    count = len(conversion.decisions.low_layers | conversion.decisions.int8_layers)
    facts = Facts()
    facts.add("layers", f"{count:,} of {len(model.layers):,} in {low} ({text.share(conversion.low_share)} of those "
              "with float32 tensors)")  # fmt: skip
    facts.add("casts", f"{len(conversion.casts):,} inserted")
    summary = WeightFacts(total=conversion.weights.total, clamped=bool(conversion.weights.clamped))
    facts.add("weights", weight_words(summary, low))
    for path in written:
        facts.add("written", Text(text.visible(str(path)), style="cyan"), text.size(path.stat().st_size))
    screen.print()
    screen.print(Text(f"✓ {text.visible(model.name)} converted to {low}, checked", style="bold green"))
    screen.print()
    screen.print(Padding(facts, (0, 0, 0, 2), expand=False))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layers", justify="right", no_wrap=True)
    table.add_column("format", no_wrap=True)
    table.add_column("because", overflow="fold")
    for (fmt, reason), number in _reasons(conversion).most_common():
        shown = text.ABSENT if fmt == NO_FORMAT else fmt
        table.add_row(f"{number:,}", Text(shown), Text(text.visible(reason)))
    screen.print()
    screen.print(Text("  Decisions", style="bold"))
    screen.print(Padding(table, (0, 0, 0, 2), expand=False))
    weights = weights_table(conversion, top, screen.width)
    if weights is not None:
        screen.print()
        screen.print(Text(f"  Weights that {low} cannot hold as they are (values)", style="bold"))
        screen.print(Padding(weights, (0, 0, 0, 2), expand=False))
    if model.notes or conversion.notes:
        screen.print()
        notes((*model.notes, *conversion.notes), screen)
