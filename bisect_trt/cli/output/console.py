"""What commands print at the end. Where that is no terminal rich, which takes 25 ms, would print the same."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.options import line, reduce_line, verify_line, what_to_try
from bisect_trt.outcome import Failure, Stage
from bisect_trt.reproducer.archive import too_big
from bisect_trt.reproducer.issue import operators
from bisect_trt.reproducer.trackers import emulated, sensitive
from bisect_trt.reproducer.verify import Status, Verification, exit_code
from bisect_trt.results import CANNOT_RUN, Check, Finding, Reduction
from bisect_trt.writing.text import counted, printable, seconds, some_names

if TYPE_CHECKING:
    from rich.console import Console

    from bisect_trt.targets.doctor import Row

_MESSAGE = 240  # characters of a message; the whole of it is in the report
_ALSO = 2
_LISTED = 20  # failures of a check that have a line
# `[file.cpp::function::48]`, `file.h:12 function`
_PLACE = re.compile(
    r"(\[[^\[\]]*|( In \w+ at )?/?\b[\w./]+)\.(cpp|cc|cu|hpp|h)\b([^\[\]]*\]|:\d+(:| \w+)?) ?"
)
_WAITING = {
    0: "not fixed yet",
    1: "fixed now: workarounds can go, and so can --until-fixed",
    3: "it cannot be told here whether it is fixed",
    4: "it fails in another way now",
}
_LABELS = {
    Status.SAME: "Fails",
    Status.OTHER: "Otherwise",
    Status.FIXED: "Fixed",
    Status.ELSEWHERE: "Passes",
    Status.UNKNOWN: "Unclear",
}


def show_reduction(result: Reduction, archive: Path, console: Console | None = None) -> None:
    """Print the last screen of `reduce`: what fails, where, why it is believed, how small, what next.

    About ten lines, on a terminal of any width; everything else is in the reports.
    """
    page = Page(console, whole=False)
    page.row("Fails", _what(result.wanted) + f" on {printable(result.target.title)}", style="bold red")
    page.row("", _gist(result.wanted))
    for note in result.notes:
        if note.startswith(CANNOT_RUN):  # shapes or inputs of the user's may be to blame for all that follows
            page.row("Careful", printable(note.partition("\n")[0]), style="bold yellow")
    if result.judgement.kind is Finding.SENSITIVE:
        page.row("Finding", printable(sensitive(result)))
    if result.judgement.kind is Finding.NOT_TOLD:
        page.row("Finding", *map(printable, result.judgement.told))
    page.row("Where", _accumulated(result) or _place(result))
    left = f"{counted(len(result.best.nodes), 'node')}: {printable(operators(result.best.model))}"
    page.row("Size", f"{result.original_nodes:,} -> {left}{_spent(result)}")
    page.row("Believe it", _belief(result), style="bold green" if result.sure else "bold yellow")
    page.row("Note", *_note(result))
    own = result.judgement.kind is Finding.SENSITIVE
    file, whose = "NOTE.md" if own else "ISSUE.md", "for your team" if own or emulated(result) else "to paste"
    page.exact("Folder", f"{show_path(result.out)}/", f"({file} {whose}, report.html to look at)")
    page.exact("Attach", show_path(archive))
    page.exact("Next", line("python", show_path(result.out / "repro.py")))
    again, simple = reduce_line(result.model, result.settings, result.out), result.simplification
    if not result.finished:
        page.exact("Go on", again)
        return
    page.exact("", verify_line(show_path(result.out), result.settings), "(after an update)")
    if simple and simple.had_its_time and result.settings.run.simplify_budget is None:
        page.exact("", f"{again} --force --simplify-budget 2m", "(simpler still, as that had its time)")


def show_left(result: Reduction) -> None:
    """Print what an anonymous reproducer still reveals of the original, and what is too big."""
    page = Page()
    for k, text in enumerate(result.left):
        page.row("" if k else "Still told", printable(text))
    if result.archive is not None and (text := too_big(result.archive)):
        page.row("Too big", printable(text), style="bold yellow")


def show_verification(result: Verification, console: Console | None = None) -> None:
    """Print what one reproducer does now."""
    page = Page(console)
    styles = {Status.FIXED: "bold green", Status.SAME: "bold red"}
    runs = f", {counted(result.runs, 'run')}" if result.runs else ""
    on = f" on {printable(result.target)}" if result.target else ""
    said = f"{result.status.value}{on} ({seconds(result.seconds)}{runs})"
    style = styles.get(result.status, "bold yellow")
    page.row(_LABELS[result.status], f"{printable(result.name)}: {said}", style=style)
    if result.why:
        page.row("", shorten(printable(result.why), _MESSAGE))
    if result.seen is not None:
        page.row("Seen", f"{_what(result.seen)}: {_message(result.seen)}")
    if result.wanted is not None and result.status is not Status.SAME:
        page.row("Before", f"{_what(result.wanted)}: {_message(result.wanted)}")


def show_verifications(results: Sequence[Verification], *, until_fixed: bool) -> None:
    """Print, after several, how many have each status; with `until_fixed` also what the exit code means."""
    page = Page()
    if len(results) > 1:
        counts = Counter(result.status for result in results)
        text = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
        page.row("In all", f"{counted(len(results), 'reproducer')}: {text}")
    if until_fixed:
        code = exit_code(results, until_fixed=True)
        page.row("Exit code", f"{code}: {_WAITING[code]}")


def show_check(result: Check, console: Console | None = None) -> None:
    """Print the result of one probe of a whole model."""
    page, outcome = Page(console), result.outcome
    if not outcome.failures:
        style = "bold yellow" if outcome.unresolved else "bold green"
        page.row("Unclear" if outcome.unresolved else "Fine", _fine(result), style=style)
    _show_failures(page, result)
    page.row(
        "Model", f"{printable(result.model.name)}, {counted(result.nodes, 'node')}, {seconds(result.seconds)}"
    )
    for note in result.notes:
        page.row("Note", shorten(printable(note), _MESSAGE))
    tries = what_to_try(result.model, result.settings, result.outputs_compared)
    if outcome.failures:
        tries = [result.next_line]
        if len({failure.key for failure in outcome.failures}) > 1:
            tries.append(f"{result.next_line} --all (a reproducer for each of them)")
    for number, text in enumerate([] if outcome.unresolved else tries):
        page.exact("" if number else "Next", text)


def _show_failures(page: Page, result: Check) -> None:
    """Print what fails, and whether that is known to be a fault."""
    title, outcome = printable(result.target.title), result.outcome
    for k, failure in enumerate(outcome.failures[:_ALSO]):
        if result.export_differs:
            page.row("Export", printable(failure.message), style="bold red")
            continue
        page.row("Also" if k else "Fails", f"{_what(failure)} on {title}", style="bold red")
        page.row("", _gist(failure))
        page.row("Where", _where(failure, ()))
    for failure in outcome.failures[_ALSO:_LISTED]:
        page.row("Also", f"{_where(failure, ())}: {_gist(failure)}")
    if outcome.failures and result.finding is Finding.NOT_TOLD and not result.export_differs:
        page.row("Finding", "not told yet: reduce finds out whether this is a fault or rounding")
    if len(outcome.failures) > _LISTED:
        page.row("", f"and {len(outcome.failures) - _LISTED} more of the same probe, all of them in --json")


def show_judged(diffs: Sequence[TensorDiff]) -> None:
    """Print outputs that were compared again, those that disagree first."""
    page = Page()
    for diff in diffs:
        style = "bold green" if diff.ok else "bold red"
        page.row("Fine" if diff.ok else "Differs", printable(diff.describe()), style=style)


def show_doctor(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print what can be used here; for each that cannot: why, and how to get it."""
    page = Page(console)
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            page.heading(group)
        mark, style = {True: ("yes", "bold green"), False: ("no", "bold red"), None: ("", "bold")}[row.usable]
        page.row(f"{mark:>3}", f"{printable(row.name)}  {printable(row.detail)}", style=style)
        if row.hint:
            page.exact("", f"-> {printable(row.hint)}")


