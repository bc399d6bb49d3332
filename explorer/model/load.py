"""Read an ONNX model, check it, and bring it into the one form that every other room relies on."""

from __future__ import annotations

import mmap
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from explorer.errors import ModelError
from explorer.model.graph import Layer, Model, check_structure, first_line, skeleton
from explorer.model.normalise import bodies, dense, normalise, own_weights
from explorer.model.pause import no_collection
from explorer.model.scopes import scope_of, source_of
from explorer.model.weights import Weight
from explorer.model.wire import StoredWeight, cut_weights, read_weights

__all__ = ["load_model"]


def load_model(source: str | Path | bytes | onnx.ModelProto) -> Model:
    """Return the model, normalised; what was given is not modified.

    Args:
        source: path of an ``.onnx`` file, its bytes, or a ``ModelProto``.

    Raises:
        ModelError: the file is missing, empty, corrupt or not ONNX, its external weights are missing, the graph is
            invalid, or its types contradict each other.
    """
    with no_collection():
        return _load(source)


def _load(source: str | Path | bytes | onnx.ModelProto) -> Model:
    path: Path | None = None
    if isinstance(source, onnx.ModelProto):
        what = "The model"
        graph_model = _deserialize(source, what, owned=False)
    elif isinstance(source, bytes):
        what = "The model"
        graph_model = _read_bytes(source, what)
    else:
        path = Path(source)
        what = f"'{path}'"
        graph_model = _read_file(path, what)
    _check_external(graph_model, what)
    own_weights(graph_model, what)
    _check(graph_model, what)
    notes = normalise(graph_model)
    return Model(graph_model, _layers(graph_model), path=path, notes=notes)


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise _not_onnx(what, first_line(error)) from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise _not_onnx(what, "it holds no ONNX graph")
    return proto


def _not_onnx(what: str, reason: str) -> ModelError:
    return ModelError(
        f"{what} is not a readable ONNX model: {reason}.",
        why="The file is corrupt, cut short, or of another kind.",
        fix="Export it again, or check it with onnx.load(path).",
    )


def _read_bytes(data: bytes, what: str) -> ir.Model:
    cut = cut_weights(data)
    graph_model = _deserialize(_parse(data if cut is None else cut[0], what), what, owned=True)
    if cut is not None:
        _fill(graph_model, data, cut[1])
    return graph_model


def _read_file(path: Path, what: str) -> ir.Model:
    if not path.exists():
        raise ModelError(f"There is no file {what}.", fix="Check the path to the .onnx model.")
    if path.is_dir():
        raise ModelError(f"{what} is a folder.", fix="Name the .onnx file inside it.")
    try:
        if not path.stat().st_size:
            raise ModelError(f"{what} is empty (0 bytes).", fix="Export the model again.")
        # Mapped only while it is parsed: a file that is overwritten later must not change, or crash, an open model.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cut = cut_weights(data)
            rest = data[:] if cut is None else cut[0]
        graph_model = _deserialize(_parse(rest, what), what, owned=True)
        if cut is not None:
            _fill(graph_model, path, cut[1])
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {error.strerror or error}.", fix="Check its permissions.") from error
    ir.external_data.set_base_dir(graph_model.graph, path.parent)
    return graph_model


def _fill(graph_model: ir.Model, source: Path | bytes, weights: list[StoredWeight]) -> None:
    """Put the data of the large weights into the graph that was parsed without it."""
    arrays = read_weights(source, weights)
    for weight in weights:
        value = graph_model.graph.initializers[weight.name]
        value.const_value = Weight(arrays[weight.name], weight.dtype, weight.name)


def _deserialize(proto: onnx.ModelProto, what: str, *, owned: bool) -> ir.Model:
    if not proto.HasField("graph"):
        raise _not_onnx(what, "it holds no ONNX graph")
    try:
        return ir.from_proto(dense(proto, owned=owned))
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise _not_onnx(what, first_line(error)) from error


def _check_external(graph_model: ir.Model, what: str) -> None:
    for graph in (graph_model.graph, *graph_model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            location = Path(tensor.location)
            if location.is_absolute() or ".." in location.parts:
                raise ModelError(
                    f"{what} stores weight '{value.name}' at '{location}', outside its own folder.",
                    why="A model may only read files beside it.",
                    fix="Save the model again with its data file in the same folder.",
                )
            file = Path(tensor.path)
            if not file.exists():
                raise ModelError(
                    f"{what} stores its weights in '{location}', and there is no such file beside it.",
                    why=f"Weight '{value.name}' cannot be read without it.",
                    fix=f"Put '{location}' into the folder of the model (bytes and ModelProto cannot carry it).",
                )
            needed = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
            if file.stat().st_size < needed:
                raise ModelError(
                    f"'{file}' is cut short: weight '{value.name}' needs {needed:,} bytes, "
                    f"the file has {file.stat().st_size:,}.",
                    fix="Copy the data file again.",
                )


def _check(graph_model: ir.Model, what: str) -> None:
    try:
        check_structure(skeleton(graph_model))
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"{what} is not a valid ONNX model: {first_line(error)}",
            why="What is invalid here runs differently, or not at all, elsewhere.",
            fix="Export it again, or mend the graph; onnx.checker.check_model(path) shows the same finding.",
        ) from error


def _layers(graph_model: ir.Model) -> tuple[Layer, ...]:
    layers: list[Layer] = []

    def visit(graph: ir.Graph, container: str | None) -> None:
        for node in graph:
            layers.append(
                Layer(
                    id=str(node.name),
                    name=str(node.meta["name"]),
                    op=node.op_type,
                    domain=node.domain,
                    scope=scope_of(str(node.meta["name"]), node.metadata_props),
                    inputs=tuple(str(value.name) if value is not None else "" for value in node.inputs),
                    outputs=tuple(str(value.name or "") for value in node.outputs),
                    container=container,
                    source=source_of(node.metadata_props),
                )
            )
            for body in bodies(node):
                visit(body, str(node.name))

    visit(graph_model.graph, None)
    return tuple(layers)
