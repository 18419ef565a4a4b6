"""Compares outputs that `--save-outputs` wrote again, with other tolerances; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences, precision_rtol
from bisect_trt.errors import UsageError
from bisect_trt.model.inputs.formats import read_samples
from bisect_trt.settings import Settings

SIDES = ("reference", "target")


def judge_again(folder: Path, settings: Settings) -> list[TensorDiff]:
    """Compare every saved output of the target with that of the reference, the worst first.

    Raises:
        UsageError: the folder does not hold `reference.npz` and `target.npz` of the same samples.
    """
    expected, given = (_side(folder, name) for name in SIDES)
    if len(expected) != len(given):
        raise UsageError(f"{folder}: {len(expected)} samples of the reference, {len(given)} of the target")
    return differences(expected, given, settings.accuracy, precision_rtol(settings.target))


def _side(folder: Path, name: str) -> list[dict[str, npt.NDArray[Any]]]:
    found: list[dict[str, npt.NDArray[Any]]] = []
    place = folder / f"{name}.npz"
    while place.is_file() or not found:
        if not place.is_file():
            hint = "give the folder that check --save-outputs wrote"
            raise UsageError(f"{folder} holds no {place.name}", hint)
        found += [dict(sample) for sample in read_samples(place, ())]
        place = folder / f"{name}-{len(found)}.npz"
    return found
