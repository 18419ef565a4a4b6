"""Words and figures for people: how seconds, counts and strange names are written everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from html import escape


def seconds(value: float) -> str:
    """Return `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(text: str) -> str:
    """Make it one line without control characters: names in a model may hold anything, escape codes too."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def counted(number: int, noun: str) -> str:
    """Return `1 node`, `1,200 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some_names(names: Sequence[str], most: int = 4) -> str:
    """Return `a, b, c, d and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    """Return the hint `did you mean X?` where a known word is near to one that is not; else another hint."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def short_name(name: str) -> str:
    """Return a file name of at most 200 bytes: what is put before and behind it has to fit, too."""
    return name.encode(errors="replace")[:200].decode(errors="ignore")


class Summary:
    """A result that says in a few lines what it is: on a terminal as text, in a notebook as a table."""

    def lines(self) -> list[tuple[str, str]]:
        """Return the lines, each with what it is about; the first one is the headline."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(f"{label:11} {printable(text)}" for label, text in self.lines())

    def _repr_html_(self) -> str:
        (_, headline), *rest = self.lines()
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(label)}</th><td>{escape(printable(text))}</td></tr>"
            for label, text in rest
        )
        return f"<h3>{escape(printable(headline))}</h3><table>{rows}</table>"
