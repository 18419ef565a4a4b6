"""What a reference run leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field
from msgspec.structs import asdict, replace
from onnx import helper

from bisect_trt.model.candidate import Feeds
from bisect_trt.model.graph import Graph
from bisect_trt.model.store import Store, shape_of


class Tensor(Struct, frozen=True):
    """One recorded tensor: `TensorProto.DataType`, and for each sample its shape and file name."""

    elem_type: int
    shapes: tuple[tuple[int, ...], ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, arrays: Sequence[npt.NDArray[Any]], paths: Sequence[Path]) -> Tensor:
        """Describe values, one array for each sample, that lie in these files."""
        elem_type = helper.np_dtype_to_tensor_dtype(np.asarray(arrays[0]).dtype)
        shapes = tuple(tuple(map(int, array.shape)) for array in arrays)
        return cls(elem_type, shapes, tuple(path.name for path in paths))


class Record(Struct, frozen=True):
    """Reference values of tensors, in a store.

    Attributes:
        folder: of the store.
        samples: runs of the model, numbered from 0.
        tensors: what was recorded.
        missing: why other tensors were not.
        error: the reference's own first message when it could not run all of the model, else "".
        reference: for people, `ONNX Runtime 1.32.0`.
        hidden: tensors whose values are not what flows: Inf where they do not fit into float16, although
            ONNX Runtime computes on with what they are. Nothing can be cut there.
    """

    folder: Path
    samples: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    reference: str = ""
    hidden: frozenset[str] = frozenset()

    def __contains__(self, tensor: object) -> bool:
        """Return whether the tensor was recorded."""
        return tensor in self.tensors

    def path(self, sample: int, tensor: str) -> Path:
        """Return the file with the value, see `Store.put`. Raises KeyError when it was not recorded."""
        return self.folder / self.tensors[tensor].files[sample]

    def elem_type(self, tensor: str) -> int:
        """Return `TensorProto.DataType` of the value. Raises KeyError when it was not recorded."""
        return self.tensors[tensor].elem_type

    def shape(self, tensor: str, sample: int = 0) -> tuple[int, ...]:
        """Return the dimensions in one sample. Raises KeyError when it was not recorded."""
        return self.tensors[tensor].shapes[sample]

    def values(self, names: Iterable[str]) -> tuple[Feeds, ...]:
        """Return the files of those of these tensors that were recorded: a mapping for each sample."""
        known = [name for name in names if name in self.tensors]
        return tuple({name: self.path(k, name) for name in known} for k in range(self.samples))

    def only(self, samples: Sequence[int]) -> Record:
        """Return the same of some of the samples, in this order."""
        tensors = {
            name: Tensor(t.elem_type, tuple(t.shapes[k] for k in samples), tuple(t.files[k] for k in samples))
            for name, t in self.tensors.items()
        }
        return replace(self, samples=len(samples), tensors=tensors)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data; file names are relative to the store."""
        tensors = {name: asdict(known) for name, known in self.tensors.items()}
        return {**asdict(self), "folder": str(self.folder), "tensors": tensors, "hidden": sorted(self.hidden)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Make it from what `to_json` gave."""
        tensors = {
            name: Tensor(t["elem_type"], tuple(tuple(s) for s in t["shapes"]), tuple(t["files"]))
            for name, t in data["tensors"].items()
        }
        folder, hidden = Path(data["folder"]), frozenset(data["hidden"])
        return cls(**{**data, "folder": folder, "tensors": tensors, "hidden": hidden})


def recorded_values(store: Store, name: str, arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
    """Write the values of one tensor, one for each sample."""
    return Tensor.of(arrays, [store.put(name, array) for array in arrays])


def recorded_inputs(graph: Graph, store: Store, feeds: Sequence[Feeds]) -> dict[str, Tensor]:
    """Return inputs of a model that have values in all samples: their files in the store are the record."""
    tensors = {}
    for name in graph.graph_inputs:
        elem_type = graph.elem_type(name)
        if elem_type is not None and all(name in sample for sample in feeds):
            paths = [sample[name] for sample in feeds]
            tensors[name] = Tensor(elem_type, tuple(map(shape_of, paths)), tuple(p.name for p in paths))
    return tensors
