"""Arrays on their way into and out of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model import light
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.targets.base import Array


def for_engine(trt: Any, engine: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds of one sample with the types that the engine takes.

    TensorRT up to 9 makes int32 of int64 inputs and float32 of double ones; Polygraphy copies bytes, so
    without a conversion the engine would read something else. Types of ml_dtypes go in as their bits.
    """
    narrow = {trt.int32: np.int32, trt.float32: np.float32}
    taken: dict[str, Array] = {}
    for name, array in feeds.items():
        wanted = np.dtype(narrow.get(engine.get_tensor_dtype(name), array.dtype))
        dtype = np.dtype(wanted.type)  # in the byte order of this machine; `newbyteorder` hides `isbuiltin`
        array = np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(array.shape)
        taken[name] = array if dtype.isbuiltin == 1 else array.view(f"u{dtype.itemsize}")
    return taken


def from_engine(given: Any, elem_type: int) -> Array:
    """An output as Polygraphy gave it, as an own array of the type that the model declares.

    What numpy has no type for comes as bytes with a shape (`polygraphy.FormattedArray`).
    """
    if isinstance(given, np.ndarray):
        return given.astype(helper.tensor_dtype_to_np_dtype(elem_type), copy=True)
    data = np.asarray(given.array).tobytes()
    return numpy_helper.to_array(TensorProto(data_type=elem_type, dims=given.shape, raw_data=data))


def loaded(candidate: Candidate) -> tuple[list[Mapping[str, Array]], dict[str, int]]:
    """The feeds of each sample with the types that the model declares, and the types of its outputs."""
    graph = light.read(candidate.content).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    store = Store(candidate.folder)
    samples: list[Mapping[str, Array]] = [
        {name: store.load(path, types[name]) for name, path in sample.items() if name in types}
        for sample in candidate.feeds
    ]
    return samples, {value.name: types[value.name] for value in graph.output}
