"""What a parser made of a model's outputs, held against what the outputs are.

A parsed network tells names, types and shapes of its outputs before anything is built or run. A parser
that reads an attribute wrongly (the layout of an LSTM, `ceil_mode` of a pooling) shows it here, on a
machine without a GPU too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.external import tensors
from bisect_trt.model.graph import dims_of, without_symbols
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.store import external_info, shape_of
from bisect_trt.outcome import Failure, Stage, Symptom, Values

LARGEST_RUN = 512 << 20
"""Bytes of weights and inputs above which the reference is not run for the sake of shapes alone."""

# What networks call the types of ONNX; whatever is missing here is not compared.
_TYPES = {
    "FLOAT": TensorProto.FLOAT,
    "HALF": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
}
# TensorRT documents that it narrows these: a note of the parser, no failure.
_NARROWED = {TensorProto.DOUBLE: TensorProto.FLOAT, TensorProto.INT64: TensorProto.INT32}


class Output(NamedTuple):
    """One output: `type` as `TensorProto.DataType` (0: not known), `dims` with None for what is not known."""

    name: str
    type: int
    dims: tuple[int | None, ...] | None


def wrong_outputs(
    candidate: Candidate,
    network: Sequence[tuple[str, str, Sequence[int] | None]],
    known: Values,
    reference: Callable[[], Values],
    *,
    types: bool,
) -> tuple[Failure, ...]:
    """Return the failures of the parser: outputs of another number, shape or type than the model's.

    Args:
        candidate: what was parsed.
        network: what `targets.tensorrt.engine.network_outputs` gave.
        known: reference values of the outputs, where they are known already.
        reference: runs the reference; called only for the user's own file, whose declared shapes may be
            wrong, and only while its weights and inputs are few. Else ONNX's own shape inference is believed.
        types: whether types are compared; not where the precision of the model was changed.
    """
    proto = read_without_weights(candidate.content)
    original = candidate.form is Form.ORIGINAL
    if original and not known and not candidate.expected and _held(proto, candidate) <= LARGEST_RUN:
        known = reference()
    truth = _real(proto, candidate, known, original=original)
    got = [Output(name, _TYPES.get(kind, 0), _dims(shape)) for name, kind, shape in network]
    truth, got = _named_once(truth), _named_once(got)
    if len(got) != len(truth):
        message = f"The network has {len(got)} outputs, not {len(truth)}"
        return (_failure("The network has <n> outputs, not <n>", message),)
    return tuple(f for real, made in zip(truth, got, strict=True) for f in _differences(real, made, types))


def real_outputs(candidate: Candidate) -> list[Output]:
    """Return the outputs of a candidate that we made: as recorded, else as declared."""
    return _real(read_without_weights(candidate.content), candidate, (), original=False)


def _real(proto: onnx.ModelProto, candidate: Candidate, known: Values, *, original: bool) -> list[Output]:
    return list(_recorded(proto, candidate, known)) or list(_declared(proto, original=original))


def _named_once(outputs: Sequence[Output]) -> list[Output]:
    """Return each output once: a model may declare one twice, which ONNX Runtime and parsers take once."""
    first: dict[str, Output] = {}
    for output in outputs:
        first.setdefault(output.name, output)
    return list(first.values())


def _differences(real: Output, made: Output, types: bool) -> Iterator[Failure]:
    if not _fits(real.dims, made.dims):
        message = f"Output {real.name} of the network has shape {_shown(made.dims)}, not {_shown(real.dims)}"
        yield _failure("Output <name> of the network has shape <n>, not <n>", message)
    same = made.type in (0, real.type, _NARROWED.get(real.type)) or not real.type  # type: ignore[call-overload]
    if types and not same:
        words = [TensorProto.DataType.Name(kind) for kind in (made.type, real.type)]
        message = f"Output {real.name} of the network has type {words[0]}, not {words[1]}"
        yield _failure("Output <name> of the network has type <n>, not <n>", message)


def _failure(signature: str, message: str) -> Failure:
    return Failure(Stage.PARSE, Symptom.MISMATCH, signature, message)


def _fits(real: tuple[int | None, ...] | None, made: tuple[int | None, ...] | None) -> bool:
    if real is None or made is None:
        return True
    pairs = zip(real, made, strict=False)
    return len(real) == len(made) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _recorded(proto: onnx.ModelProto, candidate: Candidate, known: Values) -> Iterator[Output]:
    """Yield outputs as the reference gave them; nothing where it did not."""
    shapes: dict[str, tuple[int, ...]] = {}
    if candidate.expected:
        shapes = {name: shape_of(path) for name, path in candidate.expected[0].items()}
    elif known:
        shapes = {name: value.shape for name, value in known[0].items()}
    if not shapes:
        return
    for value in proto.graph.output:
        kind = value.type.tensor_type.elem_type
        if not candidate.expected and known and value.name in known[0]:
            kind = helper.np_dtype_to_tensor_dtype(known[0][value.name].dtype)
        yield Output(value.name, kind, shapes.get(value.name))


def _declared(proto: onnx.ModelProto, *, original: bool) -> Iterator[Output]:
    """Yield the outputs as declared; for the user's own file as ONNX's shape inference has them.

    What we cut declares what was recorded; what a user declares may be wrong, types too. The inference runs
    in a worker, which it may end.
    """
    if original:
        for value in proto.graph.output:
            if value.type.HasField("tensor_type"):
                value.ClearField("type")
        with suppress(onnx.shape_inference.InferenceError):
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    for value in proto.graph.output:
        yield Output(value.name, value.type.tensor_type.elem_type, without_symbols(dims_of(value.type)))


def _held(proto: onnx.ModelProto, candidate: Candidate) -> int:
    """Return the bytes of weights and of the first sample, each input value taken for eight."""
    weights = sum(int(external_info(tensor).get("length", 0)) for tensor in tensors(proto))
    return weights + sum(8 * math.prod(shape_of(path)) for path in (*candidate.feeds, {})[0].values())


def names_of(kind: int) -> tuple[str, ...]:
    """Say how networks may call a type of ONNX: its own name, and the one to which it is narrowed."""
    accepted = {kind, _NARROWED.get(kind)}  # type: ignore[call-overload]
    return tuple(name for name, known in _TYPES.items() if known in accepted)


def _dims(shape: Sequence[int] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(None if size < 0 else size for size in shape)


def _shown(dims: tuple[int | None, ...] | None) -> str:
    return "?" if dims is None else f"[{', '.join('?' if d is None else str(d) for d in dims)}]"
