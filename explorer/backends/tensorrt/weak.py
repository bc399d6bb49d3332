"""Weakly typed networks (TensorRT 10 and older): a plan as builder flags and layer constraints.

TensorRT 11 has none of this; there the mixed ONNX model is what carries the plan. Written against the documented
interface of TensorRT 10; *not run with TensorRT so far*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.backends.tensorrt.versions import Api

__all__ = ["WeakPlan", "constrain", "layer_names"]

_FLAGS: Final = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "tf32": "TF32"}
_TYPES: Final = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
_FLOATS: Final = ("float32", "float16", "bfloat16")
_ONNX_LAYER: Final = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]*)\]")
_CHOSEN_BY_DATA: Final = ("CONSTANT", "SHAPE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "PLUGIN_V2", "PLUGIN_V3")


@dataclass(frozen=True)
class WeakPlan:
    """What a weakly typed build is asked for.

    Attributes:
        formats: the low formats that layers may use; their builder flags are set.
        layers: name of an ONNX node to the format that it shall compute in.
        obey: fail where a constraint cannot be kept; False only prefers it.
        ranges: float32 tensor to the largest |value| that int8 represents (a calibration); needed for int8 where the
            model has no Q/DQ nodes.
    """

    formats: tuple[str, ...]
    layers: Mapping[str, str]
    obey: bool = True
    ranges: Mapping[str, float] = field(default_factory=dict)

    @property
    def constraints(self) -> Literal["obey", "prefer"]:
        """The word that trtexec has for it."""
        return "obey" if self.obey else "prefer"


def constrain(trt: Any, api: Api, network: Any, config: Any, plan: WeakPlan) -> tuple[str, ...]:
    """Set the flags and constraints of a plan, and return the names of its layers that the network does not have.

    Raises:
        BackendError: this version has no weakly typed networks, or no flag for a format.
        InputError: int8 is asked for without the ranges of the tensors.
    """
    api.require_weak()
    _set_flags(trt, api, config, plan)
    if "int8" in plan.formats:
        _set_ranges(network, plan)
    seen: set[str] = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        names = [name for name in layer_names(layer) if name in plan.layers]
        seen.update(names)
        formats = {plan.layers[name] for name in names}
        floats = _float_outputs(trt, layer)
        if not formats or not floats or layer.type.name in _CHOSEN_BY_DATA:
            continue
        # One layer of TensorRT may stand for several of ONNX; where they disagree the wide format is the safe one.
        _constrain_layer(trt, layer, floats, formats.pop() if len(formats) == 1 else "fp32")
    return tuple(name for name in plan.layers if name not in seen)


def layer_names(layer: Any) -> tuple[str, ...]:
    """Return the names of the ONNX nodes that a layer of a network was made from."""
    found = _ONNX_LAYER.findall(str(getattr(layer, "metadata", "") or ""))
    return tuple(dict.fromkeys(found)) or (str(layer.name),)


def _set_flags(trt: Any, api: Api, config: Any, plan: WeakPlan) -> None:
    for low in plan.formats:
        flag = getattr(trt.BuilderFlag, _FLAGS.get(low, ""), None)
        if flag is None:
            raise BackendError(
                f"TensorRT {api.version} has no weakly typed networks in {low}.",
                fix="Build the mixed ONNX model instead (strongly typed, the default).",
            )
        config.set_flag(flag)
    chosen = trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS if plan.obey else trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS
    config.set_flag(chosen)


def _float_outputs(trt: Any, layer: Any) -> tuple[int, ...]:
    """Return which results of a layer hold floats; those that shapes are made of do not count.

    The parser makes helpers on integers for one ONNX node, the shape that a Reshape takes for one, and gives them its
    name: TensorRT refuses a precision for them, and ``trtexec`` passes over them too.
    """
    floats = [getattr(trt, name) for name in _FLOATS if hasattr(trt, name)]
    outputs = ((index, layer.get_output(index)) for index in range(layer.num_outputs))
    return tuple(
        index
        for index, tensor in outputs
        if tensor is not None and not tensor.is_shape_tensor and tensor.dtype in floats
    )


def _constrain_layer(trt: Any, layer: Any, floats: tuple[int, ...], wanted: str) -> None:
    dtype = getattr(trt, _TYPES[wanted])
    layer.precision = dtype
    if wanted == "int8":
        return  # whoever reads the result decides whether it is stored in int8
    for output in floats:
        layer.set_output_type(output, dtype)


def _set_ranges(network: Any, plan: WeakPlan) -> None:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    quantised = False
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        quantised |= layer.type.name in ("QUANTIZE", "DEQUANTIZE")
        tensors += [layer.get_output(output) for output in range(layer.num_outputs)]
    if not plan.ranges and not quantised:
        raise InputError(
            "int8 is asked for, and the model has neither Q/DQ nodes nor a calibration.",
            why="Without ranges TensorRT cannot choose scales.",
            fix="Calibrate first, or build the mixed ONNX model, which holds Q/DQ nodes.",
        )
    for tensor in tensors:
        amax = plan.ranges.get(str(tensor.name)) if tensor is not None else None
        if amax:
            tensor.set_dynamic_range(-float(amax), float(amax))
