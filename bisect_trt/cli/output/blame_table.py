"""What `blame` prints: a line for each release as it comes, then the answer."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisect_trt.blaming import words
from bisect_trt.blaming.blame import DOCUMENT, STRIP, Blame
from bisect_trt.blaming.patched import MODEL, SCRIPT
from bisect_trt.blaming.releases import Tried
from bisect_trt.cli.output.console import Page, shorten, show_path
from bisect_trt.outcome import Verdict
from bisect_trt.reproducer.files import ISSUE
from bisect_trt.writing.text import counted, printable, seconds

_SAID = 110
_STYLES = {Verdict.REPRODUCES: "red", Verdict.VANISHES: "green", Verdict.UNRESOLVED: "yellow"}


def show_tried(tried: Tried, console: Console | None = None) -> None:
    """Print one release in one line."""
    console = console or Console(highlight=False)
    line = Text(f"{printable(tried.release):<15} ")
    line.append(f"{words.WORDS[tried.verdict]:<12}", style=_STYLES[tried.verdict])
    line.append(shorten(printable(tried.said), _SAID))
    console.print(line, soft_wrap=True)


def show_matrix(found: Sequence[Blame]) -> None:
    """Reproducers against releases, then the history of each in a sentence."""
    names = list(dict.fromkeys(name for one in found if one.releases for name in one.releases.names))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Release", no_wrap=True)
    for one in found:
        table.add_column(printable(one.name), overflow="fold")
    for name in reversed(names):
        cells = []
        for one in found:
            tried = [t for t in one.releases.tried if t.release == name] if one.releases else []
            word = words.WORDS[tried[0].verdict] if tried else "-"
            cells.append(Text(word, style=_STYLES[tried[0].verdict] if tried else ""))
        table.add_row(printable(name), *cells)
    page = Page()
    page.console.print(table)
    for one in found:
        text = words.answer(one.releases) if one.releases else "; ".join(one.notes)
        page.row("History", f"{printable(one.name)}: {printable(text)}")


def show_step(text: str) -> None:
    """Print what is going on, on the error output."""
    Console(stderr=True, highlight=False).print(Text(f"trying {printable(text)}"), soft_wrap=True)


def show_blame(found: Blame) -> None:
    """Print the answers, and where the files are."""
    page = Page()
    if found.releases is not None:
        releases = found.releases
        page.row("Releases", printable(words.answer(releases)), style="bold")
        of = f"{len(releases.history.answers)} of {counted(len(releases.names), 'release')}"
        spent = f"{counted(releases.probes, 'run')}, {seconds(releases.seconds)}"
        page.row("Tried", f"{of} of {releases.package}, {spent}")
    if found.decisions is not None:
        for k, text in enumerate(words.sentences(found.decisions)):
            page.row("" if k else "Decisions", printable(text), style="" if k else "bold")
        for tool, lines in words.pasted(found.decisions):
            for line in lines.splitlines():
                page.exact(tool, line)
    for note in found.notes:
        page.row("Note", printable(note))
    if found.releases is not None:
        page.exact("Strip", show_path(found.out / STRIP))
    page.exact("Issue", f"{show_path(found.out / ISSUE)} (sections to paste)")
    if (found.out / MODEL).exists():
        page.exact("Patched", f"{show_path(found.out / MODEL)} ({SCRIPT} does it to the next export)")
    page.exact("Data", show_path(found.out / DOCUMENT))
