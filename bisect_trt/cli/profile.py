"""`bisect-trt profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt import options
from bisect_trt.cli.commands import FORCE, JSON, OUT, Command, only_given, print_json
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import BUILDER, SEARCH
from bisect_trt.settings import Settings

SHAPES = Option(
    "shapes", "--shapes", k.SPANS, "Shapes, a range where a dimension varies: x:1..64x3x224x224; repeat it."
)
AGAINST = Option(
    "against",
    "--against",
    k.text("OTHER"),
    "Compare with another target (ort:CPU), options ('--precision fp16') or release (onnxruntime==1.22.0).",
)
LIMIT = Option(
    "limit", "--limit", k.PERCENT, "How far the ratio of both may be from 1; 5% without it.", SEARCH
)
PRECISION = Option(
    "precision_of_time",
    "--precision-of-time",
    k.PERCENT,
    "How well the median of a run has to be known; 2% without it.",
    SEARCH,
)
GRAPH = Option("cuda_graph", "--cuda-graph", k.SWITCH, "Run TensorRT's engine as a CUDA graph.", BUILDER)
BEST = Option(
    "opt_shapes",
    "--opt-shapes",
    k.SHAPES,
    "TensorRT's optimisation profile: what the engine is made for; the largest shapes without it.",
    BUILDER,
)
_LEFT_OUT = (
    *("simplify", "simplify_budget", "anonymise", "style", "inputs_for", "judge", "save_outputs"),
    *("save_inputs", "build_only", "deep", "fail_regex", "devices", "cluster", "cache_dir", "max_probes"),
    *("repeats", "shapes", "min_shapes", "opt_shapes", "max_shapes", "workers", "reference"),
    *("reference_provider", "custom_ops", "record_budget", "rtol", "atol", "metric", "ignore", "topk"),
)


def run(
    model: Path, settings: Settings, *, out: Path | None, force: bool, as_json: bool, **asked: Any
) -> int:
    """How fast is it? Latency and throughput over shapes, where these jump, and which layers take the time.

    Exit code: 0 done, 1 the other side of --against differs beyond the limit, 2 bad usage or model, or the
    model fails on either side, 3 target not usable here, 6 stopped early (what was measured is saved), 70 a
    bug of bisect-trt.
    """
    from bisect_trt.blaming.environments import installed
    from bisect_trt.cli.output.profile_table import show_profile  # heavy imports wait until here
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.profiling import run as room
    from bisect_trt.profiling.write import document

    with progress(quiet=as_json) as on_event:
        asking = room.Asking(**only_given(asked))
        result = room.profile(
            model, settings, asking, out=out, force=force, install=installed, on_event=on_event
        )
    if as_json:
        print_json({**document(result), "out": str(result.out)})
    else:
        show_profile(result)
    return result.exit_code


COMMAND = Command(
    "profile",
    run,
    (
        SHAPES,
        AGAINST,
        replace(OUT, help="Where to write; MODEL-profile here without it."),
        *options.without(*_LEFT_OUT),
        PRECISION,
        LIMIT,
        BEST,
        GRAPH,
        FORCE,
        JSON,
    ),
)
