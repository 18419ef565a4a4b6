"""Failures that come and go, on a simulated target: how often the search ends in the right nodes.

Everything but the target is real; its dice are seeded. Written into bench/RESULTS.md by `make bench`.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bisect_trt.errors import FlakyFailure
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom
from bisect_trt.reduction.passes.drop import drop
from bisect_trt.reduction.passes.flaky import distrust, steady
from bisect_trt.reduction.passes.localise import localise
from bisect_trt.reduction.problem import Problem
from bisect_trt.references.base import Record
from bisect_trt.session.journal import Journal
from bisect_trt.session.prober import Prober
from chains import chain

NODES, REPEATS, RUNS = 100, 20, 20
FAILURE = Failure(Stage.BUILD, Symptom.ERROR, "broken", "broken")
RATES = (0.9, 0.5, 0.2, 0.1)


@dataclass
class Ended:
    """A task that is done at once."""

    future: Future[None]
    outcome: Outcome


@dataclass
class Dice:
    """An oracle: the failure shows in a part of all runs of what has all culprits."""

    culprits: frozenset[str]
    rate: float
    dice: random.Random

    def run(self, nodes: Sequence[str]) -> Outcome:
        """One run."""
        shows = self.culprits <= set(nodes) and self.dice.random() < self.rate
        return Outcome((FAILURE,) if shows else ())

    def submit(self, candidate: Candidate, target: object = None) -> Ended:
        """As `Oracle.submit`."""
        future: Future[None] = Future()
        future.set_result(None)
        return Ended(future, self.run(candidate.nodes))

    def outcome(self, task: Ended, *, guessed: bool = False) -> Outcome:
        """As `Oracle.outcome`."""
        return task.outcome


def searched(culprits: frozenset[str], rate: float, seed: int, folder: Path) -> tuple[str, int]:
    """`right`, `wrong` or `exit 5`, and the probes that it took."""
    graph = Graph(normalise(chain(NODES)))
    store, oracle = Store(folder / "store"), Dice(culprits, rate, random.Random(seed))
    (folder / "journal.jsonl").unlink(missing_ok=True)
    with Journal.open(folder / "journal.jsonl", {}) as journal:
        prober = Prober(oracle, journal)  # type: ignore[arg-type]
        cutter = Cutter(graph, store, Record(store.folder, 0))
        problem = Problem(graph, cutter, prober, FAILURE, lambda step: None, repeats=REPEATS)
        try:
            for one_pass in (localise, steady, drop):
                one_pass(problem)
            fresh = [oracle.run(problem.best.nodes) for _ in range(REPEATS)] if problem.best else []
            if problem.runs == 1 and len({bool(o.failures) for o in fresh}) == 2:
                distrust(problem)
                drop(problem)
        except FlakyFailure:
            return "exit 5", prober.counts.probes
    right = problem.best is not None and set(problem.best.nodes) == culprits
    return ("right" if right else "wrong"), prober.counts.probes


def cell(count: int, neighbours: bool, rate: float, runs: int) -> str:
    """`20 / 0 / 0, 65`: right, wrong, exit 5, and probes on average."""
    ends: dict[str, int] = {"right": 0, "wrong": 0, "exit 5": 0}
    probes = []
    with tempfile.TemporaryDirectory(dir=shared_memory()) as place:
        for seed in range(runs):
            dice = random.Random(seed)
            first = dice.randrange(NODES - 1)
            at = [first, first + 1] if neighbours else dice.sample(range(NODES), count)
            end, taken = searched(frozenset(f"n{k}" for k in at), rate, seed, Path(place))
            ends[end] += 1
            probes.append(taken)
    return f"{' / '.join(map(str, ends.values()))}, {statistics.mean(probes):.0f}"


def kept(folder: Path) -> list[list[str]]:
    """The rows, measured once."""
    file = folder / "flaky.json"
    if not file.exists():
        file.write_text(json.dumps(rows()))
    found: list[list[str]] = json.loads(file.read_text())
    return found


def shared_memory() -> str | None:
    """A folder that needs no disk; a journal waits for the disk after each line."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def rows(runs: int = RUNS) -> list[list[str]]:
    """The cells of the table."""
    kinds: list[Any] = [(1, False), (2, True), (2, False)]
    return [[f"{rate:.0%}", *(cell(*kind, rate, runs) for kind in kinds)] for rate in RATES]


def section(table: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    text = [
        "## Failures that come and go",
        "",
        f"Written by bench/flaky.py: a simulated target, {NODES} nodes, `--repeats {REPEATS}`, {RUNS} runs a "
        "cell: right nodes / others / exit 5, and probes on average.",
        "",
        "| shows in | one node | two neighbours | two distant nodes |",
        "|---|---|---|---|",
    ]
    return "\n".join([*text, *(f"| {' | '.join(row)} |" for row in table)]) + "\n"


if __name__ == "__main__":
    print(section(rows()))
