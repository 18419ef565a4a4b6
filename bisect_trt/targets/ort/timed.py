"""A session of ONNX Runtime with a clock, and its profile as layers.

Times are those of a clock of this process around `run_with_ort_values`: inputs lie in this process' memory
and outputs are allocated, as in a program that calls the session. The profile is ONNX Runtime's own
(`SessionOptions.enable_profiling`, https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html):
an event `NAME_kernel_time` for each node of the optimised graph. Which nodes of the model that node computes
is read from the optimised graph itself, which ONNX Runtime saves: whatever lies between its outputs and
tensors that other nodes of it have made.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import psutil

from bisect_trt.errors import UsageError
from bisect_trt.machine.limits import held_bytes
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import consumed
from bisect_trt.model.load import read_without_weights
from bisect_trt.outcome import Array
from bisect_trt.targets.ort.messages import essence
from bisect_trt.targets.timed import HOST, FailedError, Layer, Layers, Opened, repeated, typical_layers

_KERNEL = "_kernel_time"
_CAST = "InsertedPrecisionFreeCast_"  # before tensors that ONNX Runtime computes in float32
_NARROW = re.compile(r"__(fp16|bf16)$")  # the twin of a tensor where `--precision` casts, `model.precision`
_BLOCKED = "_nchwc"  # what ONNX Runtime's layout of blocked channels puts behind the name of a tensor

Tune = Callable[[Any], None]


class OrtTimed:
    """See `targets.timed.Timed`."""

    def __init__(
        self, session: Callable[..., Any], candidate: Candidate, *, on_gpu: bool, graph: bool
    ) -> None:
        """Build; `session(tune=...)` makes one whose options a function has changed.

        Raises:
            FailedError: it cannot be built.
            UsageError: CUDA graphs are an option of the provider here.
        """
        if graph:
            hint = "ort:CUDA?enable_cuda_graph=1 is ONNX Runtime's own way"
            raise UsageError("--cuda-graph is for TensorRT", hint)
        self._session_with = session
        self._candidate = candidate
        self._values: dict[str, Any] = {}
        process = psutil.Process()
        before, began = held_bytes(process), time.perf_counter()
        self._session = self._make(_as_deployed)
        seconds = time.perf_counter() - began
        copies = "Time is that of the host: copies of inputs and outputs to and from the GPU count."
        held = max(0, held_bytes(process) - before)
        self.opened = Opened(HOST, seconds, {"host": held}, (copies,) if on_gpu else ())

    def feed(self, inputs: Mapping[str, Array]) -> None:
        """Take inputs for the next runs."""
        from bisect_trt.references.ort import to_ort

        known = {value.name for value in self._session.get_inputs()}
        self._values = {name: to_ort(value) for name, value in inputs.items() if name in known}

    def run(self, seconds: float, most: int) -> list[float]:
        """See `Timed.run`."""
        return repeated(self._once(self._session), seconds, most)

    def layers(self, runs: int) -> Layers | None:
        """Run a second session that writes ONNX Runtime's profile; the first one is never slowed by it."""
        from statistics import median  # 2 ms, for all who never ask for this

        with tempfile.TemporaryDirectory(prefix="bisect-trt-profile-") as name:
            folder = Path(name)
            session, optimised = self._profiled(folder)
            took = list(zip(range(runs + 1), self._once(session), strict=False))
            events = json.loads(Path(session.end_profiling()).read_text())
            graph = read_without_weights(self._candidate.content).graph
            owners = owned(graph, optimised.graph) if optimised is not None else {}
        done = kernel_times(events, runs)
        ops = {name: op for one in done for name, op, _ in one}
        seconds = typical_layers([[(name, taken) for name, _, taken in one] for one in done])
        known = {node.name for node in graph.node}
        found = tuple(
            Layer(name, ops[name], owners.get(name, (name,) if name in known else ()), taken)
            for name, taken in seconds.items()
        )
        return Layers(found, median(taken for _, taken in took[1:]))

    def _profiled(self, folder: Path) -> tuple[Any, onnx.ModelProto | None]:
        """Return a session that writes its profile, and the graph that it executes, where it can be saved."""
        place = folder / "optimised.onnx"

        def profiling(options: Any) -> None:
            _as_deployed(options)
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "profile")

        def saving(options: Any) -> None:
            profiling(options)
            options.optimized_model_filepath = str(place)
            outside = "session.optimized_model_external_initializers_"
            options.add_session_config_entry(f"{outside}file_name", "weights.bin")
            options.add_session_config_entry(f"{outside}min_size_in_bytes", "1024")

        with suppress(FailedError):  # a provider that compiles its part leaves nothing that can be saved
            session = self._make(saving)
            return session, onnx.load(str(place), load_external_data=False)
        return self._make(profiling), None

    def _make(self, tune: Tune) -> Any:
        try:
            return self._session_with(tune=tune)
        except Exception as e:  # ONNX Runtime's exceptions have no common base but this
            raise FailedError(essence(str(e))) from e

    def _once(self, session: Any) -> Iterator[float]:
        run, values = session.run_with_ort_values, self._values
        while True:
            began = time.perf_counter()
            try:
                run(None, values)
            except Exception as e:  # ONNX Runtime's exceptions have no common base but this
                raise FailedError(essence(str(e))) from e
            yield time.perf_counter() - began


