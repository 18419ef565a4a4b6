"""`bisect-trt precision`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt import options
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command, only_given, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import COMMON, SEARCH
from bisect_trt.settings import Settings

_WORDS = k.word("fp16", "bf16", "fp8", "int8")
TO = Option("to", "--to", _WORDS, "What all other nodes compute in; fp16 without it.", COMMON)
COST = Option(
    "cost",
    "--cost",
    k.word("nodes", "bytes", "time"),
    "What is made small: nodes, bytes that they give, or time as measured on the target.",
    SEARCH,
)
KEEP = Option("keep", "--keep", k.NAMES, "A node that stays in FP32 in any case; repeat it.", SEARCH)
LOWER = Option("lower", "--lower", k.NAMES, "A node that never does; repeat it.", SEARCH)
FROM = Option(
    "start", "--from", k.FILE, "precision.json of an earlier run: what it kept is tried first.", SEARCH
)
_PAPERS = ("simplify", "simplify_budget", "anonymise", "style", "inputs_for")
_LEFT_OUT = (
    *_PAPERS,
    *("judge", "save_outputs", "build_only", "fail_regex", "devices", "cluster", "precision", "cache_dir"),
)


def run(model: Path, settings: Settings, *, as_json: bool, **asked: Any) -> int:
    """Which nodes must stay in FP32? The smallest set that is proven to be right, and the model that has it.

    Exit code: 0 done (also when nothing has to stay), 1 the model is wrong in FP32 already, 2 bad usage
    or model, 3 target not usable here or nothing to compare, 6 stopped early (the best so far is saved),
    70 a bug of bisect-trt.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output.precision import show_precision
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.errors import StoppedEarly
    from bisect_trt.mixed_precision.write import document

    with progress(quiet=as_json) as on_event:
        result = bisect_trt.precision(model, settings, **only_given(asked), on_event=on_event)
    if as_json:
        print_json({**document(result, bisect_trt.__version__), "out": str(result.out)})
    else:
        show_precision(result)
    if result.status == "broken":
        return 1
    return 0 if result.finished else StoppedEarly.exit_code


COMMAND = Command(
    "precision",
    run,
    (
        TO,
        replace(OUT, help="Where to write; MODEL-precision here without it."),
        *options.without(*_LEFT_OUT),
        COST,
        KEEP,
        LOWER,
        FROM,
        FORCE,
        JSON,
    ),
)
