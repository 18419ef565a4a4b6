"""`blame`: which release broke it, and which decision of the builder."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.blaming import strip, words
from bisect_trt.blaming.decisions import Decisions, Say, decisions
from bisect_trt.blaming.environments import LIMIT, Environments
from bisect_trt.blaming.installer import Processes
from bisect_trt.blaming.oracle import Question, write_question
from bisect_trt.blaming.packages import Asked, asked_for, default_for
from bisect_trt.blaming.releases import FromIndex, OnTried, Releaser, Releases, Source, read_file
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.outcome import Failure
from bisect_trt.reproducer import files
from bisect_trt.reproducer.untrusted import Report, find, opened, require_custom_ops
from bisect_trt.session import folder as folders
from bisect_trt.session.journal import Journal
from bisect_trt.session.prepare import resolved
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.writing.files import write_all
from bisect_trt.writing.text import Summary

DOCUMENT = "blame.json"
STRIP = "releases.svg"
SCHEMA = 1


class Asking(Struct, frozen=True):
    """What `blame` looks for, and how. Without `releases`, `releases_file` and `decisions` it asks for both.

    Attributes:
        releases: `PACKAGE[>=A,<B]`; empty: the package that has the target, unless `decisions`.
        decisions: which decisions of the builder it depends on.
        on: the user's whole model; None: the file of the name that the report tells, where it lies here.
        releases_file: a command for each release instead, see `releases.read_file`.
        sweep: all releases are tried, not only as many as the search needs.
        pre: pre-releases, too.
        offline: only what was installed before.
        allow_build: source archives may be built.
        cache_limit: bytes that they may take; 12 GiB without it.
    """

    releases: str = ""
    releases_file: Path | None = None
    decisions: bool = False
    on: Path | None = None
    sweep: bool = False
    pre: bool = False
    offline: bool = False
    allow_build: bool = False
    cache_limit: int | None = None

    @property
    def asks_releases(self) -> bool:
        """Whether releases are asked for."""
        return bool(self.releases or self.releases_file) or not self.decisions

    @property
    def asks_decisions(self) -> bool:
        """Whether decisions of the builder are asked for."""
        return self.decisions or not (self.releases or self.releases_file)


class Blame(Summary, Struct, frozen=True):
    """What was found; the files of `out` hold the same.

    Attributes:
        name: of the reproducer.
        wanted: the failure.
        out: the folder.
        releases: what they say; None where none were asked.
        decisions: what the failure depends on; None where that was not asked.
        notes: why one of them is missing, if so.
    """

    name: str
    wanted: Failure
    out: Path
    releases: Releases | None = None
    decisions: Decisions | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """Return the answers, and where the files are."""
        rows = [("Releases", words.answer(self.releases))] if self.releases else []
        if self.decisions is not None:
            rows += [("Decisions", " ".join(words.sentences(self.decisions)))]
        return [*rows, *(("Note", note) for note in self.notes), ("Written to", str(self.out))]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        found = self.releases
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "tool": {"name": "bisect-trt", "version": __version__},
            "reproducer": self.name,
            "failure": self.wanted.to_json(),
        }
        if found is not None:
            document["releases"] = {
                "package": found.package,
                "answer": words.answer(found),
                "monotone": not words.not_monotone(found),
                "changes": [[a.release, b.release] for a, b in words.regressions(found)],
                "names": list(found.names),
                "tried": [tried.to_json() for tried in found.tried],
                "probes": found.probes,
                "seconds": round(found.seconds, 3),
            }
        if self.decisions is not None:
            decided = {"answer": words.sentences(self.decisions)[0]}
            document["decisions"] = decided | self.decisions.to_json()
        return {**document, "notes": list(self.notes)}


def blame(
    place: Path,
    asking: Asking = Asking(),  # noqa: B008 (frozen)
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    target: str | None = None,
    out: Path | None = None,
    force: bool = False,
    on_tried: OnTried = lambda tried: None,
    say: Say = lambda text: None,
) -> Blame:
    """Find the release in which a reproducer's failure came, and the decision of the builder it depends on.

    Args:
        place: folder or zip that `reduce` wrote; nothing in it is believed, and no script of it is run.
        asking: what to look for.
        settings: how often and how long a script may run, how many at the same time, and for how long in
            all; libraries for the target and for ONNX Runtime, as a report's own are never loaded.
        target: other than the one of its report.
        out: where to write; NAME-blame here without it. What an earlier call found there is not asked again.
        force: replace what is there.
        on_tried: called with each release as it is tried.
        say: called with what else is going on.

    Raises:
        UsageError: there is no reproducer, or it or an option cannot be used.
        TargetUnavailable: releases cannot be listed, or this is not Linux.
        StoppedEarly: the disk is full; what was found so far is in the journal.
    """
    _require_usable(place, asking)
    name = place.absolute().name.removesuffix(".zip").removesuffix("-repro")
    out = out or Path.cwd() / f"{name}-blame"
    with temporary_folder() as scratch:
        folder, report = opened(place, scratch)
        require_custom_ops(folder, report, settings.accuracy.custom_ops)
        asked = [folders.meaning(report.target(target, settings.target)), repr(report.accuracy)]
        head = {"tool": __version__, "blame": _digest(folder, repr(asked))}
        with folders.open_folder(out, head, force=force) as journal:
            question = scratch / "question"
            question.mkdir()
            ask = _Asker(folder, report, target, settings, asking, question, journal)
            releases, notes = ask.releases_if_possible(on_tried) if asking.asks_releases else (None, ())
            decided = ask.decisions(place, out, scratch, say) if asking.asks_decisions else None
            found = Blame(name, report.wanted, out, releases, decided, notes)
            write(found)
    return found


def _require_usable(place: Path, asking: Asking) -> None:
    """Raise UsageError or TargetUnavailable where the question itself cannot be asked here."""
    if sys.platform != "linux":
        raise TargetUnavailable("blame works on Linux only", "copy the reproducer to a Linux machine")
    for given_file, word in ((asking.on, "--on"), (asking.releases_file, "--releases-file")):
        if given_file is not None and not given_file.is_file():
            raise UsageError(f"{word} {given_file}: no such file")
    if find(place) != [place]:
        raise UsageError(f"{place} holds several reproducers", "give one of them")


class _Asker(Struct, frozen=True):
    """One call of `blame`."""

    folder: Path
    report: Report
    target: str | None
    settings: Settings
    asking: Asking
    into: Path
    journal: Journal

    def releases_if_possible(self, on_tried: OnTried) -> tuple[Releases | None, tuple[str, ...]]:
        """Return what `releases` does; where nobody named releases, a note if none can be listed here."""
        try:
            return self.releases(on_tried), ()
        except TargetUnavailable as error:
            if self.asking.releases or not self.asking.asks_decisions:
                raise
            return None, (f"Releases were not tried: {error.message}.",)

    def releases(self, on_tried: OnTried) -> Releases:
        """Return the releases of a package or of a file."""
        asking, processes = self.asking, Processes()
        if asking.releases_file is not None:
            if asking.releases:
                raise UsageError("--releases and --releases-file exclude each other", "leave one of them out")
            source = read_file(asking.releases_file)
            names = list(source.commands)
            question = self._question(None)
            return self._asked(asking.releases_file.name, question, source, processes, names, [], on_tried)
        spec = self._target.spec
        asked = asked_for(asking.releases or default_for(spec), spec)
        environments = Environments(
            processes,
            limit=LIMIT if asking.cache_limit is None else asking.cache_limit,
            offline=asking.offline,
            allow_build=asking.allow_build,
            pre=asking.pre,
        )
        question = self._question(asked)
        listed = environments.versions(asked.package)
        names = asked.among(listed, pre=asking.pre)
        if not names:
            raise UsageError(
                f"no release of {asked.package.name} is {asked.specifier}", f"there are: {', '.join(listed)}"
            )
        from_index = FromIndex(asked, environments)
        anchors = [version for version in self.report.versions.values() if version in names]
        try:
            return self._asked(
                asked.package.name, question, from_index, processes, names, anchors, on_tried
            )
        finally:
            environments.trim()

    def decisions(self, place: Path, out: Path, scratch: Path, say: Say) -> Decisions:
        """Decisions of the builder, on this machine's own target."""
        asked = self.settings.run
        run = replace(asked, seed=self.report.seed, timeout=asked.timeout or self.report.timeout)
        accuracy = replace(self.report.accuracy, custom_ops=self.settings.accuracy.custom_ops)
        settings = resolved(Settings(self._target, run, accuracy))
        budget, values = asked.budget, scratch / "values"
        values.mkdir()
        return decisions(
            self.folder,
            self.report.wanted,
            settings,
            self.journal,
            values,
            on=self.asking.on or self._whole(place),
            out=out,
            nodes=self.report.nodes,
            deadline=None if budget is None else time.monotonic() + budget,
            say=say,
        )

    @property
    def _target(self) -> TargetSettings:
        """The target that is on trial, with the libraries that were given by hand."""
        return self.report.target(self.target, self.settings.target)

    def _whole(self, place: Path) -> Path | None:
        """Return the user's model, where a file of its name lies here or beside the reproducer."""
        name = self.report.model_name
        places = [folder / name for folder in (Path.cwd(), place.absolute().parent)] if name else []
        return next((found for found in places if found.is_file()), None)

    def _question(self, asked: Asked | None) -> Question:
        package = asked.package if asked else None
        given = self.settings.target
        question = write_question(self.folder, self.report, self.target, given, package, self.into)
        limit = self.settings.run.timeout
        return replace(question, deadline=limit) if limit else question

    def _asked(
        self,
        title: str,
        question: Question,
        source: Source,
        processes: Processes,
        names: list[str],
        anchors: list[str],
        on_tried: OnTried,
    ) -> Releases:
        run = self.settings.run
        releaser = Releaser(
            question,
            source,
            self.journal,
            processes,
            repeats=run.repeats,
            workers=run.workers,
            budget=run.budget,
            on_tried=on_tried,
        )
        return releaser.run(title, names, anchors, every=self.asking.sweep)


def write(found: Blame) -> None:
    """Write all but the journal: what was found for programs, for an issue, as a picture; and the outputs.

    Raises:
        OSError: a file cannot be written.
    """
    texts = {DOCUMENT: json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n"}
    releases = found.releases
    if releases is not None:
        texts[STRIP] = strip.svg(releases)
        for tried in (t for pair in words.regressions(releases) for t in pair):
            texts[f"output-{_file_name(tried.release)}.txt"] = tried.output
    texts[files.ISSUE] = words.issue(releases, found.decisions)
    write_all(found.out, texts, DOCUMENT)


def _file_name(release: str) -> str:
    return "".join(c if c.isalnum() or c in ".-_" else "_" for c in release)[:80]


def _digest(folder: Path, asked: str) -> str:
    """Return what two runs must share for one to go on with the other's journal."""
    h = hashlib.sha256(asked.encode())
    for name in (files.MODEL, files.WEIGHTS, files.REPORT):
        with suppress(OSError):
            h.update(name.encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    return h.hexdigest()[:32]
