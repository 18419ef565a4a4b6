"""`bisect-trt check`."""

from __future__ import annotations

import json

from bisect_trt.cli import accuracy as a
from bisect_trt.cli import options as o


def command(
    model: o.Model,
    target: o.Target = "auto",
    inputs: o.Inputs = None,
    seed: o.Seed = 0,
    timeout: o.Timeout = None,
    memory_limit: o.MemoryLimit = None,
    device: o.Device = None,
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
    debug: o.Debug = False,
) -> int:
    """Try the whole model once: does the target take it and agree with ONNX Runtime?

    Exit code: 0 yes, 1 no, 2 bad usage or model, 3 target not usable here or nothing can be said,
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
        memory_limit=memory_limit,
        device=device,
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
    # Heavy imports wait until a command runs, so that --help is quick.
    import bisect_trt
    from bisect_trt.cli.output import console
    from bisect_trt.errors import TargetUnavailable
    from bisect_trt.reproducer import document

    result = bisect_trt.check(model, settings)
    if as_json:
        print(json.dumps(document.check(result, bisect_trt.__version__), indent=2))
    else:
        console.show_check(result)
    if result.outcome.unresolved:
        return TargetUnavailable.exit_code
    return 1 if result.outcome.failures else 0
