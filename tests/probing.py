"""Candidates for tests of targets: a model and arrays, in a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.references import ort

Array = npt.NDArray[Any]


def candidate(
    model: onnx.ModelProto, samples: Mapping[str, Array] | Sequence[Mapping[str, Array]], folder: Path
) -> Candidate:
    """The whole model with one sample or several."""
    store = Store(folder)
    several = [samples] if isinstance(samples, Mapping) else samples
    feeds = tuple({name: store.put(name, np.asarray(v)) for name, v in sample.items()} for sample in several)
    names = tuple(node.name for node in model.graph.node)
    return Candidate(model.SerializeToString(), folder, names, feeds)


def reference(made: Candidate, *samples: Mapping[str, Array]) -> list[dict[str, Any]]:
    """What ONNX Runtime's CPU provider gives for the same model."""
    return ort.run(made.model, made.folder, samples)
