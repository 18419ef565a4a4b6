"""What this TensorRT has of what came or went between 8.6 and 11: docs/conformance.md has the table.

Arrays on their way into and out of an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.load import read_without_weights
from bisect_trt.outcome import Array
from bisect_trt.targets.base import as_declared

FLOOR = (8, 6)
"""The oldest TensorRT that is taken; every TensorRT-RTX is newer."""


def release(trt: Any) -> tuple[int, int]:
    """Return the major and minor version of the module."""
    major, minor = str(trt.__version__).split(".")[:2]
    return int(major), int(minor)


def is_rtx(trt: Any) -> bool:
    """Return whether it is TensorRT-RTX."""
    return str(trt.__name__).startswith("tensorrt_rtx")


def is_strongly_typed(trt: Any) -> bool:
    """Return whether types of the network are taken as they stand: TensorRT 11, and every TensorRT-RTX.

    TensorRT-RTX 1.4 still has the flags of weak typing; it has no use for them.
    """
    return is_rtx(trt) or not hasattr(trt.BuilderFlag, "FP16")


def precision_flag(trt: Any, precision: str) -> Any:
    """Return the builder's flag that allows a precision where networks are weakly typed; None elsewhere.

    Raises:
        UsageError: this TensorRT has no such precision.
    """
    if not precision or is_strongly_typed(trt):
        return None
    flag = getattr(trt.BuilderFlag, precision.upper(), None)
    if flag is None:
        raise UsageError(
            f"--precision {precision}: TensorRT {trt.__version__} has no such precision",
            "TensorRT 9 and later have bf16.",
        )
    return flag


def precision_note(trt: Any, precision: str) -> str:
    """Say how a precision is asked for here, for the header; empty when none is."""
    if not precision:
        return ""
    if is_strongly_typed(trt):
        how = "types are taken as they stand here, so the model gets casts to it"
    else:
        how = f"the builder's flag {precision.upper()} allows it and leaves the choice to the builder"
    return f"--precision {precision}: {how}."


def network_flags(trt: Any) -> int:
    """Return the flags of a network: TensorRT 8 and 9 want explicit batch asked for, later ones do not."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 1 << int(flag) if flag is not None and not is_rtx(trt) and release(trt)[0] < 10 else 0


def missing(trt: Any) -> tuple[str, ...]:
    """Return what is off because this TensorRT lacks it, a sentence each."""
    title, found = f"TensorRT {trt.__version__}", []
    if not hasattr(trt, "IProgressMonitor"):
        found.append(f"{title} tells nothing of a build's progress; to stop one ends its process.")
    if not hasattr(trt.INetworkDefinition, "mark_unfused_tensors_as_debug_tensors"):
        found.append(f"{title} cannot show unfused tensors: there is no view in context.")
    return tuple(found)


def for_engine(trt: Any, engine: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the feeds of one sample with the types that the engine takes.

    TensorRT up to 9 makes int32 of int64 inputs and float32 of double ones; Polygraphy copies bytes, so
    without a conversion the engine would read something else. Types of ml_dtypes go in as their bits.
    """
    narrow = {trt.int32: np.int32, trt.float32: np.float32}
    taken: dict[str, Array] = {}
    for name, array in feeds.items():
        kind = np.dtype(narrow.get(engine.get_tensor_dtype(name), array.dtype))
        dtype = np.dtype(kind.type)  # in the byte order of this machine; `newbyteorder` hides `isbuiltin`
        array = np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(array.shape)
        taken[name] = array if dtype.isbuiltin == 1 else array.view(f"u{dtype.itemsize}")
    return taken


def from_engine(given: Any, elem_type: int) -> Array:
    """Return an output as Polygraphy gave it, as an own array of the type that the model declares.

    What numpy has no type for comes as bytes with a shape (`polygraphy.FormattedArray`).
    """
    if isinstance(given, np.ndarray):
        return given.astype(helper.tensor_dtype_to_np_dtype(elem_type), copy=True)
    data = np.asarray(given.array).tobytes()
    return numpy_helper.to_array(TensorProto(data_type=elem_type, dims=given.shape, raw_data=data))


def loaded(candidate: Candidate) -> tuple[list[Mapping[str, Array]], dict[str, int]]:
    """Return feeds of each sample with the types that the model declares, and the types of its outputs."""
    graph = read_without_weights(candidate.content).graph
    samples: list[Mapping[str, Array]] = [*as_declared(graph, candidate.folder, candidate.feeds)]
    return samples, {value.name: value.type.tensor_type.elem_type for value in graph.output}
