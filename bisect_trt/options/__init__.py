"""One table of options: a row has the field of `Settings`, the flag, the help, and how the value is written.

Commands, the lines that users paste, and the tables of a nightly configuration are made from these rows
(`table`); `kinds` reads and writes values, `make` makes settings of them, `lines` whole command lines.
Errors, settings and names of references may come in; nothing is loaded that `--help` does not need.
"""

from bisect_trt.options.lines import (
    SAFE_SPEC,
    arguments,
    by_hand,
    export_line,
    line,
    nameless,
    reduce_line,
    shape_text,
    target_arguments,
    verify_line,
    what_to_try,
)
from bisect_trt.options.make import settings
from bisect_trt.options.table import ROWS, SEARCHING, Option, only, without

__all__ = [
    "ROWS",
    "SAFE_SPEC",
    "SEARCHING",
    "Option",
    "arguments",
    "by_hand",
    "export_line",
    "line",
    "nameless",
    "only",
    "reduce_line",
    "settings",
    "shape_text",
    "target_arguments",
    "verify_line",
    "what_to_try",
    "without",
]
