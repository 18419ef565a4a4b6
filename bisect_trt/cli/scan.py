"""`bisect-trt scan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bisect_trt.cli import accuracy as a
from bisect_trt.cli import options as o

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Where to write; MODEL-scan here without it.", show_default=False
    ),
]
Tensors = Annotated[
    list[str] | None,
    typer.Option("--tensors", metavar="NAME", help="Look at these tensors only; repeat it."),
]
SaveTensors = Annotated[
    Path | None,
    typer.Option("--save-tensors", metavar="DIR", help="Keep the values of both sides as .npy files."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier scan left in the folder.")]


def command(
    model: o.Model,
    out: Out = None,
    target: o.Target = "auto",
    tensors: Tensors = None,
    save_tensors: SaveTensors = None,
    inputs: o.Inputs = None,
    seed: o.Seed = 0,
    timeout: o.Timeout = None,
    workers: o.Workers = 1,
    memory_limit: o.MemoryLimit = None,
    shapes: o.StaticShapes = None,
    min_shapes: o.MinShapes = None,
    opt_shapes: o.OptShapes = None,
    max_shapes: o.MaxShapes = None,
    workspace: o.Workspace = None,
    opt_level: o.OptLevel = None,
    tf32: o.Tf32 = None,
    precision: o.Precision = None,
    timing_cache: o.TimingCache = None,
    plugins: o.Plugins = None,
    verbose_log: o.VerboseLog = None,
    ep_library: o.EpLibrary = None,
    reference: a.Reference = "ort",
    reference_provider: a.ReferenceProvider = "CPUExecutionProvider",
    custom_ops: a.CustomOps = None,
    rtol: a.Rtol = None,
    atol: a.Atol = None,
    metric: a.Metric = "max",
    ignore: a.Ignore = None,
    topk: a.TopK = None,
    input_range: a.InputRange = None,
    save_inputs: a.SaveInputs = None,
    record_budget: a.RecordBudget = None,
    as_json: o.Json = False,
    force: Force = False,
    debug: o.Debug = False,
) -> int:
    """Where does the error come from? Own error of every tensor, and its effect on the model's outputs.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here or cannot run what it builds,
    70 a bug of bisect-trt.
    """
    settings = o.settings(
        o.target_settings(
            target,
            (shapes, min_shapes, opt_shapes, max_shapes),
            workspace=workspace,
            opt_level=opt_level,
            tf32=tf32,
            precision=precision,
            timing_cache=timing_cache,
            plugins=plugins,
            verbose_log=verbose_log,
            ep_library=ep_library,
        ),
        inputs=inputs,
        seed=seed,
        timeout=timeout,
        workers=workers,
        memory_limit=memory_limit,
        accuracy=a.accuracy_settings(
            reference=reference,
            reference_provider=reference_provider,
            custom_ops=custom_ops,
            rtol=rtol,
            atol=atol,
            metric=metric,
            ignore=ignore,
            topk=topk,
            judge="outputs",
        ),
        input_ranges=a.parse_ranges(input_range),
        save_inputs=save_inputs,
        record_budget=record_budget,
    )
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.cli.output.scan_table import show_scan
    from bisect_trt.scanning.page import document

    with progress(quiet=as_json) as on_event:
        result = bisect_trt.scan(
            model,
            settings,
            out=out,
            force=force,
            tensors=tensors or (),
            save_tensors=save_tensors,
            on_event=on_event,
        )
    if as_json:
        print(json.dumps({**document(result, bisect_trt.__version__), "out": str(result.out)}, indent=2))
    else:
        show_scan(result)
    return 0
