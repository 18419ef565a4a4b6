"""Measure many parts of a model in few builds, although some of them fail.

Parts are built together. Of a group that fails, the nodes that the target names are set aside and the rest
is built again; when it names none, the group is halved, by operator first: where one Resize fails, the
next one often does. A half that passes leaves the other one as the guilty one, without a build. What is
set aside on the way goes together into one more build at the end.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from bisect_trt.model.cutting.segments import Segment
from bisect_trt.outcome import Failure, Stage, Symptom

NODES = 512
"""Nodes in one build: about what builders take in one piece without complaint."""
BYTES = 1 << 30
"""Recorded values and weights in one build."""

Group = Sequence[Segment]

_RANGE = re.compile(r"ForeignNode\[[^\]]*\.\.\.")
_NOT_ONE_NODE = (Symptom.OUT_OF_MEMORY, Symptom.HANG)  # there may just be too much in the group


class Blamed(Struct, frozen=True):
    """A part that was not measured; the failure is its own, or that of one of several `suspects`."""

    failure: Failure | None
    suspects: int = 1


def plan(parts: Group, most: int) -> list[list[Segment]]:
    """Make as few groups as the limits above allow, of about equal weight; `most` go before the limits."""
    nodes = sum(len(part.nodes) for part in parts)
    size = sum(part.bytes for part in parts)
    count = min(most, max(1, -(-nodes // NODES), -(-size // BYTES)))
    groups: list[list[Segment]] = [[]]
    used = 0.0
    for part in parts:
        if groups[-1] and used >= len(groups) / count - 1e-9:
            groups.append([])
        groups[-1].append(part)
        used += (len(part.nodes) / nodes + part.bytes / max(1, size)) / 2
    return groups


class Isolation(Struct):
    """The search for parts that fail.

    Attributes:
        build: tries a group; no failure: it is measured. One of stage parse costs no build.
        most: builds that may be spent.
        builds: that were.
        blamed: parts that were not measured, by their first node.
    """

    build: Callable[[Group], Sequence[Failure]]
    most: int
    builds: int = 0
    blamed: dict[str, Blamed] = field(default_factory=dict)
    _fresh: deque[list[Segment]] = field(default_factory=deque)
    _guilty: deque[tuple[list[Segment], Failure]] = field(default_factory=deque)
    _aside: list[Segment] = field(default_factory=list)
    _bad_ops: set[str] = field(default_factory=set)

    def run(self, parts: Group) -> None:
        """Measure all parts that can be measured; the last build is for what was set aside."""
        # Half of the builds are kept for trouble.
        self._fresh.extend(plan(parts, max(1, self.most // 2)) if parts else [])
        while self._fresh or self._guilty or self._aside:
            if self._fresh:
                self._try(self._fresh.popleft())
            elif self._guilty and not (self._aside and self.builds == self.most - 1):
                self._divide(*self._guilty.popleft())
            else:
                self._fresh.append(self._aside)
                self._aside = []

    def _try(self, group: list[Segment]) -> None:
        if self.builds >= self.most:
            self._blame(group, None)
        elif failures := self._built(group):
            self._failed(group, failures)

    def _built(self, group: list[Segment]) -> Sequence[Failure]:
        failures = self.build(group)
        self.builds += not failures or any(f.stage is not Stage.PARSE for f in failures)
        return failures

    def _failed(self, group: list[Segment], failures: Sequence[Failure]) -> None:
        """A group was tried and failed: blame who is named, or keep it to be divided."""
        named = {name: f for f in failures if _names_culprits(f, group) for name in f.nodes}
        found = [part for part in group if not named.keys().isdisjoint(part.nodes)]
        if len(group) == 1:
            self._blame(group, failures[0])
        elif found:
            for part in found:
                self._blame([part], next(named[name] for name in part.nodes if name in named))
            gone = {part.nodes for part in found}
            if rest := [part for part in group if part.nodes not in gone]:
                self._fresh.appendleft(rest)
        else:
            self._guilty.append((list(group), failures[0]))

    def _divide(self, group: list[Segment], failure: Failure) -> None:
        """Try one half of a group that fails."""
        if self.builds >= self.most:
            self._blame(group, failure)
            return
        if len(group) == 1:  # known by exclusion: once more, alone, before it is said aloud
            self._try(group)
            return
        one, other = self._halves(group)
        failures = self._built(one)
        if failures:
            self._failed(one, failures)
            self._aside += other
        elif failure.symptom in _NOT_ONE_NODE:
            self._fresh.append(other)
        else:
            self._guilty.appendleft((other, failure))

    def _halves(self, group: list[Segment]) -> tuple[list[Segment], list[Segment]]:
        """Split by operator, those that are likely to pass first; a single operator by position."""
        ops = [op for op, _ in Counter(part.op for part in group).most_common()]
        if len(ops) == 1:
            return group[: len(group) // 2], group[len(group) // 2 :]
        first = {op for op in ops if op not in self._bad_ops}
        if not first or len(first) == len(ops):
            first = set(ops[: (len(ops) + 1) // 2])
        return [p for p in group if p.op in first], [p for p in group if p.op not in first]

    def _blame(self, group: Group, failure: Failure | None) -> None:
        for part in group:
            self.blamed[part.nodes[0]] = Blamed(failure, len(group))
        if failure is not None and len(group) == 1:
            self._bad_ops.add(group[0].op)


def _names_culprits(failure: Failure, group: Group) -> bool:
    """Return whether the nodes named by a failure are the culprits, not the ends of a fused range."""
    named = [part for part in group if not set(failure.nodes).isdisjoint(part.nodes)]
    if _RANGE.search(failure.message):
        return False
    sure = failure.stage is Stage.PARSE or len(named) == 1
    return bool(named) and (sure or all(part.op == failure.op for part in named))
