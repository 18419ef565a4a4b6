"""Steps of a reduction that leave something: the result, its files, their verification."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from bisect_trt.anonymise import scrub
from bisect_trt.errors import StoppedEarly
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.origin import origins
from bisect_trt.model.summary import figures
from bisect_trt.outcome import Failure, Outcome, Stage, Verdict, judge
from bisect_trt.reduction.at_outputs import facts
from bisect_trt.reduction.context import Run
from bisect_trt.reduction.passes.neighbour import Neighbour
from bisect_trt.reduction.passes.tactics import Kept
from bisect_trt.reduction.passes.workarounds import workarounds
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.schedule import Found
from bisect_trt.reproducer import archive, files, models, write
from bisect_trt.reproducer.script import NEEDS_US, template_for
from bisect_trt.reproducer.trial import Ready, WaitingPython, disagreement, waiting
from bisect_trt.reproducer.verify import verify_files
from bisect_trt.results import CANNOT_RUN, Finding, Reduction
from bisect_trt.session import folder as folders
from bisect_trt.session.journal import Journal
from bisect_trt.session.prepare import LONGEST_START
from bisect_trt.session.recording import cannot_run
from bisect_trt.settings import Settings
from bisect_trt.targets.tensorrt.defaults import is_misread_default
from bisect_trt.targets.tensorrt.engine import built_words
from bisect_trt.targets.tensorrt.ignored import is_ignored
from bisect_trt.targets.tensorrt.timing import OTHER
from bisect_trt.workers import jobs, reference
from bisect_trt.writing.text import counted, seconds, some_names

OTHERS = 5  # nodes that fail besides, which are named
SIZES = 3  # dimensions of which it is told which sizes fail
FRESH = 12  # processes in which a flaky failure may show again
BUILT = ("network_types", "cast", "engine")  # facts of an outcome that tell what TensorRT made of it


def result_of(run: Run, problem: Problem, found: Found, out: Path) -> Reduction:
    """Return what is known before verification."""
    best, wanted, hybrid = problem.smallest, problem.failure, problem.hybrid
    shown, accuracy, target = problem.shown_by(best), run.settings.accuracy, run.settings.target
    return Reduction(
        model=run.session.loaded.path,
        out=out,
        settings=replace(run.settings, target=replace(target, with_tactics=found.kept.numbers)),
        target=run.info,
        reference=run.recording.record.reference,
        wanted=shown,
        original_failure=None if shown is wanted else wanted,
        best=best,
        original_nodes=len(run.session.graph.order),
        also_seen=tuple(problem.also_seen.values()),
        one_minimal=found.one_minimal,
        repeats=run.settings.run.repeats,
        end=found.end,
        phases=tuple(asdict(one) for one in problem.passes),
        outputs_compared=run.info.can_run,
        notes=tuple(_notes(run, problem, found)),
        causes=found.causes,
        judgement=found.judgement,
        simplification=found.simple,
        compared_as=hybrid.written(accuracy, best) if hybrid else accuracy,
        accuracy=facts(accuracy, hybrid, run.confirmed),
    )


def _notes(run: Run, problem: Problem, found: Found) -> Iterator[str]:
    """Yield sentences for the report on what a reader has to know of the result."""
    judgement, simple = found.judgement, found.simple
    recorded = run.recording.record
    if recorded.error:
        yield (
            f"{CANNOT_RUN}: {recorded.error}\nTensors that it could not "
            "make have inferred shapes and seeded values here, and nothing was compared with a reference."
        )
        yield from cannot_run(recorded, run.settings, run.session.graph)[1:]
    yield from (*run.doubts, *run.session.loaded.notes, *run.info.notes, *judgement.told, *judgement.advice)
    yield from (*run.notes, *found.causes, *found.tactics)
    if problem.hybrid is not None:
        yield from problem.hybrid.notes()
    elif problem.shown_by(problem.smallest) is not problem.wanted:
        yield (
            "In a model so small the target words this failure differently; with unrelated nodes in "
            f"front of it, it says what it says of the whole model: {problem.failure.message}"
        )
    if problem.runs > 1:
        yield (
            f"The failure comes and goes: it showed in about {problem.rate:.0%} of all runs, so a "
            f"probe counted as passing only after {problem.runs} runs without it."
        )
    if (builder := run.builder_seconds) >= 1:
        made = f"TensorRT's builder takes {seconds(builder)} to make"
        yield f"{made}, once in each process; no probe counts that."
    if found.neighbour is not None:
        yield f"{files.PASSING} passes: it is {files.MODEL} {found.neighbour.difference}."
    elif not found.end.is_early:
        yield "No neighbour of this model is known that passes, so there is no passing.onnx."
    yield from _others(run, problem.failure)
    # Where rounding decides, another size has other roundings: that is no fact about the axis.
    sizes = simple.sizes if simple and judgement.kind is not Finding.SENSITIVE else ()
    for sentence in sizes[:SIZES]:
        yield f"Not every size fails: {sentence}."
    if problem.smallest.form is Form.ORIGINAL:
        yield "Only the file as it is fails; any normalised or cut form of it does not."


def _others(run: Run, wanted: Failure) -> Iterator[str]:
    """Yield a sentence on nodes that the parser refuses besides: it names them all at once."""
    refused = [f for f in run.confirmed.failures if f.stage is Stage.PARSE and f.nodes]
    graph = run.session.graph
    # A node without a name is called by its first output, in the user's own file and nowhere else.
    mine = {*wanted.nodes, *(t for n in wanted.nodes if n in graph.nodes for t in graph.outputs_of(n))}
    others = {f.nodes[0]: f.op for f in refused if f.nodes[0] not in mine}
    if others and wanted.stage is Stage.PARSE:
        named = some_names([f"{name} ({op})" if op else name for name, op in others.items()], OTHERS)
        verb = "is" if len(others) == 1 else "are"
        text = f"{counted(len(others), 'other node')} of the model {verb} refused too"
        yield f"{text}: {named}; --all reduces each different failure."


def with_the_original(
    run: Run, problem: Problem, cut: Candidate, found: Found, result: Reduction
) -> Reduction:
    """Add what a report says of the user's own model; next to nothing with `--anonymise`."""
    graph, kept, secret = run.session.graph, set(result.nodes), run.settings.run.anonymise
    # Without one of its nodes rounding is another, too: nobody is helped by that.
    useful = None if found.judgement.kind is Finding.SENSITIVE else found.neighbour
    return replace(
        result,
        original=figures(run.session.loaded.proto, names=not secret),
        places=tuple(k for k, name in enumerate(graph.order) if name in kept),
        origins=() if secret else origins(graph.node(name) for name in graph.order if name in kept),
        workarounds=() if secret else workarounds(problem, cut, useful, list(found.avoided)),
    )


