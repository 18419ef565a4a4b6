"""ONNX Runtime's CPU provider as the reference. Imported in worker processes only.

Optimisations are off and the order of sums is fixed, so that equal inputs give equal bits. float16
is not what it seems: where the CPU provider has no float16 kernel it computes in float32 and may skip
the rounding between two nodes, even with optimisations off.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.store import raw_size
from bisect_trt.outcome import Array

_TENSOR = re.compile(r"tensor\((\w+)\)")
FOLDER_KEY = "session.model_external_initializers_file_folder_path"


_used: tuple[str, tuple[Path, ...]] = ("CPUExecutionProvider", ())


def use(provider: str, libraries: tuple[Path, ...]) -> None:
    """Set which execution provider and custom operators all sessions of this process have from now on.

    Raises:
        UsageError: ONNX Runtime has no such provider (it would quietly take the CPU's), or a library cannot
            be loaded.
    """
    global _used
    if _used == (provider, libraries):
        return
    known = ort.get_available_providers()
    if provider not in known:
        hint = f"it has {', '.join(known)}"
        raise UsageError(f"--reference-provider {provider}: {title()} has no such provider", hint)
    for library in libraries:
        try:
            ort.SessionOptions().register_custom_ops_library(str(library.absolute()))
        except Exception as error:  # as in Session
            raise UsageError(f"--custom-ops {library}: {_text(error)}") from error
    _used = (provider, libraries)


class OrtError(Exception):
    """ONNX Runtime refuses the model, or fails while it runs; the message is its own."""


def title() -> str:
    """Return its name for people: `ONNX Runtime 1.32.0`."""
    return f"ONNX Runtime {ort.__version__}"


class Session:
    """A model ready to run; external data is looked up in `folder`."""

    def __init__(self, model: bytes, folder: Path) -> None:
        """Load a serialised model.

        Raises:
            OrtError: ONNX Runtime refuses it.
        """
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # its exceptions say it all
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it burns what others need
        # Weights stay where they are mapped, instead of a copy that suits the kernels; and a product adds up
        # in the same order whether its matrix is a weight or an input.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry(FOLDER_KEY, str(folder.absolute()))
        provider, libraries = _used
        try:
            for library in libraries:
                options.register_custom_ops_library(str(library.absolute()))
            providers = list(dict.fromkeys((provider, "CPUExecutionProvider")))
            self._session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise OrtError(_text(error)) from error
        if provider not in self._session.get_providers():
            raise OrtError(f"{provider} cannot be used here: ONNX Runtime would take its CPU provider")
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array | str]:
        """Return outputs by name: arrays (types of ml_dtypes where numpy has none), strings as objects.

        What is no tensor (a sequence, an optional) is given as the text of its type.

        Raises:
            OrtError: ONNX Runtime fails.
        """
        try:
            return given_by(self._session, feeds)
        except Exception as error:  # as above
            raise OrtError(_text(error)) from error

    def run_held(self, values: Mapping[str, ort.OrtValue]) -> dict[str, Array | str]:
        """Run with values that are ONNX Runtime's already and may serve many runs. Raises OrtError."""
        try:
            return _held(self._session, values)
        except Exception as error:  # as above
            raise OrtError(_text(error)) from error


def given_by(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array | str]:
    """Return what a session gives, see `Session.run`; raises whatever it raises, ValueError as `to_ort`."""
    held = {name: np.require(value, requirements="C") for name, value in feeds.items()}
    if any(value.dtype.kind in "OU" for value in held.values()):  # no OrtValue takes strings
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, map(_plain, session.run(None, held)), strict=True))
    return _held(session, {name: to_ort(value) for name, value in held.items()})


def _held(session: ort.InferenceSession, values: Mapping[str, ort.OrtValue]) -> dict[str, Array | str]:
    given = session.run_with_ort_values(None, values)
    found: dict[str, Array | str] = {}
    for output, value in zip(session.get_outputs(), given, strict=True):
        found[output.name] = to_array(value) if value.is_tensor() else value.data_type()
        if output.name in values and value.is_tensor():
            found[output.name] = np.array(found[output.name])  # it is the caller's memory, which may go
    return found


def tensors(given: Mapping[str, Array | str]) -> dict[str, Array]:
    """Return what is a tensor of what a session gives."""
    return {name: value for name, value in given.items() if not isinstance(value, str)}


def run(model: bytes, folder: Path, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Run a model on each of several samples, and return all outputs that are tensors. Raises OrtError."""
    session = Session(model, folder)
    return [tensors(session.run(sample)) for sample in feeds]


def types(model: bytes, folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Return `TensorProto.DataType` of tensors that nodes of the main graph make; 0: no tensor.

    Nothing at all where ONNX Runtime refuses the model.
    """
    proto = onnx.load_model_from_string(model)
    there = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    try:
        outputs = Session(proto.SerializeToString(), folder)._session.get_outputs()
    except OrtError:
        return {}
    kinds = {output.name: _TENSOR.fullmatch(output.type) for output in outputs if output.name in names}
    return {t: TensorProto.DataType.Value(kind[1].upper()) if kind else 0 for t, kind in kinds.items()}


def used() -> tuple[str, tuple[Path, ...]]:
    """Return the execution provider and the libraries of custom operators that `use` was given."""
    return _used


def custom_ops() -> tuple[Path, ...]:
    """Return the libraries of custom operators that `use` was given."""
    return _used[1]


def _plain(value: Any) -> Array | str:
    """Return what `InferenceSession.run` gives: lists and dictionaries are sequences and maps."""
    return value if isinstance(value, np.ndarray) else f"seq({type(value).__name__})"


def _text(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def lacks(array: Array) -> str:
    """Return what ONNX Runtime's Python package has no way to take, in words; empty where it has one."""
    if array.dtype.kind in "OU" or np.dtype(array.dtype.type).isbuiltin == 1:
        return ""
    elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    packed = raw_size(elem_type, (2,)) != 2 * array.dtype.itemsize
    return f"input of type {array.dtype} cannot be handed to ONNX Runtime" if packed else ""


def to_ort(array: Array) -> ort.OrtValue:
    """Return the array as a value on the CPU; it may share memory with the array."""
    if array.dtype.kind in "OU" or np.dtype(array.dtype.type).isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(array)
    if why := lacks(array):
        raise ValueError(f"an {why}")
    elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    bits = array.view(f"u{array.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, elem_type)


def to_array(value: ort.OrtValue) -> Array:
    """Return a tensor of ONNX Runtime as an array, of a type of ml_dtypes where numpy has none."""
    elem_type, shape = value.element_type(), tuple(value.shape())
    if elem_type == TensorProto.STRING or helper.tensor_dtype_to_np_dtype(elem_type).isbuiltin == 1:
        return np.asarray(value.numpy())
    size = raw_size(elem_type, shape)
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    tensor = TensorProto(data_type=elem_type, dims=shape, raw_data=data)
    return numpy_helper.to_array(tensor)
