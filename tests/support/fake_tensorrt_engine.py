"""The part of the stand-in for ``tensorrt`` that loads, runs and inspects engines; `fake_tensorrt` makes the whole."""

from __future__ import annotations

import ctypes
import json

import ml_dtypes
import numpy as np
import onnx
import onnxruntime

MAGIC = b"FAKE-ENGINE"
DTYPES = {
    onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8", onnx.TensorProto.INT32: "INT32", onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL", onnx.TensorProto.UINT8: "UINT8",
}  # fmt: skip


class Strict:
    """Refuses attributes that the documented class does not have."""

    settable: tuple[str, ...] = ()

    def __setattr__(self, name, value):
        if not name.startswith("_") and name not in self.settable:
            raise AttributeError(f"{type(self).__name__} has no settable '{name}'")
        super().__setattr__(name, value)


def add_runtime(trt, fake, version, major):
    class Runtime:
        def __init__(self, logger):
            self.logger = fake.start(self, logger)

        def deserialize_cuda_engine(self, serialized_engine):
            data = bytes(serialized_engine)
            if "load" in fake.faults or not data.startswith(MAGIC):
                self.logger.log(trt.ILogger.Severity.ERROR, fake.faults.get("load", "Magic tag does not match"))
                return None
            size = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
            start = len(MAGIC) + 4
            facts = json.loads(data[start : start + size])
            if facts["version"] != version:
                said = f"Version tag does not match: {facts['version']}"
                self.logger.log(trt.ILogger.Severity.ERROR, said)
                return None
            return _engine(trt, fake, major, onnx.load_from_string(data[start + size :]), facts)

    trt.Runtime = Runtime


def _engine(trt, fake, major, proto, facts):
    weights = {item.name for item in proto.graph.initializer}
    inputs = {item.name: item for item in proto.graph.input if item.name not in weights}
    outputs = {item.name: item for item in proto.graph.output}

    class Inspector(Strict):
        settable = ("execution_context",)

        def get_engine_information(self, format):  # noqa: A002
            assert format is trt.LayerInformationFormat.JSON
            return json.dumps(inspected(proto, major))

    class ICudaEngine(Strict):
        num_io_tensors = property(lambda self: len(inputs) + len(outputs))

        def get_tensor_name(self, index):
            return [*inputs, *outputs][index]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name in inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return trt.DataType[DTYPES[({**inputs, **outputs})[name].type.tensor_type.elem_type]]

        def get_tensor_location(self, name):
            return trt.TensorLocation.HOST if name in fake.faults.get("on_host", ()) else trt.TensorLocation.DEVICE

        def create_engine_inspector(self):
            return Inspector()

        def create_execution_context(self):
            return None if "context" in fake.faults else _context(trt, fake, self, proto, facts)

    return ICudaEngine()


