"""A stand-in for the module ``tensorrt``: the names that NVIDIA documents, of 10.x and of 11.x, and nothing else.

Engines hold their ONNX model and run it in ONNX Runtime on memory of this machine, so that what is built, kept, loaded
and run can be tested from end to end. What TensorRT 11 lacks is absent here too: using it is an AttributeError.
Faults are switched on by name in `Fake.faults`.
"""

from __future__ import annotations

import ctypes
import enum
import json
import types
import weakref
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper
from support.fake_tensorrt_engine import DTYPES, MAGIC, Strict, add_runtime

from explorer.errors import BackendError

CACHE = b"FAKE-TIMING:"
_ALIASES = {
    "float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int8": "INT8", "int32": "INT32", "int64": "INT64",
    "bool": "BOOL", "uint8": "UINT8", "fp8": "FP8",
}  # fmt: skip
_LAYER_TYPES = {"Conv": "CONVOLUTION", "MatMul": "MATRIX_MULTIPLY", "Relu": "ACTIVATION", "Cast": "CAST"}


@dataclass
class Fake:
    """The stand-in and what was done to it.

    Attributes:
        trt: the module.
        calls: ``(what, details...)`` in order.
        faults: switched on by tests: ``start`` (message: no builder or runtime can be made), ``parser`` (list of
            ParserError), ``build`` (message), ``load`` (message), ``context``, ``infer`` (message), ``run``, ``timing``
            (refuse timing caches), ``profile`` (refuse shapes), ``silent`` (debug tensors are not shown),
            ``unmarked_nan`` (outputs of engines without inner values are NaN).
    """

    trt: types.ModuleType
    calls: list = field(default_factory=list)
    faults: dict = field(default_factory=dict)
    _logger: object = None
    _alive: weakref.WeakSet = field(default_factory=weakref.WeakSet)

    def start(self, made, logger):
        """Returns the logger of a new builder or runtime: as in TensorRT the first one, while any of them lives."""
        if not self._alive:
            self._logger = logger
        if "start" in self.faults:
            self._logger.log(self.trt.ILogger.Severity.ERROR, self.faults["start"])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._alive.add(made)
        return self._logger

    def called(self, what):
        return [call[1:] for call in self.calls if call[0] == what]


@dataclass
class ParserError:
    said: str
    name: str = ""
    operator: str = ""
    kind: str = "UNSUPPORTED_NODE"

    def code(self):
        return self.kind

    def desc(self):
        return self.said

    def node(self):
        return 0

    def node_name(self):
        return self.name

    def node_operator(self):
        return self.operator


def make(version="10.13.3.9"):
    """Returns a stand-in of this version."""
    trt = types.ModuleType("tensorrt")
    fake = Fake(trt)
    major = int(version.partition(".")[0])
    trt.__version__ = version
    _enums(trt, major)
    _interfaces(trt, fake)
    _network(trt, fake, major)
    _builder(trt, fake, version)
    add_runtime(trt, fake, version, major)
    return fake


def _enums(trt, major):
    flags = ["DEBUG", "REFIT", "TF32", "STRIP_PLAN", "DISABLE_TIMING_CACHE"]
    if major < 11:
        flags += ["FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
    trt.BuilderFlag = enum.Enum("BuilderFlag", flags)
    trt.NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag",
        {"STRONGLY_TYPED": 1} if major >= 11 else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
    )
    trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED", "NONE"])
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE", "TACTIC_DRAM"])
    trt.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
    trt.DataType = enum.Enum("DataType", sorted(set(_ALIASES.values())))
    for alias, name in _ALIASES.items():
        setattr(trt, alias, trt.DataType[name])
    types_ = [
        "CONVOLUTION",
        "MATRIX_MULTIPLY",
        "ACTIVATION",
        "CAST",
        "ELEMENTWISE",
        "CONSTANT",
        "QUANTIZE",
        "DEQUANTIZE",
    ]
    trt.LayerType = enum.Enum("LayerType", types_)


def _interfaces(trt, fake):
    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    for name in ("IProgressMonitor", "IProfiler", "IDebugListener", "IOutputAllocator"):
        setattr(trt, name, type(name, (), {}))
    trt.ILogger = ILogger
    trt.init_libnvinfer_plugins = lambda logger, namespace: fake.calls.append(("plugins", namespace)) or True


