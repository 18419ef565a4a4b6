"""What releases say, as sentences, tables and the section of an issue."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bisect_trt.blaming.decisions import Decisions
from bisect_trt.blaming.history import Change
from bisect_trt.blaming.releases import Releases, Tried
from bisect_trt.outcome import Verdict
from bisect_trt.reproducer.markdown import code, prose
from bisect_trt.writing.text import counted

BAD, GOOD = Verdict.REPRODUCES, Verdict.VANISHES
WORDS = {BAD: "still there", GOOD: "gone", Verdict.UNRESOLVED: "cannot tell"}


def answer(found: Releases) -> str:
    """Say the history in a sentence: `fails since 1.24.0 (1.23.2 is fine); still in 1.32.0, the newest`."""
    known = found.history.known
    if not known:
        return f"nothing can be told of any release of {found.package} that was tried"
    parts = [_step(found, change) for change in found.history.changes]
    first, last = (found.of(k) for k in (known[0], known[-1]))
    newest = known[-1] == len(found.names) - 1
    title = f"{last.release}, the newest" if newest else f"{last.release}, the newest that can be told"
    if not parts:
        oldest = "the oldest" if known[0] == 0 else "the oldest that can be told"
        if len(known) == 1:
            parts = [f"{'fails' if last.verdict is BAD else 'is fine'} in {title}"]
        else:
            verb = "fails in" if last.verdict is BAD else "is fine in"
            parts = [f"{verb} {first.release}, {oldest}, and in {title}"]
            parts += _between(found, known)
    elif known[-1] == found.history.changes[-1].after:
        parts[-1] = parts[-1].replace(f"since {last.release}", f"since {title}", 1)
    else:
        parts.append(f"{'still' if last.verdict is BAD else 'fine'} in {title}")
    if len(found.history.changes) > 1:
        row = [found.of(known[0]).verdict, *(found.of(c.after).verdict for c in found.history.changes)]
        parts.append(f"it comes and goes: {', '.join('bad' if v is BAD else 'good' for v in row)}")
    return "; ".join(parts)


def _step(found: Releases, change: Change) -> str:
    before, after = found.of(change.before), found.of(change.after)
    dark = [found.of(k).release for k in range(change.before + 1, change.after)]
    unclear = ""
    if dark:
        names = dark[0] if len(dark) == 1 else f"{dark[0]} to {dark[-1]}"
        unclear = f"; of {names} nothing can be told"
    if after.verdict is BAD:
        return f"fails since {after.release} ({before.release} is fine{unclear})"
    return f"gone since {after.release} ({before.release} still fails{unclear})"


def _between(found: Releases, known: Sequence[int]) -> list[str]:
    """Say how many were not asked between two that answer alike."""
    left = len(found.names) - len(found.history.answers)
    verb = "was" if left == 1 else "were"
    return [f"{counted(left, 'release')} between {verb} not tried (--sweep tries all)"] if left else []


def regressions(found: Releases) -> list[tuple[Tried, Tried]]:
    """Return releases before and after each change."""
    return [(found.of(c.before), found.of(c.after)) for c in found.history.changes]


def not_monotone(found: Releases) -> bool:
    """Return whether it came and went more than once."""
    return len(found.history.changes) > 1


def rows(found: Releases) -> list[tuple[str, str, str]]:
    """Return release, answer and what the script said, the newest first."""
    return [(t.release, WORDS[t.verdict], t.said) for t in reversed(found.tried)]


def table(found: Releases) -> str:
    """Return the same as a table of Markdown."""
    lines = ["| release | failure | what it says |", "|---|---|---|"]
    lines += [f"| {prose(name)} | {word} | {prose(said)} |" for name, word, said in rows(found)]
    return "\n".join(lines)


def section(found: Releases) -> str:
    """Return the section of an issue that answers "Have you tried the latest release?"."""
    known = found.history.known
    newest = found.names[-1]
    if known and known[-1] == len(found.names) - 1:
        last = found.of(known[-1])
        head = f"Yes: it {'still fails' if last.verdict is BAD else 'is gone'} in {newest}."
    else:
        tried = next((t for t in found.tried if t.release == newest), None)
        head = f"Nothing can be told of {newest}{f' ({tried.said})' if tried else ''}."
    lines = ["**Have you tried the latest release?**", "", f"{prose(head)} {prose(_sentence(found))}", ""]
    lines += [table(found), ""]
    for before, after in regressions(found):
        lines += [f"With {code(before.release)}: {prose(before.said)}", ""]
        lines += [f"With {code(after.release)}: {prose(after.said)}", ""]
    return "\n".join(lines)


def _sentence(found: Releases) -> str:
    text = answer(found)
    return f"{text[0].upper()}{text[1:]}."


def marks(found: Releases) -> list[tuple[str, str]]:
    """Mark every release, the oldest first: bad, good, dark (cannot tell) or not
    tried.

    What lies between two neighbours that answer alike is taken to be as they are, and marked as `likely`.
    """
    answers = found.history.answers
    named = {BAD: "bad", GOOD: "good", Verdict.UNRESOLVED: "dark"}
    row = [named[answers[k]] if k in answers else "not tried" for k in range(len(found.names))]
    for a, b in pairwise(found.history.known):
        if answers[a] is answers[b]:
            for k in range(a + 1, b):
                row[k] = f"likely {named[answers[a]]}" if k not in answers else row[k]
    return list(zip(found.names, row, strict=True))


def issue(found: Releases | None, decided: Decisions | None) -> str:
    """Return sections to paste into an issue: releases, then decisions."""
    parts = [section(found)] if found else []
    if decided is not None:
        lines = [f"- {prose(text)}" for text in sentences(decided)]
        parts.append("\n".join(["**Which decision of the builder?**", "", *lines, ""]))
    return "\n".join(parts)


def sentences(decided: Decisions) -> list[str]:
    """Return what the failure depends on, a sentence each."""
    found = decided.decided
    if not decided.shows:
        return [*decided.notes, *([f"Not tried: {decided.stopped}."] if decided.stopped else [])]
    lines = []
    if found.helps:
        how = " and ".join(knob.told for knob in found.helps)
        lines.append(f"On {decided.target} the failure is gone {how} ({counted(found.builds, 'build')}).")
    else:
        lines.append(f"None of {counted(found.knobs, 'decision')} of {decided.target} makes it go.")
    if found.keeps:
        names = " and ".join(knob.name for knob in found.keeps)
        lines.append(f"It stays with {names} alone as by default and all others otherwise.")
    ways = [knob.told for knob in found.also]
    if decided.outputs:
        verb = "is an output" if len(decided.outputs) == 1 else "are outputs"
        ways.append(f"when {', '.join(decided.outputs)} {verb}")
    ways += ["with fixed shapes of the inputs"] if decided.fixed else []
    lines += [f"It is gone {way}{', too' if found.helps else ''}." for way in ways]
    lines += _whole(decided)
    lines += [f"Stopped early: {decided.stopped}."] if decided.stopped else []
    return [*lines, *decided.notes]


def _whole(decided: Decisions) -> list[str]:
    whole = decided.whole
    if whole is None:
        return []
    if not whole.fails:
        return [f"The whole model {whole.model} does not fail here: {whole.said}."]
    return [f"{tried.sentence[0].upper()}{tried.sentence[1:]}." for tried in whole.tried]


def pasted(decided: Decisions) -> list[tuple[str, str]]:
    """Return the tool and line of each remedy, once; on the whole model where that was tried."""
    if decided.whole is not None and decided.whole.fails:
        return [pair for tried in decided.whole.tried if tried.agrees for pair in tried.paste]
    return [pair for knob in (*decided.decided.helps, *decided.decided.also) for pair in knob.paste.items()]
