"""The plots of all pages: where values stand, which figures are beside them, and that nothing breaks them."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisect_trt.writing import templates
from bisect_trt.writing.axis import Axis, around, number
from bisect_trt.writing.plot import Colour, Mark, Plot, Shape, Span, strip, style

floats = st.floats(-1e12, 1e12, allow_subnormal=False) | st.sampled_from([math.inf, -math.inf, math.nan, 0.0])


@settings(max_examples=60)
@given(st.lists(floats, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_every_value_has_its_place(values: list[float], log: bool, zero: bool, whole: bool) -> None:
    axis = around(values, "x", log=log, zero=zero, whole=whole)
    shown = sorted(v for v in values if math.isfinite(v) and (v > 0 or not log))
    rest = 1e-6 * (axis.low if log else axis.high - axis.low)
    assert all(axis.low - rest <= v <= axis.high * (1 + 1e-6 * log) + rest for v in shown)
    places = [axis.place(v) for v in shown]
    assert places == sorted(places) and all(0 <= place <= 1 for place in places)
    for most in (2, 3, 8):
        ticks = axis.ticks(most)
        assert ticks == sorted(ticks) and len(ticks) <= 3 * most
        assert all(axis.low - rest <= tick <= axis.high * (1 + 1e-6 * log) + rest for tick in ticks)


def test_figures_are_round() -> None:
    assert around([0.3, 9.7], "").ticks(5) == [0, 2, 4, 6, 8, 10]
    assert around([2, 3], "", zero=True, whole=True).ticks(8) == [0, 1, 2, 3]
    assert around([3e-7, 0.2], "", log=True).ticks(8) == pytest.approx([10.0**p for p in range(-7, 1)])
    assert around([1, 64], "", log=True).ticks(8) == [1, 2, 5, 10, 20, 50, 100]
    assert list(map(number, (1000.0, 0.30000000000000004, 1e-7, 2.5e8))) == ["1,000", "0.3", "1e-7", "2.5e8"]


def points(data: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", data)]


def test_a_line_goes_where_its_values_are() -> None:
    plot = Plot("a & b", Axis(0, 10, "x"), Axis(0, 100, "y"))
    plot.line([(0, 0), (5, 50), (10, 100)], Colour.FIRST)
    root = ElementTree.fromstring(plot.svg())
    assert root.get("aria-label") == "a & b"
    [line] = [path for path in root if path.get("class") == "line first"]
    (x0, y0), (x1, y1), (x2, y2) = points(line.get("d") or "")
    assert x0 < x1 < x2 and y0 > y1 > y2
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)


def test_what_is_not_finite_stands_above_the_frame() -> None:
    plot = Plot("", Axis(0, 1, "x"), around([1, 1000], "y", log=True), lost=True)
    plot.marks([Mark(0.5, math.nan), Mark(0.5, math.inf), Mark(0.5, 1000)], Colour.SECOND, Shape.DIAMOND)
    marks = [p for p in ElementTree.fromstring(plot.svg()) if p.get("class") == "full second"]
    heights = [points(mark.get("d") or "")[0][1] for mark in marks]
    assert heights[0] == heights[1] < heights[2] and "not finite" in plot.svg()


def test_names_are_escaped_and_bytes_are_the_same() -> None:
    def drawn() -> str:
        plot = Plot("<b>", around([], "<x>"), around([], "<y>", log=True))
        plot.marks([Mark(0, 1, "<script>")], Colour.THIRD, Shape.CIRCLE)
        plot.bars([0, 1, 2], [3, 0], Colour.FIRST, ["<one>", "two"])
        plot.outline([0, 1, 2], [3, 0], Colour.SECOND)
        return plot.svg() + strip([Span(0, 0.5, "h3", "<s>")], "<t>")

    assert drawn() == drawn() and not re.search(r"<(?:b|x|y|script|one|s|t)>", drawn())


def test_a_heat_map_has_a_shade_for_each_cell() -> None:
    plot = Plot("", Axis(-0.5, 2.5, "x", whole=True), Axis(1.5, -0.5, "y", whole=True))
    plot.heat([[0, 0, 9], [9, 4.5, 0]], "error")
    cells = {
        str(p.get("class"))[-2:]: p.get("d") or ""
        for p in ElementTree.fromstring(plot.svg())
        if "cells" in p.get("class", "") and p.get("d")
    }
    assert {shade: data.count("M") for shade, data in cells.items()} == {"h0": 2, "h4": 1, "h8": 2}


def test_the_style_has_all_classes() -> None:
    for name in (*Colour, *(f"h{k}" for k in range(9)), "axis", "cells", "circle", "triangle"):
        assert f".{name} " in style(), name


def test_a_template_is_compiled_once_and_anew_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house_of_pages/templates").mkdir(parents=True)
    (tmp_path / "house_of_pages/__init__.py").touch()
    place = tmp_path / "house_of_pages/templates/a.html.j2"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def told(text: str) -> tuple[str, list[bytes]]:
        place.write_text(text)
        made = templates.environment("house_of_pages", loud=str.upper).get_template("a.html.j2")
        kept = [path.read_bytes() for path in place.parent.glob("__pycache__/*")]
        return made.render(x="<b>"), kept

    first, kept = told("{{ x }} {{ 'a' | loud }}\n")
    assert first == "&lt;b&gt; A\n" and len(kept) == 1
    assert told("{{ x }} {{ 'a' | loud }}\n") == (first, kept)
    other, anew = told("{{ x | safe }}\n")
    assert other == "<b>\n" and anew != kept and len(anew) == 1
