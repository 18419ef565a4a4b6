"""What is asked about a reproducer: a folder or zip that `reduce` wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bisect_trt.api.models import quiet
from bisect_trt.options.keywords import AnyPath, chosen_settings, out_of, path_of
from bisect_trt.settings import Settings

if TYPE_CHECKING:
    from bisect_trt.blaming.blame import Blame
    from bisect_trt.blaming.releases import OnTried
    from bisect_trt.reproducer.verify import Verification


def verify(
    path: AnyPath,
    settings: Settings | None = None,
    *,
    target: str | None = None,
    on_result: Callable[[Verification], None] = quiet,
    **options: Any,
) -> list[Verification]:
    """Run a reproducer, or each one in a folder of them, again: on this machine, with what is installed.

    Args:
        path: folder or zip that `reduce` wrote, or a folder of them.
        settings: how often and how long each may run, and libraries that no report may ask for.
        target: another target than the one that it was found on.
        on_result: called with each result.
        **options: fields of the settings, as `repeats=1` or `timeout=60.0`.

    Raises:
        UsageError: there is no reproducer, or an option cannot be used.
    """
    from bisect_trt.reproducer import verify as room

    chosen = chosen_settings(settings, options)
    return room.verify(path_of("path", path), chosen, target=target, on_result=on_result)


def blame(
    place: AnyPath,
    settings: Settings | None = None,
    *,
    releases: str = "",
    releases_file: AnyPath | None = None,
    decisions: bool = False,
    on: AnyPath | None = None,
    sweep: bool = False,
    pre: bool = False,
    offline: bool = False,
    allow_build: bool = False,
    cache_limit: int | None = None,
    target: str | None = None,
    out: AnyPath | None = None,
    force: bool = False,
    on_tried: OnTried = quiet,
    **options: Any,
) -> Blame:
    """Find the release that brought a reproducer's failure, and the decision of the builder it depends on.

    Without `releases`, `releases_file` and `decisions` it asks for both. Works on Linux only.

    Args:
        place: folder or zip that `reduce` wrote; nothing in it is believed, and no script of it is run.
        settings: how often and how long a script may run, and libraries that no report may ask for.
        releases: `PACKAGE[>=A,<B]`, as `"onnxruntime>=1.20,<1.30"`.
        releases_file: a file with a line `NAME: COMMAND {script}` for each release instead, the oldest first.
        decisions: which decisions of the builder it depends on (`--options`).
        on: the whole model, on which what helps is tried; the file that the report names without it.
        sweep: all releases are tried, not only as many as the search needs.
        pre: pre-releases are tried, too.
        offline: only releases that were installed before.
        allow_build: source archives may be built, which runs code of theirs.
        cache_limit: bytes that all environments may take; 12 GiB without it.
        target: another target than the one of the report.
        out: the folder; by default `NAME-blame` in the current one. What it holds is not asked again.
        force: replace what an earlier call wrote there.
        on_tried: called with each release that was tried.
        **options: fields of the settings, as `repeats=1` or `budget=600.0`.

    Raises:
        UsageError: there is no reproducer, or it or an option cannot be used.
        TargetUnavailable: releases cannot be listed, or this is not Linux.
        StoppedEarly: the disk is full; what was found so far is in the journal.
    """
    from bisect_trt.blaming import blame as room

    asking = room.Asking(
        releases=releases,
        releases_file=out_of(releases_file, "releases_file"),
        decisions=decisions,
        on=out_of(on, "on"),
        sweep=sweep,
        pre=pre,
        offline=offline,
        allow_build=allow_build,
        cache_limit=cache_limit,
    )
    chosen, path = chosen_settings(settings, options), path_of("place", place)
    return room.blame(
        path, asking, chosen, target=target, out=out_of(out), force=force, on_tried=on_tried
    )
