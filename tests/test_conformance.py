"""docs/conformance.md against what we call, and against what TensorRT has from 8.6 to 11 and TensorRT-RTX."""

from __future__ import annotations

import importlib
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

import fake_trt
import trt_calls
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.store import Store
from bisect_trt.outcome import Built, Stage
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.tensorrt import backend, log, tactics, timing
from bisect_trt.targets.tensorrt.backend import TensorRT
from bisect_trt.targets.timed import FailedError
from bisect_trt.workers import jobs

TABLE = Path(__file__).parents[1] / "docs" / "conformance.md"
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", re.M)
ALL = fake_trt.snapshots()
RUNTIME_ONLY = "tensorrt-lean"


def rows() -> dict[str, tuple[str, str, str]]:
    """Call: where TensorRT has it, where TensorRT-RTX has it, what happens elsewhere."""
    found = {call: (a.strip(), b.strip(), c.strip()) for call, a, b, c in ROW.findall(TABLE.read_text())}
    assert len(found) > 50
    return found


def has(snapshot: dict[str, Any], call: str) -> bool:
    kind, _, member = call.rpartition(".")
    return member in (snapshot["classes"].get(kind, {}) if kind else snapshot["names"])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def said(where: str, version: tuple[int, ...]) -> bool:
    """Whether `8.6`, `10.0 to 10.16`, `no` covers a version."""
    if where == "no":
        return False
    first, _, last = where.partition(" to ")
    return numbers(first) <= version and (not last or version <= numbers(last))


def test_the_table_has_what_we_call_and_nothing_else() -> None:
    calls, table = trt_calls.calls(), set(rows())
    assert not calls - table, "not in docs/conformance.md"
    assert not table - calls, "in docs/conformance.md, but never called"


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_table_says_where_each_call_exists(name: str) -> None:
    flavour, _, version = name.rpartition("-")
    snapshot, wrong = ALL[name], []
    for call, (trt, rtx, _) in rows().items():
        where = rtx if flavour == "tensorrt-rtx" else trt
        if flavour == RUNTIME_ONLY and not has(snapshot, call):
            continue  # the lean runtime has no builder and no parser
        if where != "callback" and said(where, numbers(version)) != has(snapshot, call):
            wrong.append(call)
    assert not wrong


def test_what_is_missing_somewhere_has_a_word_on_it() -> None:
    for call, (trt, rtx, missing) in rows().items():
        everywhere = {trt, rtx} <= {"8.6", "1.4", "callback"}
        assert bool(missing) != everywhere, call


def test_callbacks_are_methods_of_ours() -> None:
    """TensorRT calls them: the class has to be there, and the module need not list them."""
    for call, (trt, _, _) in rows().items():
        if trt == "callback":
            assert all(has(s, call.split(".")[0]) for s in ALL.values()), call


def test_signatures_are_the_same_in_all_versions() -> None:
    """By names of parameters: these, and their order, are what we rely on. Every method of the table."""
    checked, differ = 0, set()
    for call in rows():
        kind, _, member = call.partition(".")
        known = (s["classes"].get(kind, {}).get(member, "") for s in ALL.values())
        seen = {
            tuple(re.findall(r"(\w+)(?:: [^,)]+)?(?=[,)])", text.split(" -> ")[0]))
            for text in known
            if "(" in str(text)
        }
        checked += bool(seen)
        differ |= {call} if len(seen) > 1 else set()
    assert checked > 40
    assert differ == {"ICudaEngine.create_execution_context"}  # Polygraphy and repro.py give it nothing


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_what_is_installed_here_is_as_the_table_says(module: str) -> None:
    try:
        trt = importlib.import_module(module)
        version = numbers(trt.__version__)
    except Exception:
        pytest.skip(f"{module} is not installed here")
    for call, (a, b, _) in rows().items():
        where = b if module == "tensorrt_rtx" else a
        found: Any = trt
        for part in call.split("."):
            found = getattr(found, part, None)
        if where != "callback":
            assert said(where, version) == (found is not None), call


# The adapter on modules that have the names of a version and no others


