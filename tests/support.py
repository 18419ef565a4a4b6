"""What tests of the model layer share: records of a reference run, and candidates run in ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs.feeds import GraphInput, fit
from bisect_trt.model.inputs.formats import read_samples
from bisect_trt.model.store import Store

Array = npt.NDArray[Any]


def read_inputs(
    path: Path, inputs: Sequence[GraphInput], notes: list[str] | None = None
) -> list[dict[str, Array]]:
    """Input values of a file as the model declares them."""
    return fit(path, read_samples(path, [item.name for item in inputs]), inputs, notes)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


class Record:
    """Recorded values of a few runs, held as the store's files."""

    hidden: frozenset[str] = frozenset()

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths: list[dict[str, Path]] = []
        self._types: dict[str, tuple[int, tuple[int, ...]]] = {}

    @property
    def samples(self) -> int:
        return len(self._paths)

    def add(self, values: Mapping[str, Array]) -> None:
        self._paths.append({name: self._store.put(name, value) for name, value in values.items()})
        if len(self._paths) == 1:
            self._types = {
                name: (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in values.items()
            }

    def path(self, sample: int, tensor: str) -> Path:
        return self._paths[sample][tensor]

    def __contains__(self, tensor: object) -> bool:
        return tensor in self._types

    def elem_type(self, tensor: str) -> int:
        return self._types[tensor][0]

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self._types[tensor][1]


def session(model: bytes, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, folder: Path, feeds: Mapping[str, Array]) -> dict[str, Any]:
    return run_session(session(model, folder), feeds)


def run_session(ready: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Outputs that are tensors; types that numpy does not know go in and out as their bits."""
    names = [o.name for o in ready.get_outputs()]
    values = ready.run_with_ort_values(names, {name: _to_ort(value) for name, value in feeds.items()})
    return {n: _from_ort(v) for n, v in zip(names, values, strict=True) if v.is_tensor()}


def _to_ort(value: Array) -> ort.OrtValue:
    if value.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(np.array(value))
    bits = np.array(value).view(f"u{value.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, helper.np_dtype_to_tensor_dtype(value.dtype))


def _from_ort(value: ort.OrtValue) -> Array:
    if value.element_type() == TensorProto.STRING:
        return value.numpy()
    dtype = helper.tensor_dtype_to_np_dtype(value.element_type())
    if dtype.isbuiltin == 1:
        return value.numpy()
    size = value.tensor_size_in_bytes()
    bits = (ctypes.c_char * size).from_address(value.data_ptr()).raw
    return np.frombuffer(bits, dtype).reshape(value.shape())


def record_all(
    proto: onnx.ModelProto, feeds: Mapping[str, Array] | list[dict[str, Array]], store: Store
) -> Record:
    """Run the whole model with every tensor exposed; sequences are left out."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    graph = Graph(proto)
    made = [t for name in graph.order for t in graph.outputs_of(name)]
    have = set(graph.graph_outputs)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=t) for t in made if t not in have)
    ready = session(exposed.SerializeToString(), store.folder)
    record = Record(store)
    for sample in feeds if isinstance(feeds, list) else [feeds]:
        record.add(run_session(ready, sample) | dict(sample))
    return record


def random_feeds(proto: onnx.ModelProto, seed: int) -> dict[str, Array]:
    """Seeded values for float inputs; symbolic dimensions are 2."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for info in proto.graph.input:
        kind = info.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else 2 for d in kind.shape.dim]
        feeds[info.name] = rng.standard_normal(dims).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return feeds


def check(candidate: Candidate) -> onnx.ModelProto:
    """The candidate's model, which `onnx.checker` has accepted with its weights in memory."""
    proto = onnx.ModelProto.FromString(candidate.model)
    full = onnx.ModelProto.FromString(candidate.model)
    onnx.load_external_data_for_model(full, str(candidate.folder))
    for output in full.graph.output if candidate.form is Form.UNTYPED else ():
        output.type.tensor_type.shape.SetInParent()  # the checker wants one, runtimes infer it
    onnx.checker.check_model(full, full_check=candidate.form is not Form.UNTYPED)
    return proto


def assert_replays(candidate: Candidate, store: Store, record: Record, rtol: float = 1e-5) -> None:
    """ONNX Runtime gives the recorded values when it is fed with the recorded values."""
    proto = check(candidate)
    assert candidate.feeds and candidate.expected
    for feeds, expected in zip(candidate.feeds, candidate.expected, strict=True):
        assert set(feeds) == {i.name for i in proto.graph.input}
        given = {t: store.load(p, record.elem_type(t)) for t, p in feeds.items()}
        got = run(candidate.model, candidate.folder, given)
        # Cut narrowly, a sequence may be all that comes out.
        assert (got or candidate.form is Form.NARROW) and set(expected) <= set(got)
        for tensor, path in expected.items():
            wanted = store.load(path, record.elem_type(tensor))
            assert got[tensor].dtype == wanted.dtype
            np.testing.assert_allclose(got[tensor], wanted, rtol=rtol, atol=rtol, err_msg=tensor)


def tensor_type(name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[TensorProto] | None = None,
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    options.setdefault("opset_imports", [helper.make_opsetid("", opset)])
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    return helper.make_model(graph, ir_version=options.pop("ir_version", 9), **options)
