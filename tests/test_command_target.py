"""`command:CMD` on real programs: exits, files read and written, and that none outlives its worker."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model import weight_values
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.inputs.formats import write_npz
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.reduction.reduce import reduce
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.command import Command, read_outputs
from probing import candidate
from support import model, tensor_type

X = np.float32([1, 2, 3])


def add_one(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """With a weight that is external data in a store."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    node = helper.make_node("Add", ["x/0", "one"], ["file"], name="the/node")
    weight = numpy_helper.from_array(np.ones((1000, 3), dtype), "one")
    return model(
        [node], [tensor_type("x/0", [3], kind)], [tensor_type("file", [1000, 3], kind)], [weight], opset=14
    )


def stored(folder: Path, *samples: npt.NDArray[Any], made: onnx.ModelProto | None = None) -> Candidate:
    made = made or add_one()
    store = folder / "store"
    Store(store).adopt(made, folder)
    return candidate(made, [{"x/0": sample} for sample in samples or (X,)], store)


def script(folder: Path, body: str) -> str:
    """A command that runs a Python program; its arguments are those behind it."""
    file = folder / "program.py"
    file.write_text("import json, os, signal, sys\nimport numpy as np\n" + textwrap.dedent(body))
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(file))}"


def target(text: str, **settings: Any) -> Command:
    """A command; one that does not care about the model is given it as its last argument."""
    text = text if "{model}" in text else f"{text} {{model}}"
    return Command(TargetSettings(spec=f"command:{text}", **settings))


RUNNER = """
    import onnx, onnxruntime
    proto = onnx.load(sys.argv[1])
    assert not any(t.external_data for t in proto.graph.initializer)
    feeds = dict(np.load(sys.argv[2]))
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    values = session.run(None, feeds)
"""


def test_a_harness_that_reads_all_and_writes_npz(tmp_path: Path) -> None:
    """Names that files and keyword arguments do not like, two samples, outputs by position."""
    command = script(tmp_path, RUNNER + "    np.savez(sys.argv[3], *values)\n    print('done')")
    made = target(command + " {model} {inputs} {outputs}")
    assert made.info().can_run
    result = made.run(stored(tmp_path, X, 10 * X))
    assert not result.failures and not result.unresolved and "done" in result.log
    assert result.outputs is not None
    for given, x in zip(result.outputs, (X, 10 * X), strict=True):
        assert given["file"].shape == (1000, 3) and np.array_equal(given["file"][7], x + 1)


def test_polygraphys_json(tmp_path: Path) -> None:
    """As `polygraphy run --save-outputs` writes it: arrays, and scalars as numbers."""
    body = """
        import base64, io
        stream = io.BytesIO()
        np.save(stream, np.float32([4, 5, 6]))
        array = {"array": base64.b64encode(stream.getvalue()).decode(), "polygraphy_class": "ndarray"}
        outputs = {"y": {"values": array, "polygraphy_class": "LazyArray"},
                   "s": {"values": 1.5, "polygraphy_class": "LazyArray"}}
        results = [["onnxrt", [{"outputs": outputs, "runtime": 0.1, "polygraphy_class": "IterationResult"}]]]
        json.dump({"lst": results, "polygraphy_class": "RunResults"}, open(sys.argv[1], "w"))
    """
    nodes = [
        helper.make_node("Abs", ["x/0"], ["y"], name="a"),
        helper.make_node("Size", ["x/0"], ["s"], name="b"),
    ]
    outputs = [tensor_type("y", [3]), tensor_type("s", [], TensorProto.INT64)]
    made = model(nodes, [tensor_type("x/0", [3])], outputs)
    result = target(script(tmp_path, body) + " {outputs}").run(stored(tmp_path, made=made))
    assert result.outputs is not None
    assert result.outputs[0]["y"].dtype == np.float32 and result.outputs[0]["y"].tolist() == [4, 5, 6]
    assert result.outputs[0]["s"] == 1.5


def test_real_polygraphy_json_is_read(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from polygraphy.comparator import RunResults, IterationResult\n"
        "r = RunResults(); r.append(('n', [IterationResult({'y': np.float32([1, 2])}, 0.1, 'n')]))\n"
        "import sys; r.save(sys.argv[1])"
    )
    pytest.importorskip("polygraphy")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "o.json")], check=True, capture_output=True)
    given = read_outputs(tmp_path / "o.json", [tensor_type("y", [2])])
    assert given["y"].tolist() == [1, 2]