def _as_deployed(options: Any) -> None:
    """Let threads that wait spin, as ONNX Runtime has them do unless it is told otherwise."""
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")


def kernel_times(events: list[Any], runs: int) -> list[list[tuple[str, str, float]]]:
    """Return the name, operator and seconds of each kernel of the last `runs` runs of a profile."""
    found: list[list[tuple[str, str, float]]] = [[]]
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            op = str(event.get("args", {}).get("op_name", ""))
            found[-1].append((name.removesuffix(_KERNEL), op, float(event["dur"]) * 1e-6))
        elif name == "model_run":
            found.append([])
    return [one for one in found if one][-runs:]


def owned(model: onnx.GraphProto, optimised: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Return, for each node of the optimised graph, the nodes of the model that it computes, in order.

    A node of the model that two of them need is given to the first one; what no input of the model flows
    into is computed before any run.
    """
    weights = {tensor.name for tensor in model.initializer}
    varies = {value.name for value in model.input} - weights
    running = set()
    for at, node in enumerate(model.node):
        if not varies.isdisjoint(consumed(node)):
            running.add(at)
            varies.update(node.output)
    maker = {tensor: at for at, node in enumerate(model.node) for tensor in node.output if tensor}
    own = [(node.name, made) for node in optimised.node if (made := _tensors(node, maker))]
    ends = {tensor for _, made in own for tensor in made}
    taken: set[int] = set()
    found: dict[str, tuple[str, ...]] = {}
    for name, made in own:
        mine: set[int] = set()
        todo = [maker[tensor] for tensor in made]
        while todo:
            at = todo.pop()
            if at in running and at not in taken:
                taken.add(at)
                mine.add(at)
                todo += [maker[t] for t in consumed(model.node[at]) if t in maker and t not in ends]
        found[name] = tuple(model.node[at].name for at in sorted(mine))
    return found


def _tensors(node: onnx.NodeProto, maker: Mapping[str, int]) -> tuple[str, ...]:
    """Return the tensors of the model that a node of the optimised graph makes; a cast of one makes none."""
    made = tuple(tensor for tensor in map(_plain, node.output) if tensor in maker)
    if node.op_type == "Cast" and made and made[0] == _plain(node.input[0]):
        return ()
    named = _plain(node.name.removesuffix(_BLOCKED))
    return made or ((named,) if node.name.endswith(_BLOCKED) and named in maker else ())


def _plain(tensor: str) -> str:
    """Return the name of a tensor in the model, without what `--precision` and ONNX Runtime put to it."""
    return _NARROW.sub("", tensor.removeprefix(_CAST))
