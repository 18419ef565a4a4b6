"""`bisect-trt scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt import options
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import VALUES
from bisect_trt.settings import Settings

TENSORS = Option("tensors", "--tensors", k.NAMES, "Look at these tensors only; repeat it.")
SAVE_TENSORS = Option(
    "save_tensors", "--save-tensors", k.FOLDER, "Keep the values of both sides as .npy files.", VALUES
)


def run(model: Path, settings: Settings, *, as_json: bool, **asked: Any) -> int:
    """Find where the error comes from: the own error of every tensor, and its effect on the model's outputs.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here, cannot run what it builds, or
    nothing can be said of the outputs, 70 a bug of bisect-trt.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.cli.output.scan_table import show_scan
    from bisect_trt.errors import TargetUnavailable
    from bisect_trt.scanning.page import document

    with progress(quiet=as_json) as on_event:
        result = bisect_trt.scan(model, settings, **asked, on_event=on_event)
    if as_json:
        print_json({**document(result), "out": str(result.out)})
    else:
        show_scan(result)
    return TargetUnavailable.exit_code if result.unsure else 0


COMMAND = Command(
    "scan",
    run,
    (
        replace(OUT, help="Where to write; MODEL-scan here without it."),
        *options.without(
            *options.SEARCHING, "judge", "save_outputs", "build_only", "fail_regex", "devices", "cluster"
        ),
        TENSORS,
        SAVE_TENSORS,
        FORCE,
        JSON,
    ),
)