def _network(trt, fake, major):
    class ITensor(Strict):
        settable = ("name", "dtype", "shape", "is_shape_tensor")

        def __init__(self, name, dtype, shape):
            self.name, self.dtype, self.shape = name, dtype, shape
            self.is_shape_tensor = name in fake.faults.get("shape_tensors", ())

    class ILayer(Strict):
        settable = ("name", "metadata") + (("precision",) if major < 11 else ())

        def __init__(self, node, outputs):
            self.name, self.metadata = node.name, f"[ONNX Layer: {node.name}]"
            self._outputs = outputs
            self._type = trt.LayerType[_LAYER_TYPES.get(node.op_type, "ELEMENTWISE")]

        @property
        def type(self):
            return self._type

        @property
        def num_outputs(self):
            return len(self._outputs)

        def get_output(self, index):
            return self._outputs[index]

    def set_output_type(self, index, dtype):
        fake.calls.append(("set_output_type", self.name, index, dtype.name))

    def set_dynamic_range(self, low, high):
        fake.calls.append(("set_dynamic_range", self.name, low, high))

    if major < 11:
        ILayer.set_output_type = set_output_type
        ITensor.set_dynamic_range = set_dynamic_range

    class INetworkDefinition(Strict):
        def __init__(self, flags):
            self._flags, self._marked, self._onnx = flags, False, b""
            self._inputs, self._outputs, self._layers = [], [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, index):
            return self._inputs[index]

        def get_layer(self, index):
            return self._layers[index]

        def mark_unfused_tensors_as_debug_tensors(self):
            self._marked = True
            return True

    class OnnxParser(Strict):
        def __init__(self, network, logger):
            self._network, self._logger = network, logger

        num_errors = property(lambda self: len(fake.faults.get("parser", ())))

        def get_error(self, index):
            return fake.faults["parser"][index]

        def parse(self, model, path=None):
            fake.calls.append(("parse", bytes(model)))
            if "parser" in fake.faults:
                return False
            _fill(self._network, onnx.load_from_string(bytes(model)))
            return True

        def parse_from_file(self, path):
            return self.parse(onnx.load(path).SerializeToString())

    def _fill(network, proto):
        inferred = onnx.shape_inference.infer_shapes(proto)
        known = {item.name: item for item in (*inferred.graph.value_info, *inferred.graph.output)}

        def tensor(item, name):
            kind = item.type.tensor_type if item is not None else None
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim] if kind else []
            return ITensor(name, trt.DataType[DTYPES.get(kind.elem_type if kind else 1, "FLOAT")], tuple(dims))

        weights = {item.name for item in proto.graph.initializer}
        network._inputs += [tensor(item, item.name) for item in proto.graph.input if item.name not in weights]
        for node in proto.graph.node:
            network._layers.append(ILayer(node, [tensor(known.get(name), name) for name in node.output]))
        network._outputs += [item.name for item in proto.graph.output]
        network._onnx = proto.SerializeToString()

    trt.ITensor, trt.ILayer, trt.INetworkDefinition, trt.OnnxParser = ITensor, ILayer, INetworkDefinition, OnnxParser


