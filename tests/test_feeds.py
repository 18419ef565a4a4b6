"""Input values: read from files, generated; what users get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.generate import generate
from support import read_inputs

T = TensorProto
IMAGE = GraphInput("image", T.FLOAT, ("N", 3, 8, 8))
IDS = GraphInput("input_ids", T.INT64, ("N", "S"))
MASK = GraphInput("attention_mask", T.INT64, ("N", "S"))


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "inputs.npz"
    np.savez(path, **arrays)
    return path


def test_from_value_info() -> None:
    value = helper.make_tensor_value_info("x", T.FLOAT, ["N", 3, None, -1])
    assert GraphInput.from_value_info(value) == GraphInput("x", T.FLOAT, ("N", 3, None, None))
    assert GraphInput.from_value_info(helper.make_tensor_value_info("x", T.INT4, None)).dims is None
    sequence = helper.make_tensor_sequence_value_info("s", T.FLOAT, None)
    assert GraphInput.from_value_info(sequence).elem_type == 0


def test_reads_what_fits(tmp_path: Path) -> None:
    image = np.arange(2 * 3 * 64, dtype="f4").reshape(2, 3, 8, 8)
    ids = np.ones((2, 5), np.int64)
    [sample] = read_inputs(save(tmp_path, image=image, input_ids=ids), [IMAGE, IDS])
    assert list(sample) == ["image", "input_ids"]
    assert np.array_equal(sample["image"], image) and np.array_equal(sample["input_ids"], ids)


@pytest.mark.parametrize(
    ("arrays", "inputs", "words"),
    [
        ({"imgae": np.zeros((1, 3, 8, 8), "f4")}, [IMAGE], ["no input imgae", "did you mean image?"]),
        ({"zzz": np.zeros(1)}, [IMAGE], ["no input zzz", "its inputs are: image"]),
        ({}, [IMAGE], ["no value for the input image", "nothing"]),
        ({"image": np.zeros((1, 3, 8, 9), "f4")}, [IMAGE], ["1x3x8x9", "Nx3x8x8"]),
        ({"image": np.zeros((3, 8, 8), "f4")}, [IMAGE], ["3x8x8", "Nx3x8x8"]),
        ({"image": np.float32(0)}, [IMAGE], ["a scalar", "Nx3x8x8"]),
        ({"image": np.full((1, 3, 8, 8), 0.1)}, [IMAGE], ["float64", "float", "change values"]),
        ({"image": np.full((1, 3, 8, 8), "a")}, [IMAGE], ["image is <U1", "float"]),
        ({"input_ids": np.full((1, 2), 0.5)}, [IDS], ["float64", "int64"]),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Any], inputs: list[GraphInput], words: list[str]
) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(UsageError) as caught:
        read_inputs(path, inputs)
    text = f"{caught.value.message} | {caught.value.hint}"
    assert str(path) in text and all(word in text for word in words), text
    assert caught.value.exit_code == 2


def test_conversions_that_lose_nothing_are_made_and_noted(tmp_path: Path) -> None:
    notes: list[str] = []
    path = save(tmp_path, image=np.full((1, 3, 8, 8), 0.5), input_ids=np.array([[1.0, 2.0]]))
    [sample] = read_inputs(path, [IMAGE, IDS], notes)
    assert sample["image"].dtype == np.float32 and sample["input_ids"].tolist() == [[1, 2]]
    assert notes[0] == "image was converted from float64 to float; no value changed." and len(notes) == 2


def test_unequal_sizes_of_equal_symbols_are_noted(tmp_path: Path) -> None:
    """ONNX Runtime takes them, so a target that does not is looked into."""
    notes: list[str] = []
    shapes = {"input_ids": (1, 2), "attention_mask": (1, 3)}
    path = save(tmp_path, **{name: np.zeros(shape, "i8") for name, shape in shapes.items()})
    read_inputs(path, [IDS, MASK], notes)
    assert notes == ["The dimension S is 2 in input_ids but 3 in attention_mask."]
    sample = generate([IDS, MASK], 0, shapes)
    assert {name: value.shape for name, value in sample.items()} == shapes


def test_types_that_numpy_does_not_know(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5]).astype(ml_dtypes.bfloat16)
    half = GraphInput("x", T.BFLOAT16, (2,))
    for array in (values, values.view(np.uint16), np.array([1.0, -2.5], "f4")):
        [sample] = read_inputs(save(tmp_path, x=array), [half])
        assert sample["x"].dtype == ml_dtypes.bfloat16 and sample["x"].tolist() == [1.0, -2.5]
    words = GraphInput("x", T.STRING, (2,))
    [sample] = read_inputs(save(tmp_path, x=np.array(["a", "bc"])), [words])
    assert sample["x"].tolist() == ["a", "bc"] and sample["x"].dtype == object


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "pickle.npz", image=np.array([{}], dtype=object))
    whole = save(tmp_path, image=np.zeros((1, 3, 8, 8), "f4")).read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    names = ("missing.npz", "one.npy", "text.npz", "empty.npz", "pickle.npz", "torn.npz", "")
    for name in names:
        with pytest.raises(UsageError) as caught:
            read_inputs(tmp_path / name, [IMAGE])
        assert str(tmp_path / name) in caught.value.message and caught.value.hint


def test_a_corrupt_member_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, image=np.ones((1, 3, 8, 8), "f4"))
    data = bytearray(path.read_bytes())
    data[400] ^= 0xFF  # inside the values: the checksum no longer fits
    path.write_bytes(data)
    with pytest.raises(UsageError, match="archive"):
        read_inputs(path, [IMAGE])


def arrays(*given: Any) -> dict[str, Any]:
    return {name: value.make() for name, value in generate(*given).items()}


def test_generated_values_are_sensible() -> None:
    inputs = [
        IMAGE,
        IDS,
        MASK,
        GraphInput("seq_lengths", T.INT32, ("N",)),
        GraphInput("flag", T.BOOL, (64,)),
        GraphInput("half", T.BFLOAT16, (4,)),
        GraphInput("word", T.STRING, (2,)),
        GraphInput("scalar", T.DOUBLE, ()),
        GraphInput("other", T.FLOAT, ("X", None)),
        GraphInput("four", T.INT4, (100,)),
    ]
    sample = arrays(inputs, 0, {"input_ids": (2, 7)})
    assert sample["image"].shape == (2, 3, 8, 8) and sample["image"].dtype == np.float32
    assert abs(float(sample["image"].mean())) < 0.3 and 0.7 < float(sample["image"].std()) < 1.3
    assert sample["input_ids"].min() >= 0 and sample["input_ids"].max() < 16
    assert sample["attention_mask"].shape == (2, 7) and (sample["attention_mask"] == 1).all()
    assert sample["seq_lengths"].tolist() == [7, 7]
    assert 0 < int(sample["flag"].sum()) < 64
    assert sample["half"].dtype == ml_dtypes.bfloat16 and sample["word"].tolist() == ["a", "a"]
    assert sample["scalar"].shape == () and sample["other"].shape == (1, 1)
    assert sample["four"].dtype == ml_dtypes.int4 and sample["four"].astype(int).min() >= 0


@given(st.integers(0, 2**32), st.permutations([IMAGE, IDS, MASK, GraphInput("x", T.FLOAT16, (5, None))]))
def test_the_order_of_inputs_does_not_matter(seed: int, order: list[GraphInput]) -> None:
    shapes = {"input_ids": (2, 3)}
    one = arrays([IMAGE, IDS, MASK, GraphInput("x", T.FLOAT16, (5, None))], seed, shapes)
    other = arrays(order, seed, shapes)
    assert list(other) == [item.name for item in order]
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_seed_matters() -> None:
    assert not np.array_equal(arrays([IMAGE], 0, {})["image"], arrays([IMAGE], 1, {})["image"])
    twins = arrays([GraphInput("a", T.FLOAT, (9,)), GraphInput("b", T.FLOAT, (9,))], 0, {})
    assert not np.array_equal(twins["a"], twins["b"])


def test_what_cannot_be_generated() -> None:
    with pytest.raises(UsageError, match="no declared rank"):
        generate([GraphInput("x", T.FLOAT, None)], 0, {})
    assert generate([GraphInput("x", T.FLOAT, None)], 0, {"x": (2, 3)})["x"].shape == (2, 3)
    with pytest.raises(UsageError, match="no tensor"):
        generate([GraphInput("s", 0, None)], 0, {"s": (1,)})
    with pytest.raises(UsageError, match="does not fit"):
        generate([IMAGE], 0, {"image": (8,)})