class Runner:
    """Polygraphy's, as far as it is used."""

    def __init__(self, engine: Any) -> None:
        self.context = Runner.make("IExecutionContext")

    make: Any = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def last_inference_time(self) -> float:
        return 0.25

    def infer(self, feeds: dict[str, Any], check_inputs: bool) -> dict[str, Any]:
        return {"y": feeds["x"], "inside": np.ones(3, np.float32)}


@pytest.fixture(params=sorted(k for k in ALL if not k.startswith(RUNTIME_ONLY)))
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> fake_trt.Fake:
    """A module that has the names of a snapshot, imported as TensorRT."""
    name = request.param
    module = name.rpartition("-")[0].replace("-", "_")
    fake = fake_trt.Fake(ALL[name], module)
    monkeypatch.setitem(sys.modules, module, fake)  # type: ignore[arg-type]
    monkeypatch.setattr(log, "_loggers", {})
    monkeypatch.setattr(gpu, "find_gpu", lambda: gpu.Gpu("planted", (8, 9), "13.0", "580"))
    monkeypatch.setattr(Runner, "make", fake.make)
    polygraphy = SimpleNamespace(TrtRunner=Runner)
    exceptions = SimpleNamespace(PolygraphyException=ValueError)
    real = importlib.import_module
    fakes = {"polygraphy.backend.trt": polygraphy, "polygraphy.exception": exceptions, module: fake}
    monkeypatch.setattr(backend.importlib, "import_module", lambda n: fakes.get(n) or real(n))
    return fake


def candidate(folder: Path, form: Form = Form.ORIGINAL) -> Candidate:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "r")], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    feeds = ({"x": Store(folder).put("x", np.ones((2, 3), np.float32))},)
    return Candidate(model.SerializeToString(), folder, ("r",), feeds, form=form)


def opened(fake: fake_trt.Fake, **settings: Any) -> TensorRT:
    flavour = fake.__name__.replace("_", "-")
    return TensorRT(TargetSettings(spec=flavour, **settings))  # type: ignore[arg-type]


