"""The last screen of `profile`. Everything is `Text`: nothing from a model is markup."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from bisect_trt.cli.output.console import Page, shorten, show_path
from bisect_trt.profiling.cliffs import grid
from bisect_trt.profiling.explain import ENOUGH
from bisect_trt.profiling.picture import COST, LATENCY, THROUGHPUT
from bisect_trt.profiling.result import CONCURRENCY, Change, LayerTable, Point, Profile, milliseconds
from bisect_trt.profiling.versus import Versus
from bisect_trt.profiling.write import DOCUMENT, LAYERS, TABLE
from bisect_trt.writing.text import counted, printable, seconds, some_names

ROWS, OPERATORS, CHANGES = 10, 6, 3
_NAME, _ERROR = 60, 160  # characters of a layer, and of an error
_MIB = 1 << 20


def show_profile(result: Profile) -> None:
    """Print what was measured and how, times by size, cliffs, layers, and where the files are."""
    page = Page()
    page.row("Target", f"{printable(result.target.title)}, clock: {result.opened.clock}")
    page.row("Build", _build(result))
    page.row("Shapes", printable(_shapes(result)))
    if result.is_range:
        page.console.print(_points(result, page))
        _show_cliffs(page, result)
    else:
        _show_one(page, result.points[0])
    if result.layers is not None:
        page.console.print(_layers(result.layers))
        page.row("Operators", _operators(result.layers))
        for doubt in result.layers.doubts():
            page.row("Layers", doubt)
    if result.versus is not None:
        _show_versus(page, result, result.versus)
    if result.not_compared:
        page.row("Against", f"not compared: {printable(result.not_compared)}", style="bold red")
    for note in result.notes:
        page.row("Note", printable(note))
    if not result.finished:
        page.row("Stopped", f"{result.stop_reason}; the same command goes on from here", style="bold yellow")
    page.row("Spent", seconds(result.seconds))
    page.exact("Data", show_path(result.out / DOCUMENT))
    page.exact("Table", show_path(result.out / TABLE))
    if result.layers is not None:
        page.exact("", show_path(result.out / LAYERS))
    if result.is_range and len(result.points) > 1:
        page.exact("Pictures", f"{show_path(result.out)}/{LATENCY}, {COST}, {THROUGHPUT}")


def _build(result: Profile) -> str:
    held = [f"{size / _MIB:,.0f} MiB of {name} memory" for name, size in result.opened.bytes.items()]
    return ", ".join([seconds(result.opened.build_seconds), *held])


def _shapes(result: Profile) -> str:
    """Return the shapes of all inputs, with a range where a dimension varies."""
    first, last = result.points[0].shapes, result.points[-1].shapes
    texts = []
    for name, dims in first.items():
        pairs = zip(dims, last[name], strict=True)
        size = "x".join(str(a) if a == b else f"{a}..{b}" for a, b in pairs)
        texts.append(f"{name}:{size}" if size else f"{name}: a scalar")
    return some_names(texts, 4) or "no inputs"


def _show_one(page: Page, point: Point) -> None:
    times = point.times
    assert times is not None
    inside = f"({milliseconds(times.low)} .. {milliseconds(times.high)}), {counted(times.runs, 'run')}"
    page.row("Median", f"{milliseconds(times.median)} {inside}", style="bold green")
    p90 = milliseconds(times.p90) if times.p90 else "too few runs"
    p99 = milliseconds(times.p99) if times.p99 else "too few runs (it takes 100)"
    page.row("Slow ones", f"p90 {p90}, p99 {p99}")
    page.row("Throughput", f"{_rate(point.throughput or 0.0)} runs a second, {CONCURRENCY} at a time")


def _points(result: Profile, page: Page) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in (result.unit, "median", "+-", "p90", "p99", "a unit", "units/s", ""):
        table.add_column(printable(title), justify="right" if title else "left", no_wrap=True)
    cliffs = {cliff.size: cliff for cliff in result.cliffs}
    shown = _shown(result)
    for point in shown:
        times, cliff = point.times, cliffs.get(point.size)
        if times is None:
            cells = [str(point.size), "fails", *[""] * 6]
        else:
            cells = [
                str(point.size),
                milliseconds(times.median),
                f"{times.width:.0%}",
                *(milliseconds(value) if value else "-" for value in (times.p90, times.p99)),
                milliseconds(times.median / point.size),
                _rate(point.throughput or 0.0),
                f"<- {cliff.jump:.2f} times {cliff.size - 1}" if cliff else "",
            ]
        table.add_row(*(Text(cell) for cell in cells), style="bold red" if cliff else "")
    if len(shown) < len(result.points):
        page.row("Sizes", f"{len(shown)} of the {len(result.points)} that were measured; all are in {TABLE}")
    return table


def _shown(result: Profile) -> list[Point]:
    """Pick both sides of cliffs, the grid of powers of two, and sizes that fail."""
    sizes = {size for cliff in result.cliffs for size in (cliff.size - 1, cliff.size)}
    sizes |= set(grid(result.points[0].size, result.points[-1].size))
    return [point for point in result.points if point.size in sizes or point.error]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _show_cliffs(page: Page, result: Profile) -> None:
    unit = printable(result.unit)
    failing = [point for point in result.points if point.error]
    if failing:
        sizes = some_names([str(point.size) for point in failing], 6)
        page.row("Fails", f"at {unit} {sizes}: {shorten(printable(failing[0].error), _ERROR)}")
    if not result.cliffs:
        known = all(point.times is None or point.times.settled for point in result.points)
        none = "none" if known else "none that is certain"
        none = none if result.finished else "none so far"
        ran = [point.size for point in result.points if point.times is not None]
        page.row("Cliffs", f"{none} from {unit} {ran[0]} to {ran[-1]}")
    changes = {change.size: change for change in result.changes}
    for k, cliff in enumerate(result.cliffs):
        text = f"{unit} {cliff.size} costs {cliff.jump:.2f} times {cliff.size - 1} a unit"
        inside = f"({cliff.low:.2f} .. {cliff.high:.2f})"
        page.row("" if k else "Cliffs", f"{text} {inside}", style="bold red")
        if cliff.size in changes:
            page.row("", _change(changes[cliff.size]))
    page.row("Looked at", f"{counted(result.measured, 'measurement')}; throughput {CONCURRENCY} at a time")


def _show_versus(page: Page, result: Profile, versus: Versus) -> None:
    """Print how the other side compares, and which nodes make the difference."""
    ratio, other = versus.again or versus.whole, printable(versus.name)
    at = f" at {printable(result.unit)} {versus.size}" if result.is_range else ""
    text = f"{other} takes {ratio.ratio:.2f} times as long{at} ({ratio.low:.2f} .. {ratio.high:.2f})"
    style = "bold red" if versus.differs else "bold green" if ratio.within(versus.limit) else "bold yellow"
    page.row("Against", text, style=style)
    medians = f"{milliseconds(ratio.first)} and {milliseconds(ratio.second)}"
    page.row("", f"{medians} in the median, {ratio.rounds} rounds in turns")
    page.row("", versus.verdict())
    if versus.clocks:
        page.row("", versus.clocks)
    explained = versus.explained
    if explained and explained.parts:
        count = counted(len(explained.parts), "segment")
        text = f"{count} with {explained.part:.0%} of the difference, each confirmed by itself on both sides"
        page.row("Because of", text)
    for part in (explained.parts if explained else ())[:ROWS]:
        ratio = part.ratio
        inside = f"{ratio.ratio:.2f} times ({ratio.low:.2f} .. {ratio.high:.2f})"
        page.row("", f"{printable(str(part))}: {inside}, a difference of {milliseconds(part.more)}")
    if explained and explained.parts and explained.part < ENOUGH:
        of = f", or nothing can be told of it ({explained.untold} of them)" if explained.untold else ""
        page.row("", f"the rest of the difference is in no part by itself{of}")
    if versus.note:
        page.row("", printable(versus.note))
    if versus.folder is not None:
        end = versus.end.said if versus.end else ""
        page.exact("Folder", f"{show_path(versus.folder)}/", "(slow.onnx, inputs.npz, measure.py)")
        page.row("", f"measure.py in a fresh process: {printable(end)}")


def _change(change: Change) -> str:
    most = change.layers[:CHANGES]
    total = sum(more for _, more in change.layers if more > 0)
    shares = [(layer.name, more / total) for layer, more in most if total and more > 0.1 * total]
    parts = [f"{printable(name)} ({share:.0%})" for name, share in shares]
    kinds = "; kernels change: " + some_names(list(change.new), 2) if change.new else ""
    return f"what takes longer there: {', '.join(parts)}{printable(kinds)}" if parts else ""


def _layers(layers: LayerTable) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("layer", "operator", "time", "share", "nodes of the model"):
        table.add_column(title, justify="right" if title in ("time", "share") else "left")
    for layer in layers.ranked[:ROWS]:
        nodes = some_names(list(layer.nodes), 2) or "none"
        cells = [
            shorten(printable(layer.name), _NAME),
            printable(layer.op),
            milliseconds(layer.seconds),
            f"{layers.share(layer):.1%}",
            shorten(printable(nodes), _NAME),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _operators(layers: LayerTable) -> str:
    found, total = layers.by_operator, layers.total or 1.0
    texts = [f"{printable(op)} {taken / total:.0%} ({count})" for op, taken, count in found[:OPERATORS]]
    return ", ".join(texts) + (f", {len(found) - OPERATORS} others" if len(found) > OPERATORS else "")
