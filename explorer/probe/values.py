"""The values of one layer, exact and under a plan, as histograms and a sample of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import ModelError, PlanError, nearest
from explorer.measure.histogram import Counts, Histogram, common_axis, tally
from explorer.probe.bands import Bands
from explorer.probe.graphs import is_float, weave_pickable
from explorer.probe.picks import EXACT, PICKS, PLAN, SIZES, Pick, pick_vector
from explorer.probe.sampling import Pairs, Scatter, merge_pairs, sample_pairs
from explorer.probe.switchable import SWITCHES, switch_vector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from explorer.backends.runtime import Session
    from explorer.convert import Decisions, Typing
    from explorer.probe.graphs import Woven
    from explorer.probe.runs import Runs

__all__ = ["Bands", "LayerValues", "exact_histograms", "look", "shown_values"]

_PICKED_BYTES = 256 << 20  # exact values that leave the runtime at once; a larger batch runs once for each such part
_FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class LayerValues:
    """Values of one result of one layer over all samples.

    Attributes:
        layer_id: the layer.
        output: name of the value that is shown.
        outputs: names of the layer's results that can be shown: its float32 tensors.
        format: what the layer runs in under the plan, or the low format of the plan where it runs in fp32.
        exact: histogram of |value| in the fp32 model.
        plan: histogram of |value| under the plan, emulated; a model output that conversion stores low is shown before
            that last rounding.
        reached: whether a switch of any plan changes what the layer computes; if not, both are the same.
        bands: what the format loses of which magnitudes.
        scatter: pairs of both; None where the plan changes the number of elements.
        provenance: how the values came to be.
        note: what a reader must know about them, in sentences.
    """

    layer_id: str
    output: str
    outputs: tuple[str, ...]
    format: str
    exact: Histogram
    plan: Histogram
    reached: bool
    bands: Bands
    scatter: Scatter | None
    provenance: str
    note: str

    @property
    def axis(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Log2 of the first bin, and the counts of ``exact`` and of ``plan`` on one axis."""
        return common_axis(self.exact, self.plan)


def shown_values(typing: Typing, layer_id: str) -> tuple[str, ...]:
    """Return the names of the float32 tensors that a layer makes.

    Raises:
        PlanError: the model has no such layer.
        ModelError: the layer makes no float32 tensor, or stands in the body of another.
    """
    if layer_id not in typing.layers:
        raise PlanError(f"The model has no layer '{layer_id}'.", fix=nearest(layer_id, typing.layers))
    layer = typing.model.layer(layer_id)
    found = tuple(value for value in dict.fromkeys(layer.outputs) if is_float(typing, value))
    if not found:
        raise ModelError(
            f"Layer '{layer_id}' ({layer.op}) makes no float32 tensor.",
            why="Only float32 values are rounded, so there is nothing to compare.",
        )
    if layer_id not in {node.name for node in typing.model.ir.graph}:
        raise ModelError(
            f"Layer '{layer_id}' ({layer.op}) stands in the body of a control-flow layer.",
            why="It may run many times or not at all, and its values never leave the body.",
            fix="Look at the layer that holds the body.",
        )
    return found


def look(
    runs: Runs,
    compiled: tuple[Woven, Session],
    known: Sequence[Mapping[str, Any]],
    decisions: Decisions,
    subject: tuple[str, int],
    *,
    elements: int,
    backend: str = "onnxruntime-cpu",
    native: bool = False,
) -> LayerValues:
    """Run a plan once and return the values of one layer.

    Args:
        runs: of the samples.
        compiled: the switchable graph, pickable.
        known: exact values that it is fed, by batch.
        decisions: of the plan.
        subject: id of a layer, and which of its float32 results.
        elements: number of elements of the result in all samples.
        backend: where it runs.
        native: the plan's low layers hold true operators of the format.

    Raises:
        PlanError: the model has no such layer, or the layer no such result.
        ModelError: the layer's values cannot be shown.
    """
    typing = _runs_as(decisions, subject[0])
    outputs, (layer_id, index) = shown_values(typing, subject[0]), subject
    if not 0 <= index < len(outputs):
        raise PlanError(f"Layer '{layer_id}' has {len(outputs)} float32 results; there is no number {index}.")
    value = outputs[index]
    woven, session = compiled
    picks = {pick for pick in ((EXACT, value), (PLAN, value)) if pick in woven.picks}
    extra = _switches(woven, decisions) | {PICKS: pick_vector(woven.picks, picks)}
    wanted = sorted(output for output, _ in picks)

    def summarize(batch: int, out: dict[str, Any]) -> tuple[Counts, Counts, Pairs | None]:
        exact = np.ravel(out[EXACT] if EXACT in out else known[batch][value])
        plan = out.get(PLAN, exact)
        same = exact.size == plan.size
        pairs = sample_pairs(exact, plan, elements=elements, batch=batch) if same else None
        return tally(exact), tally(plan), pairs

    parts = list(runs.batches(session, f"values of {layer_id}", summarize, wanted=wanted, extra=extra, exact=known))
    pairs = [pair for _, _, pair in parts if pair is not None]
    scatter = merge_pairs(pairs) if len(pairs) == len(parts) else None
    reached = (PLAN, value) in picks
    return LayerValues(
        layer_id,
        value,
        outputs,
        typing.format,
        Histogram.of_tally(np.sum([exact for exact, _, _ in parts], axis=0)),
        Histogram.of_tally(np.sum([plan for _, plan, _ in parts], axis=0)),
        reached,
        Bands.of_tensor(typing, value),
        scatter,
        f"exact: fp32 on {backend}; plan: {_made(decisions, backend, native=native)}",
        _note(scatter, reached=reached, random=runs.samples.origin == "random"),
    )


