"""TensorRT and TensorRT-RTX: parse, build and, where a GPU allows, run.

One adapter for both: `tensorrt` and `tensorrt_rtx` have one API. Methods that came or went between
TensorRT 8.6 and 11 are looked up, never assumed. The module is imported by `TensorRT()` only, which
happens in worker processes.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
from collections.abc import Mapping
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bisect_trt.errors import BisectError, TargetUnavailable
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.signature import mask
from bisect_trt.targets import gpu, trt_config, trt_debug
from bisect_trt.targets.base import Array, TargetInfo, TargetResult, announce
from bisect_trt.targets.blame import Blame
from bisect_trt.targets.trt_arrays import for_engine, from_engine
from bisect_trt.targets.trt_log import logger_for

Flavour = Literal["tensorrt", "tensorrt-rtx"]

TITLES: Mapping[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
HOW_TO_GET: Mapping[Flavour, str] = {
    "tensorrt": "pip install tensorrt --extra-index-url https://pypi.nvidia.com",
    "tensorrt-rtx": "pip install bisect-trt[rtx]",
}
_OUT_OF_MEMORY = re.compile(
    r"out of (?:device |host |gpu )?memory|OutOfMemory|bad_alloc|MEM_ALLOC_FAILED|cannot allocate memory"
    r"|insufficient (?:memory|workspace)|could not be allocated|(?:memory|workspace) (?:is )?too small",
    re.IGNORECASE,
)
_NEEDS_GPU = re.compile(r"\bCuda Runtime \(In |\bcudaError 35\b")
# Messages that are the same for every operator: without it, two causes would have one signature.
_SAYS_ONLY_WHO = re.compile(r" has no runners|any implementation for node (?!\{?ForeignNode)")


class TensorRT:
    """One TensorRT module as a target, see `targets.base.Target`."""

    def __init__(self, settings: TargetSettings, flavour: Flavour) -> None:
        """Import the module and load plugins.

        Raises:
            TargetUnavailable: the module is missing or has no libraries (PyPI's `tensorrt` is a stub).
            UsageError: a plugin library or the verbose log cannot be used.
        """
        self._settings = settings
        self._flavour = flavour
        self._trt = import_tensorrt(flavour)
        self._logger, self._log = logger_for(self._trt)
        self._log.write_all_to(settings.verbose_log)
        self._gpu = gpu.find_gpu()
        self._broken = False  # an engine failed while it ran
        self._look_inside = False
        trt_config.load_plugins(self._trt, self._logger, settings.plugins)

    def info(self) -> TargetInfo:
        """Describe the module and the GPU. Build only without a GPU that can run its engines."""
        version = str(self._trt.__version__)
        versions = {self._flavour: version, **(self._gpu.versions() if self._gpu else {})}
        refused = self._why_not_run()
        notes = [refused] if refused else []
        if self._flavour == "tensorrt-rtx" and self._settings.timing_cache is not None:
            notes.append("TensorRT-RTX keeps no timing cache: --timing-cache has no effect.")
        return TargetInfo(
            name=self._flavour,
            title=f"{TITLES[self._flavour]} {version}",
            can_run=not refused,
            notes=tuple(notes),
            versions=versions,
        )

    def _why_not_run(self) -> str:
        """Why engines cannot be run here; empty when they can."""
        seen = "engines are built but not run, outputs are not compared."
        if self._gpu is None:
            return f"No GPU here: {seen}"
        major, minor = self._gpu.compute_capability
        # As TensorRT-RTX 1.7.1 says itself: 8.0 8.6 8.9 12.0 12.1 >12.0.
        if self._flavour == "tensorrt-rtx" and major < 12 and (major, minor) not in ((8, 0), (8, 6), (8, 9)):
            return (
                f"TensorRT-RTX cannot run on this GPU ({self._gpu.name}, compute capability {major}.{minor};"
                f" it takes 8.0, 8.6, 8.9 and 12.0 up): {seen}"
            )
        return ""

    def run(self, candidate: Candidate) -> TargetResult:
        """Parse, build and, where possible, run the candidate on each of its samples.

        Raises:
            UsageError: settings that this model or this TensorRT cannot follow.
        """
        if self._broken:
            # A CUDA error stays with its process. The pool runs the job again in a fresh worker when this
            # one is killed from outside its control.
            os.kill(os.getpid(), signal.SIGKILL)
        self._log.clear()
        try:
            return self._parse(candidate)
        except BisectError:
            raise
        except MemoryError as e:
            return self._failed([self._failure(candidate, Stage.BUILD, f"std::bad_alloc {e}".strip())])

    def run_in_context(self, candidate: Candidate) -> TargetResult:
        """As `run`; outputs also hold the tensors inside the engine, as far as it shows them.

        They have the engine's own names, which often are those of the model.
        """
        self._look_inside = True
        try:
            return self.run(candidate)
        finally:
            self._look_inside = False

    def _parse(self, candidate: Candidate) -> TargetResult:
        # All three stay alive to the end of this function: the parser holds pointers to the others.
        announce(Stage.PARSE)
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, self._logger)
        parsed = parser.parse(candidate.model, str(candidate.folder / "probe.onnx"))
        if not parsed:
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            blame = _blame(candidate)
            failures = list(dict.fromkeys(self._parse_failure(e, blame) for e in errors))
            if not failures:
                message = _first(self._log.errors(), "The parser refused the model without a message.")
                failures = [self._failure(candidate, Stage.PARSE, message)]
            stacks = {
                str(i): stack
                for i, e in enumerate(errors)
                if (stack := list(_get(e, "local_function_stack", ())))
            }
            return self._failed(failures, {"local_function_stack": stacks} if stacks else {})
        return self._build(candidate, builder, network)

    def _parse_failure(self, error: Any, blame: Blame) -> Failure:
        desc, name, op = str(error.desc()), _get(error, "node_name", ""), _get(error, "node_operator", "")
        index, func = int(error.node()), _get(error, "func", "")
        code = getattr(error.code(), "name", str(error.code()))
        inner = bool(_get(error, "local_function_stack", ()))
        # The name is surest, but inside a function or a subgraph it is not a node of the graph.
        node = name if name and not inner and blame.has(name) else blame.node_at(index)
        return Failure(
            stage=Stage.PARSE,
            symptom=_symptom(f"{code} {desc}"),
            signature=f"{code}:{op}:{func}: {mask(desc, blame.names)}",
            message=f"{desc}\n{_get(error, 'file', '')}:{_get(error, 'line', '')} {func}".rstrip(" :\n"),
            nodes=(node,) if node else (),
            op=op or blame.op(node),
        )

    def _build(self, candidate: Candidate, builder: Any, network: Any) -> TargetResult:
        announce(Stage.BUILD)
        if self._look_inside:
            trt_debug.mark(network)
        config = trt_config.make_config(self._trt, builder, network, self._settings, candidate, self._log)
        before = len(self._log.records)
        try:
            engine = builder.build_serialized_network(network, config)
            raised = ""
        except RuntimeError as e:
            engine, raised = None, str(e)
        if engine is None:
            # The parser may accept a model and log an error that only the build trips over.
            message = self._first_that_matters(before, raised or "The builder gave no engine and no message.")
            return self._failed([self._failure(candidate, Stage.BUILD, message)])
        if self._settings.timing_cache is not None:
            trt_config.save_timing_cache(config, self._settings.timing_cache)
        facts = {"engine_bytes": engine.nbytes}
        if self._why_not_run():
            return TargetResult(log=self._log.text(), facts=facts)
        return self._run(candidate, engine, facts)

    def _first_that_matters(self, before: int, silent: str) -> str:
        """The error that made the build fail: the first since record `before`, else since the parse.

        Without a GPU TensorRT also complains of the missing driver, which says nothing of the model.
        """
        errors = [*self._log.errors(before), *self._log.errors()]
        about_model = errors if self._gpu else [e for e in errors if not _NEEDS_GPU.search(e)]
        if errors and not about_model:
            return f"{errors[0]}\nThis step of the builder asks for a GPU, and none is here."
        return _first(about_model, silent)

    def _run(self, candidate: Candidate, engine_bytes: Any, facts: Mapping[str, Any]) -> TargetResult:
        announce(Stage.LOAD)
        before = len(self._log.records)
        runtime = self._trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(engine_bytes)
        if engine is None:
            message = _first(self._log.errors(before), "The engine could not be loaded.")
            return self._failed([self._failure(candidate, Stage.LOAD, message)], facts)
        # Read when Polygraphy is imported.
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(self._flavour == "tensorrt-rtx"))
        polygraphy = importlib.import_module("polygraphy.backend.trt")
        exception = importlib.import_module("polygraphy.exception").PolygraphyException
        samples, types = _loaded(candidate)
        announce(Stage.RUN)
        outputs: list[Mapping[str, Array]] = []
        try:
            with polygraphy.TrtRunner(engine) as runner:
                if self._look_inside:
                    trt_debug.switch_on(runner.context)
                for feeds in samples:
                    given = runner.infer(for_engine(self._trt, engine, feeds), check_inputs=False)
                    seen = trt_debug.inside(given, types) if self._look_inside else {}
                    outputs.append({**seen, **{n: from_engine(given[n], kind) for n, kind in types.items()}})
        except (exception, RuntimeError) as e:
            self._broken = True
            message = _first(self._log.errors(before), str(e))
            return self._failed([self._failure(candidate, Stage.RUN, message)], facts)
        return TargetResult(outputs=tuple(outputs), log=self._log.text(), facts=facts)

    def _failure(self, candidate: Candidate, stage: Stage, message: str) -> Failure:
        """A failure that is known by a message of the log only."""
        blame = _blame(candidate)
        nodes = blame.nodes_in(message)
        op = blame.op(nodes[0]) if nodes else ""
        signature = mask(message, blame.names)
        if op and _SAYS_ONLY_WHO.search(message):
            signature = f"{op}: {signature}"
        return Failure(
            stage=stage,
            symptom=_symptom(message),
            signature=signature,
            message=message,
            nodes=nodes,
            op=op,
        )

    def _failed(self, failures: list[Failure], facts: Mapping[str, Any] | None = None) -> TargetResult:
        return TargetResult(failures=tuple(failures), log=self._log.text(), facts=facts or {})


def import_tensorrt(flavour: Flavour) -> Any:
    """The module of a flavour.

    Raises:
        TargetUnavailable: it is missing or does not load.
    """
    try:
        module = importlib.import_module(flavour.replace("-", "_"))
        module.Builder, module.OnnxParser  # noqa: B018 - a stub without libraries may still import
    except Exception as e:  # a missing libcudart raises OSError, PyPI's stub whatever it likes
        why = " ".join(str(e).split())[:300]
        raise TargetUnavailable(
            f"{TITLES[flavour]} cannot be used: {why}", f"Install it with: {HOW_TO_GET[flavour]}"
        ) from e
    return module


def _network_flags(trt: Any) -> int:
    """TensorRT 8 and 9 need explicit batch asked for; from 10 on it is the only mode."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 1 << int(flag) if flag is not None and int(trt.__version__.split(".")[0]) in (8, 9) else 0


def _symptom(message: str) -> Symptom:
    return Symptom.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(message) else Symptom.ERROR


def _get(error: Any, method: str, default: Any) -> Any:
    """A detail of a parser error; TensorRT 8.6 and 10.0 lack some."""
    found = getattr(error, method, None)
    return default if found is None else found()


def _blame(candidate: Candidate) -> Blame:
    try:
        return Blame(onnx.load_model_from_string(candidate.model))
    except DecodeError:  # what TensorRT refused is no model at all
        return Blame(onnx.ModelProto())


def _first(messages: list[str], default: str) -> str:
    return messages[0] if messages else default


def _loaded(candidate: Candidate) -> tuple[list[Mapping[str, Array]], dict[str, int]]:
    """The feeds of each sample with the types that the model declares, and the types of its outputs."""
    graph = onnx.load_model_from_string(candidate.model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    store = Store(candidate.folder)
    samples: list[Mapping[str, Array]] = [
        {name: store.load(path, types[name]) for name, path in sample.items() if name in types}
        for sample in candidate.feeds
    ]
    return samples, {value.name: types[value.name] for value in graph.output}
