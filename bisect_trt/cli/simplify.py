"""`bisect-trt simplify`."""

from __future__ import annotations

import json

from bisect_trt.cli import options as o
from bisect_trt.cli.reduce import Force, Out


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
    budget: o.Budget = None,
    max_probes: o.MaxProbes = None,
    cache_dir: o.CacheDir = None,
    simplify_budget: o.SimplifyBudget = None,
    anonymise: o.Anonymise = False,
    shapes: o.StaticShapes = None,
    min_shapes: o.MinShapes = None,
    opt_shapes: o.OptShapes = None,
    max_shapes: o.MaxShapes = None,
    workspace: o.Workspace = None,
    opt_level: o.OptLevel = None,
    tf32: o.Tf32 = None,
    timing_cache: o.TimingCache = None,
    plugins: o.Plugins = None,
    verbose_log: o.VerboseLog = None,
    as_json: o.Json = False,
    force: Force = False,
    debug: o.Debug = False,
) -> int:
    """Make a small failing model simple: shapes, weights, inputs, attributes, types and names.

    The nodes are taken as they are (`reduce` looks for fewer first). Without --simplify-budget it goes
    on until nothing changes any more.

    Exit code: 0 done, 2 bad usage or model, 3 target not usable here, 4 the model does not fail,
    6 stopped early (the best so far is saved), 7 --anonymise is not possible, 70 a bug of bisect-trt.
    """
    settings = o.settings(
        o.target_settings(
            target,
            (shapes, min_shapes, opt_shapes, max_shapes),
            workspace=workspace,
            opt_level=opt_level,
            tf32=tf32,
            timing_cache=timing_cache,
            plugins=plugins,
            verbose_log=verbose_log,
        ),
        inputs=inputs,
        seed=seed,
        timeout=timeout,
        repeats=repeats,
        workers=workers,
        memory_limit=memory_limit,
        budget=budget,
        max_probes=max_probes,
        cache_dir=cache_dir,
        simplify_budget=simplify_budget,
        anonymise=anonymise,
    )
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output import console
    from bisect_trt.cli.output.progress import progress
    from bisect_trt.errors import StoppedEarly
    from bisect_trt.reproducer import document

    with progress(quiet=as_json) as on_event:
        result = bisect_trt.simplify(model, settings, out=out, force=force, on_event=on_event)
    assert result.archive is not None
    if as_json:
        print(json.dumps(document.written(result), indent=2))
    else:
        console.show_reduction(result, result.archive)
        console.show_left(result)
    return 0 if result.finished else StoppedEarly.exit_code