def _context(trt, fake, engine, proto, facts):
    class IExecutionContext(Strict):
        settable = ("profiler", "enqueue_emits_profile", "unfused_tensors_debug_state")

        def __init__(self):
            self._shapes, self._addresses, self._ran, self._allocators = {}, {}, 0, {}
            self._listener, self._all = None, False
            self.profiler, self.enqueue_emits_profile, self.unfused_tensors_debug_state = None, True, False

        def set_input_shape(self, name, shape):
            for shapes in facts["shapes"]:
                low, _, high = shapes.get(name, (shape, shape, shape))
                if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                    return False
            self._shapes[name] = tuple(shape)
            return True

        def infer_shapes(self):
            if "infer" in fake.faults:
                raise RuntimeError(fake.faults["infer"])
            return list(fake.faults.get("unknown", ()))

        def get_tensor_shape(self, name):
            if name in fake.faults.get("grown", ()):
                return (-1,)
            inferred = onnx.ModelProto.FromString(proto.SerializeToString())
            for item in inferred.graph.input:
                for index, dim in enumerate(self._shapes.get(item.name, ())):
                    item.type.tensor_type.shape.dim[index].dim_value = dim
            for item in inferred.graph.output:
                item.type.tensor_type.ClearField("shape")
            inferred = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
            item = next(item for item in inferred.graph.output if item.name == name)
            return tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def set_output_allocator(self, name, output_allocator):
            self._allocators[name] = output_allocator
            return True

        def execute_async_v3(self, stream_handle):
            if "run" in fake.faults:
                return False
            self._ran += 1
            values = _run(proto, {name: self._array(name) for name in self._shapes})
            for item in proto.graph.output:
                self._store(item.name, values[item.name])
            shown = facts["marked"] and self._all and self.unfused_tensors_debug_state
            if self._listener is not None and shown and "silent" not in fake.faults:
                self._show(values, stream_handle)
            return True

        def _array(self, name):
            dtype, shape = _numpy(trt, engine.get_tensor_dtype(name)), self._shapes[name]
            return read_memory(self._addresses[name], dtype, shape)

        def _store(self, name, value):
            value = np.ascontiguousarray(value)
            if "unmarked_nan" in fake.faults and not facts["marked"]:
                value = np.full_like(value, np.nan)
            address = self._addresses.get(name)
            if name in self._allocators:
                address = self._allocators[name].reallocate_output(name, 0, value.nbytes, 256)
                self._allocators[name].notify_shape(name, value.shape)
            ctypes.memmove(address, value.ctypes.data, value.nbytes)

        def _show(self, values, stream):
            for index, (name, given) in enumerate(values.items()):
                value = np.ascontiguousarray(given)
                dtype = trt.DataType[DTYPES[onnx.helper.np_dtype_to_tensor_dtype(value.dtype)]]
                place = trt.TensorLocation.HOST if index == 0 else trt.TensorLocation.DEVICE
                self._listener.process_debug_tensor(value.ctypes.data, place, dtype, value.shape, name, stream)

        def report_to_profiler(self):
            if self.profiler is None or not self._ran or "no_profile" in fake.faults:
                return False
            assert self.enqueue_emits_profile is False
            for index, layer in enumerate(inspected(proto, 10)["Layers"]):
                self.profiler.report_layer_time(layer["Name"], 0.001 * (index + 1))
            return True

        def set_debug_listener(self, listener):
            self._listener = listener
            return "listener" not in fake.faults

        def set_all_tensors_debug_state(self, flag):
            self._all = flag
            return True

    return IExecutionContext()


def _numpy(trt, dtype):
    names = {"FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_}
    return np.dtype(names.get(dtype.name) or dtype.name.lower())


def _run(proto, feeds):
    """Returns every tensor value of the model by name."""
    model = onnx.shape_inference.infer_shapes(proto)
    told = {item.name for item in model.graph.output}
    model.graph.output.extend(item for item in model.graph.value_info if item.name not in told)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def inspected(proto, major):
    """Returns the inspector's JSON: a MatMul and the Add behind it are one layer, every other node its own."""
    groups = []
    for node in proto.graph.node:
        if (
            node.op_type == "Add"
            and groups
            and groups[-1][-1].op_type == "MatMul"
            and node.input[0] in groups[-1][-1].output
        ):
            groups[-1].append(node)
        else:
            groups.append([node])
    kinds = {
        item.name: item.type.tensor_type.elem_type for item in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    kinds |= {item.name: item.type.tensor_type.elem_type for item in (*proto.graph.input, *proto.graph.output)}
    kinds |= {item.name: item.data_type for item in proto.graph.initializer}

    def tensor(name):
        word = {1: "FP32", 10: "FP16", 16: "BF16", 3: "Int8", 7: "Int64"}.get(kinds.get(name, 1), "FP32")
        if major < 11:
            return {
                "Name": name,
                "Location": "Device",
                "Dimensions": [1],
                "Format/Datatype": f"Row major linear {word}",
            }
        return {"Name": name, "Location": "Device", "Dimensions": [1], "Format": "Row major linear", "Datatype": word}

    weights = {item.name for item in proto.graph.initializer}
    layers = [
        {
            "Name": " + ".join(node.name for node in group),
            "LayerType": "gemm" if len(group) > 1 else group[0].op_type,
            "Inputs": [tensor(name) for name in group[0].input if name not in weights],
            "Outputs": [tensor(name) for name in group[-1].output],
            "TacticName": "",
            "StreamId": 0,
            "Metadata": "\x1e".join(f"[ONNX Layer: {node.name}]\x1f" for node in group),
        }
        for group in groups
    ]
    names = [item.name for item in (*proto.graph.input, *proto.graph.output) if item.name not in weights]
    return {"Layers": layers, ("Bindings" if major < 11 else "I/O Tensors"): names}


def read_memory(address, dtype, shape):
    """Returns a copy of what lies at an address."""
    array = np.empty(shape, dtype=dtype)
    ctypes.memmove(array.ctypes.data, address, array.nbytes)
    return array
