"""ONNX -> TensorRT network; what the parser refuses is told with the layer that it refuses.

Written against NVIDIA's documented Python interface; *not run with TensorRT so far*.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backends.tensorrt.logger import Messages, failure, start
from explorer.errors import BackendError

if TYPE_CHECKING:
    from explorer.backends.tensorrt.versions import Api

__all__ = ["Parsed", "parse_network"]

_FILE_MESSAGES = ("MODEL_DESERIALIZE_FAILED", "REFIT_FAILED")  # errors of no particular node
_TOLD = 3  # parser errors that one message names


@dataclass(frozen=True)
class Parsed:
    """A network, and what must live as long as it does: its weights lie in the parser's copy of the model."""

    network: Any
    parser: Any


def parse_network(
    trt: Any, api: Api, builder: Any, said: Messages, onnx: bytes | Path, *, strong: bool = True
) -> Parsed:
    """Return the network of an ONNX model.

    Args:
        trt: the module ``tensorrt``.
        api: what it can do.
        builder: a ``trt.Builder``.
        said: what TensorRT says, listened to since the builder was made.
        onnx: the serialized model; or the path of its file, where its weights lie in a file beside it.
        strong: each tensor has the type that the ONNX file gives it. False lets TensorRT choose, within flags and
            constraints (10 and older).

    Raises:
        BackendError: the parser refuses the model, with the layers that it names; or ``strong`` is False and this
            version has no weakly typed networks.
    """
    if not strong:
        api.require_weak()
    network = builder.create_network(api.strong_flags if strong else 0)
    if network is None:
        raise failure("make a network", said)
    parser = start(trt.OnnxParser, network, said=said)
    done = parser.parse_from_file(str(onnx)) if isinstance(onnx, Path) else parser.parse(onnx)
    if not done:
        raise _refused(parser, said)
    if not network.num_outputs:
        raise BackendError("The network that TensorRT read has no output.", fix="Check the model's outputs.")
    return Parsed(network, parser)


def _refused(parser: Any, said: Messages) -> BackendError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return failure("read the model", said, fix="Check it with onnx.checker.check_model(path, full_check=True).")
    told = [_words(error) for error in errors[:_TOLD]]
    more = f" And {len(errors) - _TOLD} more." if len(errors) > _TOLD else ""
    return BackendError(f"TensorRT's parser refuses the model: {' '.join(told)}{more}", fix=_remedy(errors[0]))


def _words(error: Any) -> str:
    code, said = str(error.code()), " ".join(str(error.desc()).split()).rstrip(".")
    if any(kind in code for kind in _FILE_MESSAGES):
        return f"{said}."
    name, op = str(error.node_name()), str(error.node_operator())
    layer = f"layer '{name}'" if name else f"node {error.node()}"
    return f"{layer} ({op or 'no operator'}): {said}."


def _remedy(error: Any) -> str:
    code = str(error.code())
    if "DATATYPE" in code or "TYPE" in str(error.desc()).upper():
        return "Keep this layer in fp32 (block it): TensorRT has the operator, but not for this type."
    if "UNSUPPORTED" in code:
        return "TensorRT has no implementation of this; a plugin, or another way to export this part, may help."
    return "Check the model with onnx.checker.check_model(path, full_check=True)."