def test_types_that_numpy_does_not_know_travel_as_bits(tmp_path: Path) -> None:
    body = """
        bits = np.load(sys.argv[1])["x/0"]
        assert bits.dtype == np.uint16
        np.savez(sys.argv[2], bits)
    """
    x = X.astype(ml_dtypes.bfloat16)
    result = target(script(tmp_path, body) + " {inputs} {outputs}").run(
        stored(tmp_path, x, made=add_one(TensorProto.BFLOAT16))
    )
    assert result.outputs is not None
    given = result.outputs[0]["file"]
    assert given.dtype == ml_dtypes.bfloat16 and np.array_equal(given, x)


@pytest.mark.parametrize(
    "body",
    [
        "np.savez(sys.argv[1], other=np.ones(3))",
        "open(sys.argv[1], 'w').write('{')",
        "open(sys.argv[1], 'w').write('PK nonsense')",
        "np.savez(sys.argv[1], np.array([{}], object))",  # would need pickle
    ],
)
def test_outputs_that_cannot_be_read_leave_it_open(body: str, tmp_path: Path) -> None:
    result = target(script(tmp_path, body) + " {outputs}").run(stored(tmp_path))
    assert result.unresolved.startswith("what the command wrote") and result.outputs is None
    assert not result.failures


def test_exit_0_without_outputs_is_fine(tmp_path: Path) -> None:
    made = target(script(tmp_path, "") + " {model}")
    assert not made.info().can_run
    result = made.run(stored(tmp_path))
    assert (result.failures, result.unresolved, result.outputs) == ((), "", None)


def test_a_command_that_never_sees_the_model_is_a_mistake() -> None:
    """It would do the same whatever is cut away."""
    with pytest.raises(UsageError, match=r"has no \{model\}"):
        Command(TargetSettings(spec="command:true {modl} {inputs}"))


def test_exit_125_cannot_tell(tmp_path: Path) -> None:
    result = target(script(tmp_path, "print('dunno'); sys.exit(125)")).run(stored(tmp_path))
    assert "125" in result.unresolved and not result.failures and "dunno" in result.log


def test_a_failure_is_known_by_its_last_line_masked(tmp_path: Path) -> None:
    body = """
        import onnx
        name = onnx.load(sys.argv[1]).graph.node[0].name
        print("noise on stdout")
        raise RuntimeError(f"kernel of {name} failed at 0x{id(name):x}")
    """
    (failure,) = target(script(tmp_path, body) + " {model}").run(stored(tmp_path)).failures
    assert (failure.stage, failure.symptom) == (Stage.RUN, Symptom.ERROR)
    assert failure.signature == "RuntimeError: kernel of <name> failed at <addr>"
    assert failure.nodes == ("the/node",) and failure.op == "Add"


def test_a_silent_failure_is_known_by_its_exit_code(tmp_path: Path) -> None:
    (failure,) = target(script(tmp_path, "sys.exit(3)")).run(stored(tmp_path)).failures
    assert failure.message == "exit code 3"


def test_a_signal_is_a_crash(tmp_path: Path) -> None:
    body = "print('so far so good', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    (failure,) = target(script(tmp_path, body)).run(stored(tmp_path)).failures
    assert (failure.symptom, failure.signature) == (Symptom.CRASH, "SIGSEGV")
    assert "so far so good" in failure.message


def test_fail_regex(tmp_path: Path) -> None:
    command = script(tmp_path, "print('error E42: at 7'); print('bye', file=sys.stderr); sys.exit(1)")
    (failure,) = target(command, fail_regex=r"E\d+").run(stored(tmp_path)).failures
    assert failure.signature == "E42"
    result = target(command, fail_regex="E43").run(stored(tmp_path))
    assert not result.failures and "--fail-regex" in result.unresolved
    with pytest.raises(UsageError, match="--fail-regex"):
        target(command, fail_regex="(")


def test_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "json.dump(sys.argv[1:], open(os.environ['SEEN'], 'w'))"
    seen = tmp_path / "seen.json"
    monkeypatch.setenv("SEEN", str(seen))
    words = " '$HOME' ';' \"a b\" --m={model} {other} *"
    result = target(script(tmp_path, body) + words).run(stored(tmp_path))
    assert not result.failures
    heard = json.loads(seen.read_text())
    assert heard[:3] == ["$HOME", ";", "a b"] and heard[4:] == ["{other}", "*"]
    assert heard[3].startswith("--m=/") and heard[3].endswith("model.onnx")


