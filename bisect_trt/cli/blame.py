"""`bisect-trt blame`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt import options as table
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command, only_given, print_json
from bisect_trt.cli.verify import RELEASES, TARGET
from bisect_trt.errors import UsageError
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import MACHINE
from bisect_trt.settings import Settings

RELEASES_FILE = Option(
    "releases_file",
    "--releases-file",
    k.FILE,
    "A command for each release instead, the oldest first: lines NAME: COMMAND {script}.",
)
OPTIONS = Option("decisions", "--options", k.SWITCH, "Which decisions of the builder does it depend on?")
ON = Option("on", "--on", k.FILE, "The whole model, on which what helps is tried; as the report names it.")
SWEEP = Option("sweep", "--sweep", k.SWITCH, "Try all releases, not only as many as the search needs.")
PRE = Option("pre", "--pre", k.SWITCH, "Pre-releases, too; one that is named with == is always tried.")
OFFLINE = Option("offline", "--offline", k.SWITCH, "Only releases that were installed before.", MACHINE)
ALLOW_BUILD = Option(
    "allow_build",
    "--allow-build",
    k.SWITCH,
    "Releases without a wheel are built from their source archives, which runs code of theirs.",
    MACHINE,
)
CACHE_LIMIT = Option(
    "cache_limit",
    "--cache-limit",
    k.SIZE,
    "What all environments may take (12G without it); those used longest ago go.",
    MACHINE,
)
CLEAN = Option("clean", "--clean", k.SWITCH, "Remove all environments and what was downloaded.", MACHINE)


def run(
    place: Path | None,
    settings: Settings,
    *,
    other: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    clean: bool,
    **asked: Any,
) -> int:
    """Which release broke it, which decision of the builder, and does that help the whole model?

    Exit code: 0 done, 2 bad usage or no reproducer, 3 releases cannot be listed here, 6 stopped early,
    70 a bug of bisect-trt.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    from bisect_trt.blaming import environments

    if clean:
        freed = environments.clean(environments.cache_folder())
        print(json.dumps({"freed": freed}) if as_json else f"removed {freed / 1e6:,.0f} MB of environments")
        if place is None:
            return 0
    if place is None:
        raise UsageError("no reproducer is given", "bisect-trt blame model-repro")
    from bisect_trt.blaming.blame import Asking, blame
    from bisect_trt.cli.output.blame_table import show_blame, show_step, show_tried

    shown: Any = {} if as_json else {"on_tried": show_tried, "say": show_step}
    found = blame(place, Asking(**only_given(asked)), settings, target=other, out=out, force=force, **shown)
    if as_json:
        print_json({**found.to_json(), "out": str(found.out)})
    else:
        show_blame(found)
    return 0


COMMAND = Command(
    "blame",
    run,
    (
        replace(RELEASES, help="Releases to try: 'onnxruntime>=1.20'; all of the target's without it."),
        RELEASES_FILE,
        OPTIONS,
        ON,
        SWEEP,
        PRE,
        TARGET,
        replace(OUT, help="Where to write; NAME-blame here without it."),
        FORCE,
        JSON,
        *table.only(
            *("inputs", "plugins", "ep_libraries", "custom_ops", "repeats", "budget", "max_probes"),
            *("workers", "timeout", "memory_limit"),
        ),
        OFFLINE,
        ALLOW_BUILD,
        CACHE_LIMIT,
        CLEAN,
    ),
    argument=("PLACE", "Folder or zip of a reproducer."),
    needed=False,
)
