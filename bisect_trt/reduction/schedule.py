"""Steps of a reduction that ask the target: the passes, and what comes after the smallest set is known."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import End, Ended
from bisect_trt.reduction.context import Run
from bisect_trt.reduction.judgement import find_out, not_told, of_the_export
from bisect_trt.reduction.menu import Schedule
from bisect_trt.reduction.passes.causes import causes
from bisect_trt.reduction.passes.drop import is_one_minimal
from bisect_trt.reduction.passes.flaky import LOOKS, always, distrust
from bisect_trt.reduction.passes.neighbour import Neighbour, nearest_passing
from bisect_trt.reduction.passes.tactics import Kept, by_tactic, kept
from bisect_trt.reduction.passes.workarounds import avoiding
from bisect_trt.reduction.problem import Problem, end_of
from bisect_trt.reduction.simplify.run import simplify_best
from bisect_trt.reduction.simplify.secrecy import require_synthetic
from bisect_trt.results import Judgement, Reduction, Simplification
from bisect_trt.session.export_trial import is_self
from bisect_trt.session.folder import WORK
from bisect_trt.session.prober import GO_ON

SIMPLE_NEVER_SHOWS = (
    "It is as it was cut: with simple values it failed beside other probes, and in no fresh process."
)


class Found(Struct, frozen=True):
    """What a search found beside the best candidate.

    Attributes:
        end: how it ended.
        one_minimal: every single node that is left was tried without.
        search: probes and nodes built until the smallest set was known.
        causes: sentences on what the failure depends on where no node is to blame.
        kept: the tactics of TensorRT with which the best candidate fails in every build, if that takes some.
        tactics: a sentence on the tactics with which it fails and passes, if some differ.
        simple: what the simplification did, where there was one.
        plain: the best candidate before it.
        neighbour: the nearest candidate that passes.
        avoided: options of the target that avoid the failure, as sentences.
        judgement: whether it is a fault of the target, or rounding.
    """

    end: End = field(default_factory=End)
    one_minimal: bool = False
    search: Mapping[str, int] = field(default_factory=dict)
    causes: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)
    tactics: tuple[str, ...] = ()
    simple: Simplification | None = None
    plain: Candidate | None = None
    neighbour: Neighbour | None = None
    avoided: tuple[str, ...] = ()
    judgement: Judgement = field(default_factory=Judgement)


def search(problem: Problem, schedule: Schedule) -> Found:
    """Run the passes; what ends them early (an interrupt, the budget, no cluster) is in the answer."""
    found = Found()

    def passes() -> None:
        nonlocal found
        for one_pass in schedule.passes:
            with problem.counting(one_pass.name):
                one_pass.run(problem)
        minimal, spent = schedule.proves_minimal and is_one_minimal(problem), problem.counts
        counts = {"search_probes": spent.probes, "search_nodes_built": spent.nodes_built}
        found = Found(one_minimal=minimal, search=counts)

    end = end_of(problem.prober, passes)
    return replace(found, end=end)


def refine(run: Run, problem: Problem, found: Found) -> Found:
    """Return what comes after the smallest set is known, unless the search did not end.

    What a failure depends on that no node is to blame for, simple values, a neighbour that passes. An error
    that accumulates keeps its values: simple ones would add up to less.

    Raises:
        StoppedEarly: with `anonymise`, it did not end.
        Leak: with `anonymise`, values of the original are needed.
    """
    smallest, accuracy = problem.best, run.settings.accuracy
    if problem.wanted is not None and problem.wanted.is_mismatch and not is_self(run.settings):
        found = replace(found, judgement=not_told("the run was stopped before that was looked at"))

    def steps() -> None:
        nonlocal found
        problem.begin("judgement")
        judged = find_out(problem, replace(accuracy, judge="local"))
        found = replace(found, judgement=of_the_export(judged) if run.export_on_trial else judged)
        problem.begin("causes")
        found = replace(found, causes=tuple(causes(problem)))
        if not (problem.hybrid and problem.hybrid.accumulated):
            found = replace(found, plain=problem.best)
            simple = simplify_best(problem, run.pool, run.settings, run.recording.record)
            found = replace(found, simple=simple, end=simple.end if simple and simple.end.is_early else End())
        problem.ask_no_reasons()
        if not found.end.is_early and run.own_timing_cache is not None:
            problem.begin("tactics")
            found = _with_tactics(run, problem, found, smallest)
        if not found.end.is_early:
            problem.begin("neighbour")
            found = replace(found, neighbour=nearest_passing(problem))

    if not found.end.is_early:
        end = end_of(run.prober, steps)
        found = found if end.how is Ended.DONE else replace(found, end=end)
    if found.end.how is Ended.CLUSTER_LOST:
        problem.keep(smallest)  # what it was half simplified to was not looked at again
        found = replace(found, simple=None)
    if run.settings.run.anonymise and found.end.is_early:
        raise StoppedEarly(f"{found.end.why}: nothing was anonymised", GO_ON)
    if run.settings.run.anonymise:
        require_synthetic(problem, found.simple, run.out.name)
    return found


def unsimplified(run: Run, problem: Problem, found: Found, result: Reduction) -> Found | None:
    """Go back to what there was before the simplification, where no fresh run shows what it made of it.

    Simple values may show a failure by luck, in the worker that also ran what came before. None: they are not
    to blame, or nothing else may be handed over.
    """
    simple, plain = found.simple, found.plain
    if result.verified or simple is None or plain is None or not result.finished:
        return None
    if run.settings.run.anonymise or result.best is plain or plain.form is Form.ORIGINAL:
        return None
    problem.keep(plain)
    run.note([SIMPLE_NEVER_SHOWS])
    return replace(found, simple=None, neighbour=None)


def _with_tactics(run: Run, problem: Problem, found: Found, smallest: Candidate | None) -> Found:
    """Add tactics that make it fail in every build; if none do, those of what was not simplified yet may."""
    simplified, folder = problem.best, run.out / WORK
    own = kept(problem, folder)
    if own is None and simplified is not smallest and not run.settings.run.anonymise:
        problem.keep(smallest)
        own = kept(problem, folder)
        if own is None:
            problem.keep(simplified)
        else:
            found = replace(found, simple=None)
    return replace(found, kept=own or Kept())


def explain(problem: Problem, found: Found) -> Found:
    """Add what changes nothing of the files: tactics, and options of the target, that avoid the failure."""

    def steps() -> None:
        nonlocal found
        avoided = avoiding(problem)
        found = replace(found, avoided=avoided.sentences)
        found = replace(found, tactics=tuple(by_tactic(problem, found.kept, avoided.targets)))

    if not found.end.is_early:
        end = end_of(problem.prober, steps)
        found = found if end.how is Ended.DONE else replace(found, end=end)
    return found


def unsteady(run: Run, problem: Problem, found: Candidate, result: Reduction) -> bool:
    """Return whether fresh runs differ although the failure was taken for a steady one; measures it then.

    One node that shows it at all cannot get smaller, and a search that was ended stays so. What only fresh
    processes never show is no failure that comes and goes.

    Raises:
        FlakyFailure: what was found shows too seldom.
    """
    shown, size = result.verified, len(result.best.nodes)
    if shown == result.repeats or problem.runs > 1 or not result.finished or (shown and size == 1):
        return False
    # As it was cut, before it was simplified; the user's own file is none of our cuts.
    problem.keep(found if found.form.is_cut else None)
    if not shown and (problem.best is None or always(problem, problem.best, LOOKS)):
        problem.keep(result.best)
        return False
    if problem.hybrid is not None and problem.best is not None and not problem.inside:  # at the outputs again
        run.prober.compare(run.settings.accuracy)
        problem.compare_at(run.hybrid(problem.wanted))
        problem.keep(problem.cut(found.nodes, found.form))
    distrust(problem)
    return problem.runs > 1
