"""TensorRT and TensorRT-RTX: parse, build and, where a GPU allows, run.

One adapter for both: `tensorrt` and `tensorrt_rtx` have one API. Methods that came or went between
TensorRT 8.6 and 11 are looked up, never assumed. The module is imported by `TensorRT()` only, which
happens in worker processes.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import BisectError, TargetUnavailable
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Array, Failure, Stage
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.base import TargetInfo, TargetResult, announce
from bisect_trt.targets.narrow import Narrower, Source
from bisect_trt.targets.tensorrt import api, constraints, knobs, progress, timing, warm
from bisect_trt.targets.tensorrt import engine as trt_engine
from bisect_trt.targets.tensorrt.api import for_engine, from_engine, loaded
from bisect_trt.targets.tensorrt.config import digests, load_plugins, make_config
from bisect_trt.targets.tensorrt.ignored import deep_failures
from bisect_trt.targets.tensorrt.log import (
    asks_for_gpu,
    blame_of,
    detail,
    failure,
    first,
    first_that_matters,
    logger_for,
    parse_failure,
)
from bisect_trt.targets.tensorrt.timed import TimedEngine
from bisect_trt.targets.tensorrt.warm import TITLES, import_tensorrt
from bisect_trt.targets.timed import FailedError

_REFUSES_CARD = re.compile(r"cannot run on this GPU|Target GPU SM \w+ is not supported", re.IGNORECASE)
_BUILD_ONLY = "--build-only builds the engines and does not run them."


class Way(Struct, frozen=True):
    """How a candidate is run: from a `file` that the parser itself reads, as trtexec has it; with the tensors
    `inside` the engine among its outputs; not at all, where the engine is put into `built`.
    """

    file: Path | None = None
    inside: bool = False
    built: list[Any] | None = None


USUAL = Way()


class TensorRT:
    """One TensorRT module as a target, see `targets.base.Target`."""

    def __init__(self, settings: TargetSettings) -> None:
        """Import the module that `settings.spec` names and load plugins.

        Raises:
            TargetUnavailable: the module is missing or has no libraries (PyPI's `tensorrt` is a stub).
            UsageError: a plugin library or the verbose log cannot be used.
        """
        self._settings = settings
        self._flavour = settings.spec  # tensorrt or tensorrt-rtx
        self._trt = import_tensorrt(self._flavour)
        self._logger, self._log = logger_for(self._trt)
        self._log.write_all_to(settings.verbose_log)
        self._gpu = gpu.find_gpu()
        self._narrower = Narrower(settings.precision if api.is_strongly_typed(self._trt) else "")
        load_plugins(self._trt, self._logger, settings.plugins)

    def info(self) -> TargetInfo:
        """Describe the module and the GPU. Build only without a GPU, or where that is asked for.

        Raises:
            TargetUnavailable: the GPU that is here cannot run its engines, or it cannot build without one.
        """
        refused = self._refused_card()
        if refused and not self._settings.build_only:
            raise TargetUnavailable(refused, _BUILD_ONLY)
        if self._gpu is None:
            self.warm_up()
        version = str(self._trt.__version__)
        versions = {self._flavour: version, **(self._gpu.versions() if self._gpu else {})}
        notes = [f"{refused}." if refused else "", self._why_not_run()]
        notes.append(api.precision_note(self._trt, self._settings.precision))
        if api.is_rtx(self._trt) and self._settings.timing_cache is not None:
            notes.append("TensorRT-RTX keeps no timing cache: --timing-cache has no effect.")
        return TargetInfo(
            name=self._flavour,
            title=f"{TITLES[self._flavour]} {version}",
            can_run=not self._why_not_run(),
            notes=tuple(filter(None, (*notes, *api.missing(self._trt)))),
            versions=versions,
        )

    def _why_not_run(self) -> str:
        """Say why engines are not run here; empty when they are."""
        why = "--build-only" if self._settings.build_only else "" if self._gpu else "No GPU here"
        return f"{why}: engines are built but not run, outputs are not compared." if why else ""

    def _refused_card(self) -> str:
        """Say that this GPU cannot run the engines; empty when it can, or none is here."""
        if self._gpu is None or not api.is_rtx(self._trt):
            return ""
        major, minor = self._gpu.compute_capability
        # As TensorRT-RTX 1.7.1 says itself: 8.0 8.6 8.9 12.0 12.1 >12.0.
        if major >= 12 or (major, minor) in ((8, 0), (8, 6), (8, 9)):
            return ""
        return (
            f"TensorRT-RTX cannot run on this GPU ({self._gpu.name}, compute capability {major}.{minor};"
            " it takes 8.0, 8.6, 8.9 and 12.0 up)"
        )

    def warm_up(self) -> float:
        """Make what all builds of this process share; seconds that it took, 0 when it was there.

        Raises:
            TargetUnavailable: there can be no builder: no driver, or too old a GPU.
        """
        there = warm.is_there(self._trt)
        seconds = self._kept().seconds
        return 0.0 if there else seconds

    def _kept(self) -> warm.Kept:
        before = len(self._log.records)
        try:
            return warm.kept(self._trt, self._logger)
        except (TypeError, RuntimeError) as e:  # pybind11: the factory gave nothing
            said = " ".join(first(self._log.errors(before), str(e)).split())
            hint = "It needs an NVIDIA GPU even to build. TensorRT-RTX builds without: --target tensorrt-rtx"
            raise TargetUnavailable(f"{TITLES[self._flavour]} cannot make a builder: {said}", hint) from e

    def inside(self) -> list[str]:
        """Return decisions that this builder names itself: its build routes, see `targets.tensorrt.knobs`."""
        return knobs.routes_of(self._kept().builder.create_builder_config())

    def run(self, candidate: Candidate, way: Way = USUAL) -> TargetResult:
        """Parse, build and, where possible, run the candidate on each of its samples.

        The fact `builder_seconds` tells what was spent on a builder, where this process had none yet.

        Raises:
            UsageError: settings that this model or this TensorRT cannot follow.
            TargetUnavailable: the GPU refuses the engine, which says nothing of the model.
        """
        self._log.clear()
        started = self.warm_up()
        try:
            result = self._parse(self._narrower.source(candidate), way)
        except BisectError:
            raise
        except MemoryError as e:
            result = self._failed([failure(candidate.model, Stage.BUILD, f"std::bad_alloc {e}".strip())])
        result = self._without_driver(result)
        if self._settings.deep and not result.failures and not result.unresolved:
            digest = digests(self._trt, self._logger, self._settings, candidate, self._log)
            misread = deep_failures(candidate, digest)
            result = replace(result, failures=tuple(misread))
        return replace(result, facts={**result.facts, "builder_seconds": started}) if started else result

    def _without_driver(self, result: TargetResult) -> TargetResult:
        """Return it without what says only that no GPU is here; where that is all, nothing can be said."""
        if self._gpu is not None:
            return result
        errors = self._log.errors()
        asks = [f for f in result.failures if asks_for_gpu(f, errors)]
        if not asks:
            return result
        left = tuple(f for f in result.failures if f not in asks)
        nodes = tuple(name for f in asks for name in f.nodes)
        what = asks[0].op or asks[0].message.splitlines()[0]
        why = "" if left else f"{what} cannot be judged without a GPU"
        return replace(result, failures=left, unresolved=why, facts={**result.facts, "without_gpu": nodes})

    def run_file(self, candidate: Candidate, file: Path) -> TargetResult:
        """Do as `run` does with a model that the parser itself reads from its file, as trtexec has it."""
        return self.run(candidate, Way(file=file))

    def run_in_context(self, candidate: Candidate) -> TargetResult:
        """Do as `run` does; outputs also hold the tensors inside the engine, as far as it shows them.

        They have the engine's own names, which often are those of the model.
        """
        return self.run(candidate, Way(inside=True))

    def timed(self, candidate: Candidate, graph: bool = False) -> TimedEngine:
        """Build the candidate and give the engine with a clock; `graph`: it runs as a CUDA graph.

        Raises:
            TargetUnavailable: engines are not run here.
            FailedError: it cannot be parsed, built or loaded.
        """
        if why := self._why_not_run():
            raise TargetUnavailable(f"{TITLES[self._flavour]}: {why}", "its time can be told on a GPU only")
        built, began = list[Any](), time.perf_counter()
        result = self.run(candidate, Way(built=built))
        seconds = time.perf_counter() - began - float(result.facts.get("builder_seconds", 0.0))
        if result.failures or not built:
            said = result.failures[0].message if result.failures else result.unresolved
            raise FailedError(said or "the build gave no engine")
        cuda = importlib.import_module("polygraphy.cuda")
        return TimedEngine(self._trt, cuda, built[0], candidate.model, seconds, graph)

    def _parse(self, source: Source, way: Way) -> TargetResult:
        # Network and parser stay alive to the end of this function: the parser holds pointers to the others.
        announce(Stage.PARSE)
        trt, candidate = self._trt, source.candidate
        builder = self._kept().builder
        network = builder.create_network(api.network_flags(trt) | knobs.network_flags(trt, self._settings))
        parser = trt.OnnxParser(network, self._logger)
        try:
            if way.file is not None:
                parsed = parser.parse_from_file(str(way.file))
            else:
                parsed = parser.parse(source.model, str(source.folder / "probe.onnx"))
        except RuntimeError as e:  # a plugin's library that cannot be loaded, say
            return self._failed([failure(candidate.model, Stage.PARSE, str(e))])
        if not parsed:
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            blame = blame_of(candidate.model)
            failures = list(dict.fromkeys(parse_failure(e, blame, TITLES[self._flavour]) for e in errors))
            if not failures:
                message = first(self._log.errors(), "The parser refused the model without a message.")
                failures = [failure(candidate.model, Stage.PARSE, message)]
            stacks = {
                str(i): stack
                for i, e in enumerate(errors)
                if (stack := list(detail(e, "local_function_stack", ())))
            }
            return self._failed(failures, {"local_function_stack": stacks} if stacks else {})
        source.facts["network_outputs"] = trt_engine.network_outputs(network)
        if candidate.parse_only:
            return TargetResult(log=self._log.text(), facts=source.facts)
        if self._settings.precision:
            # What is really asked of the builder: the types of the network, whatever the flags say.
            source.facts["network_types"] = trt_engine.network_types(network)
        return self._build(source, way, builder, network)

    def _build(self, source: Source, way: Way, builder: Any, network: Any) -> TargetResult:
        announce(Stage.BUILD)
        candidate, facts = source.candidate, source.facts
        if way.inside:
            trt_engine.mark(network)
        try:
            config = make_config(self._trt, builder, network, self._settings, candidate, self._log)
        except RuntimeError as e:  # it takes no profile of a shape that its parser misread
            return self._failed([failure(candidate.model, Stage.BUILD, str(e))], facts)
        if candidate.keep is not None and not api.is_strongly_typed(self._trt):
            low = self._trt.bfloat16 if self._settings.precision == "bf16" else self._trt.float16
            keep, nodes = candidate.keep, candidate.nodes
            facts["fp32_layers"] = constraints.constrain(self._trt, network, config, keep, nodes, low)
        phases = progress.watch(self._trt, config)
        before = len(self._log.records)
        try:
            plan = builder.build_serialized_network(network, config)
            raised = ""
        except RuntimeError as e:
            plan, raised = None, str(e)
        finally:
            phases.close()
        if plan is None and phases.stopped:
            return TargetResult(log=self._log.text(), unresolved="the build was asked to stop")
        if plan is None:
            # The parser may accept a model and log an error that only the build trips over.
            errors = [*self._log.errors(before), *self._log.errors()]
            silent = raised or "The builder gave no engine and no message."
            message = first_that_matters(errors, silent, here=self._gpu is not None)
            return self._failed([failure(candidate.model, Stage.BUILD, message)], facts)
        chosen = self._settings.without_tactics or self._settings.with_tactics
        cache = None if chosen else self._settings.timing_cache  # a selector makes no use of it
        if cache is not None and candidate.form is not Form.WRITTEN:  # what came with files stays as it is
            timing.keep(config, cache)
        facts["engine_bytes"] = plan.nbytes
        if self._why_not_run():
            return TargetResult(log=self._log.text(), facts=facts)
        return self._load(candidate, way, plan, facts)

    def _load(self, candidate: Candidate, way: Way, plan: Any, facts: dict[str, Any]) -> TargetResult:
        announce(Stage.LOAD)
        before = len(self._log.records)
        engine = warm.runtime(self._trt, self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            message = first(self._log.errors(before), "The engine could not be loaded.")
            if _REFUSES_CARD.search(message):
                raise TargetUnavailable(f"{TITLES[self._flavour]}: {' '.join(message.split())}", _BUILD_ONLY)
            return self._failed([failure(candidate.model, Stage.LOAD, message)], facts)
        if candidate.form in (Form.ORIGINAL, Form.WRITTEN):
            facts["engine"] = trt_engine.engine_layers(self._trt, engine)
        if way.built is not None:
            way.built.append(engine)
            return TargetResult(log=self._log.text(), facts=facts)
        return self._run(candidate, way, engine, facts)

    def _run(self, candidate: Candidate, way: Way, engine: Any, facts: dict[str, Any]) -> TargetResult:
        before = len(self._log.records)
        # Read when Polygraphy is imported.
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(self._flavour == "tensorrt-rtx"))
        polygraphy = importlib.import_module("polygraphy.backend.trt")
        exception = importlib.import_module("polygraphy.exception").PolygraphyException
        samples, types = loaded(candidate)
        announce(Stage.RUN)
        outputs: list[Mapping[str, Array]] = []
        try:
            with polygraphy.TrtRunner(engine) as runner:
                if way.inside:
                    trt_engine.switch_on(runner.context)
                for feeds in samples:
                    given = runner.infer(for_engine(self._trt, engine, feeds), check_inputs=False)
                    made = {name: from_engine(given[name], kind) for name, kind in types.items()}
                    if way.inside:
                        made = trt_engine.inside(given, types, self._settings.precision) | made
                    outputs.append(made)
                if candidate.keep is not None and samples:  # what a set of nodes costs
                    facts["run_seconds"] = trt_engine.timed(runner, for_engine(self._trt, engine, samples[0]))
        except KeyError as e:  # an input handed on as an output goes by another name in some networks
            why = f"the engine gives no output {e}"
            return TargetResult(log=self._log.text(), facts=facts, unresolved=why)
        except (exception, RuntimeError) as e:
            if not gpu.is_well():
                gpu.spoil()
            message = first(self._log.errors(before), str(e))
            return self._failed([failure(candidate.model, Stage.RUN, message)], facts)
        return TargetResult(outputs=tuple(outputs), log=self._log.text(), facts=facts)

    def _failed(self, failures: list[Failure], facts: Mapping[str, Any] | None = None) -> TargetResult:
        for failed in failures:
            gpu.heed(failed.message)
        return TargetResult(failures=tuple(failures), log=self._log.text(), facts=facts or {})
