"""onnx's own C++ on strangers' models, in a process that may die: inference, checker, converter, inliner.

One process is started with the first question and kept warm; a question costs a copy of the model without
its weights. Shape inference was seen to abort and to run for ever on models of other projects: a question
that ends the process, or is not answered in time, is *not known*, and the tool goes on without. In a worker,
which is such a process already, the same questions are answered where they are asked.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import onnx
from onnx import ModelProto, inliner, version_converter

from bisect_trt.machine import limits, server
from bisect_trt.machine.process import Answer, BrokenError, EndedError, WorkerProcess

PATIENCE = 10.0
"""Seconds for a question about a small model; one of usual size takes milliseconds."""

SECONDS_PER_BYTE = 1e-5
"""More time for large models: ten seconds for each megabyte of graph."""

onnx.defs.has("Identity")  # makes onnx's 1,000 schemas, 14 ms, which processes forked from this one then have

STRIKES = 2
"""Deaths over one kind of question after which it is not asked again of the same model."""

_REMEMBERED = 1 << 16  # bytes of a model whose answers are kept
_MEMORY = 0.5  # of the machine's memory, as address space of the process


class RefusedError(Exception):
    """onnx answered that the model is not valid, or that it cannot do this; the text is its own."""


class NotKnownError(Exception):
    """The question ended the process that was asked, or was not answered in time."""


def infer_shapes(
    proto: ModelProto, *, check_type: bool = False, strict_mode: bool = False, data_prop: bool = False
) -> ModelProto:
    """Ask `onnx.shape_inference.infer_shapes`. Raises RefusedError or NotKnownError."""
    options = {"check_type": check_type, "strict_mode": strict_mode, "data_prop": data_prop}
    return _answer("infer", proto, options)


def check_model(proto: ModelProto) -> None:
    """Ask `onnx.checker.check_model`. Raises RefusedError or NotKnownError."""
    _answer("check", proto, {})


def convert_version(proto: ModelProto, version: int) -> ModelProto:
    """Ask `onnx.version_converter.convert_version`. Raises RefusedError or NotKnownError."""
    return _answer("convert", proto, {"target_version": version})


def inline_local_functions(proto: ModelProto, *, convert_version: bool = False) -> ModelProto:
    """Ask `onnx.inliner.inline_local_functions`. Raises RefusedError or NotKnownError."""
    return _answer("inline", proto, {"convert_version": convert_version})


def _check(proto: ModelProto) -> ModelProto:
    onnx.checker.check_model(proto)
    return ModelProto()


# What travels to the process is where each is found: tests put programs of ours that end themselves here.
_TOOLS: dict[str, Callable[..., ModelProto]] = {
    "infer": onnx.shape_inference.infer_shapes,
    "check": _check,
    "convert": version_converter.convert_version,
    "inline": inliner.inline_local_functions,
}


class _Service:
    """The process that is asked, one question at a time."""

    def __init__(self) -> None:
        self.here = False  # this process may die itself: it is a worker
        self.strikes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None

    def ask(
        self, function: Callable[..., ModelProto], tool: str, model: bytes, options: dict[str, Any]
    ) -> tuple[bool, bytes]:
        """Return whether the tool succeeded, and its model or refusal. Raises NotKnownError."""
        with self._lock:
            if self.strikes[tool] >= STRIKES:
                raise NotKnownError(f"{tool}: it ended its process {STRIKES} times")
            seconds = PATIENCE + len(model) * SECONDS_PER_BYTE
            try:
                ok, answer, _ = self._started().do((function, (model, options)), seconds)
            except (EndedError, BrokenError, TimeoutError) as error:
                self.stop()
                self.strikes[tool] += 1
                raise NotKnownError(f"{tool}: {type(error).__name__}") from error
            except BaseException:  # Ctrl-C: the answer that is on its way is nobody's
                self.stop()
                raise
            return ok, answer

    def _started(self) -> WorkerProcess:
        if self._process is None or self._process.exit_code() is not None:
            self.stop()
            given = (dict(os.environ), os.getpid())
            self._process = WorkerProcess(server.context(), _call, _begin, given)
        return self._process

    def stop(self) -> None:
        """End the process; the next question starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.end()


_service = _Service()
atexit.register(_service.stop)  # multiprocessing would wait for the process to end by itself


def _answer(tool: str, proto: ModelProto, options: dict[str, Any]) -> ModelProto:
    if _service.here:
        try:
            return _TOOLS[tool](proto, **options)
        except Exception as error:  # onnx raises several kinds, with no common base
            raise RefusedError(_words(error)) from error
    model = proto.SerializeToString()
    ask = _asked if len(model) <= _REMEMBERED else _asked.__wrapped__
    ok, answer = ask(_TOOLS[tool], tool, model, tuple(options.items()))
    if not ok:
        raise RefusedError(answer.decode())
    made: ModelProto = ModelProto.FromString(answer)
    return made


@lru_cache(maxsize=64)
def _asked(
    function: Callable[..., ModelProto], tool: str, model: bytes, options: tuple[tuple[str, Any], ...]
) -> tuple[bool, bytes]:
    """Return what `function` answers. The rounds of a simplification ask the same of the same bytes again."""
    return _service.ask(function, tool, model, dict(options))


def stay_here() -> None:
    """Let this process answer its own questions from now on: it is a worker, and its death is noticed."""
    _service.here = True


def forget_strikes() -> None:
    """Begin anew with another model: what its predecessor did to the process says nothing of it."""
    _service.strikes.clear()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _begin(environment: dict[str, str], parent: int) -> None:
    """Prepare the process before its first question."""
    server.leave(environment)
    limits.die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limits.no_core_dump()
    limits.limit_memory(int(limits.total_memory() * _MEMORY))
    silence = os.open(os.devnull, os.O_WRONLY)  # what C++ prints when it ends itself is not for the user
    os.dup2(silence, 1)
    os.dup2(silence, 2)


def _call(function: Callable[..., ModelProto], given: tuple[Any, ...]) -> Answer:
    """Answer a question, in the process."""
    model, options = given
    try:
        return True, function(ModelProto.FromString(model), **options).SerializeToString(), 0.0
    except MemoryError:
        os._exit(1)
    except Exception as error:  # as in `_answer`
        return False, _words(error).encode(errors="replace"), 0.0
