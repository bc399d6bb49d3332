"""The time of each layer run alone, where nothing records the GPU inside the whole model.

Every layer becomes a model of one node, fed with the values that it has in the whole model, and runs many times in a
row. Nothing is fused, every value goes through memory, and a small kernel costs its launch: such times say which layers
are slow, not what they cost inside the model. They carry the word *isolated* wherever they are shown.

Between CUDA events on the stream of the session where the driver is there, else on the host's clock. The method is
tested on the CPU; *not run on a GPU so far*.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from explorer.backends.graph_view import Runnable, view_of
from explorer.backends.lend import lend_weights
from explorer.backends.runtime import Cancel, Provider, Session, create_session, run_bound
from explorer.errors import ExplorerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from explorer.backends.graph_view import GraphView
    from explorer.model.graph import Layer

__all__ = ["EventTimer", "HostTimer", "Isolated", "Timer", "time_isolated"]

_RUNS: Final = 7  # timings of each layer, of which the median counts
_REPEATS: Final = 10  # runs inside one timing: the cost of starting and stopping the clock is spread over them
_WARMUP: Final = 3
_VALUE_BYTES: Final = 512 << 20  # values of the whole model that are on the host at a time
_OLDEST_IR: Final = 8


class Timer(Protocol):
    """Times what a session runs."""

    how: str
    options: Mapping[str, str]

    def time(self, session: Session, binding: Any, *, repeats: int, cancel: Cancel | None) -> float:
        """Return microseconds per run."""
        ...


@dataclass
class HostTimer:
    """The host's clock, from the first call until the device is done."""

    how: str = "the host's clock"
    options: Mapping[str, str] = field(default_factory=dict)

    def time(self, session: Session, binding: Any, *, repeats: int, cancel: Cancel | None) -> float:
        """Return microseconds per run."""
        started = time.perf_counter_ns()
        for number in range(repeats):
            run_bound(session, binding, wait=number == repeats - 1, cancel=cancel)
        return (time.perf_counter_ns() - started) / 1000 / repeats


class EventTimer:
    """Two CUDA events on the stream that the session works on.

    Args:
        device: an opened GPU (`explorer.backends.tensorrt.device.Device`): its stream, events and their times.
    """

    how = "CUDA events"

    def __init__(self, device: Any) -> None:
        self._device = device
        self.options: Mapping[str, str] = {"user_compute_stream": str(device.stream), "has_user_compute_stream": "1"}

    def time(self, session: Session, binding: Any, *, repeats: int, cancel: Cancel | None) -> float:
        """Return microseconds per run."""
        start, end = self._device.event(), self._device.event()
        try:
            self._device.record(start)
            for _ in range(repeats):
                run_bound(session, binding, wait=False, cancel=cancel)
            self._device.record(end)
            self._device.synchronize()
            return float(self._device.elapsed_us(start, end)) / repeats
        finally:
            self._device.drop_event(start)
            self._device.drop_event(end)


@dataclass(frozen=True)
class Isolated:
    """Times of single layers.

    Attributes:
        times_us: layer id to its timings; layers without any are missing.
        failures: layer id to why it could not be run alone.
        how: what clock, in words.
    """

    times_us: Mapping[str, tuple[float, ...]]
    failures: Mapping[str, str]
    how: str


def time_isolated(
    model: Runnable,
    feeds: Mapping[str, NDArray[Any]],
    timer: Timer,
    *,
    provider: Provider = "cuda",
    device: int = 0,
    options: Mapping[str, str] | None = None,
    progress: Callable[[float], None] | None = None,
    cancel: Cancel | None = None,
) -> Isolated:
    """Return the time of every layer of the main graph, each run alone.

    Layers that are alike in operator, attributes and the shapes and types of what they read are timed once.

    Args:
        model: the model or conversion.
        feeds: one array for each input.
        timer: what measures.
        provider: where it runs.
        device: index of the GPU.
        options: of the provider, for all sessions.
        progress: called with the share that is done, 0 to 1.
        cancel: token to stop with.

    Raises:
        ModelError: ONNX Runtime cannot load the whole model.
        BackendError: the whole model fails, or the memory is too small for it.
    """
    where = _Place(provider, device, {**(options or {}), **timer.options}, cancel)
    whole = _Whole(model, where)
    times: dict[str, tuple[float, ...]] = {}
    failures: dict[str, str] = {}
    alike: dict[tuple[Any, ...], tuple[float, ...]] = {}
    done = 0
    for layers, values in whole.parts(feeds):
        for layer in layers:
            done += 1
            try:
                key = whole.key(layer, values)
                if key not in alike:
                    alike[key] = _time_alone(whole, layer, values, timer)
                times[layer.id] = alike[key]
            except ExplorerError as error:
                (cancel or Cancel()).check()
                failures[layer.id] = str(error)
            if progress is not None:
                progress(done / len(whole.layers))
    return Isolated(times, failures, timer.how)


def _time_alone(whole: _Whole, layer: Layer, values: Mapping[str, NDArray[Any]], timer: Timer) -> tuple[float, ...]:
    source, weights, fed = whole.alone(layer, values)
    where = whole.where
    session = create_session(
        source,
        provider=where.provider,
        device=where.device,
        initializers=weights,
        provider_options=where.options,
        cancel=where.cancel,
    )
    binding = session.bind(fed, device=where.device)
    timer.time(session, binding, repeats=_WARMUP, cancel=where.cancel)
    return tuple(timer.time(session, binding, repeats=_REPEATS, cancel=where.cancel) for _ in range(_RUNS))


@dataclass(frozen=True)
class _Place:
    """Where things run."""

    provider: Provider
    device: int
    options: Mapping[str, str]
    cancel: Cancel | None


