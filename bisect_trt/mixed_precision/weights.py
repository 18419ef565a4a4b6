"""Large weights of a search: mapped from files, so that all processes share them and none holds a copy.

Beside the model lie `rounded.bin` (each large weight as the low precision leaves it, in FP32) and
`narrow.bin` (the same in the narrow type, two bytes each). Both have the weights in the order of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from bisect_trt.model.external import embedded, tensors
from bisect_trt.model.normalise import constant_value
from bisect_trt.model.patch import NARROW, narrow_copy
from bisect_trt.model.store import Store, external_info, point_to
from bisect_trt.model.weight_values import values_of
from bisect_trt.outcome import Array
from bisect_trt.writing.files import written_whole

FED = 4096
"""Elements from which on a weight is large."""
_ALIGNMENT = 16
"""Elements: where a weight may begin."""
_CHUNK = 1 << 24
"""Elements that are rounded at a time."""
_FLAT, _ROUNDED, _NARROW = "flat.onnx", "rounded.bin", "narrow.bin"


def adopted(store: Store, model: onnx.ModelProto, file: Path) -> tuple[Path, bool]:
    """Write the user's model into the store, beside its weights; say whether some lay in files of their own.

    Args:
        store: gets all weights but those in attributes, which stay in the model.
        model: its weights lie in the user's `file` or beside it.

    Raises:
        OSError: a file cannot be read or written.
    """
    folder = file.absolute().parent
    outside = [external_info(t) for t in tensors(model) if t.data_location == TensorProto.EXTERNAL]
    store.adopt(model, folder, model_file=file.name)
    for tensor in tensors(model):
        info = external_info(tensor)
        if tensor.data_location == TensorProto.EXTERNAL and not (store.folder / info["location"]).exists():
            tensor.CopyFrom(embedded(tensor, folder))
    place = store.folder / _FLAT
    place.write_bytes(model.SerializeToString())
    return place, any(info.get("location") != file.name for info in outside)


def weights_of(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Initializers, and what Constant nodes hold, by the name of the tensor."""
    constants = [constant_value(node) for node in graph.node if node.op_type == "Constant"]
    return {t.name: t for t in (*graph.initializer, *constants)}


def is_large(tensor: TensorProto) -> bool:
    """Say whether it is a float weight of at least `FED` elements."""
    return tensor.data_type == TensorProto.FLOAT and _count(tensor) >= FED


def mapped(tensor: TensorProto, folder: Path) -> Array:
    """Give the values of a weight: mapped where they lie in a file and suitably aligned, else read.

    Raises:
        OSError: its file cannot be read.
    """
    info = external_info(tensor)
    offset = int(info.get("offset") or 0)
    if tensor.data_location != TensorProto.EXTERNAL or offset % 4 or tensor.data_type != TensorProto.FLOAT:
        return values_of(tensor, folder)
    return np.memmap(folder / info["location"], np.float32, "r", offset, tuple(tensor.dims))


class Files:
    """The two files of a model's large weights in a folder.

    Attributes:
        places: of each large weight, the element at which it begins.
    """

    def __init__(self, graph: onnx.GraphProto, folder: Path) -> None:
        """Look at a graph, whose weights lie in the folder; nothing is written yet."""
        self.folder = folder
        self._large = {name: t for name, t in weights_of(graph).items() if is_large(t)}
        self.places: dict[str, int] = {}
        end = 0
        for name, tensor in self._large.items():
            self.places[name] = end
            end += -(-_count(tensor) // _ALIGNMENT) * _ALIGNMENT

    def write(self, rounded: Callable[[str, Array], Array], to: str) -> None:
        """Round all weights; one of a type of quantisation has no narrow file. Raises OSError."""
        with (
            written_whole(self.folder / _ROUNDED) as aside,
            written_whole(self.folder / _NARROW) as narrow_aside,
            aside.open("wb") as wide,
            narrow_aside.open("wb") as narrow,
        ):
            for name, tensor in self._large.items():
                values = mapped(tensor, self.folder).reshape(-1)
                for start in range(0, len(values), _CHUNK):
                    at = self.places[name] + start
                    low = np.asarray(rounded(name, values[start : start + _CHUNK]), np.float32)
                    _put(wide, low, at)
                    if to in NARROW:
                        with np.errstate(over="ignore", invalid="ignore"):
                            _put(narrow, low.astype(tensor_dtype_to_np_dtype(NARROW[to])), at)

    def rounded(self, name: str) -> Array:
        """Give the rounded values of a large weight, mapped."""
        tensor, offset = self._large[name], 4 * self.places[name]
        return np.memmap(self.folder / _ROUNDED, np.float32, "r", offset, tuple(tensor.dims))

    def narrow(self, tensor: TensorProto, name: str, kind: int) -> TensorProto:
        """See `patch.Narrow`: a large weight refers to the file."""
        if tensor.name not in self.places or tensor.data_location != TensorProto.EXTERNAL:
            return narrow_copy(embedded(tensor, self.folder), name, kind)
        made = TensorProto(name=name, data_type=kind, dims=tensor.dims)
        point_to(made, _NARROW, 2 * self.places[tensor.name], 2 * _count(tensor))
        return made


def _put(file: BinaryIO, values: Array, at: int) -> None:
    file.seek(at * values.itemsize)
    file.write(values.tobytes())


def _count(tensor: TensorProto) -> int:
    return math.prod(tensor.dims)
