"""Does the failure depend on the tactic that the builder chose? Then it is reported, and not flaky."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Outcome, Stage, Verdict
from bisect_trt.reduction.passes.workarounds import LONGEST_PROBE
from bisect_trt.reduction.problem import Problem
from bisect_trt.session.prober import Prober
from bisect_trt.settings import TIMING, TargetSettings
from bisect_trt.targets.tensorrt.timing import OTHER
from bisect_trt.writing.text import some_names

MOST_BUILDS = 4  # builds with other tactics; each does without all that were taken before
ANEW = 3  # builds that measure anew, where TensorRT lets nobody choose
MOST_NODES = 8  # nodes; of more layers nobody could tell which tactic it is
SHOWN_TACTICS = 2  # tactics of each side
MOST_TRIES, LONGEST_SEARCH = 40, 30.0  # builds that measure anew, and their seconds, until one fails


class Kept(Struct, frozen=True):
    """Tactics with which the best candidate fails in every build; empty if the run's cache is enough.

    Attributes:
        cache: a timing cache that holds them; or
        numbers: theirs, for the algorithm selector of TensorRT 8.6 to 10.
    """

    cache: Path | None = None
    numbers: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the builder chooses as it does in all probes of the run."""
        return self == Kept()

    def of(self, target: TargetSettings) -> TargetSettings:
        """Return the target with these tactics."""
        return replace(target, timing_cache=self.cache or target.timing_cache, with_tactics=self.numbers)


def kept(problem: Problem, folder: Path) -> Kept | None:
    """Find tactics with which the best candidate fails in every build.

    The cache of the run holds what all its probes measured. TensorRT 8.6 cannot read it back as soon as one
    of them was fused by Myelin, and where a failure comes and goes it does not say with which tactics it did.
    Where it did fail with the cache of the run, and only no other process can read that, the builder is given
    the numbers of these tactics. Else the candidate is built with empty caches, until it fails with what it
    measured and again with the file; if that is of no use, as Myelin was tried for this candidate too, the
    builder is given the numbers of those. Fresh processes prove in the end whichever it is.

    Args:
        problem: its best candidate is what will be written.
        folder: gets the file.

    Returns:
        None where no such tactics were found.
    """
    used, best = problem.prober.oracle.target, problem.best
    if best is None or used.timing_cache is None or not _chooses_tactics(problem, best):
        return Kept()
    written = replace(best, form=Form.WRITTEN)
    if problem.runs == 1:
        outcome = problem.prober.observe(written)
        if _holds(problem, outcome):
            return Kept()
        own = _by_number(problem, written, outcome) if problem.judge(outcome) is Verdict.REPRODUCES else None
        if own is not None:
            return own
    spent = 0.0
    for run in range(MOST_TRIES):
        cache = folder / f"{run}-{TIMING}"
        outcome = problem.prober.observe(best, run, target=Kept(cache).of(used))
        spent += outcome.seconds
        if problem.judge(outcome) is Verdict.REPRODUCES and cache.exists():
            again = problem.prober.observe(written, run, target=Kept(cache).of(used))
            if _holds(problem, again):
                return Kept(cache)
            if OTHER in again.log:
                cache.unlink()
                return _by_number(problem, written, again)
        cache.unlink(missing_ok=True)
        if spent >= LONGEST_SEARCH:
            break
    return None


def _by_number(problem: Problem, written: Candidate, outcome: Outcome) -> Kept | None:
    """Return the tactics of an engine if a build that is given their numbers fails as wanted."""
    own, used = Kept(numbers=tuple(sorted(_tactics(outcome)))), problem.prober.oracle.target
    if not own.numbers:
        return None
    again = problem.prober.observe(written, target=own.of(used))
    return own if problem.judge(again) is Verdict.REPRODUCES else None


def _holds(problem: Problem, outcome: Outcome) -> bool:
    """Return whether it failed as wanted, and with the tactics of the file."""
    return problem.judge(outcome) is Verdict.REPRODUCES and OTHER not in outcome.log


def _chooses_tactics(problem: Problem, best: Candidate) -> bool:
    """Return whether TensorRT chose tactics for this engine, and it has few enough layers to report.

    Only TensorRT keeps tactics in a timing cache, and what fails before there is an engine has none.
    """
    wanted, known = problem.wanted, problem.outcomes.get(best.digest)
    if wanted is None or wanted.stage not in (Stage.RUN, Stage.COMPARE):
        return False
    slow = known is not None and known.seconds > LONGEST_PROBE
    return problem.prober.oracle.target.spec == "tensorrt" and len(best.nodes) <= MOST_NODES and not slow


def by_tactic(problem: Problem, own: Kept | None = None, passing: Sequence[TargetSettings] = ()) -> list[str]:
    """Return a sentence on the tactics that fail and those that pass; nothing if all tactics fail.

    `own` are those with which it fails, where the cache of the run does not hold them. `passing` are other
    options of the target with which it does not: the tactics that are taken then are tried first.
    """
    best, used = problem.best, problem.prober.oracle.target
    if best is None or not _chooses_tactics(problem, best):
        return []
    written = replace(best, form=Form.WRITTEN)  # its engine is told, and the timing cache stays as it is
    outcome = problem.prober.observe(written, target=own.of(used) if own else None)
    fails = _tactics(outcome)
    if not fails or problem.judge(outcome) is not Verdict.REPRODUCES:
        return []
    where = _BY_NUMBER if own and own.numbers else _NOWHERE if OTHER in outcome.log else _IN_A_FILE
    for other in _others(problem.prober, used, written, fails, passing):
        if problem.judge(other) is Verdict.VANISHES:
            return [_sentence(fails, _tactics(other), where)]
    return []


def _others(
    prober: Prober,
    used: TargetSettings,
    written: Candidate,
    fails: dict[str, str],
    passing: Sequence[TargetSettings],
) -> Iterator[Outcome]:
    """Return what builds with other tactics give, those that are named first, as long as there are any."""
    for target in passing:
        taken = _tactics(prober.observe(written, target=target))
        if taken.keys() - fails.keys():
            yield prober.observe(written, target=replace(used, with_tactics=tuple(sorted(taken))))
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
    """Return the number and name of each layer's tactic, as far as the engine tells."""
    layers = outcome.built.engine.get("shown", ())
    return {layer["number"]: layer["tactic"] or layer["number"] for layer in layers if layer.get("number")}


_IN_A_FILE = f"{TIMING} holds the first: repro.py uses it, and bisect-trt verify does with --timing-cache."
_BY_NUMBER = "repro.py and bisect-trt verify have the builder take the first."
_NOWHERE = "This TensorRT cannot keep it in a file, so each build may choose another."


def _sentence(failing: dict[str, str], passing: dict[str, str], where: str) -> str:
    fails = some_names([name for number, name in failing.items() if number not in passing], SHOWN_TACTICS)
    passes = some_names([name for number, name in passing.items() if number not in failing], SHOWN_TACTICS)
    return f"It depends on the tactic: it fails with {fails} and passes with {passes}. {where}"