class Page:
    """Rows of a label and a text, in the columns that a terminal has.

    A file, a pipe or the log of a CI job has no width: there each row is one line, whole.
    """

    _LABEL = 12

    def __init__(self, console: Console | None = None, *, whole: bool = True) -> None:
        """Print to `console`. On a terminal a row is wrapped, or, unless `whole`, cut to one line."""
        self._console = console or (rich_console() if may_be_terminal(sys.stdout) else None)
        self._width = self._console.width if self._console and self._console.is_terminal else 0
        self._whole = whole

    @property
    def console(self) -> Console:
        """What draws tables."""
        return self._console or rich_console()

    def heading(self, text: str) -> None:
        """Print a line that begins a group."""
        self._print((text, "bold"))

    def row(self, label: str, text: str, aside: str = "", style: str = "bold") -> None:
        """Text for reading; `aside` follows it and is not cut."""
        aside = f" {aside}" if aside else ""
        width = max(20, self._width - self._LABEL)
        lines = [text + aside]
        if self._width and not self._whole:
            lines = [shorten(text, max(8, width - len(aside))) + aside]
        elif self._width:
            lines = textwrap.wrap(lines[0], width, break_long_words=False, break_on_hyphens=False) or [""]
        for k, part in enumerate(lines):
            self._print((f"{'' if k else label:<{self._LABEL}}", style), (part, ""))

    def exact(self, label: str, text: str, aside: str = "") -> None:
        """Text for copying: never wrapped, whatever its length. An `aside` has to fit, or is left out."""
        whole = f"{text} {aside}" if aside else text
        fits = not self._width or len(whole) <= self._width - self._LABEL
        self._print((f"{label:<{self._LABEL}}", "bold"), (whole if fits else text, ""))

    def _print(self, *parts: tuple[str, str]) -> None:
        if self._console is None:
            print(*(text for text, _ in parts), sep="", flush=True)
            return
        from rich.text import Text

        self._console.print(Text.assemble(*parts), soft_wrap=True)


