"""What leads: how much faster the plan is, by prediction, and what all layers low would give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explorer.advise.finding import SPEED, Finding
from explorer.advise.slow.case import WORTH
from explorer.advise.words import duration, plural, times

if TYPE_CHECKING:
    from explorer.advise.finding import Tone
    from explorer.advise.slow.case import Case

__all__ = ["MUCH", "speed"]

MUCH: Final = 1.5  # times as fast: what users call faster


def speed(case: Case, *, confirmed: int) -> Finding:
    """Return the finding that leads the causes.

    Args:
        case: what is known.
        confirmed: how many causes were confirmed.
    """
    assert case.gpu is not None
    low, name, gain = case.low, case.gpu.name, case.faster
    unknown = len(case.result.unpredicted)
    figures = f"{duration(case.fp32_us)} in {case.high_words}, {duration(case.plan_us)} under the plan"
    every = case.result.uniform_us[low]
    if case.plan_us - every >= WORTH * case.plan_us:
        figures += f", {duration(every)} with every layer in {low}"
    if unknown:
        figures += f"; {plural(unknown, 'layer')} without a prediction are left out"
    tone: Tone = "good" if gain >= MUCH else "note" if gain >= 1 + WORTH else "warn"
    title = f"{low} is predicted {'' if gain >= MUCH else 'only '}{times(gain)} as fast on {name}"
    if gain < 1 + WORTH:
        title = f"{low} is predicted to be {'slower' if gain < 1 - WORTH else 'no faster'} on {name}: {times(gain)}"
    text = "None of the causes that were tested holds it back."
    if confirmed:
        text = (
            f"{plural(confirmed, 'cause is', 'causes are')} confirmed{', the largest first' if confirmed > 1 else ''}."
        )
    return Finding(id=SPEED, tone=tone, title=title, text=text, evidence=f"{figures}. {case.source}")
