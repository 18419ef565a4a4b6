"""`bisect-trt reduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_trt import options
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.settings import Settings

if TYPE_CHECKING:
    from bisect_trt.results import Reduction

EVERY = Option(
    "every", "--all", k.SWITCH, "One reproducer for each different failure, in folders of their own."
)


def run(model: Path, settings: Settings, *, out: Path | None, every: bool, force: bool, as_json: bool) -> int:
    """Reduce a failing model to the fewest nodes that fail in the same way, and write a reproducer.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here, 4 the model does not fail,
    5 too flaky, 6 stopped early (the best so far is saved), 7 --anonymise is not possible, 70 a bug of
    bisect-trt.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output.progress import progress

    with progress(quiet=as_json) as on_event:
        if every:
            results = bisect_trt.reduce_all(model, settings, out=out, force=force, on_event=on_event)
        else:
            results = (bisect_trt.reduce(model, settings, out=out, force=force, on_event=on_event),)
    return hand_over(results, several=every, as_json=as_json)


def hand_over(results: Sequence[Reduction], *, several: bool, as_json: bool) -> int:
    """Print what was written, and give the exit code."""
    from bisect_trt.cli.output import console
    from bisect_trt.errors import StoppedEarly
    from bisect_trt.reproducer import document

    if as_json:
        found = [document.written(result) for result in results]
        print_json({"reductions": found} if several else found[0])
    else:
        for number, result in enumerate(results):
            assert result.archive is not None
            if number:
                print()
            console.show_reduction(result, result.archive)
            console.show_left(result)
    return 0 if all(result.finished for result in results) else StoppedEarly.exit_code


COMMAND = Command("reduce", run, (OUT, *options.ROWS, EVERY, FORCE, JSON))
