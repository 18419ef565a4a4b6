"""Progress while a reduction runs: a live view on a terminal, else a plain line for each step kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bisect_trt.cli.output.console import may_be_terminal, rich_console
from bisect_trt.results import OnEvent, Step
from bisect_trt.writing.text import counted, printable, seconds

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


@contextmanager
def progress(*, quiet: bool = False, console: Console | None = None) -> Iterator[OnEvent]:
    """Yield a consumer of steps that writes to standard error; nothing at all when `quiet`."""
    if quiet:
        yield lambda step: None
        return
    if console is None and may_be_terminal(sys.stderr):
        console = rich_console(stderr=True)
    if console is None or not console.is_terminal or console.is_dumb_terminal:
        file = console.file if console else sys.stderr

        def plain(step: Step) -> None:
            if step.accepted:
                print(plain_line(step), file=file, flush=True)

        yield plain
        return
    from rich.live import Live
    from rich.text import Text

    view = LiveView()
    # `refresh_per_second` redraws the clock too: a long probe shows that something is alive.
    with Live(view, console=console, refresh_per_second=4, transient=True) as live:

        def on_event(step: Step) -> None:
            view.take(step)
            if step.accepted:
                live.console.print(Text(plain_line(step)))  # wrapped between words

        yield on_event


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Say on a terminal, as long as it takes, what is waited for; elsewhere and when `quiet` nothing."""
    console = rich_console(stderr=True) if not quiet and may_be_terminal(sys.stderr) else None
    if console is None or not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    from rich.text import Text

    with console.status(Text(printable(text))):
        yield


def plain_line(step: Step) -> str:
    """Return `drop: 3 nodes still fail (12 probes, 4.1 s in the target)`."""
    spent = f"{counted(step.probes, 'probe')}, {seconds(step.target_seconds)} in the target"
    return f"{printable(step.phase)}: {printable(step.text)} ({spent})"


class LiveView:
    """The newest step, drawn in as many columns as there are."""

    def __init__(self) -> None:
        """Start the clock."""
        self.step: Step | None = None
        self.best = ""
        self.builder = ""
        self._start = time.monotonic()

    def take(self, step: Step) -> None:
        """Take a newer step; one from outside the search (no counts) leaves the counts as they were."""
        if not step.phase:
            self.builder = step.builder
            return
        if self.step is not None and step.probes + step.cached < self.step.probes + self.step.cached:
            step = replace(self.step, phase=step.phase, text=step.text, accepted=step.accepted)
        self.step = step
        if step.accepted:
            self.best = step.text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw."""
        step = self.step
        elapsed = seconds(time.monotonic() - self._start)
        if step is None:
            yield self._row("starting", elapsed)
            return
        yield self._row(printable(step.phase), printable(step.text))
        yield self._row("nodes left", f"{step.nodes:,}")
        yield self._row(
            "probes", f"{step.probes:,} done, {step.cached:,} cached, {step.unresolved:,} unresolved"
        )
        yield self._row("time", f"{elapsed}, {seconds(step.target_seconds)} of it in the target")
        if self.builder:
            yield self._row("builder", printable(self.builder))
        if self.best:
            yield self._row("best", printable(self.best))

    @staticmethod
    def _row(name: str, value: str) -> Text:
        from rich.text import Text

        return Text.assemble((f"{name:>12}  ", "bold cyan"), value, no_wrap=True, overflow="ellipsis")