def _builder(trt, fake, version):
    class ITimingCache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return CACHE + version.encode()

    class IOptimizationProfile:
        def __init__(self):
            self.shapes, self.values = {}, {}

        def set_shape(self, input, min, opt, max):  # noqa: A002 - TensorRT's names
            if any(low > high for low, high in zip(min, max, strict=True)):
                raise RuntimeError("Shape provided for max is inconsistent with other shapes.")
            self.shapes[input] = (tuple(min), tuple(opt), tuple(max))

        def set_shape_input(self, input, min, opt, max):  # noqa: A002
            self.values[input] = (tuple(min), tuple(opt), tuple(max))

    class IBuilderConfig(Strict):
        settable = ("profiling_verbosity", "builder_optimization_level", "progress_monitor")

        def __init__(self):
            self._flags, self._pools, self._profiles, self._cache = {trt.BuilderFlag.TF32}, {}, [], None

        def set_flag(self, flag):
            self._flags.add(flag)

        def clear_flag(self, flag):
            self._flags.discard(flag)

        def get_flag(self, flag):
            return flag in self._flags

        def set_memory_pool_limit(self, pool, pool_size):
            self._pools[pool] = pool_size

        def add_optimization_profile(self, profile):
            self._profiles.append(profile)
            return -1 if "profile" in fake.faults else len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache):
            data = bytes(serialized_timing_cache)
            fake.calls.append(("create_timing_cache", data))
            return None if data and not data.startswith(CACHE) else ITimingCache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            if "timing" in fake.faults or (
                cache.data and cache.data != CACHE + version.encode() and not ignore_mismatch
            ):
                return False
            self._cache = cache
            return True

    class Builder:
        def __init__(self, logger):
            self.logger = fake.start(self, logger)

        def create_network(self, flags=0):
            fake.calls.append(("create_network", flags))
            return trt.INetworkDefinition(flags)

        def create_builder_config(self):
            return IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            fake.calls.append(("build", network, config))
            if not _steps(config.progress_monitor):
                return None
            if "build" in fake.faults:
                self.logger.log(trt.ILogger.Severity.ERROR, fake.faults["build"])
                return None
            for warning in fake.faults.get("warnings", ()):
                self.logger.log(trt.ILogger.Severity.WARNING, warning)
            facts = {
                "version": version, "marked": network._marked, "strong": bool(network._flags & 2),
                "shapes": [profile.shapes for profile in config._profiles],
            }  # fmt: skip
            head = json.dumps(facts).encode()
            return memoryview(MAGIC + len(head).to_bytes(4, "little") + head + network._onnx)

    trt.Builder, trt.IBuilderConfig, trt.ITimingCache = Builder, IBuilderConfig, ITimingCache


def _steps(monitor):
    """Reports two phases, one inside the other; returns whether the build may go on."""
    monitor.phase_start("Building", None, 2)
    going = monitor.step_complete("Building", 0)
    if going:
        monitor.phase_start("Timing tactics", "Building", 3)
        going = all(monitor.step_complete("Timing tactics", step) for step in range(3))
        monitor.phase_finish("Timing tactics")
    going = going and monitor.step_complete("Building", 1)
    monitor.phase_finish("Building")
    return going


class FakeDevice:
    """A GPU whose memory is this machine's; it counts what is held and runs out at ``most_bytes``."""

    def __init__(self, index=0, name="NVIDIA Fake", capability=(9, 0), most_bytes=1 << 30):
        self.index, self.name, self.capability, self.most_bytes = index, name, capability, most_bytes
        self.stream, self.held, self.closed, self._clock = 7, {}, False, 0.0
        self.events = 0

    def use(self):
        pass

    def allocate(self, size):
        if sum(map(len, self.held.values())) + size > self.most_bytes:
            raise BackendError(f"The GPU's memory is too small to hold {size} bytes.", fix="Lower the batch.")
        buffer = ctypes.create_string_buffer(max(size, 1))
        address = ctypes.addressof(buffer)
        self.held[address] = buffer
        return address

    def free(self, address):
        del self.held[address]

    def copy_in(self, address, array):
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def copy_out(self, address, array):
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def synchronize(self):
        pass

    def wait(self, stream):
        assert stream == self.stream

    def event(self):
        self.events += 1
        return [0.0]

    def drop_event(self, event):
        self.events -= 1

    def record(self, event):
        self._clock += 25.0
        event[0] = self._clock

    def elapsed_us(self, start, end):
        return end[0] - start[0]

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def dense_model(batch="batch", width=4):
    """Returns MatMul + Add, Relu, MatMul on an input `x`; the serialized model and its weights."""
    generator = np.random.default_rng(5)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in
               (("w", (width, width)), ("b", (width,)), ("v", (width, width)))}  # fmt: skip
    make_node = onnx.helper.make_node
    nodes = [
        make_node("MatMul", ["x", "w"], ["a"], name="first"),
        make_node("Add", ["a", "b"], ["c"], name="bias"),
        make_node("Relu", ["c"], ["r"], name="relu"),
        make_node("MatMul", ["r", "v"], ["y"], name="last"),
    ]
    graph = onnx.helper.make_graph(
        nodes, "dense",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, width])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), weights
