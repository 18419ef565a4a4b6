"""`outputs:FILE`: outputs that were saved before, in any format in which inputs are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs.formats import in_order, read_samples
from bisect_trt.outcome import Array


def read(file: Path, samples: int, outputs: Sequence[str]) -> list[dict[str, Array]]:
    """Return the saved outputs of each sample; arrays without names (`arr_0`) count in the model's order.

    Raises:
        UsageError: it cannot be read, or holds another number of samples.
    """
    found = read_samples(file, outputs)
    if len(found) != samples:
        raise UsageError(f"{file} holds outputs of {len(found)} samples, but there are {samples} of inputs")
    return [in_order(one, outputs) for one in found]
