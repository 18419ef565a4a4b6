"""Frozen settings; everything here is hashable and can be sent to a worker process."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, field

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Input name and dimensions, sorted by name; a tuple so that it can be hashed."""

TIMING = "timing.cache"
"""Name of TensorRT's timing cache where it is ours: in the folder of a run, and beside a reproducer."""


class TargetSettings(Struct, frozen=True):
    """Which target, and how its builder is configured.

    Attributes:
        spec: `auto`, `tensorrt`, `tensorrt-rtx`, `planted:SPEC`, ... (see `targets.registry`).
        shapes: static shapes for dynamic inputs of the model.
        min_shapes, opt_shapes, max_shapes: optimisation profile for inputs that stay dynamic.
        workspace: builder memory pool limit in bytes, or None for the builder's default.
        opt_level: builder optimisation level 0..5, or None for the builder's default.
        tf32: allow TF32, forbid it, or leave it to the builder (None).
        timing_cache: file to read and update, or None.
        plugins: plugin libraries to load before parsing.
        verbose_log: file that gets the target's whole log, or None.
        ep_libraries: plugin libraries of ONNX Runtime execution providers: name and file.
        precision: `fp16` or `bf16` for the float32 arithmetic of the model on TensorRT; empty: as it is.
        build_only: engines are built but never run, as on a machine without a GPU.
        deep: a model that builds is also built with the defaults of ONNX spelled out, and without each
            attribute, see `targets.tensorrt.defaults` and `targets.tensorrt.ignored`.
        decisions: what the builder is to decide otherwise, see `targets.knobs`; for us alone, as the next.
        without_tactics: numbers of tactics that the builder may not take; for us alone, no option sets it.
        with_tactics: numbers of tactics of which the builder takes one wherever a layer has it; for us alone.
        fail_regex: what the log of `command:` has to show for a failure to count; empty: anything.
    """

    spec: str = "auto"
    shapes: Shapes = ()
    min_shapes: Shapes = ()
    opt_shapes: Shapes = ()
    max_shapes: Shapes = ()
    workspace: int | None = None
    opt_level: int | None = None
    tf32: bool | None = None
    timing_cache: Path | None = None
    plugins: tuple[Path, ...] = ()
    verbose_log: Path | None = None
    ep_libraries: tuple[tuple[str, Path], ...] = ()
    fail_regex: str = ""
    precision: str = ""
    build_only: bool = False
    deep: bool = False
    decisions: tuple[tuple[str, str], ...] = ()
    without_tactics: tuple[str, ...] = ()
    with_tactics: tuple[str, ...] = ()


class RunSettings(Struct, frozen=True):
    """How probes are run and repeated.

    Attributes:
        inputs: file with input values, or None for seeded random ones.
        seed: of every random choice.
        timeout: seconds a probe may take; None: 10x the first run, between 10 s and 10 min.
        repeats: how often the whole model is run until it fails, how often what fails is looked at to
            call it steady, and runs of the written files in fresh processes.
        workers: probes that run at the same time.
        memory_limit: bytes that a worker may hold (RSS); None: 80 % of the machine / workers.
        budget: seconds after which the search ends; the best so far is verified and written.
        max_probes: number of probes after which it does.
        cache_dir: folder of outcomes that runs share, or None.
        input_ranges: name, least and largest of random input values.
        save_inputs: file (.npz, .json) that gets the input values, or None.
        save_outputs: folder that gets the outputs of target and reference, or None.
        record_budget: bytes of recorded tensors held in memory at once while recording.
        simplify: make the reduced model simple, too.
        simplify_budget: target seconds for that; None: as many as the search took, but 0.25 s and 40
            probes in any case.
        devices: GPUs to use, as CUDA_VISIBLE_DEVICES has them: a worker on each; empty: the first one.
        cluster: address of a Ray cluster whose nodes run the probes; empty: this machine does.
        anonymise: leave nothing of the model's names, texts, weights and inputs in what is written.
    """

    inputs: Path | None = None
    seed: int = 0
    timeout: float | None = None
    repeats: int = 3
    workers: int = 1
    memory_limit: int | None = None
    budget: float | None = None
    max_probes: int | None = None
    cache_dir: Path | None = None
    record_budget: int | None = None
    input_ranges: tuple[tuple[str, float, float], ...] = ()
    save_inputs: Path | None = None
    save_outputs: Path | None = None
    simplify: bool = True
    simplify_budget: float | None = None
    anonymise: bool = False
    devices: tuple[str, ...] = ()
    cluster: str = ""


class AccuracySettings(Struct, frozen=True):
    """When outputs count as equal, and where that is judged; see `compare` for the metrics.

    Attributes:
        rtol, atol: tolerance by output; the name "" is for all others. Without: by type and precision.
        metric: `max`, `mean`, `rms`, `cosine`, `quantile:Q`, `snr:DB`, `psnr:DB` or `boxes`.
        ignore: outputs that are not compared.
        topk: outputs of which only the K best along the last axis are compared, as a set.
        judge: `outputs`: what a part of the model gave on the target goes through the rest of the model
            on the reference, and the model's outputs are compared; `local`: the part's own outputs are.
        reference: where truth comes from, see `references.spec`.
        reference_provider: execution provider of ONNX Runtime as the reference.
        custom_ops: libraries of custom operators for ONNX Runtime as the reference.
    """

    rtol: tuple[tuple[str, float], ...] = ()
    atol: tuple[tuple[str, float], ...] = ()
    metric: str = "max"
    ignore: tuple[str, ...] = ()
    topk: tuple[tuple[str, int], ...] = ()
    judge: str = "outputs"
    reference: str = "ort"
    reference_provider: str = "CPUExecutionProvider"
    custom_ops: tuple[Path, ...] = ()


DEFAULT_ACCURACY = AccuracySettings()


class ReportSettings(Struct, frozen=True):
    """What the reproducer folder holds besides what is always there; no probe depends on it.

    Attributes:
        style: tracker for which ISSUE.md is written, see `reproducer.trackers`; empty: that of the target.
        inputs_for: other tools for which the input values are written: `trtexec`, `polygraphy`.
    """

    style: str = ""
    inputs_for: tuple[str, ...] = ()


class Settings(Struct, frozen=True):
    """What a run needs besides the model; each part has defaults."""

    target: TargetSettings = field(default_factory=TargetSettings)
    run: RunSettings = field(default_factory=RunSettings)
    accuracy: AccuracySettings = field(default_factory=AccuracySettings)
    report: ReportSettings = field(default_factory=ReportSettings)
