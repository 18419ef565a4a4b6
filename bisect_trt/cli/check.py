"""`bisect-trt check`."""

from __future__ import annotations

from pathlib import Path

from bisect_trt import options
from bisect_trt.cli.commands import JSON, Command, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import ACCURACY
from bisect_trt.settings import Settings

KEEP = Option(
    "keep_fp32", "--keep-fp32", k.FILE, "Nodes that stay in FP32: precision.json, or a name a line.", ACCURACY
)


AGAIN = Option(
    "again",
    "--judge-again",
    k.FOLDER,
    "Judge what --save-outputs wrote, with other tolerances; nothing is run.",
    ACCURACY,
)


def run(model: Path, settings: Settings, *, keep_fp32: Path | None, again: Path | None, as_json: bool) -> int:
    """Try the whole model once: does the target take it and agree with ONNX Runtime?

    Exit code: 0 yes, 1 no, 2 bad usage or model, 3 target not usable here or nothing can be said,
    70 a bug of bisect-trt.
    """
    if again is not None:
        return _again(again, settings, as_json)
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output import console
    from bisect_trt.cli.output.progress import waiting
    from bisect_trt.errors import TargetUnavailable
    from bisect_trt.reproducer import document

    with waiting(f"{model.name}: one run of the whole model; --timeout ends it", quiet=as_json):
        result = bisect_trt.check(model, settings, keep_fp32=keep_fp32)
    if as_json:
        print_json(document.check(result))
    else:
        console.show_check(result)
    if result.outcome.unresolved:
        return TargetUnavailable.exit_code
    return 1 if result.outcome.failures else 0


def _again(folder: Path, settings: Settings, as_json: bool) -> int:
    from bisect_trt.cli.output import console
    from bisect_trt.session.judge_again import judge_again

    diffs = judge_again(folder, settings)
    if as_json:
        print_json({"tensors": [diff.to_json() for diff in diffs]})
    else:
        console.show_judged(diffs)
    return 0 if all(diff.ok for diff in diffs) else 1


COMMAND = Command(
    "check", run, (*options.without(*options.SEARCHING, "workers", "cluster"), KEEP, AGAIN, JSON)
)
