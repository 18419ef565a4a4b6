"""What a scan says, in sentences and figures that table and page share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from bisect_trt.accuracy.amplifiers import LARGE
from bisect_trt.accuracy.arithmetic import arithmetic_of
from bisect_trt.outcome import Symptom
from bisect_trt.scanning.result import Scan, Scanned
from bisect_trt.scanning.scope import HIDDEN
from bisect_trt.writing.text import printable, some_names

SHOWN_NAMES = 3
LITTLE = 2.0  # roundoffs that an RMS error of a tensor may have without any fault


def verdict(scan: Scan) -> str:
    """Return the answer, in one or two sentences."""
    if scan.guilty:
        return _of_guilty(scan, scan.guilty)
    worst = [item for item in scan.ranked if item.effect_error]
    if scan.accumulates and worst:
        largest = ", ".join(f"{where(item)} {figure(item.effect_error)}" for item in worst[:SHOWN_NAMES])
        return (
            "The outputs disagree, but no tensor alone makes them: the error accumulates. The effects of "
            f"{len(worst)} tensors add up to at most {figure(scan.all_effects)}; the largest are {largest}."
        )
    if scan.agrees is False:
        return (
            "The outputs disagree, and what tensors do alone does not explain it (their effects add up to "
            f"{figure(scan.all_effects)}): look for what only happens when nodes are built together "
            "(fusion), with reduce."
        )
    if scan.unsure:
        return f"Nothing can be said of the outputs: {scan.unsure}."
    if scan.agrees is None:
        return "Whether the outputs agree is not known, and no tensor alone makes them disagree."
    if worst:
        item = worst[0]
        largest = figure(item.effect_error)
        return f"The model agrees at its outputs. The largest effect, {largest}, is that of {where(item)}."
    if above := [item for item in scan.ranked if item.above_noise]:
        item = above[0]
        end = ", without effect on them" if item.effect is not None else ""
        largest = f"{figure(item.own_error)}, is that of {where(item)}{end}"
        return f"The model agrees at its outputs. The largest own error, {largest}."
    return "The model agrees at its outputs, and no tensor has an error above rounding."


def _of_guilty(scan: Scan, guilty: Sequence[Scanned]) -> str:
    """Return the answer where tensors are found that make the outputs disagree, the worst first."""
    whole = " (run as a whole, the model agrees)" if scan.agrees else ""
    error = guilty[0].effect_error or 0.0
    does = f"gives them an error of {figure(error)}" if math.isfinite(error) else "makes them not finite"
    does += f".{_amplified(scan, guilty[0])}"
    if len(guilty) == 1:
        return f"One tensor alone makes the outputs disagree{whole}: {where(guilty[0])} {does}"
    return (
        f"{len(guilty):,} tensors, each alone, make the outputs disagree{whole}. The worst is "
        f"{where(guilty[0])}, which {does}"
    )


def _amplified(scan: Scan, item: Scanned) -> str:
    """Say that later nodes amplify the error, or else that reduce distinguishes a fault from rounding."""
    arithmetic = arithmetic_of(scan.settings.target)
    own, effect = item.own_error or 0.0, item.effect_error or 0.0
    if not math.isfinite(effect) or not math.isfinite(own):
        return ""
    if own > LITTLE * arithmetic.roundoff or effect < LARGE * own:
        return " Whether this is a fault or rounding, reduce finds out."
    return (
        f" Its own error, {figure(own)}, is no more than {arithmetic.name} rounds: what follows makes it "
        "large, and the model is ill-conditioned there (reduce names the node)."
    )


def where(item: Scanned) -> str:
    """Return a tensor with the node that makes it."""
    return f"{printable(item.tensor)} (node {printable(item.node)}, {printable(item.op)})"


def short(item: Scanned) -> str:
    """Return a tensor with the operator that makes it."""
    return f"{printable(item.tensor)} ({printable(item.op)})"


def first_lost(scan: Scan) -> str:
    """Say where NaN or Inf comes from; empty when nothing is lost."""
    item = scan.first_lost
    if item is None or item.own is None:
        return ""
    nans, infs = item.own.nans[1] - item.own.nans[0], item.own.infs[1] - item.own.infs[0]
    more = f"{max(0, nans):,} NaN and {max(0, infs):,} Inf"
    reads = scan.sources.get(item.node, ())
    before = next((t for t in scan.tensors if t.tensor in reads and t.why == HIDDEN), None)
    if before is not None:
        return (
            f"The first Inf is born in {where(before)}: {HIDDEN}. Behind it {where(item)} has {more} more "
            "than the reference."
        )
    return f"The first NaN or Inf is born in {where(item)}: {more} more than the reference has."


def whole(scan: Scan) -> str:
    """Say why the whole model gave no outputs, if so."""
    return f"The whole model gave no outputs on the target: {printable(scan.whole)}" if scan.whole else ""


def effects_left(scan: Scan) -> str:
    """Say that not all effects were run, if so."""
    if not scan.effects_left:
        return ""
    return (
        f"Effects were run for the tensors with the largest own errors only; {scan.effects_left:,} more are "
        "above noise (--tensors asks for some of them)."
    )


def in_context(scan: Scan) -> str:
    """Return what the view inside the whole engine adds, or why there is none."""
    if not scan.target.name.startswith("tensorrt"):
        return ""  # nobody expects it
    if scan.context_why:
        return f"No view in context: {printable(scan.context_why)}."
    found = scan.only_in_context
    lost = next((t for t in scan.tensors if t.context and t.context.symptom is Symptom.NOT_FINITE), None)
    extra = f" The first that is not finite there is {where(lost)}." if lost else ""
    extra += f" {len(scan.unmapped):,} tensors of the engine are none of the model." if scan.unmapped else ""
    if not found:
        return f"Inside the whole engine no tensor is much worse than by itself.{extra}"
    return (
        f"Much worse inside the whole engine than by itself (fusion): "
        f"{', '.join(where(item) for item in found[:SHOWN_NAMES])}.{extra}"
    )


def notes(scan: Scan) -> list[str]:
    """Return what else there is to know."""
    found = (whole(scan), effects_left(scan), in_context(scan), *map(printable, scan.notes))
    return [note for note in found if note]


def failing(scan: Scan) -> list[str]:
    """Return a line for each failure: which nodes were not measured, and why."""
    groups: dict[tuple[int, str], list[str]] = {}
    for item in scan.tensors:
        if (failure := item.failure) is not None:
            message = f"{failure.stage} {failure.symptom}: {failure.message}"
            groups.setdefault((item.suspects, message), []).append(item.node)
    lines = []
    for (suspects, message), nodes in groups.items():
        some = some_names([printable(node) for node in dict.fromkeys(nodes)], SHOWN_NAMES)
        which = some if suspects == 1 else f"one of {suspects} nodes ({some})"
        lines.append(f"{which}: {printable(message)}")
    return lines


def unmeasured(scan: Scan) -> dict[str, int]:
    """Say why tensors have no own error, other than failures; and how many."""
    return Counter(printable(t.why) for t in scan.tensors if t.own is None and t.failure is None)


def figure(value: float | None) -> str:
    """Return an error for people."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1e}" if 0 < value < 0.01 else f"{value:.3g}"
