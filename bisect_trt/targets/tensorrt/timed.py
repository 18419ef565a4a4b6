"""An engine with a clock, and its layers.

A run is timed by two CUDA events on the engine's stream (`cudaEventElapsedTime`): what lies between them is
what the GPU did, copies of inputs and outputs not counted, as in trtexec's GPU Compute Time. Where the GPU
waits for the host to launch kernels, that counts; a CUDA graph launches all of them at once. Layers are
what `IProfiler.report_layer_time` tells. CUDA is reached through Polygraphy's wrapper of the runtime library.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from bisect_trt.outcome import Array
from bisect_trt.targets.tensorrt.api import for_engine
from bisect_trt.targets.tensorrt.blame import Blame
from bisect_trt.targets.timed import GPU_EVENTS, FailedError, Layer, Layers, Opened, repeated, typical_layers

_LAYER = re.compile(r"\[ONNX Layer: (.*?)\]")
_FUSED = re.compile(r" \+ | \|\| |[(),]")  # `a + b`, `a || b`, `PWN(a, b)`
_NO_NODE = re.compile(r"Reformatting CopyNode|\[?(HostToDevice|DeviceToHost|DeviceToShapeHost)Copy|^copied")
_RELAXED = 2  # cudaStreamCaptureModeRelaxed
_HOST = "HOST"  # of TensorLocation: values that shapes depend on
_ELEMENT = 8  # bytes of an element where this TensorRT does not say


class TimedEngine:
    """See `targets.timed.Timed`."""

    def __init__(
        self, trt: Any, cuda: Any, engine: Any, content: bytes, build_seconds: float, graph: bool
    ) -> None:
        """Measure an engine of the model `content`; `cuda` is the module `polygraphy.cuda`.

        Raises:
            FailedError: there is no room for its context on the GPU.
        """
        self._trt, self._cuda, self._engine = trt, cuda, engine
        self._blame = Blame(onnx.load_model_from_string(content))
        self._library = cuda.wrapper().handle
        self._context = self._new_context()
        self._stream = cuda.Stream()
        self._events = (self._event(), self._event())
        self._held: list[Any] = []
        self._wants_graph, self._graph = graph, ctypes.c_void_p()
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        inputs = trt.TensorIOMode.INPUT
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == inputs]
        self._outputs = [name for name in names if name not in self._inputs]
        scratch = getattr(engine, "device_memory_size_v2", 0) or getattr(engine, "device_memory_size", 0)
        self.opened = Opened(GPU_EVENTS, build_seconds, {"device": int(scratch or 0)})

    def feed(self, inputs: Mapping[str, Array]) -> None:
        """Copy inputs to the GPU and make room for the outputs. Raises FailedError."""
        engine, context = self._engine, self._context
        self._held, self._graph = [], ctypes.c_void_p()
        given = for_engine(self._trt, engine, {name: inputs[name] for name in self._inputs})
        for name, array in given.items():
            if not context.set_input_shape(name, tuple(array.shape)):
                raise FailedError(f"the engine takes no {name} of the shape {array.shape}")
            at_host = engine.get_tensor_location(name).name == _HOST
            context.set_tensor_address(name, self._at_host(array) if at_host else self._on_card(array))
        for name in self._outputs:
            context.set_tensor_address(name, self._room(name))
        self._launch()  # what TensorRT decides for a new shape is not timed, nor captured
        self._stream.synchronize()
        if self._wants_graph:
            self._capture()

    def run(self, seconds: float, most: int) -> list[float]:
        """See `Timed.run`."""
        return repeated(self._once(), seconds, most)

    def layers(self, runs: int) -> Layers | None:
        """Run in a context of its own, as a profiler slows the engine down."""
        timed: list[list[tuple[str, float]]] = []

        class Profiler(self._trt.IProfiler):  # type: ignore[name-defined, misc]
            def __init__(self, base: Any) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                timed[-1].append((layer_name, ms * 1e-3))

        plain, context = self._context, self._new_context()
        self._context = context
        try:
            for name in self._inputs:
                context.set_input_shape(name, tuple(plain.get_tensor_shape(name)))
            for name in (*self._inputs, *self._outputs):
                context.set_tensor_address(name, plain.get_tensor_address(name))
            context.profiler = Profiler(self._trt.IProfiler)
            whole = []
            for _ in range(runs + 1):
                timed.append([])
                whole.append(self._timed(self._launch))
        finally:
            self._context = plain
        known, found = self._metadata(), []
        for name, seconds in typical_layers(timed[1:]).items():
            metadata, kind = known.get(name, ("", ""))
            found.append(Layer(name, kind, self._nodes(name, metadata), seconds))
        return Layers(tuple(found), sorted(whole[1:])[len(whole[1:]) // 2])

    def _nodes(self, name: str, metadata: str) -> tuple[str, ...]:
        """Return the nodes of the model that a layer computes."""
        if _NO_NODE.search(name):
            return ()
        words = (*_LAYER.findall(metadata), *map(str.strip, _FUSED.split(name)))
        named = dict.fromkeys(word for word in words if self._blame.has(word))
        return tuple(named) or self._blame.named_in(name)

    def _metadata(self) -> dict[str, tuple[str, str]]:
        """Return, for each layer of which the inspector tells, where it comes from and its kind."""
        try:
            inspector = self._engine.create_engine_inspector()
            text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
            layers = [one for one in json.loads(text)["Layers"] if isinstance(one, dict)]
        except (ValueError, KeyError, TypeError, AttributeError):  # 8.6 writes some that nobody can read
            return {}
        return {
            str(one.get("Name")): (str(one.get("Metadata", "")), str(one.get("LayerType", "")))
            for one in layers
        }

    # CUDA

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise FailedError("no execution context: the GPU has no room for it")
        return context

    def _once(self) -> Iterator[float]:
        while True:
            yield self._timed(self._replay if self._graph else self._launch)

    def _timed(self, launch: Any) -> float:
        """Return the seconds between two events around a launch."""
        start, end = self._events
        stream, taken = ctypes.c_void_p(self._stream.ptr), ctypes.c_float()
        self._check(self._library.cudaEventRecord(start, stream))
        launch()
        self._check(self._library.cudaEventRecord(end, stream))
        self._check(self._library.cudaEventSynchronize(end))
        self._check(self._library.cudaEventElapsedTime(ctypes.byref(taken), start, end))
        return taken.value * 1e-3

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self._stream.ptr):
            raise FailedError("the engine does not run")

    def _replay(self) -> None:
        self._check(self._library.cudaGraphLaunch(self._graph, ctypes.c_void_p(self._stream.ptr)))

    def _capture(self) -> None:
        """Make a CUDA graph of one run; an engine that cannot be captured is a failure."""
        library, stream = self._library, ctypes.c_void_p(self._stream.ptr)
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(library.cudaStreamBeginCapture(stream, _RELAXED))
        ran = self._context.execute_async_v3(self._stream.ptr)
        if library.cudaStreamEndCapture(stream, ctypes.byref(graph)) or not ran or not graph:
            raise FailedError("this engine cannot be captured in a CUDA graph: leave --cuda-graph out")
        self._check(library.cudaGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0)))
        self._graph = ready

    def _event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._check(self._library.cudaEventCreate(ctypes.byref(event)))
        return event

    def _on_card(self, array: Array) -> int:
        buffer = self._cuda.DeviceArray.raw((max(1, array.nbytes),))
        self._held.append(buffer)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if flat.size:
            buffer.copy_from(flat)
        return int(buffer.ptr)

    def _at_host(self, array: Array) -> int:
        held = np.ascontiguousarray(array)
        self._held.append(held)
        return int(held.ctypes.data)

    def _room(self, name: str) -> int:
        """Return the address of a buffer for an output; of one whose size depends on values, the largest."""
        engine, context = self._engine, self._context
        shape = tuple(context.get_tensor_shape(name))
        width = getattr(engine.get_tensor_dtype(name), "itemsize", _ELEMENT)
        size = math.ceil(math.prod(shape) * width)
        if any(dim < 0 for dim in shape):
            size = int(context.get_max_output_size(name))
        if engine.get_tensor_location(name).name == _HOST:
            return self._at_host(np.zeros(max(1, size), np.uint8))
        buffer = self._cuda.DeviceArray.raw((max(1, size),))
        self._held.append(buffer)
        return int(buffer.ptr)

    def _check(self, status: int) -> None:
        if status:
            raise FailedError(f"CUDA error {status}")