def write_models(run: Run, result: Reduction, neighbour: Neighbour | None, kept: Kept) -> None:
    """Write what is not text; a timing cache only where the tactics are not given by number."""
    out, cache = result.out, None if kept.numbers else kept.cache or run.timing_cache
    files.remove_result(out)
    models.write_model(result.best, out)
    target = run.settings.target
    if target.precision:
        models.write_narrow(out, target.precision)
    if is_misread_default(result.wanted) or is_ignored(result.wanted):
        models.write_twin(out, result.wanted)
    if run.info.name.startswith("emulate:"):
        models.write_emulated(out, run.info.name.partition(":")[2])
    if cache is not None and not run.settings.run.anonymise:
        models.write_timing_cache(cache, out)
    if neighbour is not None:
        models.write_beside(neighbour.candidate, out, files.PASSING)


class FreshRuns(Struct, frozen=True):
    """What fresh processes showed of the written files.

    Attributes:
        reference_error: why the reference cannot run the written model; empty: it runs it.
        outcomes: of each that our own judge saw.
        agreed: those with the wanted failure.
        by_script: `repro.py` was run as one more, and agrees.
        disagreement: how `repro.py` disagrees; empty: it agrees; None: it was not tried yet.
        reworded: the failure in the words of a target that reads the file itself, where these are others.
        seconds: for all of them.
    """

    reference_error: str
    outcomes: Sequence[Outcome] = ()
    agreed: Sequence[Outcome] = ()
    by_script: bool = False
    disagreement: str | None = None
    reworded: Failure | None = None
    seconds: float = 0.0

    def shown_in(self, result: Reduction) -> Reduction:
        """Add it to a result."""
        shown = self.agreed[0] if self.agreed else self.outcomes[0]
        words = built_words(shown.built)
        return replace(
            result,
            verified=len(self.agreed) + self.by_script,
            repeats=len(self.outcomes) + self.by_script,
            log=shown.log,
            built={key: value for key, value in shown.built.to_json().items() if key in BUILT},
            notes=(*result.notes, words) if words else result.notes,
            counts={**result.counts, "verify_seconds": self.seconds},
            reference_error=self.reference_error,
            reworded=self.reworded,
        )


