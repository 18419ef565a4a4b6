"""`torchscript:FILE.pt`: a TorchScript module, on the CPU. The one module that imports PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.environment import INSTALL
from bisect_trt.outcome import Array
from bisect_trt.references.python import named


def run(
    file: Path, samples: Sequence[Mapping[str, Array]], inputs: Sequence[str], outputs: Sequence[str]
) -> list[dict[str, Array]]:
    """Call the module on each sample, inputs and outputs in the order of the model's.

    Raises:
        TargetUnavailable: PyTorch is not installed.
        UsageError: the file is no TorchScript module, or fails.
    """
    option = f"--reference torchscript:{file}"
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise TargetUnavailable(f"{option} needs PyTorch: {error}", INSTALL["torch"]) from error
    try:
        module = torch.jit.load(str(file), map_location="cpu").eval()
        found = []
        with torch.no_grad():
            for sample in samples:
                given = module(*(_tensor(torch, sample[name]) for name in inputs))
                found.append(named(option, given, outputs))
        return found
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"{option} fails: {str(error).strip().splitlines()[-1]}") from error


def _tensor(torch: Any, array: Array) -> Any:
    """Return an own copy; types that numpy does not know (bfloat16, float8) go by their bytes."""
    array = np.array(array, order="C")
    if array.dtype.name.startswith(("bfloat16", "float8")):
        raw = torch.from_numpy(array.reshape(-1).view(np.uint8))
        return raw.view(getattr(torch, array.dtype.name)).reshape(array.shape)
    return torch.from_numpy(array)
