"""`bisect-trt reduce`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from bisect_trt.cli import accuracy as a
from bisect_trt.cli import options as o

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Where to write; MODEL-repro here without it.", show_default=False
    ),
]
Every = Annotated[
    bool, typer.Option("--all", help="One reproducer for each different failure, in folders of their own.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run left in the folder.")]


def command(
    model: o.Model,
    out: Out = None,
    target: o.Target = "auto",
    inputs: o.Inputs = None,
    seed: o.Seed = 0,
    timeout: o.Timeout = None,
    repeats: o.Repeats = 3,
    workers: o.Workers = 1,
    memory_limit: o.MemoryLimit = None,
    device: o.Device = None,
    cluster: o.Cluster = "",
    budget: o.Budget = None,
    max_probes: o.MaxProbes = None,
    cache_dir: o.CacheDir = None,
    every: Every = False,
    simplify: o.Simplify = True,
    simplify_budget: o.SimplifyBudget = None,
    anonymise: o.Anonymise = False,
    shapes: o.StaticShapes = None,
    min_shapes: o.MinShapes = None,
    opt_shapes: o.OptShapes = None,
    max_shapes: o.MaxShapes = None,
    workspace: o.Workspace = None,
    opt_level: o.OptLevel = None,
    tf32: o.Tf32 = None,
    precision: o.Precision = None,
    build_only: o.BuildOnly = False,
    timing_cache: o.TimingCache = None,
    plugins: o.Plugins = None,
    verbose_log: o.VerboseLog = None,
    ep_library: o.EpLibrary = None,
    fail_regex: o.FailRegex = "",
    reference: a.Reference = "ort",
    reference_provider: a.ReferenceProvider = "CPUExecutionProvider",
    custom_ops: a.CustomOps = None,
    rtol: a.Rtol = None,
    atol: a.Atol = None,
    metric: a.Metric = "max",
    ignore: a.Ignore = None,
    topk: a.TopK = None,
    judge: a.Judge = "outputs",
    input_range: a.InputRange = None,
    save_inputs: a.SaveInputs = None,
    save_outputs: a.SaveOutputs = None,
    record_budget: a.RecordBudget = None,
    as_json: o.Json = False,
    force: Force = False,
    style: o.Style = None,
    tools: o.With = None,
    debug: o.Debug = False,
) -> int:
    """Reduce a failing model to the fewest nodes that fail in the same way, and write a reproducer.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here, 4 the model does not fail,
    5 too flaky, 6 stopped early (the best so far is saved), 7 --anonymise is not possible, 70 a bug of
    bisect-trt.
    """
    settings = o.settings(
        o.target_settings(
            target,
            (shapes, min_shapes, opt_shapes, max_shapes),
            workspace=workspace,
            opt_level=opt_level,
            tf32=tf32,
            precision=precision,
            build_only=build_only,
            timing_cache=timing_cache,
            plugins=plugins,
            verbose_log=verbose_log,
            ep_library=ep_library,
            fail_regex=fail_regex,
        ),
        inputs=inputs,
        seed=seed,
        timeout=timeout,
        repeats=repeats,
        workers=workers,
        memory_limit=memory_limit,
        device=device,
        cluster=cluster,
        budget=budget,
        max_probes=max_probes,
        cache_dir=cache_dir,
        simplify=simplify,
        simplify_budget=simplify_budget,
        anonymise=anonymise,
        accuracy=a.accuracy_settings(
            reference=reference,
            reference_provider=reference_provider,
            custom_ops=custom_ops,
            rtol=rtol,
            atol=atol,
            metric=metric,
            ignore=ignore,
            topk=topk,
            judge=judge,
        ),
        input_ranges=a.parse_ranges(input_range),
        save_inputs=save_inputs,
        save_outputs=save_outputs,
        record_budget=record_budget,
    )
    settings = dataclasses.replace(settings, papers=o.papers(style, tools))
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output import console
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.errors import StoppedEarly
    from bisect_trt.reproducer import document

    with progress(quiet=as_json) as on_event:
        if every:
            results = bisect_trt.reduce_all(model, settings, out=out, force=force, on_event=on_event)
        else:
            results = (bisect_trt.reduce(model, settings, out=out, force=force, on_event=on_event),)
    if as_json:
        found = [document.written(result) for result in results]
        print(json.dumps({"reductions": found} if every else found[0], indent=2))
    else:
        for k, result in enumerate(results):
            assert result.archive is not None
            if k:
                print()
            console.show_reduction(result, result.archive)
            console.show_left(result)
    return 0 if all(result.finished for result in results) else StoppedEarly.exit_code