@contextmanager
def getting_ready(run: Run, problem: Problem) -> Iterator[Ready]:
    """Start the fresh processes while what they will run is still being worked on, where that takes long."""
    settings, best, wanted = run.settings, problem.smallest, problem.failure
    if settings.run.cluster or jobs.warm_job(settings.target) is None:
        yield Ready()
        return
    reply = run.pool.submit(jobs.room, best.bytes, timeout=LONGEST_START).result()
    outputs = wanted.stage is Stage.COMPARE  # else the script looks at messages
    with waiting(settings, run.out / folders.WORK, reply.value or 0, for_script=outputs) as ready:
        yield ready


def verify(run: Run, result: Reduction, runs: int, ready: Ready) -> FreshRuns:
    """Run the written files in fresh processes, `ready` ones first; a flaky failure has more to show.

    Where `repro.py` stands alone and agrees, that run of it is the last of them.
    """
    fresh = "one fresh process" if result.repeats == 1 else f"{result.repeats} fresh processes"
    run.tell("verify", f"running {result.out.name}/repro.onnx in {fresh}")
    began = time.monotonic()
    workers, most = max(len(ready.pools), run.settings.run.workers), min(runs, FRESH)
    settings = _of_fresh_runs(run, result, workers)
    seen = FreshRuns(reference_error=_reference_error(run, result))

    def more(seen: FreshRuns, count: int) -> FreshRuns:
        words, first = list[Failure](), not seen.outcomes
        with _script_meanwhile(run, result, ready.python, again=not first) as said:
            outcomes = verify_files(
                result.out, settings, run.prober.oracle.deadline, count, keep_outputs_of=result.wanted,
                reworded=words, ready=ready.pools if first else (),
            )  # fmt: skip
        agreed = [o for o in outcomes if judge(o, result.wanted) is Verdict.REPRODUCES]
        return replace(
            seen, outcomes=(*seen.outcomes, *outcomes), agreed=(*seen.agreed, *agreed),
            reworded=seen.reworded or next(iter(words), None), disagreement=[*said, seen.disagreement][0],
        )  # fmt: skip

    if runs > 1:
        while len(seen.outcomes) < most and not seen.agreed:
            seen = more(seen, min(workers, most - len(seen.outcomes)))
    else:
        by_script = result.repeats > 1 and _counts(run, result)
        seen = more(seen, result.repeats - by_script)
        if by_script and not (seen := _asked(result, seen)).by_script:
            seen = more(seen, 1)  # then our own judge is asked as often as was asked for
    if any(OTHER in outcome.log for outcome in seen.outcomes):  # of no use, and TensorRT logs errors about it
        (result.out / files.TIMING).unlink(missing_ok=True)
    return replace(seen, seconds=time.monotonic() - began)


