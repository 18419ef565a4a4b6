"""The last screen of `precision`. Everything is `Text`: nothing from a model is markup."""

from __future__ import annotations

import math

from bisect_trt.cli.output.console import Page, shorten, show_path
from bisect_trt.mixed_precision.handover import PAGE, memory, price, share, sure
from bisect_trt.mixed_precision.result import Precision
from bisect_trt.mixed_precision.write import DOCUMENT, MIXED
from bisect_trt.writing.text import counted, printable, seconds, some_names

SHOWN_NODES = 12
_MESSAGE = 240


def show_precision(result: Precision) -> None:
    """Print the set, why each of it stays, how sure that is, and where the files are."""
    page = Page()
    low = result.to.upper()
    if result.status == "broken":
        page.row("Verdict", "wrong in FP32 already: that is no matter of precision", style="bold red")
        page.row("Next", f"bisect-trt reduce {result.model}")
        return
    if result.status == "all low":
        page.row("Verdict", result.all_low, style="bold green")
    else:
        of = f"of {result.nodes:,} float nodes"
        page.row("Keep", f"{counted(len(result.kept), 'node')} in FP32, {of}", style="bold green")
    for item in result.kept[:SHOWN_NODES]:
        page.row("", shorten(f"{printable(item.name)} ({item.op}): {printable(item.why)}", _MESSAGE))
    if len(result.kept) > SHOWN_NODES:
        page.row("", f"and {len(result.kept) - SHOWN_NODES} more, in {DOCUMENT}")
    if result.stays:
        what = shorten(some_names([f"{name}: {why}" for name, why in result.stays.items()], 2), _MESSAGE)
        page.row("Also FP32", f"{counted(len(result.stays), 'node')} without a choice: {printable(what)}")
    before, after = share(result.tolerances["low"]), share(result.tolerances.get("mixed", math.inf))
    if result.status != "all low":
        page.row("Error", f"all in {low}: {before}; as written: {after}")
        page.row("Memory", f"{memory(result)} of the bytes that float nodes give are FP32")
    if times := price(result):
        page.row("Price", times)
    page.row("Believe it", "; ".join(sure(result)))
    spent = result.evaluations
    first = f", {spent['first']} to the first set" * bool(spent["first"])
    page.row("Spent", f"{counted(spent['all'], 'evaluation')}{first}, {seconds(result.seconds)}")
    if not result.finished:
        page.row("Stopped", result.stop_reason, style="bold yellow")
    for note in result.notes:
        page.row("Note", shorten(printable(note), _MESSAGE))
    page.exact("Page", show_path(result.out / PAGE))
    page.exact("Model", show_path(result.out / MIXED))
    page.exact("Data", show_path(result.out / DOCUMENT))
