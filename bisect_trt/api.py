"""The commands as functions, as a script or a notebook calls them.

A model is the path of an ONNX file. What a command takes as an option is a keyword here, under the name of
its field in the settings (`target`, `inputs`, `repeats`, `rtol`, ...), or part of a `Settings`. Nothing here
needs `if __name__ == "__main__"`: no process that starts imports the script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bisect_trt.options.keywords import AnyPath, chosen_settings, names_of, out_of, path_of
from bisect_trt.settings import RunSettings, Settings, TargetSettings

if TYPE_CHECKING:
    from bisect_trt.blaming.blame import Blame
    from bisect_trt.blaming.releases import OnTried
    from bisect_trt.mixed_precision.result import Precision
    from bisect_trt.profiling.result import Profile
    from bisect_trt.reproducer.verify import Verification
    from bisect_trt.results import Check, OnEvent, Reduction
    from bisect_trt.scanning.result import Scan


def _quiet(event: object) -> None:
    """Hear of a step and do nothing."""


def reduce(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Reduction:
    """Find the smallest part of a model that still fails in the same way, and write the reproducer folder.

    >>> found = reduce("models/resize_antialias.onnx", target="tensorrt-rtx", repeats=1)
    >>> found.original_nodes, len(found.nodes), found.one_minimal
    (26, 1, True)
    >>> (found.out / "ISSUE.md").is_file()
    True

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        out: the folder; by default `MODEL-repro` in the current one.
        force: replace what an earlier run wrote there.
        on_event: hears of every step.
        **options: fields of the settings, as `target="emulate:fp16"` or `repeats=5`.

    Raises:
        UsageError: model, options or folder cannot be used; nothing was written.
        TargetUnavailable: the target cannot be used here; nothing was written.
        ModelDoesNotFail: target and reference agree on the whole model.
        StoppedEarly: stopped before anything smaller than the model was found.
        Leak: with `anonymise`, something of the original is needed, or is left.
    """
    from bisect_trt.reduction import reduce as room

    chosen = chosen_settings(settings, options)
    return room.reduce(path_of("model", model), chosen, out=out_of(out), force=force, on_event=on_event)


def reduce_all(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> tuple[Reduction, ...]:
    """Reduce each different failure of a model, into `out/1-SLUG`, `out/2-SLUG`, ...

    Takes and raises what `reduce` does.
    """
    from bisect_trt.reduction import reduce_all as room

    chosen = chosen_settings(settings, options)
    return room.reduce_all(path_of("model", model), chosen, out=out_of(out), force=force, on_event=on_event)


def simplify(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Reduction:
    """Make a small failing model simple, without a search for fewer nodes first.

    Takes and raises what `reduce` does.
    """
    from bisect_trt.reduction import reduce as room

    chosen = chosen_settings(settings, options)
    return room.simplify(path_of("model", model), chosen, out=out_of(out), force=force, on_event=on_event)


def check(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    keep: Sequence[str] | None = None,
    **options: Any,
) -> Check:
    """Say whether the target agrees with the reference on a model, and if not, how it fails.

    >>> check("models/ok.onnx", target="emulate:fp16").outcome.failures
    ()
    >>> check("models/ok.onnx", target="emulate:fp16", rtol=1e-7, atol=0.0).outcome.failures[0].symptom
    <Symptom.MISMATCH: 'mismatch'>

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        keep: nodes that stay in FP32, all others computing in the target's low precision.
        **options: fields of the settings, as `target="emulate:fp16"`.

    Raises:
        UsageError: the model, its inputs or an option cannot be used.
        TargetUnavailable: the target cannot be used here.
    """
    from bisect_trt.session import check as room

    kept = None if keep is None else tuple(keep)
    return room.check(path_of("model", model), chosen_settings(settings, options), keep=kept)


def scan(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    tensors: Sequence[str] = (),
    save_tensors: AnyPath | None = None,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Scan:
    """Measure the own error of every tensor and its effect on the model's outputs; writes `scan.html`.

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        out: the folder; by default `MODEL-scan` in the current one.
        force: replace what an earlier run wrote there.
        tensors: names or patterns of those that are looked at; by default all.
        save_tensors: folder that gets the values of both sides.
        on_event: hears of every step.
        **options: fields of the settings, as `target="emulate:fp16"`.

    Raises:
        UsageError, TargetUnavailable, StoppedEarly: see `reduce`.
    """
    from bisect_trt.scanning import scan as room

    chosen, saved = chosen_settings(settings, options), out_of(save_tensors)
    path = path_of("model", model)
    return room.scan(
        path, chosen, out=out_of(out), force=force, tensors=tensors, save_tensors=saved, on_event=on_event
    )


def precision(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    to: str = "fp16",
    cost: str = "nodes",
    out: AnyPath | None = None,
    force: bool = False,
    keep: Sequence[str] = (),
    lower: Sequence[str] = (),
    start: AnyPath | Sequence[str] = (),
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Precision:
    """Find the smallest set of nodes that must stay in FP32, and write the model that has it.

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        to: what all other nodes compute in, `fp16` or `bf16`; `fp8` or `int8`: what convolutions and
            products of matrices read.
        cost: what is made small, `nodes` (their number) or `bytes` (of what they give).
        out: the folder; by default `MODEL-precision` in the current one.
        force: replace what an earlier run wrote there.
        keep, lower: names of nodes that stay in FP32 in any case, or in none.
        start: the `precision.json` of an earlier run, or names of nodes: these are tried first.
        on_event: hears of every step.
        **options: fields of the settings, as `inputs="inputs.npz"` or `rtol=1e-2`.

    Raises:
        UsageError: the model, its inputs, an option, a name or a folder cannot be used.
        TargetUnavailable: the target cannot be used here.
        StoppedEarly: stopped before any set was found.
    """
    from bisect_trt.mixed_precision import run as room
    from bisect_trt.mixed_precision.earlier import kept_by

    chosen, path = chosen_settings(settings, options), path_of("model", model)
    listed = isinstance(start, Sequence) and not isinstance(start, str)
    first = names_of("start", start) if listed else kept_by(path_of("start", start))
    return room.precision(
        path,
        chosen,
        to=to,
        cost=cost,
        out=out_of(out),
        force=force,
        keep=names_of("keep", keep),
        lower=names_of("lower", lower),
        start=first,
        on_event=on_event,
    )


def profile(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    shapes: str | Sequence[str] = (),
    against: str = "",
    precision_of_time: float = 0.02,
    limit: float = 0.05,
    cuda_graph: bool = False,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Profile:
    """Measure how fast a model is over its shapes, where that jumps, and which layers take the time.

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        shapes: shapes of inputs as on the command line, with a range where a dimension varies:
            `"x:1..64x3x224x224"`.
        against: another target, or other options of the same one: `"ort:CPU"`, `"--precision fp16"`.
        precision_of_time: how well the median time of a run has to be known, as a part of it.
        limit: how far the ratio of both sides may be from 1.
        cuda_graph: run TensorRT's engine as a CUDA graph.
        out: the folder; by default `MODEL-profile` in the current one.
        force: replace what an earlier run wrote there.
        on_event: hears of every step.
        **options: fields of the settings, as `target="ort:CPU"`.

    Raises:
        UsageError: the model, its inputs, an option or a folder cannot be used, or the model fails.
        TargetUnavailable: the target cannot run models here.
        StoppedEarly: stopped before anything was measured.
    """
    from bisect_trt.blaming.environments import installed
    from bisect_trt.profiling import run as room
    from bisect_trt.profiling.sizes import spans_of

    return room.profile(
        path_of("model", model),
        chosen_settings(settings, options),
        shapes=spans_of([shapes] if isinstance(shapes, str) else names_of("shapes", shapes)),
        against=against,
        precision_of_time=precision_of_time,
        limit=limit,
        cuda_graph=cuda_graph,
        out=out_of(out),
        force=force,
        install=installed,
        on_event=on_event,
    )


def verify(
    path: AnyPath,
    *,
    target: str | None = None,
    repeats: int = RunSettings.repeats,
    timeout: float | None = None,
    memory_limit: int | None = None,
    custom_ops: Sequence[AnyPath] = (),
    given: TargetSettings = TargetSettings(),  # noqa: B008 (frozen)
    on_result: Callable[[Verification], None] = _quiet,
) -> list[Verification]:
    """Run a reproducer, or each one in a folder of them, again: on this machine, with what is installed.

    Args:
        path: folder or zip that `reduce` wrote, or a folder of them.
        target: another target than the one that it was found on.
        repeats: fresh processes for each.
        timeout: seconds for each.
        memory_limit: bytes for each.
        custom_ops: libraries for the reference.
        given: settings of the target that the report may not give.
        on_result: hears of each.

    Raises:
        UsageError: there is no reproducer.
    """
    from bisect_trt.reproducer import verify as room

    return room.verify(
        path_of("path", path),
        target=target,
        given=given,
        repeats=repeats,
        timeout=timeout,
        memory_limit=memory_limit,
        custom_ops=[path_of("custom_ops", one) for one in custom_ops],
        on_result=on_result,
    )


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
    on_tried: OnTried = _quiet,
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
        on_tried: hears of each release.
        **options: fields of the settings, as `repeats=1` or `budget=600.0`.

    Raises:
        UsageError: there is no reproducer, or it or an option cannot be used.
        TargetUnavailable: releases cannot be listed, or this is not Linux.
        StoppedEarly: the disk is full; what was found so far is in the journal.
    """
    from bisect_trt.blaming import blame as room
    from bisect_trt.blaming.environments import LIMIT

    chosen = chosen_settings(settings, options)
    asking = room.Asking(
        releases=releases,
        releases_file=out_of(releases_file, "releases_file"),
        options=decisions,
        on=out_of(on, "on"),
        every=sweep,
        pre=pre,
        offline=offline,
        allow_build=allow_build,
        cache_limit=LIMIT if cache_limit is None else cache_limit,
    )
    return room.blame(
        path_of("place", place),
        asking,
        target=target,
        given=chosen.target,
        run=chosen.run,
        custom_ops=chosen.accuracy.custom_ops,
        out=out_of(out),
        force=force,
        on_tried=on_tried,
    )