class _Whole:
    """The whole model: it makes the values that single layers are fed with, and the models of single layers."""

    def __init__(self, model: Runnable, where: _Place) -> None:
        self.where = where
        self.view: GraphView = view_of(model)
        self.layers = [layer for layer in self.view.layers if layer.container is None]
        self._ir = model.ir
        self._source, self._weights = lend_weights(model.ir)
        initializers = {**{name: value.const_value for name, value in model.ir.graph.initializers.items()}}
        fed = {value.name for value in model.ir.graph.inputs}
        self._constants = {
            name: tensor for name, tensor in initializers.items() if tensor is not None and name not in fed
        }
        self._reads = {layer.id: self._read_by(layer) for layer in self.layers}

    def _read_by(self, layer: Layer) -> tuple[str, ...]:
        """Return the values that a layer reads, its bodies included, without weights and what the bodies make."""
        node = ir.serde.serialize_node(self.view.nodes[layer.id])
        made: set[str] = set()
        names = dict.fromkeys(_names(node, made))
        return tuple(name for name in names if name and name not in made and name not in self._constants)

    def parts(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Sequence[Layer], Mapping[str, NDArray[Any]]]]:
        """Yield layers with the values that they read, few enough at a time to lie in memory."""
        proto = onnx.ModelProto.FromString(self._source)
        outputs = {info.name for info in proto.graph.output}
        wanted = {name for reads in self._reads.values() for name in reads if name not in feeds}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted - outputs))
        where = self.where
        session = create_session(
            proto.SerializeToString(),
            provider=where.provider,
            device=where.device,
            optimize="none",  # fused layers would have no values between them
            initializers=self._weights,
            provider_options=where.options,
            cancel=where.cancel,
        )
        # Sizes are known once the values were there: the first part is one layer, and tells how large the next may be.
        pending, most = list(self.layers), 1
        while pending:
            part, pending = pending[:most], pending[most:]
            names = sorted({name for layer in part for name in self._reads[layer.id]} - feeds.keys())
            values = dict(feeds) | (session.run(feeds, names, cancel=where.cancel) if names else {})
            yield part, values
            held = sum(value.nbytes for value in values.values() if isinstance(value, np.ndarray))
            most = max(1, min(2 * most, int(most * _VALUE_BYTES / max(held, 1))))

    def key(self, layer: Layer, values: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
        """Return what makes two layers alike: all but names and the values themselves."""
        node = self.view.nodes[layer.id]
        if any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for item in node.attributes.values()):
            return (layer.id,)
        proto = ir.serde.serialize_node(node)
        attributes = b"".join(sorted(item.SerializeToString(deterministic=True) for item in proto.attribute))
        read = tuple(self._kind(name, values) for name in layer.inputs)
        return (layer.domain, layer.op, attributes, read, tuple(bool(name) for name in layer.outputs))

    def _kind(self, name: str, values: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
        if not name:
            return ()
        if name in self._constants:
            tensor = self._constants[name]
            small = (
                tensor.tobytes() if tensor.nbytes <= 64 and tensor.dtype != ir.DataType.STRING else b""
            )  # axes, pads
            return ("weight", str(tensor.dtype), tuple(tensor.shape.numpy()), small)
        value = values.get(name)
        if not isinstance(value, np.ndarray):
            return (name,)
        return (str(value.dtype), value.shape, value.tobytes() if value.nbytes <= 64 else b"")

    def alone(
        self, layer: Layer, values: Mapping[str, NDArray[Any]]
    ) -> tuple[bytes, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Return the model of one layer, its large weights, and what it is fed with.

        Raises:
            ExplorerError: it reads something that is no tensor.
        """
        node = ir.serde.serialize_node(self.view.nodes[layer.id])
        fed = {}
        for name in self._reads[layer.id]:
            value = values.get(name)
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufV":
                raise ExplorerError(f"'{name}' is no tensor of numbers.")
            fed[name] = value
        graph = onnx.helper.make_graph([node], "alone", [_info(name, value) for name, value in fed.items()], [])
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
        weights: dict[str, NDArray[Any]] = {}
        made: set[str] = set()
        for name in dict.fromkeys(_names(node, made)):
            if name not in self._constants:
                continue
            if name in self._weights:
                array = self._weights[name]
                stored = graph.initializer.add(name=name, data_type=int(ir.DataType.from_numpy(array.dtype)))
                stored.dims.extend(array.shape)
                stored.data_location = onnx.TensorProto.EXTERNAL
                weights[name] = array
            else:
                tensor = ir.serde.serialize_tensor(self._constants[name])
                tensor.name = name
                graph.initializer.append(tensor)
        proto = onnx.ModelProto(ir_version=max(self._ir.ir_version or 0, _OLDEST_IR), graph=graph)
        for domain, version in self._ir.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        return proto.SerializeToString(), weights, fed


def _names(node: onnx.NodeProto, made: set[str]) -> Iterator[str]:
    """Yield every name that a node and its bodies read, and collect in ``made`` what the bodies make."""
    yield from node.input
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            made.update(info.name for info in body.input)
            made.update(tensor.name for tensor in body.initializer)
            for inner in body.node:
                made.update(inner.output)
                yield from _names(inner, made)
            yield from (info.name for info in body.output)


def _info(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(value.dtype)), value.shape)


def grouped(times: Mapping[str, tuple[float, ...]]) -> Mapping[tuple[float, ...], tuple[str, ...]]:
    """Return the layers that share one timing, because they are alike."""
    found: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for layer, row in times.items():
        found[row].append(layer)
    return {row: tuple(layers) for row, layers in found.items()}
