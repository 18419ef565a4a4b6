"""What strangers' models and programs do that nobody expects: a line, or a search like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.load import load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.reduction.reduce import reduce
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets import command
from support import model, tensor_type

ENDS = [tensor_type("x", [4]), tensor_type("y", [4])]


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def constants(count: int, size: int = 4) -> onnx.ModelProto:
    values = [numpy_helper.from_array(np.full(size, k, np.float32)) for k in range(count)]
    nodes = [helper.make_node("Constant", [], [f"y{k}"], f"c{k}", value=v) for k, v in enumerate(values)]
    return model(nodes, [], [tensor_type(f"y{k}", [size]) for k in range(count)])


def test_a_model_of_constants_alone_shrinks(tmp_path: Path) -> None:
    settings = Settings(TargetSettings("planted:op=Constant"))
    found = reduce(saved(constants(5), tmp_path), settings, out=tmp_path / "out")
    assert len(found.nodes) == 1 and found.one_minimal and found.sure


def test_constants_that_are_large_or_read_stay_weights() -> None:
    assert [n.op_type for n in normalise(constants(1, 400)).graph.node] == ["Identity"]
    both = constants(2)
    both.graph.node.add(op_type="Neg", input=["y0"], output=["n"], name="neg")
    both.graph.output.append(tensor_type("n", [4]))
    assert [n.op_type for n in normalise(both).graph.node] == ["Identity", "Constant", "Neg"]


def test_a_type_that_says_nothing_is_written_nowhere(tmp_path: Path) -> None:
    """onnx's checker refuses a value_info without a type."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "one"),
        helper.make_node("Neg", ["a"], ["b"], "two"),
        helper.make_node("Abs", ["b"], ["y"], "three"),
    ]
    proto = model(nodes, ENDS[:1], ENDS[1:])
    proto.graph.value_info.add(name="a")
    place = saved(proto, tmp_path)
    assert all(v.type.WhichOneof("value") for v in normalise(load(place).proto).graph.value_info)
    settings = Settings(TargetSettings("planted:op=Neg"))
    found = reduce(place, settings, out=tmp_path / "out")
    assert found.nodes == ("two",)
    onnx.checker.check_model(onnx.load(found.out / "repro.onnx"))


@pytest.mark.parametrize("code", [0, 1])
def test_a_program_may_remove_the_folder_in_which_it_runs(code: int, tmp_path: Path) -> None:
    script = tmp_path / "removes.sh"
    script.write_text(f'#!/bin/sh\nrm -rf "$(dirname "$1")"\nexit {code}\n')
    script.chmod(0o755)
    np.savez(tmp_path / "a.npz", x=np.zeros(4, np.float32))
    np.savez(tmp_path / "b.npz", x=np.ones(4, np.float32))
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.npz").rename(tmp_path / "in" / f"{name}.npz")
    place = saved(model([helper.make_node("Relu", ["x"], ["y"], "one")], ENDS[:1], ENDS[1:]), tmp_path)
    target = TargetSettings(f"command:{script} {{model}} {{inputs}}")
    found = check(place, Settings(target, RunSettings(inputs=tmp_path / "in")))
    assert [f.signature for f in found.outcome.failures] == ["exit code 1"] * code


def test_a_string_is_handed_to_onnx_runtime_as_it_is(tmp_path: Path) -> None:
    """A limit of the Python package is no failure of the target."""
    ends = [tensor_type(n, [2], TensorProto.STRING) for n in "ab"]
    nodes = [helper.make_node("Equal", ["a", "b"], ["y"], "e")]
    proto = model(nodes, ends, [tensor_type("y", [2], TensorProto.BOOL)], opset=19)
    found = check(saved(proto, tmp_path), Settings(TargetSettings("ort:CPU")))
    assert not found.outcome.failures and not found.outcome.unresolved


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT2])
def test_a_type_that_cannot_be_handed_over_leaves_it_open(kind: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], "c", to=TensorProto.FLOAT)]
    proto = model(nodes, [tensor_type("x", [4], kind)], [tensor_type("y", [4])], opset=25)
    proto.ir_version = 13
    found = check(saved(proto, tmp_path), Settings(TargetSettings("ort:CPU")))
    assert not found.outcome.failures and "cannot be handed to ONNX Runtime" in found.outcome.unresolved


def test_an_output_without_a_declared_type_is_compared_all_the_same(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"], "r")], ENDS[:1], ENDS[1:])
    proto.graph.output[0].ClearField("type")
    found = check(saved(proto, tmp_path), Settings(TargetSettings("ort:CPU")))
    assert found.outputs_compared and not found.outcome.failures and not found.outcome.unresolved


def test_bits_that_nothing_declares_are_told_with_the_name_of_the_output(tmp_path: Path) -> None:
    proto = model([helper.make_node("Cast", ["x"], ["y"], "c", to=TensorProto.UINT8)], ENDS[:1], ENDS[1:])
    proto.graph.output[0].ClearField("type")
    found = check(saved(proto, tmp_path), Settings(TargetSettings("ort:CPU")))
    assert ": y holds uint8, or the bits of a type that nothing declares" in found.outcome.unresolved


def test_bits_that_may_be_two_types_are_not_guessed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.load(store.put("a", np.ones(2, np.float32)), 0).dtype == np.float32
    with pytest.raises(ValueError, match="nothing declares"):
        store.load(store.put("b", np.ones(2, np.uint16)), 0)


def test_a_program_that_never_stops_to_print_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream begins anew when it is too large; its last lines are what is told."""
    monkeypatch.setattr(command, "_MOST_OUTPUT", 1 << 16)
    monkeypatch.setattr(command, "_LOOK", 0.001)
    script = tmp_path / "prints.sh"
    script.write_text(
        "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' a\nsleep 0.2\nwc -c < /proc/self/fd/1 >&2\nexit 1\n"
    )
    script.chmod(0o755)
    target = command.Command(TargetSettings(f"command:{script} {{model}}"))
    proto = model([helper.make_node("Relu", ["x"], ["y"], "one")], ENDS[:1], ENDS[1:])
    found = target.run(Candidate(proto.SerializeToString(), tmp_path, ("one",)))
    assert int(found.failures[0].message) < 1 << 20
