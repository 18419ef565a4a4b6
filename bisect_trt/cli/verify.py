"""`bisect-trt verify`."""

from __future__ import annotations

from pathlib import Path

from bisect_trt import options
from bisect_trt.cli.commands import JSON, Command, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.settings import Settings

TARGET = Option("other", "--target", k.TARGET, "Another target than that of the report.")
UNTIL_FIXED = Option(
    "until_fixed",
    "--until-fixed",
    k.SWITCH,
    "For a job that waits for the fix: 0 until it is fixed, 1 once it is.",
)
RELEASES = Option(
    "releases",
    "--releases",
    k.text("PACKAGE[>=A,<B]", "'onnxruntime>=1.20,<1.30'"),
    "Releases to try, each in an environment of its own: 'onnxruntime>=1.20'.",
)
JUNIT = Option("junit", "--junit", k.FILE, "Write the results as JUnit's XML, too.")


def run(
    place: Path,
    settings: Settings,
    *,
    other: str | None,
    until_fixed: bool,
    releases: str | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Run reproducers again, on another machine or version: same failure, another one, or fixed?

    Exit code: 0 fixed, 1 the same failure, 2 bad usage or no reproducer, 3 it cannot be told here, 4 it
    fails in another way, 70 a bug of bisect-trt. With --until-fixed: 0 until it is fixed, 1 once it is. Of
    several: 1 when any has it, else 4, else 3; 0 when all have it. With --releases a matrix, and the exit
    code of the newest release.
    """
    # Heavy imports wait until a command runs, so that --help is quick.
    if releases is not None:
        return _matrix(place, settings, releases, other, until_fixed=until_fixed, as_json=as_json)
    from bisect_trt.cli.output import console
    from bisect_trt.cli.output import junit as xml
    from bisect_trt.reproducer import verify

    results = verify.verify(
        place,
        settings,
        target=other,
        on_result=(lambda result: None) if as_json else console.show_verification,
    )
    code = verify.exit_code(results, until_fixed=until_fixed)
    if as_json:
        found = [result.to_json() for result in results]
        print_json({"results": found, "exit_code": code})
    else:
        console.show_verifications(results, until_fixed=until_fixed)
    if junit is not None:
        xml.write(results, junit, until_fixed=until_fixed)
    return code


def _matrix(
    place: Path, settings: Settings, releases: str, other: str | None, *, until_fixed: bool, as_json: bool
) -> int:
    """Run reproducers against releases."""
    from bisect_trt.blaming import matrix
    from bisect_trt.blaming.blame import Asking
    from bisect_trt.cli.output.blame_table import show_matrix

    found = matrix.matrix(place, Asking(releases=releases, sweep=True), settings, target=other)
    code = matrix.exit_code(found, until_fixed=until_fixed)
    if as_json:
        print_json({"results": [one.to_json() for one in found], "exit_code": code})
    else:
        show_matrix(found)
    return code


COMMAND = Command(
    "verify",
    run,
    (
        TARGET,
        *options.only(
            "plugins", "ep_libraries", "fail_regex", "timing_cache", "repeats", "timeout", "memory_limit",
            "custom_ops",
        ),
        UNTIL_FIXED,
        RELEASES,
        JUNIT,
        JSON,
    ),
    argument=("PLACE", "Folder or zip of a reproducer, or a folder of several."),
)
