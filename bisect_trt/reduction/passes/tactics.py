"""Does the failure depend on the tactic that the builder chose? Then it is not flaky; the tactic is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Outcome, Stage, Verdict
from bisect_trt.reduction.passes.workarounds import LONGEST_PROBE
from bisect_trt.reduction.problem import Problem
from bisect_trt.session.prober import Prober
from bisect_trt.settings import TIMING

MOST_BUILDS = 4  # builds with other tactics; each does without all that were taken before
ANEW = 3  # builds that measure anew, where TensorRT lets nobody choose
MOST_NODES = 8  # nodes; of more layers nobody could tell which tactic it is
SHOWN_TACTICS = 2  # tactics of each side


def by_tactic(problem: Problem) -> list[str]:
    """A sentence on the tactics with which the best candidate fails and passes; none when all fail alike.

    Only TensorRT keeps tactics in a timing cache, and what fails before there is an engine has none.
    """
    best, wanted, oracle = problem.best, problem.wanted, problem.prober.oracle
    if best is None or wanted is None or wanted.stage not in (Stage.RUN, Stage.COMPARE):
        return []
    known = problem.outcomes.get(best.digest)
    slow = known is not None and known.seconds > LONGEST_PROBE
    if oracle.target.spec != "tensorrt" or len(best.nodes) > MOST_NODES or slow:
        return []
    written = replace(best, form=Form.WRITTEN)  # its engine is told, and the timing cache stays as it is
    outcome = problem.prober.observe(written)
    fails = _tactics(outcome)
    if not fails or problem.judge(outcome) is not Verdict.REPRODUCES:
        return []
    for other in _others(problem.prober, written, fails):
        if problem.judge(other) is Verdict.VANISHES:
            return [_sentence(fails, _tactics(other))]
    return []


def _others(prober: Prober, written: Candidate, fails: dict[str, str]) -> Iterator[Outcome]:
    """What builds with other tactics give, as long as there are any."""
    seen, used = dict(fails), prober.oracle.target
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


def _sentence(failing: dict[str, str], passing: dict[str, str]) -> str:
    fails = _named([name for number, name in failing.items() if number not in passing])
    passes = _named([name for number, name in passing.items() if number not in failing])
    return (
        f"It hangs on the tactic: it fails with {fails} and passes with {passes}. {TIMING} holds the first: "
        "repro.py uses it, and bisect-trt verify does with --timing-cache."
    )


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN_TACTICS} more" if len(names) > SHOWN_TACTICS else ""
    return ", ".join(names[:SHOWN_TACTICS]) + rest
