"""Which nodes fail by themselves? All are measured in one build; the largest effect is taken.

A search by halves finds one of several culprits, whichever lies where it looks first. Here each node is fed
with recorded values beside all others, as `scan` does it, and those with the largest errors of their own are
then tried at the model's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from bisect_trt.accuracy.arithmetic import arithmetic_of
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.segments import Segment, merge
from bisect_trt.outcome import Outcome, Symptom, Verdict
from bisect_trt.reduction.at_outputs import Culprit, Hybrid
from bisect_trt.reduction.problem import Problem

NODES = 512  # in one build
BYTES = 1 << 30  # of recorded values and weights in one build
BUILDS = 4  # that this is worth; a larger model is searched by halves
TRIED = 6  # nodes that are tried at the model's outputs, those with the largest errors


def strongest(problem: Problem) -> None:
    """Keep the node whose own error does most to the model's output, if nodes fail by themselves.

    What no rounding explains goes before rounding, however large the model makes that.
    """
    hybrid = problem.hybrid
    if hybrid is None or problem.best is not None or len(problem.scope) == 1:
        return
    largest = arithmetic_of(problem.prober.oracle.target).largest
    parts = sorted(failing(problem, hybrid), key=lambda part: _is_fed_beyond(part, largest))
    candidates = [problem.cut(part.nodes) for part in parts[:TRIED]]
    with problem.looking_ahead(lambda: iter(candidates)):
        guilty = [k for k, one in enumerate(candidates) if problem.verdict(one) is Verdict.REPRODUCES]
    if not guilty:
        return
    fed = {k for k in guilty if _is_fed_beyond(parts[k], largest)}
    guilty = [k for k in guilty if k not in fed] or guilty
    rounded = {k: len(guilty) > 1 and _is_rounding(problem, hybrid, candidates[k]) for k in guilty}
    effects = {k: problem.outcomes[candidates[k].digest].measured.damage[hybrid.output] for k in guilty}
    chosen = min(guilty, key=lambda k: (rounded[k], -effects[k], k))
    problem.keep(candidates[chosen])
    found = {
        k: Culprit(part.nodes, part.op, effects.get(k), rounded.get(k, False))
        for k, part in enumerate(parts)
        if k == chosen or not _is_fed_beyond(part, largest)
    }
    problem.compare_at(replace(hybrid, culprits=(found.pop(chosen), *found.values())))


def failing(problem: Problem, hybrid: Hybrid) -> list[Segment]:
    """Return the parts that fail at their own outputs, the largest error first.

    None where they do not run together.
    """
    parts = hybrid.rests.segments(problem.scope)
    nodes, size = sum(len(part.nodes) for part in parts), sum(part.bytes for part in parts)
    count = max(-(-nodes // NODES), -(-size // BYTES))
    if count > BUILDS:
        return []
    before, found = problem.prober.oracle.accuracy, list[tuple[float, Segment]]()
    problem.prober.compare(hybrid.own_accuracy, by_itself=True, explain=False)
    for k in range(count):
        found += _measured(problem, parts[k * len(parts) // count : (k + 1) * len(parts) // count])
    problem.prober.compare(before)
    return [part for _, part in sorted(found, key=lambda one: -one[0])]


def _measured(problem: Problem, parts: Sequence[Segment]) -> list[tuple[float, Segment]]:
    """Return those of the parts that fail when all run side by side, with their damage."""
    if not parts:
        return []
    merged = merge(parts)
    damage = problem.observe(merged.candidate).measured.damage
    by_tensor = {merged.names[name]: done for name, done in damage.items()}
    worst = [(max(by_tensor.get(t, 0.0) for t in part.tensors), part) for part in parts]
    return [(done, part) for done, part in worst if done > 0]


def _is_fed_beyond(part: Segment, largest: float) -> bool:
    """Return whether a part's inputs overflow already: then the fault is that of an earlier part."""
    paths = (path for sample in part.candidate.feeds for path in sample.values())
    return largest < float("inf") and any(_is_beyond(path, largest) for path in paths)


def _is_beyond(path: Path, largest: float) -> bool:
    value = np.load(path, mmap_mode="r", allow_pickle=False)
    if value.dtype.kind != "f" or not value.size or largest >= float(np.finfo(value.dtype).max):
        return False
    size = np.abs(value)
    return bool(np.any(np.isfinite(size) & (size > largest)))


def seen_alone(problem: Problem, hybrid: Hybrid, candidate: Candidate) -> Outcome:
    """Return what a candidate shows at its own outputs, and what rounding explains of that."""
    before = problem.prober.oracle.accuracy
    problem.prober.compare(hybrid.own_accuracy, by_itself=True)
    seen = problem.observe(replace(candidate, rest=None))
    problem.prober.compare(before)
    return seen


def _is_rounding(problem: Problem, hybrid: Hybrid, candidate: Candidate) -> bool:
    """Return whether rounding explains what a candidate shows at its own outputs."""
    seen = seen_alone(problem, hybrid, candidate)
    mismatch = all(failure.symptom is Symptom.MISMATCH for failure in seen.failures)
    return mismatch and bool(seen.measured.rounding.get("explained"))
