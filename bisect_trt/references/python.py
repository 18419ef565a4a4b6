"""`python:FILE[:FUNCTION]`: a function of the user; and input loaders. Runs in worker processes only.

The function takes a mapping of input name to array and gives a mapping of output name to array, or a list
of arrays in the order of the model's outputs. It may import anything. `torch.Tensor` is taken as well, and
tensors of other libraries when numpy can read them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.outcome import Array

USUAL = ("reference", "run", "infer", "forward", "main")
"""Functions that are looked for when none is named."""


def function_of(option: str, file: Path, name: str) -> Callable[..., Any]:
    """Run the file, once, and find the function in it.

    Raises:
        UsageError: the file fails, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"bisect_trt_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{option}: {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.absolute().parent))  # as when Python is started with it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            where = f"where it is: --reference 'command:/path/to/that/python {file} {{inputs}} {{outputs}}'"
            hint = f"install {error.name} beside bisect-trt, or run the file {where}"
        raise UsageError(f"{option}: {file} fails: {_words(error)}", hint) from error
    names = [name] if name else list(USUAL)
    found = next((getattr(module, n) for n in names if callable(getattr(module, n, None))), None)
    if found is None:
        raise UsageError(f"{option}: {file} has no function {' or '.join(names)}")
    function: Callable[..., Any] = found
    return function


def run(
    file: Path, name: str, samples: Sequence[Mapping[str, Array]], outputs: Sequence[str]
) -> list[dict[str, Array]]:
    """Call the function on each sample. It gets copies: what it does to them does no harm.

    Raises:
        UsageError: it fails, or gives something else than arrays.
    """
    option = f"--reference python:{file}" + (f":{name}" if name else "")
    function = function_of(option, file, name)
    found = []
    for sample in samples:
        try:
            given = function({k: np.array(v) for k, v in sample.items()})
        except (Exception, SystemExit) as error:
            raise UsageError(f"{option} fails: {_words(error)}") from error
        found.append(named(option, given, outputs))
    return found


def named(option: str, given: Any, outputs: Sequence[str]) -> dict[str, Array]:
    """Return what a function gave, by name; a list counts in the order of the model's outputs.

    Raises:
        UsageError: it is neither a mapping nor a list of as many arrays as the model has outputs.
    """
    if not isinstance(given, Mapping):
        values = list(given) if isinstance(given, list | tuple) else [given]
        if len(values) != len(outputs):
            raise UsageError(f"{option} gives {len(values)} outputs, the model has {len(outputs)}")
        given = dict(zip(outputs, values, strict=True))
    return {str(k): _array(option, str(k), v) for k, v in given.items()}


def _array(option: str, name: str, value: Any) -> Array:
    try:
        array = _of_torch(value) if hasattr(value, "detach") else np.asarray(value)
    except Exception as error:
        raise UsageError(f"{option}: {name} is no array: {_words(error)}") from error
    if array.dtype == object:
        raise UsageError(f"{option}: {name} is no array but {type(value).__name__}")
    return array


def _of_torch(value: Any) -> Array:
    """Return a tensor of PyTorch, which hands numpy no bfloat16 and no float8: these go by their bytes."""
    value = value.detach().cpu()
    kind = str(value.dtype).removeprefix("torch.").upper().replace("_", "")
    if not kind.startswith(("BFLOAT16", "FLOAT8")):
        return np.asarray(value)
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind))
    raw: Array = value.contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return raw.view(dtype).reshape(tuple(value.shape))


def load_inputs(file: Path, name: str) -> list[dict[str, Array]]:
    """Load everything that an input loader yields (or returns as a list, or as one mapping).

    Raises:
        UsageError: it fails, or gives something else than mappings of arrays.
    """
    option = f"--inputs {file}:{name}"
    function = function_of(option, file, name)
    try:
        given = function()
        several = given if isinstance(given, Iterable) else ()
        samples = [given] if isinstance(given, Mapping) else list(several)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option} fails: {_words(error)}") from error
    if not samples or not all(isinstance(sample, Mapping) for sample in samples):
        raise UsageError(f"{option} has to yield mappings of input name to array")
    return [{str(k): _array(option, str(k), v) for k, v in sample.items()} for sample in samples]


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
