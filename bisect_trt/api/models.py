"""What is asked about a model: the path of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bisect_trt.options.keywords import (
    AnyPath,
    chosen_settings,
    names_of,
    names_or_file,
    out_of,
    path_of,
    shapes_of,
)
from bisect_trt.settings import Settings, Shapes

if TYPE_CHECKING:
    from bisect_trt.mixed_precision.result import Precision
    from bisect_trt.profiling.result import Profile
    from bisect_trt.results import Check, OnEvent, Reduction
    from bisect_trt.scanning.result import Scan


def quiet(event: object) -> None:
    """Ignore a step."""


def reduce(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = quiet,
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
        settings: all options at once; the defaults are those of the command line.
        out: the folder; by default `MODEL-repro` in the current one.
        force: replace what an earlier run wrote there.
        on_event: called with every step.
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
    on_event: OnEvent = quiet,
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
    on_event: OnEvent = quiet,
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
    keep_fp32: AnyPath | Sequence[str] | None = None,
    **options: Any,
) -> Check:
    """Say whether the target agrees with the reference on a model, and if not, how it fails.

    >>> check("models/ok.onnx", target="emulate:fp16").outcome.failures
    ()
    >>> check("models/ok.onnx", target="emulate:fp16", rtol=1e-7, atol=0.0).outcome.failures[0].symptom
    <Symptom.MISMATCH: 'mismatch'>

    Args:
        model: an ONNX file.
        settings: all options at once; the defaults are those of the command line.
        keep_fp32: names of nodes that stay in FP32, or a file that has them (`precision.json`, or a name a
            line); all others compute in the target's low precision.
        **options: fields of the settings, as `target="emulate:fp16"`.

    Raises:
        UsageError: the model, its inputs or an option cannot be used.
        TargetUnavailable: the target cannot be used here.
    """
    from bisect_trt.mixed_precision.earlier import listed
    from bisect_trt.session import check as room

    kept = None if keep_fp32 is None else names_or_file("keep_fp32", keep_fp32, listed)
    return room.check(path_of("model", model), chosen_settings(settings, options), keep=kept)


def scan(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    tensors: Sequence[str] = (),
    save_tensors: AnyPath | None = None,
    on_event: OnEvent = quiet,
    **options: Any,
) -> Scan:
    """Measure the own error of every tensor and its effect on the model's outputs; writes `scan.html`.

    Args:
        model: an ONNX file.
        settings: all options at once; the defaults are those of the command line.
        out: the folder; by default `MODEL-scan` in the current one.
        force: replace what an earlier run wrote there.
        tensors: names of the tensors to look at; by default all that a node reads or that are outputs.
        save_tensors: folder that gets the values of both sides.
        on_event: called with every step.
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
    on_event: OnEvent = quiet,
    **options: Any,
) -> Precision:
    """Find the smallest set of nodes that must stay in FP32, and write the model that has it.

    Args:
        model: an ONNX file.
        settings: all options at once; the defaults are those of the command line.
        to: what all other nodes compute in, `fp16` or `bf16`; `fp8` or `int8`: what convolutions and
            products of matrices read.
        cost: what is made small, `nodes` (their number), `bytes` (of what they give) or `time` (measured
            on the target).
        out: the folder; by default `MODEL-precision` in the current one.
        force: replace what an earlier run wrote there.
        keep, lower: names of nodes that stay in FP32 in any case, or in none.
        start: the `precision.json` of an earlier run, or names of nodes: these are tried first.
        on_event: called with every step.
        **options: fields of the settings, as `inputs="inputs.npz"` or `rtol=1e-2`.

    Raises:
        UsageError: the model, its inputs, an option, a name or a folder cannot be used.
        TargetUnavailable: the target cannot be used here.
        StoppedEarly: stopped before any set was found.
    """
    from bisect_trt.mixed_precision import run as room
    from bisect_trt.mixed_precision.earlier import kept_by

    chosen, path = chosen_settings(settings, options), path_of("model", model)
    first = names_or_file("start", start, kept_by)
    asking = room.Asking(to, cost, names_of("keep", keep), names_of("lower", lower), first)
    return room.precision(path, chosen, asking, out=out_of(out), force=force, on_event=on_event)


def profile(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    shapes: str | Sequence[str] = (),
    against: str | None = None,
    precision_of_time: float = 0.02,
    limit: float = 0.05,
    cuda_graph: bool = False,
    opt_shapes: Mapping[str, Sequence[int]] | Shapes = (),
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = quiet,
    **options: Any,
) -> Profile:
    """Measure how fast a model is over its shapes, where that jumps, and which layers take the time.

    Args:
        model: an ONNX file.
        settings: all options at once; the defaults are those of the command line.
        shapes: shapes of inputs as on the command line, with a range where a dimension varies:
            `"x:1..64x3x224x224"`.
        against: another target, other options of the same one, or another release: `"ort:CPU"`,
            `"--precision fp16"`, `"onnxruntime==1.22.0"`.
        precision_of_time: how well the median time of a run has to be known, as a part of it.
        limit: how far the ratio of both sides may be from 1.
        cuda_graph: run TensorRT's engine as a CUDA graph.
        opt_shapes: what TensorRT's engine is made for, `{"x": (8, 3, 224, 224)}`; by default the largest
            of `shapes`.
        out: the folder; by default `MODEL-profile` in the current one.
        force: replace what an earlier run wrote there.
        on_event: called with every step.
        **options: fields of the settings, as `target="ort:CPU"`.

    Raises:
        UsageError: the model, its inputs, an option or a folder cannot be used, or the model fails.
        TargetUnavailable: the target cannot run models here.
        StoppedEarly: stopped before anything was measured.
    """
    from bisect_trt.blaming.environments import installed
    from bisect_trt.profiling import run as room
    from bisect_trt.profiling.sizes import spans_of

    chosen, path = chosen_settings(settings, options), path_of("model", model)
    spans = spans_of([shapes] if isinstance(shapes, str) else names_of("shapes", shapes))
    asking = room.Asking(
        shapes=spans,
        opt_shapes=shapes_of("opt_shapes", opt_shapes),
        against=against,
        limit=limit,
        precision_of_time=precision_of_time,
        cuda_graph=cuda_graph,
    )
    return room.profile(
        path, chosen, asking, out=out_of(out), force=force, install=installed, on_event=on_event
    )
