"""`bisect-trt simplify`."""

from __future__ import annotations

from pathlib import Path

from bisect_trt import options
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command
from bisect_trt.cli.reduce import hand_over
from bisect_trt.settings import Settings


def run(model: Path, settings: Settings, *, out: Path | None, force: bool, as_json: bool) -> int:
    """Make a small failing model simple: shapes, weights, inputs, attributes, types and names.

    The nodes are taken as they are (`reduce` looks for fewer first). Without --simplify-budget it goes
    on until nothing changes any more.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here, 4 the model does not fail,
    6 stopped early (the best so far is saved), 7 --anonymise is not possible, 70 a bug of bisect-trt.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output.progress import progress

    with progress(quiet=as_json) as on_event:
        result = bisect_trt.simplify(model, settings, out=out, force=force, on_event=on_event)
    return hand_over((result,), several=False, as_json=as_json)


COMMAND = Command(
    "simplify", run, (OUT, *options.without("simplify", "cluster", "save_outputs"), FORCE, JSON)
)
