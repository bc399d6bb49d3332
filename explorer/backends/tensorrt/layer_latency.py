"""Times of engine layers -> latency by layer of the model: each time once, nothing apportioned, nothing left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from explorer.backends.latency import InsertedTime, KernelTime, LatencyResult, LayerTime, median_and_spread
from explorer.backends.tensorrt.asked import asked_notes
from explorer.backends.tensorrt.engine_layers import EngineLayer, EngineLayers
from explorer.backends.tensorrt.mapping import MappedLayer, map_layers
from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from explorer.model import Model

__all__ = ["COMPUTE_OPS", "with_layer_times"]

_NAN: Final = float("nan")
_TOLD: Final = 3  # names that a note tells
_WIDTH: Final = 80  # characters of an engine layer's name in a note
_BLOCK: Final = 8  # layers of the model from which on an engine layer is told to be a block
_LISTED: Final = 64  # layers of one engine layer up to which each row names all the others
COMPUTE_OPS: Final = frozenset(
    {"Attention", "Conv", "ConvInteger", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "MatMulInteger",
     "QLinearConv", "QLinearMatMul", "RNN"}
)  # fmt: skip
_INSERTED: Final = {"reformat": "reorder", "cast": "cast", "copy": "copy"}


@dataclass(frozen=True, slots=True)
class _Timed:
    """An engine layer with its time."""

    mapped: MappedLayer
    median_us: float
    spread_us: float

    @property
    def ids(self) -> tuple[str, ...]:
        return self.mapped.ids


def with_layer_times(
    result: LatencyResult,
    model: Model,
    engine: EngineLayers,
    times_us: Mapping[str, Sequence[float]],
    *,
    asked: Mapping[str, str] | None = None,
    inserted: Mapping[str, str] | None = None,
) -> LatencyResult:
    """Return a result with a row for each layer of the model, and one for each engine layer that was timed.

    The time of an engine layer that computes several layers stands once, at the one that does most of the work, and is
    never divided. Rows of one engine layer name each other in ``fused_with``; where they are more than 64, the one with
    the time names all, and the others that one. ``layers`` and ``inserted`` add up to ``profiled_us``, the sum of all
    times.

    Args:
        result: the latency of the whole engine.
        model: the model, before conversion.
        engine: the engine's layers.
        times_us: name of an engine layer to its time in each run, in microseconds; one number is a median already, and
            its spread is NaN.
        asked: the plan: format by layer id; None where it is not known.
        inserted: nodes that conversion inserted, each with the value that it casts.

    Raises:
        InputError: the times are of another engine, or the engine is of another model.
    """
    merged = _merged(engine.layers)
    missing = [name for name in times_us if name not in merged]
    if len(missing) == len(times_us):
        raise _other_engine(missing, merged)
    mapped = map_layers(model, [*merged.values(), *(EngineLayer(name) for name in missing)], inserted)
    if not any(each.ids for each in mapped):
        raise _other_model(merged, model)
    timed = [_Timed(each, *_middle(times_us[each.layer.name])) for each in mapped if each.layer.name in times_us]
    kernels = tuple(_kernel(each) for each in timed)
    total = sum(each.median_us for each in timed)
    notes = [*engine.notes, *_notes(timed, missing, total)]
    if asked:
        notes += asked_notes(kernels, asked, {layer.id: layer.op for layer in model.layers}, COMPUTE_OPS)
    return replace(
        result,
        formats=_formats(kernels, total),
        layers=tuple(_rows(model, mapped, timed)),
        inserted=tuple(_inserted(each) for each in timed if not each.ids),
        kernels=kernels,
        profiled_us=total,
        notes=(*result.notes, *notes),
    )


def _merged(layers: Iterable[EngineLayer]) -> dict[str, EngineLayer]:
    """Return the layers by name; layers of one name, which the profiler adds up, as one."""
    merged: dict[str, EngineLayer] = {}
    for layer in layers:
        known = merged.get(layer.name)
        merged[layer.name] = layer if known is None else replace(
            known,
            inputs=(*known.inputs, *layer.inputs),
            outputs=(*known.outputs, *layer.outputs),
            sources=tuple(dict.fromkeys((*known.sources, *layer.sources))),
            format=known.format if known.format == layer.format else "",
        )  # fmt: skip
    return merged


def _middle(times: Sequence[float]) -> tuple[float, float]:
    return median_and_spread(times) if len(times) > 1 else (float(times[0]), _NAN)


def _kernel(each: _Timed) -> KernelTime:
    mapped = each.mapped
    notes = [mapped.layer.tactic] if mapped.layer.tactic else []
    if mapped.guessed:
        notes.append("Not all of its layers are named; the rest lies between the tensors that it reads and writes.")
    if mapped.casts and mapped.ids and not mapped.format:
        notes.append("It casts inside, so what it reads and writes does not tell what it computes in.")
    return KernelTime(
        mapped.layer.name, each.ids, each.median_us, each.spread_us, mapped.kind, mapped.format, "; ".join(notes)
    )


def _inserted(each: _Timed) -> InsertedTime:
    mapped = each.mapped
    return InsertedTime(
        mapped.layer.name,
        mapped.layer.type,
        _INSERTED.get(mapped.kind, "other"),
        mapped.serves,
        each.median_us,
        each.spread_us,
    )


def _rows(model: Model, mapped: Iterable[MappedLayer], timed: Sequence[_Timed]) -> Iterator[LayerTime]:
    ops = {layer.id: layer.op for layer in model.layers}
    mine: dict[str, list[_Timed]] = {}
    at: dict[str, list[tuple[_Timed, str]]] = {}  # with the layer that the time stands at
    for each in timed:
        if each.ids:
            main = next((layer_id for layer_id in each.ids if ops[layer_id] in COMPUTE_OPS), each.ids[0])
            mine.setdefault(main, []).append(each)
            for layer_id in each.ids:
                at.setdefault(layer_id, []).append((each, main))
    untimed = {layer_id: each.layer.name for each in mapped for layer_id in each.ids}
    for layer in model.layers:
        own, all_of_it = mine.get(layer.id, []), at.get(layer.id, [])
        with_it = dict.fromkeys(other for each, main in all_of_it for other in _with(layer.id, each, main))
        yield LayerTime(
            layer.id,
            float(sum(each.median_us for each in own)),
            own[0].spread_us if len(own) == 1 else _NAN if own else 0.0,
            tuple(with_it),
            _row_note(layer.id, own, all_of_it, untimed),
        )


def _with(layer_id: str, each: _Timed, main: str) -> Iterable[str]:
    """Return the layers that share an engine layer; of a large block all at its main layer, elsewhere that alone."""
    if len(each.ids) > _LISTED and layer_id != main:
        return (main,)
    return (other for other in each.ids if other != layer_id)


def _row_note(
    layer_id: str, own: Sequence[_Timed], all_of_it: Sequence[tuple[_Timed, str]], untimed: Mapping[str, str]
) -> str:
    if not all_of_it:
        if layer_id in untimed:
            return f"In the engine layer {_short(untimed[layer_id])}, for which the profile has no time."
        return "No engine layer names it: TensorRT folded, removed or fused it."
    if not own:
        each, main = all_of_it[0]
        return f"Its time stands at '{main}', with which it runs in the engine layer {_short(each.mapped.layer.name)}."
    others = sum(len(each.ids) - 1 for each in own)
    many = f" in {len(own)} engine layers" if len(own) > 1 else ""
    return f"The time{many} is of {others + 1} layers together; it is not divided." if others else ""


def _notes(timed: Sequence[_Timed], missing: Sequence[str], total: float) -> Iterator[str]:
    shared = [each for each in timed if len(each.ids) > 1]
    if shared:
        share = _share(sum(each.median_us for each in shared), total)
        yield (
            f"{_count(shared, 'engine layer computes', 'engine layers compute')} several layers ({share} of the time): "
            "the time stands once, at the layer that does most of the work, and is not divided."
        )
    blocks = sorted((each for each in shared if len(each.ids) >= _BLOCK), key=lambda each: -each.median_us)
    for each in blocks[:_TOLD]:
        yield (
            f"{_short(each.mapped.layer.name)} is one block of {len(each.ids):,} layers "
            f"({_share(each.median_us, total)} of the time); what happens inside it TensorRT does not tell."
        )
    if len(blocks) > _TOLD:
        yield f"{len(blocks) - _TOLD:,} more engine layers are blocks of {_BLOCK} layers and more."
    moved = [each for each in timed if each.mapped.kind in _INSERTED]
    if moved:
        share = _share(sum(each.median_us for each in moved), total)
        yield f"{_count(moved, 'change', 'changes')} of layout or type (reformats, casts): {share} of the time."
    unknown = [each for each in timed if each.mapped.kind == "other" and each.median_us > 0]
    lost = sorted(unknown, key=lambda each: -each.median_us)
    if lost:
        share = _share(sum(each.median_us for each in lost), total)
        names = ", ".join(_short(each.mapped.layer.name) for each in lost[:_TOLD])
        more = f", and {len(lost) - _TOLD:,} more" if len(lost) > _TOLD else ""
        count = _count(lost, "engine layer", "engine layers")
        yield f"{count} could not be found in the model ({share} of the time): {names}{more}."
    if missing:
        yield (
            f"{_count(missing, 'layer', 'layers')} of the profile {'is' if len(missing) == 1 else 'are'} not among the "
            "engine's layers: both files must be of one engine."
        )


def _formats(kernels: Sequence[KernelTime], total: float) -> str:
    """Return what share of the time ran in which format."""
    sums: dict[str, float] = {}
    for kernel in kernels:
        if kernel.kind == "layer":
            name = kernel.format or "not told"
            sums[name] = sums.get(name, 0.0) + kernel.median_us
    parts = [f"{name} {_share(us, total)}" for name, us in sorted(sums.items(), key=lambda item: -item[1])]
    return f"ran, by share of the time: {', '.join(parts)}" if parts else "formats are not told"


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.1f} %" if total else "no time"


def _count(things: Sequence[object], one: str, many: str) -> str:
    return f"{len(things):,} {one if len(things) == 1 else many}"


def _short(name: str) -> str:
    return f"'{name}'" if len(name) <= _WIDTH else f"'{name[: _WIDTH - 25]}...{name[-22:]}'"


def _other_engine(missing: Sequence[str], known: Mapping[str, EngineLayer]) -> InputError:
    first = f": the profile has {_short(missing[0])}, the engine {_short(next(iter(known)))}" if missing else ""
    return InputError(
        f"None of the {len(missing):,} layers of the profile is among the {len(known):,} of the engine{first}.",
        why="Both files must be of one engine: another build of the same model may fuse otherwise.",
        fix="Write both in one run: trtexec --exportLayerInfo=layers.json --exportProfile=profile.json.",
    )


def _other_model(known: Mapping[str, EngineLayer], model: Model) -> InputError:
    named = [name for name, each in known.items() if each.kind in ("layer", "convolution", "matrix")] or list(known)
    return InputError(
        f"None of the {len(known):,} engine layers names a layer of {model.name}: the engine has {_short(named[0])}, "
        f"the model '{model.layers[0].id}'.",
        why="Times are put on the graph by names of its nodes.",
        fix="Give the model that the engine was built from, or that conversion started from; build the engine with "
        "--profilingVerbosity=detailed, which names the ONNX nodes of every engine layer.",
    )