def _of_fresh_runs(run: Run, result: Reduction, workers: int) -> Settings:
    """Return the settings of the fresh runs: those of the written files."""
    target = result.settings.target
    if (result.out / files.TIMING).exists():
        target = replace(target, timing_cache=result.out / files.TIMING)
    wide = replace(run.settings.run, workers=workers)
    return replace(run.settings, accuracy=result.compared_as, target=target, run=wide)


def _counts(run: Run, result: Reduction) -> bool:
    """Return whether a run of `repro.py` can be one of the fresh runs: it is here, and needs no other file.

    Where a process takes long to start it runs beside all of them; an anonymous one is written at the end.
    """
    given, slow = run.settings.run, jobs.warm_job(run.settings.target) is not None
    return not (given.cluster or given.anonymise or slow or template_for(result) == NEEDS_US)


def _asked(result: Reduction, seen: FreshRuns) -> FreshRuns:
    """Run `repro.py`, if all runs so far agree, and add what it says and whether it counts."""
    if len(seen.agreed) < len(seen.outcomes):
        return seen
    write.write_script(shown := seen.shown_in(result))
    objection = disagreement(shown)
    return replace(seen, disagreement=objection, by_script=not objection)


def _reference_error(run: Run, result: Reduction) -> str:
    """Say why the reference cannot run what was found; it is asked in a worker, whatever the outputs are."""
    asked, deadline = (result.best, run.settings.accuracy), run.prober.oracle.deadline
    reply = run.pool.submit(reference.error, *asked, timeout=deadline).result()
    return str(reply.value) if reply.death is None else reply.death.message


@contextmanager
def _script_meanwhile(
    run: Run, result: Reduction, python: WaitingPython | None, *, again: bool
) -> Iterator[list[str]]:
    """Try `repro.py` beside the fresh runs where a process takes long to start; else it is tried later.

    What it disagrees with is the one entry of the list, once the context ends.
    """
    said: list[str] = []
    later = template_for(result) == NEEDS_US or run.settings.run.cluster  # it reads the report, or is far
    if again or later or jobs.warm_job(run.settings.target) is None:
        yield said
        return
    write.write_script(result)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(disagreement, result, python)
        yield said
        said.append(running.result())


def write_texts(run: Run, result: Reduction, fresh: FreshRuns | None) -> Reduction:
    """Return what is text, and the zip; an anonymous one is made when all is done and was audited."""
    journal, tried = run.prober.journal.path, fresh is not None
    if not run.settings.run.anonymise:
        objection = fresh.disagreement if fresh else None
        return archive.zipped(write.write(result, journal, tried=tried, objection=objection))
    secrets = run.secrets.without(scrub.operators([result.best.model]))
    write.write(scrub.anonymous(result, secrets), journal, tried=tried)
    scrub.scrub_texts(result.out, secrets)
    return result


def finish(run: Run, results: Sequence[Reduction]) -> list[Reduction]:
    """Remove what only the search needs, as nothing more is to be done, unless a result is unfinished.

    Raises:
        Leak: with `anonymise`, something of the original is left.
        StoppedEarly: with `anonymise`, the search did not end, so the folder cannot be shared.
    """
    done = all(result.finished for result in results)
    if done and not run.settings.run.anonymise:
        run.prober.journal.event(folders.DONE)
    if done:
        shutil.rmtree(run.out / folders.WORK, ignore_errors=True)
    if not run.settings.run.anonymise:
        return list(results)
    if not done:
        raise StoppedEarly(
            f"{results[-1].stop_reason}: {run.out.name} still holds the original and was not zipped",
            "the same command goes on from here",
        )
    run.prober.journal.close()
    scrub.scrub_journal(place := run.out / folders.JOURNAL)
    secrets = run.secrets.without(scrub.operators(result.best.model for result in results))
    scrub.require_clean([run.out], secrets)
    found = [archive.zipped(scrub.anonymous(result, secrets)) for result in results]
    scrub.require_clean([r.archive for r in found if r.archive], secrets, remove=True)
    with Journal.open(place, Journal.header(place) or {}) as journal:
        journal.event(folders.DONE)
    return found
