"""docs/reduce.svg: the screen of a real run, drawn by rich; `make docs` makes it again."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import bisect_trt
from bisect_trt.cli.output.console import show_reduction
from bisect_trt.cli.output.progress import plain_line
from bisect_trt.results import Step
from bisect_trt.settings import Settings, TargetSettings

MODEL = Path(__file__).resolve().parents[1] / "models/resize_antialias.onnx"
COLUMNS = 96


def main() -> None:
    """Run `reduce` for real and draw what it prints."""
    place = Path(sys.argv[1]).resolve()
    silent = io.StringIO()
    console = Console(record=True, width=COLUMNS, file=silent, force_terminal=True, highlight=False)
    console.print(Text("$ bisect-trt reduce models/resize_antialias.onnx", style="bold"))

    def on_event(step: Step) -> None:
        if step.accepted:
            console.print(Text(plain_line(step), overflow="ellipsis", no_wrap=True))

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        out = Path(folder).resolve() / "resize_antialias-repro"
        os.chdir(out.parent)
        settings = Settings(TargetSettings("tensorrt-rtx"))
        result = bisect_trt.reduce(MODEL, settings, out=out, on_event=on_event)
        assert result.archive is not None
        show_reduction(result, result.archive, console)
    text = console.export_svg(title="bisect-trt reduce", unique_id="reduce")
    # Fonts come from the reader's system: the picture asks no server.
    text = re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)
    place.write_text(text)


if __name__ == "__main__":
    main()