def rich_console(*, stderr: bool = False) -> Console:
    """Return what prints on a terminal, and draws tables anywhere."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def may_be_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal, or may be taken for one, which rich then decides."""
    return stream.isatty() or any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))


def _what(failure: Failure) -> str:
    return f"{failure.stage} {failure.symptom}"


def _message(failure: Failure) -> str:
    return shorten(printable(failure.message), _MESSAGE)


def _gist(failure: Failure) -> str:
    """The message without places in the target's own source and numbers of its errors, which come first."""
    text = _PLACE.sub("", failure.message)
    text = re.sub(r"^([\w:]+: )?Error Code \d+: ", "", printable(text))
    text = re.sub(r"^Internal Error \((.*)\)$", r"\1", text)
    return shorten(text or printable(failure.message), _MESSAGE)


def shorten(text: str, limit: int) -> str:
    """Return the first `limit` characters of a longer text, in whole words where it has some."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 4]
    return f"{kept.rpartition(' ')[0] or kept} ..."


def _where(failure: Failure, remaining: Sequence[str]) -> str:
    """Name those of the nodes left that the target names, else all: it may have named an innocent one."""
    blamed = [name for name in failure.nodes if not remaining or name in remaining]
    names = blamed or remaining
    if not names:
        return f"not known yet: {'scan or ' if failure.stage is Stage.COMPARE else ''}reduce finds out"
    named = some_names([printable(name) or "(no name)" for name in names])
    op = f" ({printable(failure.op)})" if failure.op and blamed else ""
    return f"{'node' if len(names) == 1 else 'nodes'} {named}{op}"


def _place(result: Reduction) -> str:
    """Return what is to blame: the form of the model, a place in the user's code, or nodes."""
    if result.causes:
        return printable(result.causes[0])
    return _origin(result) or _where(result.original_failure or result.wanted, result.nodes)


def _accumulated(result: Reduction) -> str:
    """Say that no node is to blame, if so, and what contributes most."""
    parts = result.accuracy.get("accumulated") or []
    if not parts:
        return ""
    most = f"{printable(parts[0]['nodes'][0])} adds most ({parts[0]['error']:.2g})"
    return f"no node: the error accumulates, {most}"


def _origin(result: Reduction) -> str:
    """Say where in the user's code the first node comes from that the target names, else the first known."""
    blamed = (result.original_failure or result.wanted).nodes
    known = {origin.node: origin for origin in result.origins if origin.file}
    first = next((known[name] for name in blamed if name in known), next(iter(known.values()), None))
    return printable(first.sentence()) if first else ""


def _note(result: Reduction) -> tuple[str, str]:
    """Return the most important note and how many more there are; "nothing was compared" comes first."""
    own = [n for n in result.notes if n not in result.target.notes and not n.startswith(CANNOT_RUN)]
    limits = list(result.target.notes)
    notes = [*own, *limits] if result.outputs_compared else [*limits, *own]
    if result.also_seen:
        place = 0 if result.outputs_compared else len(limits)
        notes.insert(place, f"{counted(len(result.also_seen), 'other failure')} seen on the way")
    more = f"(+{len(notes) - 1} in report.md)" if len(notes) > 1 else ""
    return printable(notes[0]) if notes else "-", more


def _belief(result: Reduction) -> str:
    if not result.verified and not result.finished:
        seen = "unverified"
    elif result.script_objection:
        seen = f"not verified: {printable(result.script_objection)}"
    else:
        seen = f"{result.verified} of {result.repeats} fresh runs of the written files fail in this way"
    minimal = "1-minimal" if result.one_minimal else "not proved minimal"
    return f"{minimal}; {seen}" + f"; stopped early: {printable(result.stop_reason)}" * (not result.finished)


def _spent(result: Reduction) -> str:
    probes, wall = result.counts.get("probes"), result.counts.get("wall_seconds")
    parts = [counted(int(probes), "probe")] if probes is not None else []
    parts += [seconds(float(wall))] if wall is not None else []
    return f" ({', '.join(parts)})" if parts else ""


def _fine(result: Check) -> str:
    if result.outcome.unresolved:
        return f"nothing can be said: {printable(result.outcome.unresolved)}"
    title = printable(result.target.title)
    if not result.outputs_compared:
        return f"{title} parses and builds it; outputs were not compared"
    other = printable(result.reference) or "itself: two runs, rows of a batch if there is one, finite values"
    return f"{title} builds and runs it, and agrees with {other}"


def show_path(path: Path) -> str:
    """Return a path as short as it can be said from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
