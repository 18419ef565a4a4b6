"""Each reproducer that a test writes: the reference runs it, and it fails at the user's tolerance.

`conftest` puts `looked_at` around the last step of a reduction, so this holds for every reduction in the
suite that runs in the test's own process, and is counted at the end.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bisect_trt.accuracy.tolerance import differences, only_for, precision_rtol
from bisect_trt.model.candidate import Form
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.reproducer import files, models
from bisect_trt.results import Reduction
from bisect_trt.workers import continue_rest

COUNTS: Counter[str] = Counter()
LARGE = 1 << 26  # bytes of a reproducer with its weights that is not run again here
REFUSED = "reproducers that the reference refuses"
PASSING = "accuracy reproducers that pass at the user's tolerance"


def looked_at(zipped: Callable[[Reduction], Reduction]) -> Callable[[Reduction], Reduction]:
    """The step that ends a reduction, with a look at what was written."""

    def look(result: Reduction) -> Reduction:
        if result.verified:
            require_held(result)
        return zipped(result)

    return look


def require_held(result: Reduction) -> None:
    """Raises AssertionError for a reproducer that nobody should be sent."""
    COUNTS["reproducers"] += 1
    if why := refused(result):
        COUNTS[REFUSED] += 1
        pytest.fail(f"{result.out}: the reference refuses the reproducer, and ran the model: {why}")
    if result.wanted.stage is Stage.COMPARE and passes(result):
        COUNTS[PASSING] += 1
        pytest.fail(f"{result.out}: the outputs agree at the user's tolerance")


def refused(result: Reduction) -> str:
    """Why ONNX Runtime cannot run the written files; empty where it can, or did not run the model either."""
    from bisect_trt.references import ort  # most tests never load it

    told = any(note.startswith("The reference cannot run the whole model") for note in result.notes)
    accuracy = result.settings.accuracy
    if told or accuracy.custom_ops or accuracy.reference_provider != "CPUExecutionProvider":
        return ""
    if result.best.form is Form.ORIGINAL and result.wanted.stage is not Stage.COMPARE:
        return ""  # the user's own file: the report says whether the reference runs it
    if sum(path.stat().st_size for path in result.out.iterdir() if path.is_file()) > LARGE:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        written = models.read_model(result.out, Path(scratch))
        feeds = continue_rest.load(written, written.feeds)
        try:
            ort.run(written.model, written.folder, feeds or [{}])
        except ort.OrtError as error:
            return str(error)
    COUNTS["run on the reference"] += 1
    return ""


def passes(result: Reduction) -> bool:
    """Whether what the target gave agrees with what is expected, as the user asked to compare it."""
    both = [result.out / files.EXPECTED, result.out / files.ACTUAL]
    asked = result.settings.accuracy
    if not all(path.exists() for path in both) or len(result.best.expected) > 1 or asked.reference == "self":
        return False  # of several samples only the first is in `actual.npz`
    COUNTS["compared at the user's tolerance"] += 1
    expected, actual = (dict(np.load(path, allow_pickle=False)) for path in both)
    names = ("", *(name for name, _ in (*asked.rtol, *asked.atol)))
    ways = [asked, *(only_for(asked, name) for name in names)]
    least = precision_rtol(result.settings.target)
    worst = [differences([expected], [actual], way, least) for way in ways]
    lost = result.wanted.symptom is Symptom.NOT_FINITE
    return not lost and all(diff.ok for diffs in worst for diff in diffs)


def summary(counts: Counter[str]) -> str:
    """The counts as a line, for the end of a run of the suite."""
    told = f"{counts['reproducers']} reproducers were verified and looked at"
    return f"{told}: {counts[REFUSED]} {REFUSED}, {counts[PASSING]} {PASSING} ({dict(counts)})"
