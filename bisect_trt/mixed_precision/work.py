"""One search for the nodes that must stay in FP32, from the first question to the verified file."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly, UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.mixed_precision import evaluate, schedule
from bisect_trt.mixed_precision.answer import Answer, Keep, not_needed
from bisect_trt.mixed_precision.asking import Sessions, job
from bisect_trt.mixed_precision.clock import Clock
from bisect_trt.mixed_precision.earlier import unknown
from bisect_trt.mixed_precision.evaluate import Trial
from bisect_trt.mixed_precision.hints import Range, activations, hints, reasons
from bisect_trt.mixed_precision.on_target import OnTarget
from bisect_trt.mixed_precision.quantise import KINDS, lacking, quantisable, scales_of
from bisect_trt.mixed_precision.result import ALL_LOW, BROKEN, LOST, LUCK, MIXED_STATUS, Kept, Precision
from bisect_trt.mixed_precision.search import Hints, Search
from bisect_trt.mixed_precision.switch import OLDEST
from bisect_trt.mixed_precision.weights import adopted
from bisect_trt.mixed_precision.write import MIXED, write_model
from bisect_trt.model.candidate import Candidate, Feeds, Rest
from bisect_trt.model.graph import opset_of
from bisect_trt.model.weight_values import weight_bytes
from bisect_trt.outcome import DONE, End, Ended
from bisect_trt.results import OnEvent, Step
from bisect_trt.session.journal import Journal
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.prepare import Session
from bisect_trt.session.prober import Budget, Prober
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.raised import raised
from bisect_trt.targets.roles import Roles, flat, float_types, roles
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import some_names

BF16_SINCE = 13
COSTS = ("nodes", "bytes", "time")
"""What a set of nodes may cost: their number, the bytes of what they give in FP32, or measured time."""
MOST_FRESH = 12
"""Fresh processes in which a set is run that was flaky."""
RAISED = "The model is in FP16 itself: it was raised to FP32, and what need not stay there was lowered again."


class Work(Struct, dict=True):
    """What a search works on; `run` does it. The target runs `there`, all else in `pool`."""

    settings: Settings
    session: Session
    pool: Pool
    there: Pool
    journal: Journal
    out: Path
    to: str
    cost: str
    on_event: OnEvent
    began: float
    expected: tuple[Feeds, ...]
    info: TargetInfo

    def run(self, keep: Keep, lower: Keep, start: Sequence[str] = ()) -> Precision:
        """Find the set, write the model, verify it; `start` is tried first.

        Raises:
            UsageError: a name is unknown, or no node of the model computes in FP32.
            StoppedEarly: ended before the whole model was asked for.
        """
        proto = flat(self.session.loaded.proto)
        self.was_narrow = raised(proto, self.session.loaded.path.absolute().parent)
        self.weights = weight_bytes(proto)
        place, self.outside = adopted(self.session.store, proto, self.session.loaded.path)
        self.budget = Budget.of(self.settings.run, self.began)
        self.trial = self._trial(proto, place)
        ranges = self._ranges(proto)
        known = self.trial.roles
        self._require_choice(proto)
        job(self.pool, None, evaluate.round_weights, self.trial)
        self.written = Sessions(self.pool, self.trial, self.journal, self.budget, evaluate.explicit)
        always, items = self._fixed_by_user(known.items, keep, lower)
        hinted = self._hints(proto, ranges, items, start)
        self.asker = self._asker()
        if isinstance(self.asker, OnTarget):
            self.asker.look(always, self.settings.run.repeats)
        else:
            measured = partial(self.asker.harms, items=frozenset(items) | always, twins=hinted.twins)
            hinted = replace(hinted, harms=measured)
        whole, low = self.asker.ask([frozenset(items) | always, always])
        searched = whole.passes and not low.passes
        price = self._price(items, always, searched)
        if not self._emulated and not start and searched:
            there = self.asker.ask
            cheap = Search(items, self._sessions(Budget(self.budget.deadline)).ask, hinted, always, price)
            hinted = schedule.by_emulation(cheap, lambda k: there([k | always])[0].passes, self._searching)
        search = Search(items, self.asker.ask, hinted, always, price)
        whole, low = search.answers([frozenset(items), frozenset()])
        if not whole.passes:
            self._require_not_lowered(frozenset(known.items), lower)
            return self._result(search, BROKEN, (), whole, low)
        if low.passes:
            return self._written(search, ALL_LOW, always, whole, low)
        stop = self._search(search)
        return self._written(search, MIXED_STATUS, search.found.best | always, whole, low, stop)

    def _price(self, items: Sequence[str], always: Keep, searched: bool) -> Callable[[str], float]:
        """Give what a node costs in FP32, measured where that is a time."""
        if self.cost == "bytes":
            return self.sizes.__getitem__
        if self.cost != "time" or not searched or not isinstance(self.asker, OnTarget):
            return dict.fromkeys(items, 1.0).__getitem__
        self._searching("what each node costs in FP32, measured")
        target, names, candidate = self.settings.target, self.trial.roles.names, self.asker.candidate
        clock = Clock(self.there, target, candidate, names, self.journal, self.budget)
        self.asker.clock = clock
        return clock.prices(items, always).__getitem__

    def _trial(self, proto: onnx.ModelProto, place: Path) -> Trial:
        """Give what every evaluation needs of the model, which was written to `place`."""
        return Trial(
            model=place.absolute(),
            folder=place.parent.absolute(),
            roles=Roles({}, types=float_types(proto)) if self.to in KINDS else roles(proto, self.to),
            to=self.to,
            store=self.session.store.folder.absolute(),
            feeds=self.session.feeds,
            expected=self.expected,
            accuracy=self.settings.accuracy,
        )

    def _require_not_lowered(self, everything: Keep, lower: Keep) -> None:
        """Raises UsageError when the whole model passes but for what the user has lowered."""
        if lower and self.asker.ask([everything])[0].passes:
            what = f"--lower: with {some_names(sorted(lower))} in {self.to.upper()}"
            raise UsageError(f"{what} the outputs are wrong, whatever else stays", "leave it out")

    def _ranges(self, proto: onnx.ModelProto) -> Mapping[str, Range]:
        """Give what one run in FP32 tells of all tensors; what may be quantised follows from it."""
        self._tell("ranges", "of all tensors in FP32")
        ranges: Mapping[str, Range] = job(self.pool, self.settings.run.timeout, evaluate.ranges, self.trial)
        if self.to in KINDS:
            largest = {name: one.largest for name, one in ranges.items()}
            scales = scales_of(largest, self.to)
            self.trial = replace(self.trial, roles=quantisable(proto, scales), scales=scales)
        return ranges

    def _require_choice(self, proto: onnx.ModelProto) -> None:
        """Raises UsageError when no node of the model could be lowered."""
        since = KINDS[self.to].since if self.to in KINDS else BF16_SINCE if self.to == "bf16" else 0
        old = opset_of(proto) < since
        if old or not self.trial.roles.items:
            low = self.to.upper()
            hint = f"its opset is {opset_of(proto)}, {low} is of {since}: convert it" if old else ""
            message = f"no node of this model computes in FP32 and could in {low}"
            raise UsageError(message, lacking(proto, self.to) or hint)

    def _hints(
        self, proto: onnx.ModelProto, ranges: Mapping[str, Range], items: Sequence[str], start: Sequence[str]
    ) -> Hints:
        """Give what ranges tell; where an earlier run kept nodes these are tried first."""
        known = self.trial.roles
        self.why = reasons(proto, known, ranges, self.to)
        self.sizes = activations(proto, known, ranges)
        self.unknown = unknown(start, known.names)
        found, first = hints(proto, known, ranges, self.why), set(start)
        if not first:
            return found
        return replace(found, suspects=tuple(k for k in items if {k, known.names[k]} & first))

    def _asker(self) -> Sessions | OnTarget:
        """Who answers: the target, which an emulation's one session stands for."""
        if self._emulated:
            return self._sessions(self.budget)
        oracle = Oracle(self.there, self.settings.target, self.settings.run.timeout, self.settings.accuracy)
        prober = Prober(oracle, self.journal, self.settings.run.workers, None, self.budget)
        names = dict(self.trial.roles.names)
        return OnTarget(prober, self._candidate(self.session.loaded.path.absolute()), names)

    def _sessions(self, budget: Budget) -> Sessions:
        """One session for all sets, or the written form where no session can switch."""
        if opset_of(self.session.loaded.proto) < OLDEST:
            return self.written
        return Sessions(self.pool, self.trial, self.journal, budget)

    @property
    def _emulated(self) -> bool:
        return self.settings.target.spec.startswith("emulate:")

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
        """Run all steps; give how they ended."""
        try:
            if isinstance(self.asker, OnTarget):
                schedule.dear_questions(search, self._searching, self.asker.builds(self.settings))
                if self.asker.clock:
                    self._searching("the fastest of the sets that pass, measured")
                    self.asker.clock.choose(search)
                return DONE
            schedule.cheap_questions(search, self.weights, self.settings.run.seed, self._searching)
            if self.asker is not self.written:
                schedule.agree(search, self.weights, self.written.ask, self._searching)
        except StoppedEarly as error:
            return End(Ended.OUT_OF_BUDGET, error.message)
        except KeyboardInterrupt:
            return End(Ended.INTERRUPTED, "interrupted")
        return DONE

    def _searching(self, text: str) -> None:
        self._tell("search", text)

    def _tell(self, phase: str, text: str) -> None:
        self.on_event(Step(phase=phase, text=text, nodes=len(self.session.graph.order)))

    # The end

    def _written(
        self, search: Search, status: str, keep: Keep, whole: Answer, low: Answer, stop: End = DONE
    ) -> Precision:
        self._tell("write", f"{len(keep)} nodes in FP32")
        casts = job(self.pool, None, write_model, self.trial, keep, self.out, self.outside)
        runs = self.asker.runs if isinstance(self.asker, OnTarget) else 1
        often = max(self.settings.run.repeats, min(runs, MOST_FRESH))
        repeats = 0 if stop.how is Ended.INTERRUPTED else often
        verified = sum(self._verify(keep) for _ in range(repeats))
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

    def _candidate(self, place: Path) -> Candidate:
        """Give a model that has the user's inputs and outputs, to be compared at these."""
        names = tuple(self.expected[0]) if self.expected else ()
        return Candidate(
            content=place,
            folder=place.parent,
            nodes=self.session.graph.order,
            feeds=self.session.feeds,
            expected=self.expected,
            rest=Rest(outputs=names, expected=self.expected),
        )

    def _verify(self, keep: Keep) -> bool:
        """Say whether the written file passes in a process of its own.

        Its narrow tensors are rounded where they are made; on a target that is no emulation it runs there,
        where networks are typed, else the user's model does with the same nodes constrained.
        """
        target, candidate = self.settings.target, self._candidate((self.out / MIXED).absolute())
        if isinstance(self.asker, OnTarget):
            candidate = self.asker.candidate(keep)
        else:
            target = replace(target, spec="emulate:typed", precision="")
        with (
            temporary_folder() as logs,
            Pool(1, log_dir=logs, memory_limit=self.settings.run.memory_limit) as pool,
        ):
            oracle = Oracle(pool, target, self.settings.run.timeout, self.settings.accuracy)
            outcome = oracle.observe(candidate)
        return not outcome.failures and not outcome.unresolved

    def _result(
        self, search: Search, status: str, keep: Collection[str], whole: Answer, low: Answer
    ) -> Precision:
        known, chosen = self.trial.roles, frozenset(keep) - search.always
        there = self.asker if isinstance(self.asker, OnTarget) else None
        more, asked = (there.notes(self.to.upper()), len(there.seen)) if there else ((), search.asked)
        mixed = search.known.get(chosen)
        errors = {"fp32": whole, "low": low, **({"mixed": mixed} if mixed else {})}
        curve: dict[int, float] = {}
        for tried, answer in search.known.items():
            curve[len(tried)] = min(curve.get(len(tried), float("inf")), answer.error)
        return Precision(
            model=self.session.loaded.path,
            out=self.out,
            settings=self.settings,
            target=self.info,
            reference="",
            to=self.to,
            status=status,
            nodes=len(known.items),
            cost=self.cost,
            kept=self._kept(search, frozenset(keep)),
            activations={
                "kept": sum(self.sizes[key] for key in known.items if key in keep),
                "all": sum(self.sizes.values()),
            },
            stays={known.names.get(k, k): why for k, why in known.stays.items()},
            errors={k: dict(a.errors) for k, a in errors.items()},
            tolerances={k: a.error for k, a in errors.items()},
            run_seconds=self._seconds(search, chosen),
            evaluations={"first": search.found.first, "all": asked, "explicit": self.written.answered},
            one_minimal=search.found.one_minimal or not chosen,
            smallest=search.smallest,
            notes=tuple(filter(None, (LUCK * search.odd, RAISED * self.was_narrow, self.unknown, *more))),
            raised=self.was_narrow,
            curve=tuple(sorted(curve.items())),
        )

    def _kept(self, search: Search, keep: Keep) -> tuple[Kept, ...]:
        known, found = self.trial.roles, []
        for key in (key for key in known.items if key in keep):
            without = search.known.get(keep - search.always - {key}) if key not in search.always else None
            error = without.error if without else 0.0
            found.append(Kept(known.names[key], known.ops[key], self._why(search, key, keep, error), error))
        return tuple(found)

    def _seconds(self, search: Search, chosen: Keep) -> dict[str, float]:
        """Give what one run takes in the low precision, in FP32 and mixed, where the target measured it."""
        if not isinstance(self.asker, OnTarget):
            return {}
        keeps = {"low": frozenset[str](), "fp32": frozenset(search.items), "mixed": chosen}
        seconds = {name: self.asker.seconds(keep | search.always) for name, keep in keeps.items()}
        return {name: found for name, found in seconds.items() if found}

    def _why(self, search: Search, key: str, keep: Keep, error: float) -> str:
        """Say why a node stays; of what its rounding does only what was asked."""
        if key in search.always:
            return "--keep names it"
        if isinstance(self.asker, OnTarget) and (refused := self.asker.refusal(keep - {key})):
            return f"the target does not take it in {self.to.upper()}: {refused}"
        if reason := self.why.get(key):
            return reason
        lost = f"{LOST} without it" if error == float("inf") else "its rounding makes the outputs differ"
        return lost if error > 1 else not_needed(key, keep - search.always, search.known)
