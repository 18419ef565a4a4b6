"""Looking into an engine: the tensors that fusion has left, under the names that the engine gives them.

`mark_unfused_tensors_as_debug_tensors` (late TensorRT 10, TensorRT-RTX) leaves fusion alone, which
`mark_debug` does not; its tensors have a switch of their own on the context. Polygraphy's runner brings the
listener that copies them. Whatever is missing leaves the engine as it would be without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bisect_trt.targets.base import Array


def mark(network: Any) -> bool:
    """Ask for the tensors inside, before the build. False: this TensorRT cannot, or does not."""
    ask = getattr(network, "mark_unfused_tensors_as_debug_tensors", None)
    return ask is not None and bool(ask())


def switch_on(context: Any) -> None:
    """Have marked tensors shown; the runner that made the context has set its listener already."""
    if hasattr(context, "unfused_tensors_debug_state"):
        context.unfused_tensors_debug_state = True


def inside(given: Mapping[str, Any], outputs: Iterable[str], precision: str = "") -> dict[str, Array]:
    """What a run gave besides the outputs of the model; only what numpy has a type for.

    The narrow twin of a tensor (see `model.precision`) goes by the name of that.
    """
    known = set(outputs)
    twin = f"__{precision}" if precision else ""
    return {
        name.removesuffix(twin): np.array(value)
        for name, value in given.items()
        if name not in known and isinstance(value, np.ndarray)
    }
