"""What all pages are made with: plots as SVG, without a library and in the reader's theme; and `templates`.

How to use it:

    x = around(batches, "batch size", log=True)
    y = around(milliseconds, "milliseconds", zero=True)
    plot = Plot("latency against the batch size", x, y)
    plot.line(zip(batches, milliseconds), Colour.FIRST)
    plot.marks([Mark(8, 1.25, "batch 8: 1.25 ms")], Colour.SECOND, Shape.DIAMOND)
    svg = plot.svg()

The text goes into a page as it is (`{{ svg | safe }}`): every name in it is escaped. The page puts `style()`
into its own `<style>` once (`{{ plot_style | safe }}`), which has the colours of both themes and of paper. A
legend is plain HTML: `<ul class="legend"><li><i class="first circle"></i>own error</li></ul>`.

A plot has a size in units of its own and is scaled to the width that the page gives it: at the default width
of 400 its letters can be read on a phone. The same data give the same bytes. What may come in: kinds of marks
that several pages need. What a page says stays with the page.
"""

from bisect_trt.drawing.axis import Axis, around, number
from bisect_trt.drawing.plot import SHADES, Colour, Mark, Plot, Shape, Span, strip, style

__all__ = ["SHADES", "Axis", "Colour", "Mark", "Plot", "Shape", "Span", "around", "number", "strip", "style"]
