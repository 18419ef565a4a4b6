"""`scan`: where the error comes from, tensor by tensor, in a handful of builds.

1. The reference runs and every tensor is recorded. 2. The whole model runs on the target. 3. Every node runs
on the target fed with recorded values, hundreds of them in one build (`model.cutting.segments`): own errors.
4. On the reference alone: each tensor with an own error takes the place of the recorded one, and what
follows from it runs up to the model's outputs: effects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import networkx as nx
from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.accuracy.tolerance import precision_rtol
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.cutting.segments import Segment, merge, segments
from bisect_trt.model.randomness import random_nodes, words
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.references.base import Record
from bisect_trt.results import OnEvent, Step
from bisect_trt.scanning import jobs
from bisect_trt.scanning.files import keep_values, open_out, require_free
from bisect_trt.scanning.groups import Group, Isolation
from bisect_trt.scanning.jobs import Measurement, Row, Whole
from bisect_trt.scanning.result import Histogram, Scan, Scanned, error_of
from bisect_trt.scanning.scope import chosen, no_value, require_outputs, require_reference
from bisect_trt.session.export_trial import ask
from bisect_trt.session.finite import Lost, all_lost, loss_sentence, lost_in
from bisect_trt.session.oracle import LONGEST_DEADLINE, outcome_of
from bisect_trt.session.pools import target_pool, with_timing_cache
from bisect_trt.session.prepare import Session, describe, load_for, prepare, resolved
from bisect_trt.session.recording import record_model
from bisect_trt.session.samples import read_with_notes
from bisect_trt.session.shape_notes import shape_notes
from bisect_trt.session.twice import with_marks
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.workers.pool import Pool

BUILDS = 12
"""Engines that a scan builds at most, whatever the size of the model and whatever fails."""
EFFECTS = 50
"""Tensors whose effect is run when running all of them would not be cheap."""
CHEAP = 20_000
"""Runs of single nodes on the reference that are cheap in sum."""


def scan(
    model: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    force: bool = False,
    tensors: Sequence[str] = (),
    save_tensors: Path | None = None,
    on_event: OnEvent = lambda step: None,
) -> Scan:
    """Measure the own error of every tensor and its effect on the outputs; write the two scan files.

    Args:
        model: ONNX file.
        settings: target, inputs, tolerances.
        out: folder to write to; None: `MODEL-scan` here.
        force: replace what an earlier scan left there.
        tensors: names to look at; all when there are none.
        save_tensors: new folder for the values of both sides, as `.npy`.
        on_event: gets what is being done.

    Raises:
        UsageError: the model, its inputs, an option, a name or a folder cannot be used.
        TargetUnavailable: the target cannot be used here, or cannot run what it builds.
    """
    settings = resolved(settings)
    require_reference(settings)
    loaded = load_for(model, settings)
    samples, converted = read_with_notes(loaded, settings)
    out = out or Path.cwd() / f"{model.stem}-scan"
    require_free(out, save_tensors, force=force)
    with open_out(out) as work:
        session = prepare(loaded, samples, work / "work")
        asked = chosen(session.graph, tensors)
        run, target = settings.run, with_timing_cache(settings.target, work)
        with (
            Pool(run.workers, log_dir=work / "logs", memory_limit=run.memory_limit) as pool,
            target_pool(pool, settings, work / "logs", 1) as there,
        ):
            info = describe(pool, settings)
            require_outputs(info)
            session = with_marks(pool, session, settings)
            found = _Scanning(
                model, out, settings, session, pool, there, target, info, on_event,
                save_tensors is not None,
            )  # fmt: skip
            result = found.run(asked, (*converted, *shape_notes(loaded, samples, settings)))
        if save_tensors is not None:
            keep_values(save_tensors, found.record, found.rows)
        from bisect_trt.scanning import page  # jinja2 is not needed before

        page.write(result)
    return result


class _Scanning(Struct, dict=True):
    model: Path
    out: Path
    settings: Settings
    session: Session
    pool: Pool
    there: Pool  # runs the target
    target: TargetSettings
    info: TargetInfo
    on_event: OnEvent
    keep_all: bool
    rows: dict[str, list[Row]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Scanned] = field(default_factory=dict)
    segment: dict[str, Segment] = field(default_factory=dict)
    effects_left: int = 0

    def run(self, asked: Sequence[str], notes: Sequence[str]) -> Scan:
        """Measure, rank and run effects; `notes` are appended to the notes made here."""
        graph = self.session.graph
        with self._phase("record", f"{len(graph.order):,} nodes on the reference"):
            recorded = record_model(self.pool, self.session, self.settings)
            truth = ask(self.pool, self.session, self.settings, recorded)
            self.record: Record = truth.record
        self.fixed = self._with_random_values()
        cutter = Cutter(self.fixed.graph, self.session.store, self.record)
        with self._phase("whole model", "on the target"):
            whole = self._whole()
        with self._phase("own errors", f"{len(asked):,} tensors, each fed with recorded values"):
            builds = self._measure(asked, cutter, BUILDS - whole.builds)
        context = {diff.name: diff for diff in whole.context}
        self.tensors = {t: replace(s, context=context.get(t)) for t, s in self.tensors.items()}
        with self._phase("effects", "on the model's outputs, on the reference"):
            self._effects(Rests(self.fixed.graph, cutter, self.record))
        lost = lost_in(self.record, graph.graph_outputs)
        result = Scan(
            model=self.model,
            out=self.out,
            settings=self.settings,
            target=self.info,
            reference=self.record.reference,
            tensors=tuple(self.tensors.values()),
            sources={s.node: graph.inputs_of(s.node) for s in self.tensors.values()},
            nodes=len(graph.order),
            outputs=whole.outputs,
            whole=whole.failures[0].message if whole.failures else whole.unresolved,
            context_why=whole.context_why,
            unmapped=whole.unmapped,
            builds=builds + whole.builds,
            effects_left=self.effects_left,
            seconds=self.seconds,
            blame=truth.blame,
            unsure=all_lost(lost, graph.graph_outputs) or ("" if whole.builds else whole.unresolved),
            notes=(*self._notes(lost, truth.blame, truth.note), *notes),
        )
        return replace(result, histogram=self._histogram(result))

    def _with_random_values(self) -> Session:
        """What a random node gave the reference is an input from here on: else a second draw is an error."""
        known = bool(random_nodes(self.session.graph)) and not self.record.error
        return self.session.pinned(self.record) if known else self.session

    def _notes(self, lost: Lost, *said: str) -> tuple[str, ...]:
        """Return what else there is to know, doubts first."""
        graph, given = self.session.graph, self.fixed is not self.session
        doubts = [*words(graph, given=given), loss_sentence(graph, self.record, lost) if lost.count else ""]
        return tuple(filter(None, (*doubts, *said, *self.info.notes, self.record.error)))

    @contextmanager
    def _phase(self, name: str, text: str) -> Iterator[None]:
        start = time.perf_counter()
        self._tell(name, text)
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def _tell(self, phase: str, text: str) -> None:
        self.on_event(Step(phase=phase, text=text, nodes=len(self.session.graph.order)))

    @property
    def _deadline(self) -> float:
        return self.settings.run.timeout or LONGEST_DEADLINE

    def _whole(self) -> Whole:
        settings, candidate = self.settings, self.fixed.with_outputs(self.record)
        if not candidate.expected or not candidate.expected[0]:
            return Whole(unresolved="the reference has no values of the model's outputs", builds=0)
        task = self.there.submit(
            jobs.whole, self.target, candidate, settings.accuracy, self.record, timeout=self._deadline
        )
        reply = task.result()
        if reply.death is None:
            found: Whole = reply.value
            return found
        outcome = outcome_of(reply)
        return Whole(outcome.failures, unresolved=outcome.unresolved)

    # Own errors

    def _measure(self, asked: Sequence[str], cutter: Cutter, most: int) -> int:
        """Fill `tensors`; gives the builds that it took."""
        graph, record = self.session.graph, self.record
        depth = {n: k for k, level in enumerate(nx.topological_generations(graph.digraph)) for n in level}
        position, random = {name: k for k, name in enumerate(graph.order)}, random_nodes(graph)
        for t in asked:
            node = graph.producer[t]
            why = no_value(t, graph, record, random)
            place = (position[node], depth[node] + 1)
            self.tensors[t] = Scanned(t, node, graph.node(node).op_type, *place, why=why)
        nodes = {s.node for s in self.tensors.values() if not s.why}
        found = segments(self.fixed.graph, cutter, record, nodes)
        parts = [part for part in found if part.tensors and part.fed]
        isolation = Isolation(self._build, most)
        isolation.run(parts)
        for part in parts:
            self.segment.update(dict.fromkeys(part.tensors, part))
        for t, known in self.tensors.items():
            if not known.why:
                self.tensors[t] = self._found(known, isolation)
        return isolation.builds

    def _build(self, group: Group) -> Sequence[Failure]:
        """Try to measure segments together."""
        count = sum(len(part.nodes) for part in group)
        self._tell("own errors", f"{count:,} nodes in one build")
        arguments = (self.target, merge(group), self.settings.accuracy, self.keep_all)
        reply = self.there.submit(jobs.measure, *arguments, timeout=self._deadline).result()
        if reply.death is not None:
            outcome = outcome_of(reply)
            return outcome.failures or [_unclear(outcome.unresolved)]
        got: Measurement = reply.value
        for row in got.rows:
            self.rows.setdefault(row.diff.name, []).append(row)
        return got.failures or ([_unclear(got.unresolved)] if got.unresolved else [])

    def _found(self, item: Scanned, isolation: Isolation) -> Scanned:
        rows = self.rows.get(item.tensor)
        if rows:
            worst = max(rows, key=lambda row: error_of(row.diff))
            return replace(item, own=worst.diff, above_noise=any(row.above_noise for row in rows))
        part = self.segment.get(item.tensor)
        if part is None:
            return replace(item, why="not to be cut out alone")
        blamed = isolation.blamed.get(part.nodes[0])
        if blamed is None or blamed.failure is None:
            return replace(item, why=f"not measured: {BUILDS} builds were used up")
        why = "" if blamed.suspects == 1 else f"one of {blamed.suspects} nodes that were built together fails"
        return replace(item, failure=blamed.failure, suspects=blamed.suspects, why=why)

    # Effects

    def _effects(self, rests: Rests) -> None:
        """Run what follows from each tensor with an own error; all of them if that is cheap."""
        ranked = [s for s in self.tensors.values() if s.above_noise]
        ranked.sort(key=lambda s: (-(s.own_error or 0.0), s.position))
        graph = self.session.graph
        behind = accumulate(len(nx.descendants(graph.digraph, item.node)) for item in ranked)
        if any(nodes * max(1, self.record.samples) > CHEAP for nodes in behind):
            self.effects_left = max(0, len(ranked) - EFFECTS)
            ranked = ranked[:EFFECTS]
        least = precision_rtol(self.settings.target)
        tasks = []
        for item in ranked:
            self._tell("effects", f"of {len(ranked):,} tensors")
            files = self._files(item.tensor)
            if files is None:
                why = "the target's value does not fit in the place of the reference's"
                self.tensors[item.tensor] = replace(item, why=why)
                continue
            part = self.segment[item.tensor].candidate
            one = tuple({item.tensor: values[item.tensor]} for values in part.expected)
            candidate = rests.attach(replace(part, expected=one))
            arguments = (candidate, files, self.settings.accuracy, least)
            tasks.append((item, self.pool.submit(jobs.effect, *arguments, timeout=self._deadline)))
        for item, task in tasks:
            reply = task.result()
            diffs, why = reply.value if reply.death is None else (None, reply.death.message)
            self.tensors[item.tensor] = replace(item, effect=None if why else diffs, why=why)

    def _files(self, tensor: str) -> list[dict[str, Path]] | None:
        """Return the target's value of each sample: where it is the reference's, that.

        None when one is missing.
        """
        rows = {row.diff.sample: row for row in self.rows[tensor]}
        found = []
        for sample in range(self.record.samples):
            row = rows.get(sample)
            if row is None or (row.above_noise and not row.file):
                return None
            path = self.record.folder / row.file if row.file else self.record.path(sample, tensor)
            found.append({tensor: path})
        return found

    def _histogram(self, result: Scan) -> Histogram | None:
        """Return the histogram of the first tensor in the table that has values."""
        for item in result.ranked:
            worst = item.own
            files = self._files(item.tensor) if worst is not None and item.above_noise else None
            if worst is None or files is None:
                continue
            reference = self.record.path(worst.sample, item.tensor)
            kind = self.record.elem_type(item.tensor)
            arguments = (item.tensor, reference, files[worst.sample][item.tensor], kind)
            reply = self.pool.submit(jobs.histogram, *arguments, timeout=self._deadline).result()
            return reply.value if reply.death is None else None
        return None


def _unclear(why: str) -> Failure:
    return Failure(Stage.RUN, Symptom.ERROR, "unresolved", why)