def _runs_as(decisions: Decisions, layer_id: str) -> Typing:
    """Return the typing of the low format that a layer runs in, of the plan's own where it runs high."""
    if decisions.int8 is not None and layer_id in decisions.int8_layers:
        return decisions.int8
    return decisions.typing


def _made(decisions: Decisions, backend: str, *, native: bool) -> str:
    """Return how the plan's values came to be, in words."""
    own, more = decisions.typing.format, " and int8" if decisions.int8_layers else ""
    if native:
        return f"measured, {own} operators on {backend}" + (", int8 emulated" if more else "")
    return f"emulated, {own}{more} storage rounding, fp32 accumulation"


def _switches(woven: Woven, decisions: Decisions) -> dict[str, Any]:
    return {SWITCHES: switch_vector(woven, decisions)} if woven.switches else {}


def _note(scatter: Scatter | None, *, reached: bool, random: bool) -> str:
    said = []
    if not reached:
        said.append("No plan changes what this layer computes: its values are the exact ones.")
    if scatter is None:
        said.append("The plan changes the number of elements, so they cannot be paired.")
    elif scatter.total > scatter.exact.size:
        even = scatter.exact.size - scatter.extremes
        said.append(f"The histogram counts all {scatter.total:,} elements. The scatter shows {even:,}, drawn evenly")
        said[-1] += (
            f", and the {scatter.extremes:,} more of the largest error: large errors look more frequent than they are."
            if scatter.extremes
            else "."
        )
    if random:
        said.append("The inputs are random: magnitudes from random inputs are not to be trusted.")
    return " ".join(said)


def exact_histograms(
    runs: Runs, typing: Typing, known: Sequence[Mapping[str, Any]], elements: Mapping[str, int]
) -> dict[str, Histogram]:
    """Return the histogram of the exact values of each float32 tensor that a layer makes, by name.

    Args:
        runs: of the samples.
        typing: of the model.
        known: exact values that are in memory already, by batch.
        elements: of each of those tensors, number of elements in all samples.
    """
    found: dict[str, Histogram] = {}
    held = known[0].keys() if known else set()
    for value in elements:
        if value in held:
            runs.check()
            found[value] = Histogram.of_tally(np.sum([tally(batch[value]) for batch in known], axis=0))
    rest = {value: count for value, count in elements.items() if value not in found}
    if not rest:
        return {value: found[value] for value in elements}
    woven = weave_pickable(typing, rest)
    session = runs.compile(woven)
    for part in _parts(woven.picks, rest, len(runs.samples)):
        extra = {PICKS: pick_vector(woven.picks, part)}
        order = [pick for pick in woven.picks if pick in part]

        def count(_: int, out: dict[str, Any], extra: dict[str, Any] = extra) -> list[Counts]:
            sizes = out[SIZES][extra[PICKS] > 0]
            return [tally(piece) for piece in np.split(out[EXACT], np.cumsum(sizes)[:-1])]

        batches = list(runs.batches(session, "histograms of the exact values", count, extra=extra))
        for number, (_, value) in enumerate(order):
            found[value] = Histogram.of_tally(np.sum([batch[number] for batch in batches], axis=0))
    return {value: found[value] for value in elements}


def _parts(picks: Sequence[Pick], elements: Mapping[str, int], batches: int) -> Iterator[set[Pick]]:
    """Yield the picks in parts that hold no more than is allowed to leave the runtime at once, where more than one."""
    part: set[Pick] = set()
    held = 0
    for pick in picks:
        size = elements[pick[1]] * _FLOAT_BYTES // batches
        if part and held + size > _PICKED_BYTES:
            yield part
            part, held = set(), 0
        part.add(pick)
        held += size
    if part:
        yield part
