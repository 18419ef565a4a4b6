"""Tries releases one by one and finds those in which the failure appeared and disappeared."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

from bisect_trt.blaming.environments import Environment, Environments, NotTried
from bisect_trt.blaming.history import History, search, sweep
from bisect_trt.blaming.installer import Processes
from bisect_trt.blaming.oracle import Answer, Question
from bisect_trt.blaming.packages import Asked
from bisect_trt.errors import UsageError
from bisect_trt.outcome import Built, Outcome, Verdict
from bisect_trt.session.journal import Journal

INSTALLS = 4
"""So many environments are made at the same time."""

_LINE = re.compile(r"\s*(?P<name>[^\s:][^:]*?)\s*:\s+(?P<command>\S.*)")


class Tried(Struct, frozen=True):
    """One release, and what it says.

    Attributes:
        release: its version, or its name in a file of releases.
        verdict: whether the failure is there.
        said: the last word of the script, or why it was not run.
        ran: whether the script was run, by this call or by one that it goes on from.
        seconds: that the script took.
        versions: of all packages in its environment.
        output: all that the script printed.
    """

    release: str
    verdict: Verdict
    said: str
    ran: bool = True
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "release": self.release,
            "verdict": self.verdict.value,
            "said": self.said,
            "ran": self.ran,
            "seconds": round(self.seconds, 3),
            "versions": dict(self.versions),
        }


OnTried = Callable[[Tried], None]


class Releases(Struct, frozen=True):
    """What the releases of one package say.

    Attributes:
        package: its name; of a file of releases the file's.
        names: of all releases that were asked for, the oldest first.
        history: by position in `names`.
        tried: those that were looked at, the oldest first.
        probes: runs of the script by this call.
        seconds: in all.
    """

    package: str
    names: tuple[str, ...]
    history: History
    tried: tuple[Tried, ...]
    probes: int = 0
    seconds: float = 0.0

    def of(self, position: int) -> Tried:
        """Return what the release at a position says."""
        return next(tried for tried in self.tried if tried.release == self.names[position])


class Source(Protocol):
    """Where releases come from."""

    def command(self, name: str, script: Path) -> tuple[list[str], Mapping[str, str], str]:
        """Return the command that runs a script on a release, its versions, and why it cannot run, if so.

        Raises:
            NotTried: it cannot be tried here.
        """
        ...


class FromIndex(Struct, frozen=True):
    """Releases of a package, each in an environment of its own."""

    asked: Asked
    environments: Environments
    more: tuple[str, ...] = ()

    def command(self, name: str, script: Path) -> tuple[list[str], Mapping[str, str], str]:
        """See `Source`."""
        found: Environment = self.environments.get(self.asked.package, name, self.more)
        return [str(found.python), str(script)], found.versions, found.broken


class FromFile(Struct, frozen=True):
    """Releases that are commands of the user: `{script}` and `{folder}` stand for ours."""

    commands: Mapping[str, str]

    def command(self, name: str, script: Path) -> tuple[list[str], Mapping[str, str], str]:
        """See `Source`."""
        places = {"{script}": str(script), "{folder}": str(script.parent)}
        words = shlex.split(self.commands[name])
        for placeholder, place in places.items():
            words = [word.replace(placeholder, place) for word in words]
        return words, {}, ""


def read_file(path: Path) -> FromFile:
    """Return lines `NAME: COMMAND`, the oldest release first; blank ones and those with `#` are left out.

    Raises:
        UsageError: it cannot be read, or a line is none of these.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--releases-file {path} cannot be read: {error}") from error
    commands: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        hint = "write it as 10.13: /opt/trt-10.13/bin/python {script}"
        if match is None:
            raise UsageError(f"--releases-file {path}, line {number} is not NAME: COMMAND", hint)
        try:
            shlex.split(match["command"])
        except ValueError as error:
            raise UsageError(f"--releases-file {path}, line {number}: {error}", hint) from error
        if match["name"] in commands:
            raise UsageError(f"--releases-file {path}, line {number}: {match['name']} is there twice")
        commands[match["name"]] = match["command"]
    if not commands:
        raise UsageError(f"--releases-file {path} names no release")
    return FromFile(commands)


