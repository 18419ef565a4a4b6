"""`report.html` and `report.md`: the same facts to look at and to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from msgspec.structs import asdict

from bisect_trt.reproducer import issue, markdown
from bisect_trt.reproducer.archive import attachments
from bisect_trt.reproducer.files import PAGE, SUMMARY
from bisect_trt.reproducer.page import plots, timeline
from bisect_trt.reproducer.page.drawing import draw
from bisect_trt.reproducer.page.timeline import Compared, compared
from bisect_trt.results import Reduction
from bisect_trt.session.journal import read
from bisect_trt.writing import templates
from bisect_trt.writing.plot import Span, strip, style
from bisect_trt.writing.text import counted, printable, seconds

ROWS = 10_000
"""Probes in the table; a search that took more is drawn from all of them."""

_LOG = 200_000  # characters; all of it is in target.log
_STRIP = 400  # cells of the original model
_WORTH_A_PLOT = 8  # probes
_PLOTTED = 5000  # points of the plots of the search
_ERROR = re.compile(r"error|fail|assert|exception", re.IGNORECASE)


def render(
    reduction: Reduction, document: Mapping[str, Any], journal: Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return both texts by file name, and the facts in them that the document has not, as plain JSON data.

    `document` is `document.report` of the same reduction.
    """
    words = _words(reduction, document, journal)
    environment = _environment()
    found = environment.get_template("report.html.j2").render(words, plots=_plots(words), plot_style=style())
    text = environment.get_template("report.md.j2").render(words)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return {PAGE: found, SUMMARY: text}, _facts(words)


def _facts(words: Mapping[str, Any]) -> dict[str, Any]:
    seen: Compared | None = words["accuracy_seen"]
    return {
        "title": words["title"],
        "commands": [asdict(recipe) | {"lines": list(recipe.lines)} for recipe in words["recipes"]],
        "errors": [diff.to_json() for diff in seen.diffs] if seen else [],
        "probes": [asdict(row) for row in words["probes"]],
        "log": "\n".join(line for line, _ in words["log_lines"]),
    }


def _words(reduction: Reduction, document: Mapping[str, Any], journal: Path) -> dict[str, Any]:
    words = issue.shared_words(reduction, document)
    log = issue.without_middle(reduction.log, _LOG)
    secret = reduction.settings.run.anonymise
    probes = timeline.rows(read(journal)[0], reduction.original_nodes, names=not secret)
    return {
        **words,
        "sure": reduction.sure,
        "origins": reduction.origins,
        "code_of": markdown.code,
        "drawing": draw(words["picture"]),
        "strip": _strip(reduction),
        "probes": probes,
        "shown": probes[:ROWS],
        "accuracy_seen": compared(reduction.out, reduction.compared_as, reduction.settings.target),
        "contributions": reduction.accuracy.get("accumulated", []),
        "log_lines": [(line, bool(_ERROR.search(line))) for line in log.splitlines()],
        "files": sorted({*(p.name for p in attachments(reduction.out)), PAGE, SUMMARY}),
    }


def _plots(words: Mapping[str, Any]) -> dict[str, str]:
    """Draw the plots of the page, by name."""
    nodes, probes = words["model"]["nodes"], words["probes"]
    found: dict[str, str] = {}
    if len(probes) >= _WORTH_A_PLOT:
        few = [*probes[: -1 : max(1, len(probes) // _PLOTTED)], *probes[-1:]]
        found["probes"] = plots.left_against(few, nodes, "probes")
        found["seconds"] = plots.left_against(few, nodes, "seconds in the target")
    seen: Compared | None = words["accuracy_seen"]
    with np.errstate(invalid="ignore", over="ignore"):  # infinite on both sides: no error that can be drawn
        error = seen.target - seen.reference if seen is not None else None
    if seen is not None and error is not None and error.size > 1 and np.isfinite(error).any():
        found["histogram"] = plots.histogram(error)
        found["scatter"] = plots.scatter(seen.reference, seen.target)
        found["heat"] = plots.heat_map(error)
    return found


def _strip(reduction: Reduction) -> dict[str, Any]:
    """Return the original model from its first node to its last, with what is left marked."""
    nodes, places = max(1, reduction.original_nodes), reduction.places
    cells = min(nodes, _STRIP)
    marked = sorted({place * cells // nodes for place in places})
    wide = max(1 / cells, 0.005)
    here = [Span(min(k / cells, 0.995), min(k / cells, 0.995) + wide, "here") for k in marked]
    text = ", ".join(f"{place + 1:,}" for place in places[:12])
    aria = f"Position of the reduced nodes in the original model: {text} of {nodes:,}"
    svg = strip([Span(0, 1, "model"), *here], aria)
    return {"svg": svg, "places": text, "more": max(0, len(places) - 12)}


@cache
def _environment() -> jinja2.Environment:
    return templates.environment(
        "bisect_trt.reproducer.page",
        plain=printable,
        duration=seconds,
        count=counted,
        **markdown.FILTERS,
    )
