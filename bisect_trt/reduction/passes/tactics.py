"""Does the failure depend on the tactic that the builder chose? Then it is not flaky; the tactic is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Outcome, Stage, Verdict
from bisect_trt.reduction.passes.workarounds import LONGEST_PROBE
from bisect_trt.reduction.problem import Problem
from bisect_trt.session.prober import Prober
from bisect_trt.settings import TIMING, TargetSettings
from bisect_trt.targets.tensorrt.timing import OTHER

MOST_BUILDS = 4  # builds with other tactics; each does without all that were taken before
ANEW = 3  # builds that measure anew, where TensorRT lets nobody choose
MOST_NODES = 8  # nodes; of more layers nobody could tell which tactic it is
SHOWN_TACTICS = 2  # tactics of each side
MOST_TRIES, LONGEST_SEARCH = 40, 30.0  # builds that measure anew, and their seconds, until one fails


def own_cache(problem: Problem, folder: Path) -> Path | None:
    """Find a timing cache of the best candidate alone with which it fails in every build, if one is needed.

    The cache of the run holds what all its probes measured. TensorRT 8.6 cannot read it back as soon as one
    of them was fused by Myelin, and where a failure comes and goes it does not say with which tactics it did.
    So the candidate is built with empty caches, until it fails with what it measured and again with the file.

    Args:
        problem: its best candidate is what will be written.
        folder: gets the file.

    Returns:
        The file; None where the cache of the run does, or no such file was found.
    """
    used, best = problem.prober.oracle.target, problem.best
    if best is None or used.timing_cache is None or not _chooses_tactics(problem, best):
        return None
    written = replace(best, form=Form.WRITTEN)
    if problem.runs == 1 and _holds(problem, problem.prober.observe(written)):
        return None
    spent = 0.0
    for run in range(MOST_TRIES):
        cache = folder / f"{run}-{TIMING}"
        target = replace(used, timing_cache=cache)
        outcome = problem.prober.observe(best, run, target=target)
        spent += outcome.seconds
        if problem.judge(outcome) is Verdict.REPRODUCES and cache.exists():
            again = problem.prober.observe(written, run, target=target)
            if _holds(problem, again):
                return cache
            if OTHER in again.log:  # this alone is fused by Myelin, too: each build measures anew
                spent = LONGEST_SEARCH
        cache.unlink(missing_ok=True)
        if spent >= LONGEST_SEARCH:
            break
    return None


def _holds(problem: Problem, outcome: Outcome) -> bool:
    """Whether it failed as wanted, and with the tactics of the file."""
    return problem.judge(outcome) is Verdict.REPRODUCES and OTHER not in outcome.log


def _chooses_tactics(problem: Problem, best: Candidate) -> bool:
    """Whether there is an engine whose tactics a builder of TensorRT chose, and few enough layers to tell of.

    Only TensorRT keeps tactics in a timing cache, and what fails before there is an engine has none.
    """
    wanted, known = problem.wanted, problem.outcomes.get(best.digest)
    if wanted is None or wanted.stage not in (Stage.RUN, Stage.COMPARE):
        return False
    slow = known is not None and known.seconds > LONGEST_PROBE
    return problem.prober.oracle.target.spec == "tensorrt" and len(best.nodes) <= MOST_NODES and not slow


def by_tactic(problem: Problem, cache: Path | None = None) -> list[str]:
    """A sentence on the tactics with which the best candidate fails and passes; none when all fail alike.

    `cache` holds the tactics with which it fails, where the cache of the run does not.
    """
    best, used = problem.best, problem.prober.oracle.target
    if best is None or not _chooses_tactics(problem, best):
        return []
    own = None if cache is None else replace(used, timing_cache=cache)
    written = replace(best, form=Form.WRITTEN)  # its engine is told, and the timing cache stays as it is
    outcome = problem.prober.observe(written, target=own)
    fails = _tactics(outcome)
    if not fails or problem.judge(outcome) is not Verdict.REPRODUCES:
        return []
    for other in _others(problem.prober, own or used, written, fails):
        if problem.judge(other) is Verdict.VANISHES:
            return [_sentence(fails, _tactics(other), kept=OTHER not in outcome.log)]
    return []


def _others(
    prober: Prober, used: TargetSettings, written: Candidate, fails: dict[str, str]
) -> Iterator[Outcome]:
    """What builds with other tactics give, as long as there are any."""
    seen = dict(fails)
    try:
        for _ in range(MOST_BUILDS):
            target = replace(used, without_tactics=tuple(sorted(seen)))
            outcome = prober.observe(written, target=target)
            taken = _tactics(outcome)
            if not taken.keys() - seen.keys():
                return
            yield outcome
            seen |= taken
    except UsageError:  # no algorithm selector
        for run in range(ANEW):
            yield prober.observe(written, run, target=replace(used, timing_cache=None))


def _tactics(outcome: Outcome) -> dict[str, str]:
    """Number and name of each layer's tactic, as far as the engine tells."""
    layers = outcome.built.engine.get("shown", ())
    return {layer["number"]: layer["tactic"] or layer["number"] for layer in layers if layer.get("number")}


def _sentence(failing: dict[str, str], passing: dict[str, str], *, kept: bool) -> str:
    fails = _named([name for number, name in failing.items() if number not in passing])
    passes = _named([name for number, name in passing.items() if number not in failing])
    told = f"It hangs on the tactic: it fails with {fails} and passes with {passes}."
    if not kept:
        return f"{told} This TensorRT cannot keep it in a file, so each build may choose another."
    return (
        f"{told} {TIMING} holds the first: repro.py uses it, and bisect-trt verify does with --timing-cache."
    )


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN_TACTICS} more" if len(names) > SHOWN_TACTICS else ""
    return ", ".join(names[:SHOWN_TACTICS]) + rest