def test_it_runs_in_a_scratch_folder_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative program and a relative file of the current folder are found all the same."""
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\ncat \"$1\" > litter && pwd >&2 && exit 1\n")
    program.chmod(0o755)
    (tmp_path / "data.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    (failure,) = target("./mine data.txt").run(stored(tmp_path)).failures
    assert "bisect-trt-" in failure.message and not Path(failure.message).exists()
    assert not (tmp_path / "litter").exists()


def test_long_logs_are_trimmed(tmp_path: Path) -> None:
    body = """
        for k in range(200000): print('line', k)
        print('last', file=sys.stderr)
        sys.exit(1)
    """
    result = target(script(tmp_path, body)).run(stored(tmp_path))
    assert len(result.log) < 70_000 and result.log.endswith("last")


@pytest.mark.parametrize("text", ["", "'", "/no/such/program {model}"])
def test_mistakes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        target(text)


def test_a_program_that_cannot_start_is_a_usage_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELFnonsense")
    broken.chmod(0o755)
    with pytest.raises(UsageError, match="cannot be started"):
        target(str(broken)).run(stored(tmp_path))


def test_big_weights_stay_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_values, "EMBED_LIMIT", 1000)
    body = """
        import onnx, onnxruntime
        onnx.checker.check_model(sys.argv[1])
        assert onnx.load(sys.argv[1], load_external_data=False).graph.initializer[0].external_data
        session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        np.savez(sys.argv[3], *session.run(None, dict(np.load(sys.argv[2]))))
    """
    result = target(script(tmp_path, body) + " {model} {inputs} {outputs}").run(stored(tmp_path))
    assert not result.failures, result.log
    assert result.outputs is not None and np.array_equal(result.outputs[0]["file"][999], X + 1)


def test_external_weights_of_the_user_go_into_the_file(tmp_path: Path) -> None:
    """The store's copy of an external data file is embedded like any other weight."""
    onnx.save_model(
        add_one(), tmp_path / "user.onnx", save_as_external_data=True, location="user.bin", size_threshold=0
    )
    linked = onnx.load(tmp_path / "user.onnx", load_external_data=False)
    result = target(script(tmp_path, RUNNER) + " {model} {inputs}").run(stored(tmp_path, made=linked))
    assert not result.failures, result.log


WORKER = """
import sys
from pathlib import Path
from bisect_trt.model import weight_values
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.inputs.formats import write_npz
from bisect_trt.reduction.reduce import reduce
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.command import Command, read_outputs
model, command = sys.argv[1:]
target = Command(TargetSettings(spec="command:" + command + " {model}"))
target.run(Candidate(Path(model).read_bytes(), Path(model).parent, ("n",)))
"""


def test_the_program_dies_with_its_worker(tmp_path: Path) -> None:
    """The worker is killed so that it can do nothing any more."""
    pid_file, file = tmp_path / "pid", tmp_path / "model.onnx"
    body = "print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True)\nsignal.pause()"
    command = f"{script(tmp_path, body)} {pid_file}"
    onnx.save_model(add_one(), file)
    worker = [sys.executable, "-c", WORKER, str(file), command]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(worker, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        program = psutil.Process(int(pid_file.read_text()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        program.wait(timeout=30)
    finally:
        process.kill()
        process.wait()


def test_types_of_any_byte_order_are_written_as_they_are(tmp_path: Path) -> None:
    """`newbyteorder` gives types that equal numpy's own but say that they are none of these."""
    orders: list[Any] = ["=", "<", ">"]
    arrays = {o: np.array([1.5, -2]).astype(np.dtype(np.float32).newbyteorder(o)) for o in orders}
    arrays["bf16"] = np.array([1.5]).astype(ml_dtypes.bfloat16)
    write_npz(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert all(archive[o].tolist() == [1.5, -2] and archive[o].dtype.kind == "f" for o in orders)
        assert archive["bf16"].dtype == np.uint16


def test_the_code_of_a_silent_program_is_its_signature(tmp_path: Path) -> None:
    """A fault that ends with 1 was reduced to a node that ends with 2."""
    command = script(tmp_path, "sys.exit(int(sys.argv[1]))")
    seen = [target(f"{command} {code}").run(stored(tmp_path)).failures[0] for code in (1, 2)]
    assert [failure.signature for failure in seen] == ["exit code 1", "exit code 2"]
    assert not seen[0].same_as(seen[1])


def test_what_a_hanging_program_started_goes_with_it_and_with_the_script(tmp_path: Path) -> None:
    """In a session of its own, too: a reduction of a hang left one process for each run of `repro.py`."""
    onnx.save(add_one(), tmp_path / "m.onnx")
    child = "subprocess.Popen(['sleep', '7654'], start_new_session=True)"
    body = f"import subprocess, time\n{child}\ntime.sleep(600)"
    spec = f"command:{script(tmp_path, body)} {{model}}"
    run = RunSettings(timeout=1.0, repeats=1, max_probes=4, simplify=False)
    found = reduce(tmp_path / "m.onnx", Settings(TargetSettings(spec), run), out=tmp_path / "out")
    assert found.wanted.symptom is Symptom.HANG
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "7654"]]
    assert not left
