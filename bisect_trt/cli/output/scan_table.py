"""The last screen of `scan`. Everything is `Text`: nothing from a model is markup."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisect_trt.cli.output.console import Page, shorten, show_path
from bisect_trt.options import line, reduce_line, what_to_try
from bisect_trt.scanning import words
from bisect_trt.scanning.files import DOCUMENT, PAGE
from bisect_trt.scanning.result import Scan, Scanned
from bisect_trt.writing.text import counted, printable, seconds

ROWS = 15
_MESSAGE = 240
_NAME = 80  # characters of a tensor


def show_scan(scan: Scan, console: Console | None = None) -> None:
    """Verdict, table of the worst tensors, what was not measured, where the files are."""
    page = Page(console)
    style = "bold red" if scan.guilty or scan.agrees is False else "bold green"
    if scan.blame:
        page.row("Export", printable(scan.blame), style="bold red")
    page.row("Verdict", words.verdict(scan), style=style)
    if lost := words.first_lost(scan):
        page.row("NaN/Inf", lost, style="bold red")
    shown = scan.ranked
    if len(shown) > ROWS:  # few ones were asked for, or are all that there is
        shown = [item for item in shown if item.effect_error or item.own_error or item.context_error][:ROWS]
    if shown:
        page.console.print(_table(scan, shown))
    for text in words.failing(scan):
        page.row("Not taken", shorten(text, _MESSAGE), style="bold yellow")
    for why, count in words.unmeasured(scan).items():
        page.row("Left out", f"{counted(count, 'tensor')}: {shorten(why, _MESSAGE)}")
    for note in words.notes(scan):
        if note != scan.blame:
            page.row("Note", shorten(note, _MESSAGE))
    spent = sum((scan.seconds or {}).values())
    builds = counted(scan.builds, "build")
    page.row("Spent", f"{len(scan.tensors):,} tensors, {builds}, {seconds(spent)}")
    page.exact("Page", show_path(scan.out / PAGE))
    page.exact("Data", show_path(scan.out / DOCUMENT))
    _show_next(page, scan)


def _show_next(page: Page, scan: Scan) -> None:
    """Print what finds the smallest part, and what answers which nodes have to stay in FP32."""
    if scan.guilty or scan.agrees is False:
        page.exact("Next", reduce_line(scan.model, scan.settings), "(the smallest part that shows it)")
        kind, _, to = scan.settings.target.spec.partition(":")
        if kind == "emulate" and to in ("fp16", "bf16"):
            which = line("bisect-trt", "precision", scan.model, "--to", to)
            page.exact("", which, "(which nodes have to stay in FP32)")
        return
    for number, text in enumerate(what_to_try(scan.model, scan.settings, True)):
        page.exact("" if number else "Next", text)


def _table(scan: Scan, items: list[Scanned]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Tensor", overflow="fold")
    table.add_column("Op", overflow="fold")
    for heading in ("Effect", "Own", *(["In context"] if not scan.context_why else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in items:
        style = "bold red" if item.guilty or item.lost else ""
        skipped = "not run" if item.above_noise else ""
        effect = skipped if item.effect is None else words.figure(item.effect_error)
        name = shorten(printable(item.tensor), _NAME)
        cells = [name, printable(item.op), effect, words.figure(item.own_error)]
        if not scan.context_why:
            cells.append(words.figure(item.context_error))
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table
