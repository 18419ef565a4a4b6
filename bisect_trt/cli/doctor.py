"""`bisect-trt doctor`."""

from __future__ import annotations

from msgspec.structs import asdict

from bisect_trt.cli.commands import JSON, Command, print_json


def run(*, as_json: bool) -> int:
    """Show what can be used on this machine, and for what cannot: why, and how to get it."""
    # Heavy imports wait until a command runs, so that --help is quick.
    from bisect_trt.cli.output import console
    from bisect_trt.targets.doctor import diagnose

    rows = diagnose()
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
    else:
        console.show_doctor(rows)
    return 0


COMMAND = Command("doctor", run, (JSON,), argument=None)
