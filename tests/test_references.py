"""References other than ONNX Runtime: functions and programs of the user, saved outputs, none at all."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
from bisect_trt.errors import ModelDoesNotFail, TargetUnavailable, UsageError
from bisect_trt.outcome import Symptom
from bisect_trt.references import self_check, torchscript
from bisect_trt.references.spec import parse, split_function
from bisect_trt.results import Check
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings, RunSettings, Settings, TargetSettings
from support import model, tensor_type

W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
RUNNER = """
import numpy as np
W = np.load({weights!r})
def good(inputs):
    h = inputs["x"] @ W
    return {{"h": h, "y": np.tanh(h)}}
def listed(inputs):
    inputs["x"] *= 0  # its own copy
    return [good({{"x": inputs["x"] + {x!r}}})["y"]]
def other(inputs):
    h = inputs["x"] @ (W * 1.5)
    return {{"h": h, "y": np.tanh(h)}}
def broken(inputs):
    raise ValueError("no such checkpoint")
def wrong(inputs):
    return {{"z": inputs["x"]}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"),
        helper.make_node("Tanh", ["h"], ["y"], "tanh"),
    ]
    weights = [numpy_helper.from_array(W, "w")]
    onnx.save(
        model(nodes, [tensor_type("x", [3, 4])], [tensor_type("y", [3, 4])], weights), tmp_path / "m.onnx"
    )
    x = np.full((3, 4), 0.25, np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    np.save(tmp_path / "w.npy", W)
    np.savez(tmp_path / "good.npz", np.tanh(x @ W))
    np.savez(tmp_path / "bad.npz", y=np.tanh(x @ W) + 1)
    (tmp_path / "runner.py").write_text(RUNNER.format(weights=str(tmp_path / "w.npy"), x=0.25))
    (tmp_path / "program.py").write_text(
        "import sys, numpy as np, runner\nnp.savez(sys.argv[2], **runner.good(dict(np.load(sys.argv[1]))))\n"
    )
    return tmp_path


def settings(place: Path, reference: str, target: str = "ort:CPU") -> Settings:
    run = RunSettings(inputs=place / "in.npz", repeats=1, simplify=False)
    return Settings(TargetSettings(target), run, AccuracySettings(reference=reference))


def check(place: Path, reference: str, target: str = "ort:CPU") -> Check:
    return bisect_trt.check(place / "m.onnx", settings(place, reference, target))


def test_references_that_agree(place: Path) -> None:
    python = sys.executable
    for reference in (
        f"python:{place}/runner.py:good",
        f"python:{place}/runner.py:listed",
        f"command:{python} {place}/program.py {{inputs}} {{outputs}}",
        f"outputs:{place}/good.npz",
    ):
        result = check(place, reference)
        assert not result.outcome.failures, reference
        assert any(note.startswith("ONNX Runtime agrees with") for note in result.notes)


@pytest.mark.parametrize("which", ["python:{}/runner.py:other", "outputs:{}/bad.npz"])
def test_when_the_export_differs_the_target_is_not_blamed(which: str, place: Path) -> None:
    reference = which.format(place)
    asked = settings(place, reference, "planted:op=Tanh,fail=mismatch")
    asked = replace(asked, run=replace(asked.run, save_outputs=place / "both"))
    checked = bisect_trt.check(place / "m.onnx", asked)
    one, other = (np.load(place / "both" / f"{side}.npz")["y"] for side in ("reference", "target"))
    assert np.abs(one - other).max() > 0.01  # of the framework, and of ONNX Runtime
    assert checked.export_differs and "--target ort:CPU" in checked.next_line
    [failure] = checked.outcome.failures
    assert "the export differs from the framework; TensorRT is not to blame" in failure.message
    assert "12 of 12 elements differ" in failure.message
    if which.startswith("python"):  # it gives an interior tensor, too
        assert "The first tensor that differs is h, made by matmul (MatMul)" in failure.message
    blamed = settings(place, reference, "planted:op=Tanh,fail=mismatch")
    with pytest.raises(ModelDoesNotFail, match="TensorRT is not to blame") as caught:
        bisect_trt.reduce(place / "m.onnx", blamed, out=place / "out")
    again = checked.next_line.replace(f" --save-outputs {place / 'both'}", "")
    assert not (place / "out").exists() and again in str(caught.value.hint)


def test_the_difference_between_export_and_framework_is_reduced_on_request(place: Path) -> None:
    """Where the framework gives tensors inside, to the node; else to what leads to the output."""
    asked = settings(place, f"python:{place}/runner.py:other")
    asked = replace(asked, run=replace(asked.run, simplify=True))
    result = bisect_trt.reduce(place / "m.onnx", asked, out=place / "out")
    assert result.best.nodes == ("matmul",) and result.verified == 1 and result.one_minimal
    assert result.target.title.startswith("the export, run by ONNX Runtime")
    assert result.simplification is None  # nothing is known of other values
    x, expected = (np.load(place / "out" / name) for name in ("inputs.npz", "expected.npz"))
    assert np.allclose(expected["h"], x["x"] @ (W * 1.5))
    assert not (place / "out" / "passing.onnx").exists()
    done = subprocess.run([sys.executable, place / "out" / "repro.py"], capture_output=True, check=False)
    assert done.returncode == 1, done.stdout
    whole = bisect_trt.reduce(
        place / "m.onnx", settings(place, f"outputs:{place}/bad.npz"), out=place / "whole"
    )
    assert len(whole.best.nodes) == 2 and whole.verified == 1 and not whole.one_minimal
    assert any("gives outputs of the model only" in note for note in whole.notes)


def test_a_reduction_with_an_outside_reference(place: Path) -> None:
    good = settings(place, f"python:{place}/runner.py:good", "planted:op=MatMul,fail=mismatch")
    result = bisect_trt.reduce(place / "m.onnx", good, out=place / "out")
    assert result.best.nodes == ("matmul",) and result.verified == 1
    assert any(note.startswith("ONNX Runtime agrees with") for note in result.notes)


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ({"rtol": (("z", 1e-3),)}, "--rtol: the model has no output z"),
        ({"topk": (("h", 3),)}, "--topk: the model has no output h"),  # it is an interior tensor
        ({"ignore": ("z",)}, "--ignore: the model has no output z"),
        ({"ignore": ("y",)}, "leaves no output"),
    ],
)
def test_names_of_outputs_are_checked(accuracy: dict[str, Any], words: str, place: Path) -> None:
    plain = settings(place, "ort")
    with pytest.raises(UsageError, match=words):
        bisect_trt.check(place / "m.onnx", replace(plain, accuracy=AccuracySettings(**accuracy)))


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("python:{}/runner.py:broken", "ValueError: no such checkpoint"),
        ("python:{}/runner.py:missing", "has no function missing"),
        ("python:{}/runner.py:wrong", "no output of the model"),
        ("python:{}/nowhere.py", "there is no file"),
        ("outputs:{}/in.npz", "no output of the model"),
        ("command:true {{outputs}}", "no such file"),
        ("command:false {{outputs}}", "ends with exit code 1"),
        ("command:/no/such/program {{outputs}}", "cannot be started"),
        ("command:true", "no {outputs}"),
        ("pytorch:x", "none that is known"),
        ("target-at:fp16", "none that is known"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(reference: str, words: str, place: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check(place, reference.format(place))
    assert words in caught.value.message


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_torchscript_without_pytorch_says_how_to_get_it(place: Path) -> None:
    (place / "m.pt").write_bytes(b"")
    with pytest.raises(TargetUnavailable, match=r"needs PyTorch") as caught:
        check(place, f"torchscript:{place}/m.pt")
    assert "pip install torch" in caught.value.hint


def traced(place: Path, function: Callable[..., Any], example: tuple[int, ...] = (3, 4)) -> str:
    """A TorchScript module that holds the model's weight `w`, as the text of `--reference`."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.from_numpy(W.copy()))

        def forward(self, x: Any) -> Any:
            return function(x, self.w)

    torch.jit.save(torch.jit.trace(Module(), torch.zeros(example)), str(place / "m.pt"))
    return f"torchscript:{place / 'm.pt'}"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(place: Path) -> None:
    """The same module agrees on a target that is right and on one that rounds; another is no fault of it."""
    good = traced(place, lambda x, w: (x @ w).tanh())
    for target in ("ort:CPU", "emulate:fp16"):
        result = check(place, good, target)
        assert not result.outcome.failures
        assert any(f"ONNX Runtime agrees with --reference {good}" in note for note in result.notes)
    [failure] = check(place, good, "planted:op=Tanh,fail=mismatch").outcome.failures
    assert "export differs" not in failure.message and failure.symptom is Symptom.MISMATCH
    [failure] = check(place, traced(place, lambda x, w: (x @ w * 1.5).tanh())).outcome.failures
    assert "the export differs from the framework; TensorRT is not to blame" in failure.message


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_that_fails_is_a_users_mistake(place: Path) -> None:
    def words(reference: str) -> str:
        with pytest.raises(UsageError) as caught:
            torchscript.run(Path(reference.partition(":")[2]), [{"x": W}], ["x"], ["y"])
        return caught.value.message

    assert "shape '[7, 7]' is invalid" in words(traced(place, lambda x, w: x.view(7, 7), (49,)))
    reference = traced(place, lambda x, w: (x, x + 1))
    assert "gives 2 outputs, the model has 1" in words(reference)
    (place / "m.pt").write_bytes(b"none")
    assert "zip archive" in words(reference) and "\n" not in words(reference)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_torchscript_in_types_that_numpy_lacks(shape: tuple[int, ...], place: Path) -> None:
    traced(place, lambda x, w: (x * 2, x), shape)
    values = np.full(shape, 1.5).astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    [found] = torchscript.run(place / "m.pt", [{"x": values}], ["x"], ["double", "x"])
    assert found["x"].dtype == values.dtype and found["x"].tobytes() == values.tobytes()
    assert found["double"].shape == shape and (found["double"].astype(float) == 3).all()


def checked(place: Path, run: RunSettings = RunSettings(), **accuracy: Any) -> Check:  # noqa: B008 - frozen
    """With ONNX Runtime as the reference."""
    run = replace(run, inputs=place / "in.npz")
    return bisect_trt.check(
        place / "m.onnx", Settings(TargetSettings("emulate:fp16"), run, AccuracySettings(**accuracy))
    )


def test_the_provider_of_the_reference(place: Path) -> None:
    """A provider that is not there may not quietly become the CPU's."""
    assert not checked(place, reference_provider="CPUExecutionProvider").outcome.failures
    with pytest.raises(UsageError) as caught:
        checked(place, reference_provider="FooExecutionProvider")
    assert "--reference-provider FooExecutionProvider" in caught.value.message
    assert "CPUExecutionProvider" in caught.value.hint


def test_a_library_that_has_no_custom_operators(place: Path) -> None:
    with pytest.raises(UsageError) as caught:
        checked(place, custom_ops=(place / "runner.py",))
    assert f"--custom-ops {place / 'runner.py'}" in caught.value.message and "\n" not in caught.value.message


def test_specs() -> None:
    assert split_function("C:/a/b.py:f") == (Path("C:/a/b.py"), "f")
    assert split_function("b.py") == (Path("b.py"), "")
    assert parse("self").kind == "self" and not parse("self").outside


# No reference


def test_self_finds_a_nan_and_the_node(place: Path) -> None:
    result = check(place, "self", "planted:op=Tanh,fail=nan")
    [failure] = result.outcome.failures
    assert failure.symptom is Symptom.NOT_FINITE and "although all inputs are" in failure.message
    assert not check(place, "self").outcome.failures
    run = settings(place, "self", "planted:op=Tanh,fail=nan")
    assert bisect_trt.reduce(place / "m.onnx", run, out=place / "out").best.nodes == ("tanh",)


def test_self_compares_runs_and_rows() -> None:
    x = np.ones((3, 2), np.float32)
    steady = np.ones((3, 2), np.float32)
    rows = steady.copy()
    rows[2, 0] = 2

    def words(first: Any, second: Any, fed: Any = x) -> list[str]:
        found = self_check.inspect([{"x": fed}], [{"y": first}], [{"y": second}], DEFAULT_ACCURACY)
        return [diff.difference for diff in found]

    assert words(steady, steady) == []
    assert words(steady, steady * 2) == ["the same input gives two different outputs"]
    assert words(rows, rows) == ["identical rows of a batch give different outputs"]
    assert words(rows, rows, rows) == []  # the rows of the input differ, too
    assert words(np.full((3, 2), np.inf, np.float32), np.full((3, 2), np.inf, np.float32), x * np.inf) == []


def test_rows_are_made_alike_where_there_is_a_batch() -> None:
    one = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = self_check.rows_alike({"a": one, "k": np.float32(1)})
    assert made is not None and made["a"].tolist() == [[0, 1]] * 3 and made["k"] == 1
    assert self_check.rows_alike({"a": one[:1]}) is None
    assert self_check.rows_alike({"a": one, "b": np.zeros((2, 2))}) is None


def test_target_at_fp32(place: Path) -> None:
    """The target's own tensors are the reference: a fault that is always there is not seen."""
    run = settings(place, "target-at:fp32", "planted:op=Tanh,fail=mismatch")
    assert not bisect_trt.check(place / "m.onnx", run).outcome.failures
    with pytest.raises(UsageError, match="is ONNX Runtime"):
        check(place, "target-at:fp32", "emulate:fp16")


def test_bool_and_integer_outputs_are_exact(tmp_path: Path) -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], "argmax", axis=1)
    proto = model([node], [tensor_type("x", [2, 3])], [tensor_type("y", None, TensorProto.INT64)])
    onnx.save(proto, tmp_path / "m.onnx")
    run = Settings(TargetSettings("planted:op=ArgMax,fail=mismatch"), RunSettings())
    [failure] = bisect_trt.check(tmp_path / "m.onnx", run).outcome.failures
    assert "2 of 2 elements differ" in failure.message
