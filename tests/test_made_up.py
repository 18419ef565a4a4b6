"""Made-up inputs: made by a worker when they are needed, and never more than a machine has room for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs import made_up
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.inputs.made_up import Accepted, MadeUp
from bisect_trt.model.store import Store, promise_of, shape_of
from bisect_trt.session.check import check
from bisect_trt.session.prepare import Session
from bisect_trt.settings import RunSettings, Settings, TargetSettings

FLOAT = TensorProto.FLOAT
ITEM = MadeUp("x", FLOAT, (3, 5), seed=1)


def relu(place: Path, shape: list[int]) -> Path:
    ends = [helper.make_tensor_value_info(name, FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), place)
    return place


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 31, 1 << 31, 1 << 31], [400_000_000]])
def test_values_that_no_machine_has_room_for_are_a_wrong_use(shape: list[int], tmp_path: Path) -> None:
    """A target that runs the model needs them."""
    with pytest.raises(UsageError, match="the input x of shape") as caught:
        check(relu(tmp_path / "m.onnx", shape), Settings(TargetSettings("ort:CPU")))
    assert "--shapes x:" in caught.value.hint


def test_more_dimensions_than_an_array_can_have_are_a_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the input x has 65 dimensions"):
        check(relu(tmp_path / "m.onnx", [1] * 65), Settings(TargetSettings("ort:CPU")))


MEASURE = """
import sys
from pathlib import Path
import psutil
from bisect_trt.session.check import check
from bisect_trt.settings import Settings, TargetSettings
before = psutil.Process().memory_info().rss
found = check(Path(sys.argv[1]), Settings(TargetSettings("tensorrt-rtx")))
print(found.outcome.failures, int(found.outcome.unresolved != ""))
print(psutil.Process().memory_info().rss - before, __import__("resource").getrusage(0).ru_maxrss << 10)
"""


def test_a_target_that_only_builds_needs_no_values(tmp_path: Path) -> None:
    """1.6 GB of float: the tool's own process stays small, and nothing is made anywhere."""
    pytest.importorskip("tensorrt_rtx")
    model = relu(tmp_path / "m.onnx", [400_000_000])
    done = subprocess.run([sys.executable, "-c", MEASURE, model], capture_output=True, text=True, check=True)
    said, memory = done.stdout.splitlines()
    grown, _ = map(int, memory.split())
    assert said == "() 0", done.stdout + done.stderr
    assert grown < 150e6


def test_a_size_that_the_parser_takes_for_open_is_a_failure_of_the_target(tmp_path: Path) -> None:
    """2^32 - 1 is -1 in 32 bits; no profile is taken for it then."""
    pytest.importorskip("tensorrt_rtx")
    found = check(relu(tmp_path / "m.onnx", [(1 << 32) - 1]), Settings(TargetSettings("tensorrt-rtx")))
    assert [failure.symptom.value for failure in found.outcome.failures] == ["error"]


def test_no_value_is_made_for_a_target_that_only_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    seen: list[Path] = []
    original = Session.original.fget  # type: ignore[attr-defined]

    def watched(session: Session) -> object:
        seen.extend(session.feeds[0].values())
        return original(session)

    monkeypatch.setattr(Session, "original", property(watched))
    found = check(relu(tmp_path / "m.onnx", [200_000_000]), Settings(TargetSettings("tensorrt-rtx")))
    assert not found.outcome.failures and not found.outcome.unresolved
    assert seen and not any(path.exists() for path in seen)


def test_a_promise_is_kept_by_whoever_loads_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    path = store.promise(ITEM)
    assert not path.exists() and shape_of(path) == (3, 5)
    np.testing.assert_array_equal(Store(tmp_path / "work").load(path, FLOAT), ITEM.make())
    assert path.exists() and shape_of(path) == (3, 5)
    assert [p.name for p in (tmp_path / "work").iterdir() if p not in (path, promise_of(path))] == []
    assert Store(tmp_path / "work").put("y", np.zeros(1)).name != path.name


@pytest.mark.parametrize(
    "item",
    [
        ITEM,
        MadeUp("ids", TensorProto.INT64, (4,), 0, accepted=Accepted(0, 3, index=True)),
        MadeUp("x", FLOAT, (), 0, bounds=(-1.5, 2)),
        replace(ITEM, refused=("too large", "a hint")),
    ],
)
def test_a_description_survives_the_disk(item: MadeUp) -> None:
    assert MadeUp.from_json(item.to_json()) == item


def test_rows_alike_and_masks_turned_round() -> None:
    rows = replace(ITEM, alike=True).make()
    np.testing.assert_array_equal(rows, np.repeat(ITEM.make()[:1], 3, axis=0))
    mask = MadeUp("b", TensorProto.BOOL, (40,), 0)
    np.testing.assert_array_equal(replace(mask, turned=True).make(), ~mask.make())


def test_the_user_is_told_where_values_are_written(tmp_path: Path) -> None:
    place = tmp_path / "out" / "x.npz"
    run = RunSettings(save_inputs=place)
    model = relu(tmp_path / "m.onnx", [2, 3])
    assert not check(model, Settings(TargetSettings("ort:CPU"), run)).outcome.failures
    with np.load(place) as saved:
        np.testing.assert_array_equal(saved["x"], MadeUp("x", FLOAT, (2, 3), 0, longest=3).make())


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT8])
@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_values_do_not_depend_on_the_pieces(
    elem_type: int, bounds: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = GraphInput("x", elem_type, (3, 5, 7))
    ranges = {"x": bounds} if bounds else None
    whole = generate([item], 0, {}, ranges)["x"].make()
    monkeypatch.setattr(made_up, "_PIECE", 4)
    np.testing.assert_array_equal(generate([item], 0, {}, ranges)["x"].make(), whole)
