"""What `blame` prints: a line for each release as it comes, then the answer."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from bisect_trt.blaming import words
from bisect_trt.blaming.blame import DOCUMENT, STRIP, Blame
from bisect_trt.blaming.releases import Tried
from bisect_trt.cli.output.console import Page, shorten, show_path
from bisect_trt.outcome import Verdict
from bisect_trt.reproducer.files import ISSUE
from bisect_trt.text import counted, printable, seconds

_SAID = 110
_STYLES = {Verdict.REPRODUCES: "red", Verdict.VANISHES: "green", Verdict.UNRESOLVED: "yellow"}


def show_tried(tried: Tried, console: Console | None = None) -> None:
    """One release in one line."""
    console = console or Console(highlight=False)
    line = Text(f"{printable(tried.release):<12}")
    line.append(f"{words.WORDS[tried.verdict]:<12}", style=_STYLES[tried.verdict])
    line.append(shorten(printable(tried.said), _SAID))
    console.print(line, soft_wrap=True)


def show_blame(found: Blame, console: Console | None = None) -> None:
    """The answer, and where the files are."""
    page = Page(console or Console(highlight=False))
    if found.releases is not None:
        releases = found.releases
        page.row("Answer", printable(words.answer(releases)), style="bold")
        of = f"{len(releases.history.answers)} of {counted(len(releases.names), 'release')}"
        spent = f"{counted(releases.probes, 'run')}, {seconds(releases.seconds)}"
        page.row("Tried", f"{of} of {releases.package}, {spent}")
        page.exact("Strip", show_path(found.out / STRIP))
        page.exact("Issue", f"{show_path(found.out / ISSUE)} (the section on releases, to paste)")
    page.exact("Data", show_path(found.out / DOCUMENT))
