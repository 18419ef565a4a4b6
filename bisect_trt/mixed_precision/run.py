"""`precision`: the smallest set of nodes that must stay in FP32, and the model that has it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bisect_trt._version import __version__
from bisect_trt.accuracy.tolerance import precision_rtol
from bisect_trt.errors import StoppedEarly, UsageError
from bisect_trt.mixed_precision import evaluate as jobs_here
from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.evaluate import Trial
from bisect_trt.mixed_precision.flat import flat
from bisect_trt.mixed_precision.hints import hints, reasons
from bisect_trt.mixed_precision.result import Kept, Precision
from bisect_trt.mixed_precision.roles import roles
from bisect_trt.mixed_precision.search import Search
from bisect_trt.mixed_precision.write import MIXED, write_document, write_model
from bisect_trt.model.candidate import Candidate, Rest
from bisect_trt.outcome import DONE, End, Ended
from bisect_trt.results import OnEvent, Step
from bisect_trt.session import folder as folders
from bisect_trt.session.export_trial import ask
from bisect_trt.session.journal import Journal
from bisect_trt.session.oracle import LONGEST_DEADLINE, Oracle
from bisect_trt.session.prepare import (
    Session,
    cannot_run,
    describe,
    load_for,
    prepare,
    read_samples,
    record,
    resolved,
)
from bisect_trt.session.prober import GO_ON, Budget, BudgetSpent
from bisect_trt.settings import Settings
from bisect_trt.workers.pool import Pool

FLAT = "flat.onnx"
AUTO = "auto"


def precision(
    model: Path,
    settings: Settings,
    *,
    to: str = "fp16",
    out: Path | None = None,
    force: bool = False,
    keep: Sequence[str] = (),
    lower: Sequence[str] = (),
    on_event: OnEvent = lambda step: None,
) -> Precision:
    """Find the smallest set of nodes that must stay in FP32 and write the model that has it.

    Args:
        model: ONNX file.
        settings: target, inputs, tolerances.
        to: what all other nodes compute in, `fp16` or `bf16`.
        out: folder to write to; None: `MODEL-precision` here.
        force: replace what an earlier run left there.
        keep, lower: names of nodes that stay in FP32 in any case, or in none.
        on_event: gets what is being done.

    Raises:
        UsageError: the model, its inputs, an option, a name or a folder cannot be used.
        TargetUnavailable: the target cannot be used here.
        StoppedEarly: stopped before any set was found.
    """
    began = time.monotonic()
    settings = _resolved(settings, to)
    loaded = load_for(model, settings)
    samples = read_samples(loaded, settings)
    out = out or Path.cwd() / f"{model.stem}-precision"
    head = folders.header(loaded.digest, settings, samples)
    head["precision"] = json.dumps([to, sorted(keep), sorted(lower)])
    folders.require_free(out, head, force=force)
    run = settings.run
    with (
        tempfile.TemporaryDirectory(prefix="bisect-trt-") as logs,
        Pool(run.workers, log_dir=Path(logs), memory_limit=run.memory_limit) as pool,
        folders.open_folder(out, head, force=force) as journal,
    ):
        info = describe(pool, settings)
        session = prepare(loaded, samples, out / folders.WORK)
        recorded = record(pool, session, settings, outputs_only=True)
        truth = ask(pool, session, settings, recorded)
        if truth.record.error:
            raise UsageError(*cannot_run(truth.record, settings, session.graph)[:2])
        work = _Work(settings, session, pool, journal, out, to, on_event, began)
        work.expected = truth.record.values(session.graph.graph_outputs)
        result = work.run(frozenset(keep), frozenset(lower))
        result = replace(result, model=model, target=info, reference=truth.record.reference)
        result = replace(result, notes=(*result.notes, *filter(None, (truth.note, truth.blame))))
        if result.status != "broken":
            write_document(result, __version__)
        if result.finished:
            journal.event(folders.DONE)
            shutil.rmtree(out / folders.WORK, ignore_errors=True)
    return result


def _resolved(settings: Settings, to: str) -> Settings:
    """With a target and tolerances that do not depend on who judges.

    Raises:
        UsageError: there is no such precision.
    """
    if to not in ("fp16", "bf16"):
        raise UsageError(f"--to {to!r} is not known", "write --to fp16 or bf16")
    if settings.target.spec == AUTO:
        settings = replace(settings, target=replace(settings.target, spec=f"emulate:{to}"))
    settings = resolved(settings)
    least = precision_rtol(replace(settings.target, precision=to))
    accuracy = replace(settings.accuracy, judge="outputs")
    if "" not in dict(accuracy.rtol):
        accuracy = replace(accuracy, rtol=(*accuracy.rtol, ("", least)))
    return replace(settings, accuracy=accuracy)


@dataclass
class _Work:
    settings: Settings
    session: Session
    pool: Pool
    journal: Journal
    out: Path
    to: str
    on_event: OnEvent
    began: float
    expected: Any = ()
    explicit: int = 0
    _answers: dict[str, Answer] = field(default_factory=dict)

    def run(self, keep: Keep, lower: Keep) -> Precision:
        """Find the set, write the model, verify it."""
        proto = flat(self.session.loaded.proto)
        known = roles(proto, self.to)
        place = self.out / folders.WORK / FLAT
        place.write_bytes(proto.SerializeToString())
        self.budget = Budget(
            None if self.settings.run.budget is None else self.began + self.settings.run.budget,
            self.settings.run.max_probes,
        )
        self.trial = Trial(
            model=place.absolute(),
            folder=self.session.loaded.path.absolute().parent,
            roles=known,
            to=self.to,
            store=self.session.store.folder,
            feeds=self.session.feeds,
            expected=self.expected,
            accuracy=self.settings.accuracy,
        )
        always, items = self._fixed_by_user(known.items, keep, lower)
        self._tell("ranges", f"of {len(items):,} float nodes in FP32")
        ranges = self._job(jobs_here.ranges, self.trial)
        self.why = reasons(proto, known, ranges, self.to)
        told = hints(proto, known, ranges, self.why)
        search = Search(items, self.ask, told, always=always, seed=self.settings.run.seed)
        whole, low = search.answers([frozenset(items), frozenset()])
        if not whole.passes:
            return self._result(search, "broken", (), whole, low)
        if low.passes:
            return self._written(search, "all low", always, whole, low)
        stop = self._search(search)
        return self._written(search, "mixed", search.found.best | always, whole, low, stop)

    def _fixed_by_user(self, items: Sequence[str], keep: Keep, lower: Keep) -> tuple[Keep, tuple[str, ...]]:
        """Keys of what always stays, and of what is left to choose."""
        names = self.trial.roles.names
        by_name = {names[key]: key for key in items} | {key: key for key in items}
        for option, given in (("--keep", keep), ("--lower", lower)):
            for name in sorted(given):
                if name not in by_name:
                    raise UsageError(f"{option}: the model has no float node {name}")
        always = frozenset(by_name[name] for name in keep)
        never = frozenset(by_name[name] for name in lower)
        if both := always & never:
            raise UsageError(f"{names[min(both)]} is in --keep and in --lower", "leave one of them out")
        return always, tuple(key for key in items if key not in always | never)

    def _search(self, search: Search) -> End:
        """All steps; gives how they ended."""
        try:
            self._tell("search", "a first set that passes")
            search.first()
            effort = self._effort(len(search.items))
            self._tell("search", f"{len(search.found.best)} nodes; is there anything smaller?")
            search.prove(effort // 3)
            search.improve(effort)
            search.finish()
            self._agree(search)
        except (BudgetSpent, StoppedEarly) as error:
            return End(Ended.OUT_OF_BUDGET, error.message)
        except KeyboardInterrupt:
            return End(Ended.INTERRUPTED, "interrupted")
        return DONE

    def _effort(self, nodes: int) -> int:
        """Questions that may be asked for improvements: what takes some seconds, the same on any machine."""
        return max(100, min(3000, 600_000 // max(1, nodes)))

    def _agree(self, search: Search) -> None:
        """The answers that matter are asked for once more, of the models that would be written."""
        best = search.found.best
        asked = [best, *(best - {item} for item in sorted(best))]
        always = search.always
        answers = self._job(jobs_here.explicit, self.trial, [keep | always for keep in asked])
        self.explicit += len(asked)
        if all(a.passes == search.known[keep].passes for keep, a in zip(asked, answers, strict=True)):
            return
        self._tell("search", "again, by the models as they would be written")
        search.start_again(self._ask_explicit)
        search.first()
        search.finish()

    # Questions

    def ask(self, keeps: Sequence[Keep]) -> list[Answer]:
        """Answers by the one session that takes precisions as inputs."""
        return self._asked(jobs_here.evaluate, keeps, "")

    def _ask_explicit(self, keeps: Sequence[Keep]) -> list[Answer]:
        self.explicit += len(keeps)
        return self._asked(jobs_here.explicit, keeps, "explicit ")

    def _asked(self, job: Any, keeps: Sequence[Keep], kind: str) -> list[Answer]:
        self.budget.require(len(self._answers))
        answers: list[Answer] = self._job(job, self.trial, keeps)
        self._answers.update((str(len(self._answers) + k), a) for k, a in enumerate(answers))
        return answers

    def _job(self, job: Any, *arguments: Any) -> Any:
        deadline = self.settings.run.timeout or LONGEST_DEADLINE
        reply = self.pool.submit(job, *arguments, timeout=deadline).result()
        if reply.death is not None:
            raise StoppedEarly(f"an evaluation ended its process: {reply.death.message}", GO_ON)
        return reply.value

    def _tell(self, phase: str, text: str) -> None:
        self.on_event(Step(phase=phase, text=text, nodes=len(self.session.graph.order)))

    # The end

    def _written(
        self, search: Search, status: str, keep: Keep, whole: Answer, low: Answer, stop: End = DONE
    ) -> Precision:
        self._tell("write", f"{len(keep)} nodes in FP32")
        own_file = self.session.loaded.path.name
        casts = self._job(write_model, self.trial, keep, self.out, own_file)
        repeats = self.settings.run.repeats
        verified = sum(self._verify() for _ in range(repeats)) if stop.how is not Ended.INTERRUPTED else 0
        result = self._result(search, status, keep, whole, low)
        return replace(
            result,
            casts=casts,
            verified=verified,
            repeats=repeats,
            finished=not stop.is_early,
            stop_reason=stop.why,
            seconds=time.monotonic() - self.began,
        )

    def _verify(self) -> bool:
        """Whether the written file passes in a process of its own, its narrow tensors rounded."""
        place = (self.out / MIXED).absolute()
        names = tuple(self.expected[0]) if self.expected else ()
        candidate = Candidate(
            content=place,
            folder=place.parent,
            nodes=self.session.graph.order,
            feeds=self.session.feeds,
            expected=self.expected,
            rest=Rest(outputs=names, expected=self.expected),
        )
        target = replace(self.settings.target, spec="emulate:typed", precision="")
        with (
            tempfile.TemporaryDirectory(prefix="bisect-trt-") as logs,
            Pool(1, log_dir=Path(logs), memory_limit=self.settings.run.memory_limit) as pool,
        ):
            oracle = Oracle(pool, target, self.settings.run.timeout, self.settings.accuracy)
            outcome = oracle.observe(candidate)
        return not outcome.failures and not outcome.unresolved

    def _result(
        self, search: Search, status: str, keep: Collection[str], whole: Answer, low: Answer
    ) -> Precision:
        known, found = self.trial.roles, search.found
        kept = []
        chosen = frozenset(keep) - search.always
        for key in (key for key in known.items if key in keep):
            without = search.known.get(chosen - {key})
            error = without.error if without else 0.0
            kept.append(Kept(known.names[key], known.ops[key], self._why(key, error), error))
        mixed = search.known.get(chosen)
        found_errors = {"fp32": whole, "low": low, **({"mixed": mixed} if mixed else {})}
        curve: dict[int, float] = {}
        for tried, answer in search.known.items():
            curve[len(tried)] = min(curve.get(len(tried), float("inf")), answer.error)
        return Precision(
            model=self.session.loaded.path,
            out=self.out,
            settings=self.settings,
            target=None,  # type: ignore[arg-type]
            reference="",
            to=self.to,
            status=status,
            nodes=len(known.items),
            kept=tuple(kept),
            stays={known.names.get(k, k): why for k, why in known.stays.items()},
            errors={k: dict(a.errors) for k, a in found_errors.items()},
            tolerances={k: a.error for k, a in found_errors.items()},
            evaluations={"first": found.first, "all": search.asked, "explicit": self.explicit},
            one_minimal=found.one_minimal or not chosen,
            smallest=_smallest(search),
            curve=tuple(sorted(curve.items())),
        )

    def _why(self, key: str, error: float) -> str:
        told = self.why.get(key)
        if told:
            return told
        lost = error == float("inf")
        return "the outputs are not finite without it" if lost else "its rounding makes the outputs differ"


def _smallest(search: Search) -> str:
    found = search.found
    size = len(found.best)
    if size <= 1 or found.exhausted >= size - 1:
        return "every smaller set was tried and fails" if size else "nothing has to stay"
    if found.necessary >= found.best:
        return "each of these fails when it alone is lowered, all others in FP32"
    if found.bound:
        return (
            f"{len(found.conflicts)} groups of nodes fail when they alone are lowered, "
            "and no smaller set has a node of each"
        )
    return ""
