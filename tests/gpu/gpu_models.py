"""Small models for the tests on a card."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.store import Store
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import registry
from bisect_trt.targets.base import TargetResult

Value = tuple[str, int, list[int | str] | None]
F = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto], inputs: list[Value], outputs: list[Value], **constants: Any
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    values = [[helper.make_tensor_value_info(*v) for v in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *values, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def chain(length: int = 6, width: int = 64, dims: list[int | str] | None = None) -> onnx.ModelProto:
    """MatMul and Tanh in turn: something to fuse, something to round."""
    rng = np.random.default_rng(7)
    nodes, weights, at = [], {}, "x"
    for k in range(length):
        weights[f"w{k}"] = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [at, f"w{k}"], [f"m{k}"], f"mm{k}"))
        at = "y" if k == length - 1 else f"t{k}"
        nodes.append(helper.make_node("Tanh", [f"m{k}"], [at], f"tanh{k}"))
    shape = dims or [8, width]
    return model(nodes, [("x", F, shape)], [("y", F, shape)], **weights)


def candidate(
    proto: onnx.ModelProto, folder: Path, *samples: dict[str, Any], form: Form = Form.DEFAULT
) -> Candidate:
    store = Store(folder)
    feeds = tuple({k: store.put(k, np.asarray(v)) for k, v in sample.items()} for sample in samples)
    nodes = tuple(node.name for node in proto.graph.node)
    return Candidate(proto.SerializeToString(), folder, nodes, feeds, form=form)


def run(
    flavour: str, proto: onnx.ModelProto, folder: Path, *samples: dict[str, Any], **settings: Any
) -> TargetResult:
    target = registry.open_target(TargetSettings(spec=flavour, **settings))
    return target.run(candidate(proto, folder, *samples))


def four_tebibytes() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """An outer product that no card holds, and its inputs."""
    side = 1 << 20
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["y"], "mm"),
        helper.make_node("Tanh", ["y"], ["z"], "tanh"),
    ]
    proto = model(nodes, [("a", F, [side, 1]), ("b", F, [1, side])], [("z", F, [side, side])])
    return proto, {"a": np.ones((side, 1), np.float32), "b": np.ones((1, side), np.float32)}


def six_gigabytes() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """An outer product that fits on a card where little else lies; TensorRT takes no tensor beyond 2^31."""
    side = 40_000
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["y"], "mm"),
        helper.make_node("ReduceMax", ["y"], ["z"], "max", axes=[0, 1], keepdims=0),
    ]
    graph = model(nodes, [("a", F, [side, 1]), ("b", F, [1, side])], [("z", F, [])])
    graph.opset_import[0].version = 17  # the axes of 18 are an input
    return graph, {"a": np.ones((side, 1), np.float32), "b": np.ones((1, side), np.float32)}


@contextmanager
def full_card(left: int) -> Iterator[None]:
    """All but `left` bytes of the card's memory is taken, by plain allocations of this process."""
    cuda, context, held = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), []
    assert not cuda.cuInit(0) and not cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    assert not cuda.cuCtxPushCurrent_v2(context)
    free, total, part = ctypes.c_size_t(), ctypes.c_size_t(), 1 << 30
    try:
        while not cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) and free.value > left + part:
            place = ctypes.c_uint64()
            if cuda.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(part)):
                break
            held.append(place)
        yield
    finally:
        for place in held:
            cuda.cuMemFree_v2(place)
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
        cuda.cuDevicePrimaryCtxRelease(0)


_BAD = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry bad() { .reg .b64 %rd<2>; mov.u64 %rd1, 16; st.global.u32 [%rd1], 0; ret; }
"""


def poisoned_probe(settings: TargetSettings, one: Candidate) -> Any:
    """A probe in a process whose CUDA context has a sticky error, as a plugin leaves it.

    Returns:
        What the driver says of a kernel that writes to address 16 (700: illegal address), the failures of
        the target after it, and the process.
    """
    target = registry.open_target(settings)
    target.run(one)
    cuda, module, kernel = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
    code = cuda.cuModuleLoadData(ctypes.byref(module), _BAD)
    code = code or cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"bad")
    code = code or cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None)
    code = code or cuda.cuCtxSynchronize()
    return code, target.run(one).failures, os.getpid()


def busy_probe(settings: TargetSettings, one: Candidate) -> str:
    """A probe without failures that takes a second, so that every worker gets one; the GPU that it ran on."""
    assert not registry.open_target(settings).run(one).failures
    time.sleep(1)
    cuda, uuid = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(16)
    assert not cuda.cuDeviceGetUuid(uuid, 0)
    return uuid.raw.hex()
