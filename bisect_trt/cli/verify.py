"""`bisect-trt verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bisect_trt.cli import accuracy as a
from bisect_trt.cli import options as o
from bisect_trt.cli.texts import parse_size

Place = Annotated[
    Path,
    typer.Argument(help="Folder or zip of a reproducer, or a folder of several.", show_default=False),
]
Target = Annotated[
    str | None, typer.Option("--target", help="Another target than that of the report.", show_default=False)
]
ExpectFixed = Annotated[
    bool, typer.Option("--expect-fixed", help="Wait for the fix: 0 while it still fails, 1 once it is fixed.")
]
Junit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the results as JUnit's XML, too.")
]


def command(
    place: Place,
    target: Target = None,
    plugins: o.Plugins = None,
    ep_library: o.EpLibrary = None,
    fail_regex: o.FailRegex = "",
    repeats: o.Repeats = 3,
    timeout: o.Timeout = None,
    memory_limit: o.MemoryLimit = None,
    custom_ops: a.CustomOps = None,
    expect_fixed: ExpectFixed = False,
    junit: Junit = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Run reproducers again, on another machine or version: same failure, another one, or fixed?

    Exit code: 0 fixed, 1 the same failure, 2 bad usage or no reproducer, 3 it cannot be told here, 4 it
    fails in another way, 70 a bug of bisect-trt. With --expect-fixed, 0 the same failure and 1 fixed. Of
    several: 1 when any has it, else 4, else 3; 0 when all have it.
    """
    limit = parse_size("--memory-limit", memory_limit)
    # Heavy imports wait until a command runs, so that --help is quick.
    from bisect_trt.cli.output import console
    from bisect_trt.cli.output import junit as xml
    from bisect_trt.errors import UsageError
    from bisect_trt.reproducer import verify
    from bisect_trt.settings import TargetSettings

    given = TargetSettings(**o.by_hand(plugins, ep_library, fail_regex))
    results = verify.verify(
        place,
        target=target,
        given=given,
        repeats=repeats,
        timeout=timeout,
        memory_limit=limit,
        custom_ops=a.libraries(custom_ops),
        on_result=(lambda result: None) if as_json else console.show_verification,
    )
    code = verify.exit_code(results, expect_fixed=expect_fixed)
    if as_json:
        found = [result.to_json() for result in results]
        print(json.dumps({"results": found, "exit_code": code}, indent=2))
    else:
        console.show_verifications(results, expect_fixed=expect_fixed)
    if junit is not None:
        try:
            xml.write(results, junit, expect_fixed=expect_fixed)
        except OSError as error:
            raise UsageError(f"--junit {junit}: cannot be written: {error.strerror or error}") from error
    return code