class Releaser:
    """Asks a question of releases; what the journal has is not asked again."""

    def __init__(
        self,
        question: Question,
        source: Source,
        journal: Journal,
        processes: Processes,
        *,
        repeats: int = 1,
        workers: int = 1,
        budget: float | None = None,
        on_tried: OnTried = lambda tried: None,
    ) -> None:
        self._question = question
        self._source = source
        self._journal = journal
        self._processes = processes
        self._repeats = repeats
        self._workers = workers
        self._end = None if budget is None else time.monotonic() + budget
        self._on_tried = on_tried
        self._ready: dict[str, Future[tuple[list[str], Mapping[str, str], str]]] = {}
        self._probes = 0

    def run(self, package: str, names: Sequence[str], anchors: Sequence[str], *, every: bool) -> Releases:
        """Search, or with `every` ask all. `anchors` are releases that showed the failure."""
        began = time.monotonic()
        tried: dict[str, Tried] = {}
        places = [names.index(anchor) for anchor in anchors if anchor in names]

        def ask(k: int) -> Verdict:
            name = names[k]
            tried[name] = self._once(name)
            self._on_tried(tried[name])
            return tried[name].verdict

        with ThreadPoolExecutor(INSTALLS) as installs:
            try:
                first = dict.fromkeys([len(names) - 1, 0, *places])
                for k in reversed(range(len(names))) if every else first:
                    self._ready[names[k]] = installs.submit(
                        self._source.command, names[k], self._question.script
                    )
                history = self._swept(names, tried) if every else search(len(names), ask, places)
            except BaseException:
                self._processes.end_all()
                installs.shutdown(cancel_futures=True)
                raise
        looked_at = tuple(tried[name] for name in names if name in tried)
        return Releases(
            package, tuple(names), history, looked_at, self._probes, time.monotonic() - began
        )

    def _swept(self, names: Sequence[str], tried: dict[str, Tried]) -> History:
        """Try all of them, some at the same time; they are reported in order."""
        with ThreadPoolExecutor(max(1, self._workers)) as probes:
            asked = {name: probes.submit(self._once, name) for name in reversed(names)}
            try:
                for name, future in asked.items():
                    tried[name] = future.result()
                    self._on_tried(tried[name])
            except BaseException:
                self._processes.end_all()
                probes.shutdown(cancel_futures=True)
                raise
        return sweep(len(names), lambda k: tried[names[k]].verdict)

    def _once(self, name: str) -> Tried:
        if self._end is not None and time.monotonic() > self._end:
            return Tried(name, Verdict.UNRESOLVED, "not tried: --budget used up", ran=False)
        try:
            ready = self._ready.get(name)
            found = ready.result() if ready else self._source.command(name, self._question.script)
        except NotTried as why:
            return Tried(name, Verdict.UNRESOLVED, f"not tried: {why}", ran=False)
        command, versions, broken = found
        if broken:
            return Tried(name, Verdict.UNRESOLVED, broken, ran=False, versions=versions)
        key = self._key(name, command, versions)
        known = self._journal.outcome(key)
        if known is not None:
            verdict = self._journal.verdict(key) or Verdict.UNRESOLVED
            said, output = known.built.said, known.built.output
            return Tried(name, verdict, said, True, known.seconds, versions, output)
        self._probes += 1
        self._journal.begin(key, release=name)
        answer = self._question.ask(command, self._processes, self._repeats)
        self._journal.end(key, _as_outcome(answer), answer.verdict)
        return Tried(name, answer.verdict, answer.said, True, answer.seconds, versions, answer.output)

    def _key(self, name: str, command: Sequence[str], versions: Mapping[str, str]) -> str:
        content = "\n".join([self._question.digest, name, *(versions or command), *versions.values()])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _as_outcome(answer: Answer) -> Outcome:
    unresolved = answer.said if answer.verdict is Verdict.UNRESOLVED else ""
    built = Built(said=answer.said, output=answer.output[-20_000:])
    return Outcome(unresolved=unresolved, seconds=answer.seconds, built=built)