def test_every_stage_runs_on_every_version(version: fake_trt.Fake, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    target = opened(version, workspace=2**20, opt_level=3, tf32=True, timing_cache=cache)
    info = target.info()
    assert info.can_run
    result = target.run(candidate(tmp_path))
    assert result.failures == () and result.outputs is not None and list(result.outputs[0]) == ["y"]
    assert result.facts["engine_bytes"] == 7 and result.facts["engine"]["layers"] == 1
    assert cache.read_bytes() == b"timing"
    inside = target.run_in_context(candidate(tmp_path)).outputs
    assert inside is not None and set(inside[0]) == {"y", "inside"}
    version.refuses = True
    version._behave()
    (failure,) = target.run(candidate(tmp_path)).failures
    assert failure.stage is Stage.PARSE and failure.nodes == ("r",)


def test_notes_say_what_is_off(version: fake_trt.Fake) -> None:
    notes = " ".join(opened(version).info().notes)
    old = not version.__name__.endswith("rtx") and numbers(version.__version__) < (10, 0)
    assert ("progress" in notes) is old
    assert ("no view in context" in notes) is not hasattr(
        version.INetworkDefinition,  # type: ignore[attr-defined]
        "mark_unfused_tensors_as_debug_tensors",
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_by_flags_or_by_casts_and_never_silently_float32(
    version: fake_trt.Fake, precision: str, tmp_path: Path
) -> None:
    target = opened(version, precision=precision)
    number = numbers(version.__version__)
    weak = version.__name__ == "tensorrt" and number < (11, 0)
    if weak and precision == "bf16" and number < (9, 0):
        with pytest.raises(UsageError, match="has no such precision"):
            target.run(candidate(tmp_path))
        return
    result = target.run(candidate(tmp_path))
    flags = {getattr(flag, "name", "") for flag in version.flags}
    assert (precision.upper() in flags) is weak
    assert ("cast" in result.facts) is not weak
    assert result.facts["network_types"] == {"HALF": 2}
    assert any(f"--precision {precision}" in note for note in target.info().notes)


def test_nodes_stay_in_fp32_by_constraints_or_by_casts(version: fake_trt.Fake, tmp_path: Path) -> None:
    """What the target tells of it can be read again: nothing is lost on its way to the search."""
    layer = fake_layer("r")
    others = [fake_layer("r_1"), fake_layer("rr"), fake_layer("r", "CONSTANT"), fake_layer("s", made="y")]
    network = version.Builder(None).create_network(0)  # type: ignore[attr-defined]
    object.__setattr__(network, "num_layers", 5)
    object.__setattr__(network, "get_layer", lambda k: [layer, *others][k])
    weak = version.__name__ == "tensorrt" and numbers(version.__version__) < (11, 0)
    result = opened(version, precision="fp16").run(
        replace(candidate(tmp_path), nodes=("r", "s"), keep=("r",))
    )
    assert not result.failures
    flags = {getattr(flag, "name", "") for flag in version.flags}
    assert ("OBEY_PRECISION_CONSTRAINTS" in flags) is weak
    told = {k: v for k, v in result.facts.items() if k != "network_outputs"}
    assert Built.from_json(told).run_seconds == 0.25
    assert Built.from_json(told).fp32_layers == (("r", "r_1") if weak else ())
    assert (layer.precision == "float32") is weak and (others[0].precision == "float32") is weak
    assert layer.typed == ([(0, "float32")] if weak else [])
    assert others[1].precision is others[2].precision is None, "they belong to no node, or hold values"
    assert (others[3].precision == "float16") is weak and not others[3].typed, "it gives the network's output"


def fake_layer(name: str, kind: str = "ELEMENTWISE", made: str = "t") -> Any:
    """A layer with one float output, which notes what it is asked for."""
    dtype = type("DataType", (str,), {"name": "FLOAT"})("float32")
    output = SimpleNamespace(name=made, dtype=dtype, is_shape_tensor=False)
    layer = SimpleNamespace(name=name, type=SimpleNamespace(name=kind), precision=None, typed=[])
    layer.num_outputs, layer.get_output = 1, lambda k: output
    layer.set_output_type = lambda k, dtype: layer.typed.append((k, dtype))
    return layer


def test_the_timing_cache_grows_but_not_by_written_files(version: fake_trt.Fake, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    target = opened(version, timing_cache=cache)
    target.run(candidate(tmp_path, Form.WRITTEN))
    assert not cache.exists()
    target.run(candidate(tmp_path, Form.DEFAULT))
    assert cache.read_bytes() == b"timing"
    assert list(tmp_path.glob("timing*")) == [cache]
    flags = {getattr(flag, "name", "") for flag in version.flags}
    editable = version.__name__ == "tensorrt" and "EDITABLE_TIMING_CACHE" in version.classes["BuilderFlag"]
    assert ("EDITABLE_TIMING_CACHE" in flags) is editable


def test_one_builder_and_one_runtime_serve_all_probes_of_a_process(
    version: fake_trt.Fake, tmp_path: Path
) -> None:
    made = []
    for kind in ("Builder", "Runtime"):
        new = getattr(version, kind).__new__
        getattr(version, kind).__new__ = lambda cls, logger, kind=kind, new=new: (
            made.append(kind) or new(cls, logger)
        )
    first = opened(version).run(candidate(tmp_path))
    assert first.facts["builder_seconds"] > 0
    later = [opened(version, opt_level=level).run(candidate(tmp_path)) for level in (3, 3)]
    assert not any("builder_seconds" in result.facts for result in later)
    assert made == ["Builder", "Runtime"]


def test_a_builder_that_had_to_be_made_is_no_time_of_the_probe(
    version: fake_trt.Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = version.Builder.__new__  # type: ignore[attr-defined]

    def slow(cls: type, logger: Any) -> Any:
        time.sleep(0.5)
        return new(cls, logger)

    version.Builder.__new__ = slow  # type: ignore[attr-defined]
    monkeypatch.setattr(jobs, "opened", lambda settings: opened(version))
    outcome = jobs.probe(TargetSettings(spec="tensorrt"), candidate(tmp_path))
    assert outcome.facts["builder_seconds"] >= 0.5 > outcome.seconds


def test_a_timing_cache_of_elsewhere_is_refused_by_name_and_left_out_beside_a_reproducer(
    version: fake_trt.Fake, tmp_path: Path
) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"another card")
    target = opened(version, timing_cache=cache)
    config = fake_trt.config_of(version)
    object.__setattr__(config, "create_timing_cache", lambda data: None if data else object())
    with pytest.raises(UsageError, match="no timing cache of this"):
        target.run(candidate(tmp_path))
    result = target.run(candidate(tmp_path, Form.WRITTEN))
    assert not result.failures and timing.OTHER in result.log
    assert cache.read_bytes() == b"another card"


def test_what_others_measured_first_stays(version: fake_trt.Fake, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    combined = []

    class Cache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
            combined.append((self.data, other.data, ignore_mismatch))
            self.data += other.data
            return True

        def serialize(self) -> bytes:
            return self.data

    config = SimpleNamespace(create_timing_cache=Cache, get_timing_cache=lambda: Cache(b"own"))
    timing.keep(config, cache)
    assert cache.read_bytes() == b"own" and not combined
    cache.write_bytes(b"theirs+")
    timing.keep(config, cache)
    assert combined == [(b"theirs+", b"own", False)] and cache.read_bytes() == b"theirs+own"


def test_tactics_are_kept_from_a_builder_where_it_lets_us_choose(
    version: fake_trt.Fake, tmp_path: Path
) -> None:
    target = opened(version, without_tactics=(tactics.number(-1),))
    other = opened(version, with_tactics=(tactics.number(5),))
    if not hasattr(version, "IAlgorithmSelector") or version.__name__ == "tensorrt_rtx":
        with pytest.raises(UsageError, match="no algorithm selector"):
            target.run(candidate(tmp_path))
        assert not other.run(candidate(tmp_path)).failures  # a reproducer's, of an earlier release
        return
    version.IAlgorithmSelector = type("IAlgorithmSelector", (), {})
    assert not target.run(candidate(tmp_path)).failures
    selector = fake_trt.config_of(version).algorithm_selector
    choices = [SimpleNamespace(algorithm_variant=SimpleNamespace(tactic=k)) for k in (-1, 5)]
    assert selector.select_algorithms(None, choices) == [1]
    assert selector.select_algorithms(None, choices[:1]) == [0]
    assert not other.run(candidate(tmp_path)).failures
    selector = fake_trt.config_of(version).algorithm_selector
    assert selector.select_algorithms(None, choices) == [1]
    assert selector.select_algorithms(None, choices[:1]) == [0]  # a layer that has none of these


def test_a_cache_that_tensorrt_itself_leaves_unused_ends_nothing(
    version: fake_trt.Fake, tmp_path: Path
) -> None:
    """As 8.6.0 does in a fresh process with what Myelin has put there."""
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"of Myelin")
    target = opened(version, timing_cache=cache)
    config, told = fake_trt.config_of(version), log.logger_for(version)[1]

    def make(data: bytes) -> object:
        told.add("ERROR", "4: The timing cache will not be used!")
        return object()

    object.__setattr__(config, "create_timing_cache", make)
    object.__setattr__(config, "get_timing_cache", lambda: None)
    assert timing.OTHER not in target.run(candidate(tmp_path)).log
    result = target.run(candidate(tmp_path, Form.WRITTEN))
    assert not result.failures and timing.OTHER in result.log


def test_what_cannot_be_read_back_is_used_in_the_process_that_measured_it(
    version: fake_trt.Fake, tmp_path: Path
) -> None:
    """A graph that Myelin fused cannot be read from the file: each probe measured all of it anew."""
    cache = tmp_path / "timing.cache"
    target = opened(version, timing_cache=cache)
    config, told = fake_trt.config_of(version), log.logger_for(version)[1]
    used: list[object] = []
    own = SimpleNamespace(serialize=lambda: b"of Myelin")

    def make(data: bytes) -> object:
        if data:
            told.add("ERROR", "4: The timing cache will not be used!")
        return SimpleNamespace(combine=lambda other, ignore: False)

    object.__setattr__(config, "create_timing_cache", make)
    object.__setattr__(config, "get_timing_cache", lambda: own)
    object.__setattr__(config, "set_timing_cache", lambda given, ignore: used.append(given) or True)
    for form in (Form.DEFAULT, Form.DEFAULT, Form.WRITTEN):
        written = form is Form.WRITTEN  # as a fresh process reads it
        assert (timing.OTHER in target.run(candidate(tmp_path, form)).log) is written
    assert used[0] is not own and used[1:] == [own, own]
    cache.unlink()  # the whole model passed with these tactics: they are measured anew
    target.run(candidate(tmp_path))
    assert used[3] is not own


class Library:
    """The CUDA runtime, as far as it is used: events that are 2 ms apart, and graphs."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> int:
            self.calls.append(name)
            if name == "cudaEventElapsedTime":
                args[0]._obj.value = 2.0
            if name in ("cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"):
                args[-1 if name == "cudaStreamEndCapture" else 0]._obj.value = 7
            return 0

        return call


class Buffer:
    """Polygraphy's DeviceArray."""

    ptr = 4096

    @classmethod
    def raw(cls, shape: tuple[int, ...]) -> Buffer:
        assert shape[0] >= 1
        return cls()

    def copy_from(self, array: np.ndarray[Any, Any]) -> None:
        assert array.dtype == np.uint8 and array.ndim == 1


def engine_that_runs(fake: fake_trt.Fake) -> Any:
    """An engine of one input and one output; its layers are a reformat and the node `r`."""
    modes = fake.TensorIOMode
    state: dict[str, Any] = {}

    def run(stream: int) -> bool:
        for name, ms in [("Reformatting CopyNode for Input Tensor 0 to r", 0.5), ("r", 1.0)]:
            if "profiler" in state:
                state["profiler"].report_layer_time(name, ms)
        return True

    def context() -> Any:
        made = fake.make(
            "IExecutionContext",
            execute_async_v3=run,
            set_input_shape=lambda name, shape: shape[0] <= 4,
            set_tensor_address=lambda name, at: True,
            get_tensor_address=lambda name: 4096,
            get_tensor_shape=lambda name: (2, 3),
        )

        class Context(type(made)):  # type: ignore[misc]
            def __setattr__(self, name: str, value: object) -> None:
                assert name == "profiler"
                state[name] = value

        made.__class__ = Context
        return made

    return fake.make(
        "ICudaEngine",
        create_execution_context=context,
        create_engine_inspector=lambda: fake.make(
            "EngineInspector", get_engine_information=lambda form: '{"Layers": ["r"]}'
        ),
        device_memory_size=64,
        device_memory_size_v2=64,
        num_io_tensors=2,
        get_tensor_name=lambda k: "xy"[k],
        get_tensor_mode=lambda name: modes.INPUT if name == "x" else modes.OUTPUT,
        get_tensor_location=lambda name: SimpleNamespace(name="DEVICE"),
        get_tensor_dtype=lambda name: "float32",
    )


@pytest.mark.parametrize("graph", [False, True])
def test_time_is_told_on_every_version(
    version: fake_trt.Fake, graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    cuda = SimpleNamespace(
        wrapper=lambda: SimpleNamespace(handle=library),
        Stream=lambda: SimpleNamespace(ptr=1, synchronize=lambda: None),
        DeviceArray=Buffer,
    )
    version.IProfiler = type("IProfiler", (), {})  # type: ignore[attr-defined]
    loads = {"deserialize_cuda_engine": lambda plan: engine_that_runs(version)}
    version.Runtime.__new__ = lambda kind, logger: version.make("Runtime", **loads)  # type: ignore[attr-defined]
    real = backend.importlib.import_module
    monkeypatch.setattr(
        backend.importlib, "import_module", lambda name: cuda if name == "polygraphy.cuda" else real(name)
    )
    timed = opened(version).timed(candidate(tmp_path), graph)
    assert (timed.opened.clock, timed.opened.bytes) == ("GPU events", {"device": 64})
    timed.feed({"x": np.ones((2, 3), np.float32)})
    assert timed.run(0.0, 5) == [pytest.approx(2e-3)] and len(timed.run(5.0, 3)) == 3
    assert ("cudaGraphLaunch" in library.calls) is graph
    layers = timed.layers(3)
    assert layers is not None and layers.whole == pytest.approx(2e-3)
    assert [(layer.nodes, layer.seconds) for layer in layers.layers] == [
        ((), pytest.approx(5e-4)),
        (("r",), pytest.approx(1e-3)),
    ]
    with pytest.raises(FailedError, match="takes no x of the shape"):
        timed.feed({"x": np.ones((9, 3), np.float32)})


def test_without_a_card_no_time_is_told(version: fake_trt.Fake, tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="engines are built but not run"):
        opened(version, build_only=True).timed(candidate(tmp_path))
