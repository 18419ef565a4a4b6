"""Input values from every kind of file, and what is wrong with those that cannot be used."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import StoppedEarly, UsageError
from bisect_trt.model.inputs import formats
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.formats import read_samples, write_samples
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.inputs.indices import accepted_values, require_inside
from bisect_trt.model.inputs.made_up import Accepted, made
from bisect_trt.model.load import load
from bisect_trt.references import ort
from bisect_trt.session.samples import read_samples as input_values
from bisect_trt.settings import RunSettings, Settings
from support import model, read_inputs, tensor_type

X = np.arange(6, dtype=np.float32).reshape(2, 3)
N = np.int64([4, 5])
INPUTS = [GraphInput("x", TensorProto.FLOAT, (2, 3)), GraphInput("n", TensorProto.INT64, (2,))]


def npz(folder: Path) -> Path:
    np.savez(folder / "in.npz", x=X, n=N)
    return folder / "in.npz"


def npy_folder(folder: Path) -> Path:
    (folder / "in").mkdir()
    np.save(folder / "in/x.npy", X)
    np.save(folder / "in/n.npy", N)
    return folder / "in"


def test_data(folder: Path) -> Path:
    place = folder / "data/test_data_set_0"
    place.mkdir(parents=True)
    (place / "input_0.pb").write_bytes(numpy_helper.from_array(X).SerializeToString())
    (place / "input_1.pb").write_bytes(numpy_helper.from_array(N, "n").SerializeToString())
    (place / "output_0.pb").write_bytes(numpy_helper.from_array(X, "y").SerializeToString())
    return folder / "data"


test_data.__test__ = False  # type: ignore[attr-defined]


def plain_json(folder: Path) -> Path:
    (folder / "in.json").write_text(json.dumps({"x": X.tolist(), "n": N.tolist()}))
    return folder / "in.json"


def polygraphy_json(folder: Path) -> Path:
    script = (
        "import sys, numpy as np; from polygraphy.json import save_json; "
        "save_json([{'x': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.int64([4, 5])}], sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "p.json")], check=True)
    return folder / "p.json"


def polygraphy_outputs(folder: Path) -> Path:
    """As `polygraphy run --save-outputs` writes it, which `--reference outputs:` takes."""
    script = (
        "import sys, numpy as np; from polygraphy.comparator import IterationResult, RunResults; "
        "one = IterationResult({'x': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.int64([4, 5])}); "
        "RunResults([('runner', [one])]).save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "o.json")], check=True)
    return folder / "o.json"


FORMATS = [npz, npy_folder, test_data, plain_json, polygraphy_json, polygraphy_outputs]


@pytest.mark.parametrize("make", FORMATS)
def test_each_format_gives_the_same(make: Any, tmp_path: Path) -> None:
    [sample] = read_inputs(make(tmp_path), INPUTS)
    assert {k: v.dtype for k, v in sample.items()} == {"x": np.float32, "n": np.int64}
    np.testing.assert_array_equal(sample["x"], X)
    np.testing.assert_array_equal(sample["n"], N)


def test_polygraphy_reads_what_is_written(tmp_path: Path) -> None:
    write_samples(tmp_path / "out.json", [{"x": X, "n": N}, {"x": X + 1, "n": N}])
    script = (
        "import sys; from polygraphy.json import load_json; d = load_json(sys.argv[1]); "
        "print(len(d), d[1]['x'].tolist(), d[0]['n'].dtype)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.json")], check=True, capture_output=True, text=True
    )
    assert out.stdout.strip() == f"2 {(X + 1).tolist()} int64"


@given(
    hnp.arrays(st.sampled_from([np.float32, np.int8, np.bool_, np.float16]), hnp.array_shapes()), st.data()
)
def test_written_values_come_back(
    tmp_path_factory: pytest.TempPathFactory, value: Any, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from([".json", ".npz"]))
    path = tmp_path_factory.mktemp("w") / f"v{suffix}"
    write_samples(path, [{"file": value}])
    [sample] = read_samples(path, ["file"])
    np.testing.assert_array_equal(sample["file"], value)
    assert sample["file"].dtype == value.dtype


def test_samples_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for k in (2, 10, 1):
        place = tmp_path / f"test_data_set_{k}"
        place.mkdir()
        (place / "input_0.pb").write_bytes(numpy_helper.from_array(np.float32([k])).SerializeToString())
    assert [float(s["x"][0]) for s in read_samples(tmp_path, ["x"])] == [1, 2, 10]
    write_samples(tmp_path / "out/v.npz", [{"x": np.float32([k])} for k in range(3)])
    assert [float(s["x"][0]) for s in read_samples(tmp_path / "out", ["x"])] == [0, 1, 2]


def test_digits_may_be_rounded_and_bits_may_not(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": [0.1]}')
    x = [GraphInput("x", TensorProto.FLOAT, (1,))]
    assert read_inputs(tmp_path / "a.json", x)[0]["x"] == np.float32(0.1)
    (tmp_path / "b.json").write_text('{"x": [1e300]}')
    np.savez(tmp_path / "c.npz", x=np.array([0.1]))
    for name in ("b.json", "c.npz"):
        with pytest.raises(UsageError, match="declares float"):
            read_inputs(tmp_path / name, x)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[]", "holds no input values"),
        ("a.json", b'{"x": [[1], [1, 2]]}', "different lengths"),
        ("a.json", b'{"x": {"tensor": "AAAA"}}', "is no array"),
        ("a.json", b'{"x": {"array": "!"}}', "cannot be decoded"),
        ("a.pb", b"\xff\xff\xff", "is no ONNX tensor"),
        ("a.npz", b"PK nonsense", "no .npz archive"),
    ],
)
def test_broken_files_say_what_is_wrong(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_samples(tmp_path / name, ["x"])


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    np.savez(tmp_path / "a.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(UsageError):
        read_samples(tmp_path / "a.npz", ["x"])
    assert not (tmp_path / "owned").exists()


# Loaders, ranges, indices


def embedding(folder: Path) -> Path:
    table = numpy_helper.from_array(np.ones((5, 4), np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["c"], "c", to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "c"], ["y"], "g"),
    ]
    proto = model(nodes, [tensor_type("ids", [1, 6], TensorProto.INT64)], [tensor_type("y", None)], [table])
    onnx.save(proto, folder / "e.onnx")
    return folder / "e.onnx"


def samples(folder: Path, **run: Any) -> list[dict[str, Any]]:
    found = input_values(load(embedding(folder)), Settings(run=RunSettings(**run)))
    return [{name: made(value) for name, value in sample.items()} for sample in found]


def test_a_loader_yields_samples(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np, helper_of_mine\n"
        "def batches():\n    for k in range(3):\n        yield {'ids': np.full((1, 6), k)}\n"
        "def broken():\n    raise RuntimeError('no data here')\n"
    )
    (tmp_path / "helper_of_mine.py").write_text("")
    found = samples(tmp_path, inputs=Path(f"{tmp_path}/data.py:batches"))
    assert [int(s["ids"][0, 0]) for s in found] == [0, 1, 2]
    with pytest.raises(UsageError, match="RuntimeError: no data here"):
        samples(tmp_path, inputs=Path(f"{tmp_path}/data.py:broken"))
    with pytest.raises(UsageError, match="has no function nothing"):
        samples(tmp_path, inputs=Path(f"{tmp_path}/data.py:nothing"))
    with pytest.raises(UsageError, match="names no function"):
        samples(tmp_path, inputs=tmp_path / "data.py")


def test_indices_stay_inside_the_table(tmp_path: Path) -> None:
    assert accepted_values(onnx.load(embedding(tmp_path)), {}) == {"ids": Accepted(0, 4, index=True)}
    [sample] = samples(tmp_path)
    assert sample["ids"].min() >= 0 and sample["ids"].max() < 5
    with pytest.raises(UsageError, match="ids holds 9"):
        samples(tmp_path, input_ranges=(("ids", 9, 9),))
    np.savez(tmp_path / "in.npz", ids=np.full((1, 6), 5))
    with pytest.raises(UsageError, match="one of 5 rows"):
        samples(tmp_path, inputs=tmp_path / "in.npz")
    require_inside("here", "ids", np.int64([-5, 4]), Accepted(0, 4, index=True))


I64, F = TensorProto.INT64, TensorProto.FLOAT
SLOTS: dict[str, tuple[dict[str, tuple[int, list[int]]], dict[str, Any]]] = {
    "Gather": ({"x": (F, [2, 3, 4]), "i": (I64, [5])}, {"axis": 1}),
    "GatherElements": ({"x": (F, [2, 3]), "i": (I64, [2, 3])}, {"axis": 1}),
    "GatherND": ({"x": (F, [2, 3, 4]), "i": (I64, [5, 2])}, {}),
    "ScatterElements": ({"x": (F, [3, 3]), "i": (I64, [2, 3]), "u": (F, [2, 3])}, {}),
    "ScatterND": ({"x": (F, [4, 3]), "i": (I64, [2, 1]), "u": (F, [2, 3])}, {}),
    "OneHot": ({"i": (I64, [3]), "d": (I64, []), "v": (F, [2])}, {}),
    "Slice": ({"x": (F, [2, 9]), **{k: (I64, [1]) for k in ("starts", "ends", "axes", "steps")}}, {}),
    "TopK": ({"x": (F, [2, 9]), "k": (I64, [1])}, {}),
    "Reshape": ({"x": (F, [2, 6]), "shape": (I64, [3])}, {}),
    "Expand": ({"x": (F, [1, 6]), "shape": (I64, [2])}, {}),
    "Split": ({"x": (F, [9]), "split": (I64, [1])}, {}),
    "Squeeze": ({"x": (F, [2, 1, 3]), "axes": (I64, [1])}, {}),
    "Unsqueeze": ({"x": (F, [2, 3]), "axes": (I64, [2])}, {}),
    "CumSum": ({"x": (F, [2, 3]), "axis": (I64, [])}, {}),
    "RoiAlign": ({"x": (F, [1, 2, 8, 8]), "rois": (F, [3, 4]), "i": (I64, [3])}, {}),
    "Resize": ({"x": (F, [1, 2, 4, 4]), "roi": (F, [8]), "scales": (F, [4])}, {"mode": "nearest"}),
    "ReverseSequence": ({"x": (F, [3, 8, 2]), "lens": (I64, [3])}, {"batch_axis": 0, "time_axis": 1}),
    "Pad": ({"x": (F, [4, 5]), "pads": (I64, [4])}, {"mode": "reflect"}),
}


@pytest.mark.parametrize("op", SLOTS)
def test_made_up_values_are_ones_that_the_operator_takes(op: str, tmp_path: Path) -> None:
    """Random integers up to 15 make nearly all of these fail in ONNX Runtime."""
    inputs, attributes = SLOTS[op]
    ends = [f"y{k}" for k in range({"TopK": 2}.get(op, 1))]
    types = {"y1": I64}
    proto = model(
        [helper.make_node(op, list(inputs), ends, "n", **attributes)],
        [tensor_type(name, shape, kind) for name, (kind, shape) in inputs.items()],
        [tensor_type(name, None, types.get(name, F)) for name in ends],
        opset=18,
    )
    onnx.save(proto, tmp_path / "m.onnx")
    for seed in range(3):
        [sample] = input_values(load(tmp_path / "m.onnx"), Settings(run=RunSettings(seed=seed)))
        feeds = {name: made(value) for name, value in sample.items()}
        [given] = ort.run(proto.SerializeToString(), tmp_path, [feeds])
        assert np.size(given["y0"])


def test_an_offset_before_the_table(tmp_path: Path) -> None:
    """As position ids have it: the limit is that much lower."""
    nodes = [
        helper.make_node("Add", ["ids", "two"], ["j"]),
        helper.make_node("Concat", ["j", "j"], ["c"], axis=0),
        helper.make_node("Gather", ["table", "c"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.int64(2), "two"),
        numpy_helper.from_array(np.ones((5, 2), "f4"), "table"),
    ]
    proto = model(nodes, [tensor_type("ids", [4], I64)], [tensor_type("y", None)], weights)
    assert accepted_values(proto, {}) == {"ids": Accepted(0, 2, index=True)}


def test_ranges_are_kept(tmp_path: Path) -> None:
    x = [GraphInput("x", TensorProto.FLOAT, (1000,)), GraphInput("k", TensorProto.INT32, (1000,))]
    sample = {k: v.make() for k, v in generate(x, 0, {}, {"x": (2.0, 3.0), "k": (-1, 1)}).items()}
    assert 2 <= sample["x"].min() < 2.1 and 2.9 < sample["x"].max() <= 3
    assert set(sample["k"].tolist()) == {-1, 0, 1}
    with pytest.raises(UsageError, match="no input z"):
        samples(tmp_path, input_ranges=(("z", 0, 1),))
    with pytest.raises(UsageError, match="fractions"):
        samples(tmp_path, input_ranges=(("ids", 0.5, 1),))


@pytest.mark.parametrize("name", ["values.npz", "values.json", "v" * 250 + ".npz"])
def test_values_are_written_whole_or_not_at_all(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no wrong use: exit code 6, as everywhere, and the values that lay there stay."""
    place = tmp_path / name
    write_samples(place, [{"x": X}])

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(formats, "write_npz", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoppedEarly, match="no space left for"):
        write_samples(place, [{"x": X + 1}])
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_samples(place, ["x"])[0]["x"], X)


def test_inputs_are_saved(tmp_path: Path) -> None:
    [sample] = samples(tmp_path, save_inputs=tmp_path / "deep/in.json")
    [again] = samples(tmp_path, inputs=tmp_path / "deep/in.json")
    np.testing.assert_array_equal(sample["ids"], again["ids"])
