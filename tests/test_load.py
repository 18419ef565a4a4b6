"""Nothing that is broken may pass `load`; the store holds weights by reference."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.load import load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import INLINE_LIMIT, Store, external_info
from support import LIGHT, model, run, tensor_type

node = helper.make_node
X = tensor_type("x", [2])
Y = tensor_type("y", [2])
SQUEEZENET = LIGHT / "light_squeezenet.onnx"
WHOLE = SQUEEZENET.stat().st_size


def write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def refused(path: Path, *parts: str, allow_unknown: bool = False) -> None:
    with pytest.raises(UsageError) as caught:
        load(path, allow_unknown=allow_unknown)
    text = caught.value.message
    assert all(part in text for part in parts), text
    assert "\n" not in text and caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_light_models_load(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    loaded = load(path)
    assert loaded.proto == onnx.load(path) and loaded.path == path
    assert loaded.digest == load(path).digest and len(loaded.digest) == 64


# What is not a model


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"just some text, not a model\n" * 9, "not an ONNX model"),
        (b"<!DOCTYPE html><html>404</html>", "not an ONNX model"),
        (b'{"a": 1}', "not an ONNX model"),
        (b"PK\x03\x04" + bytes(64), "zip archive"),
        (b"ftrt" + bytes(64), "TensorRT engine"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
        (b"\x20\x00\x00\x00ORTM" + bytes(64), "ORT format"),
        (bytes(100), "not an ONNX model"),
        (b"\xfe\xdc\xba" + b"\xff" * 50, "not an ONNX model"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, "m.onnx", said)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "does not exist")
    refused(tmp_path, "is a folder")
    write(tmp_path / "inside.onnx", model([node("Relu", ["x"], ["y"])], [X], [Y]))
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert "inside.onnx" in caught.value.hint
    os.mkfifo(tmp_path / "fifo.onnx")
    refused(tmp_path / "fifo.onnx", "no regular file")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.one_of(st.integers(1, WHOLE - 1), st.integers(WHOLE - 40, WHOLE - 1)))
def test_a_truncated_file_never_loads(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(SQUEEZENET.read_bytes()[:size])
    refused(path)


def test_flipped_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    whole = bytearray(SQUEEZENET.read_bytes())
    rng = np.random.default_rng(0)
    for i in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(damaged)
        try:
            normalise(load(path).proto)
        except UsageError as error:
            assert error.message and error.hint


# What is a model, but not a sound one


def sound(*nodes: onnx.NodeProto, weights: list[TensorProto] | None = None) -> onnx.ModelProto:
    return model(list(nodes), [X], [Y], weights)


SUB = helper.make_graph([node("Relu", ["nowhere"], ["o"])], "b", [], [tensor_type("o", [2])])
FINE = helper.make_graph([node("Relu", ["x"], ["p"])], "b", [], [tensor_type("p", [2])])
LOOPED = [node("Add", ["b", "x"], ["a"], "one"), node("Relu", ["a"], ["b"], "two")]
SHORT = TensorProto(name="w", data_type=1, dims=[3], raw_data=b"1234")
FEW = TensorProto(name="w", data_type=1, dims=[2], float_data=[1.0])
STRANGE = TensorProto(name="w", data_type=99, dims=[2], raw_data=b"1234")
NEGATIVE = TensorProto(name="w", data_type=1, dims=[-2], raw_data=b"1234")


@pytest.mark.parametrize(
    ("proto", "said"),
    [
        (sound(*LOOPED, node("Relu", ["b"], ["y"])),
         ["cycle", "Add 'one'", "Relu 'two'"]),
        (sound(node("Add", ["x", "y"], ["y"], "self")), ["cycle", "'self'"]),
        (sound(node("Relu", ["ghost"], ["y"], "r")), ["Relu 'r'", "'ghost'", "nobody makes"]),
        (sound(node("Relu", ["x"], ["z"])), ["output 'y'", "made by nobody"]),
        (sound(node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])), ["'y'", "made twice", "Neg number 1"]),
        (sound(node("Relu", ["x"], ["x"]), node("Neg", ["x"], ["y"])), ["'x'", "made twice"]),
        (sound(node("If", ["x"], ["y"], "i", then_branch=SUB, else_branch=FINE)), ["If 'i'", "'nowhere'"]),
        (sound(node("Relu", ["x"], ["y"], "odd", domain="who.knows")), ["Relu 'odd'", "who.knows"]),
        (sound(node("Relux", ["x"], ["y"], "odd")), ["Relux 'odd'", "opset 17"]),
        (sound(node("Mish", ["x"], ["y"], "new")), ["Mish 'new'", "opset 17"]),
        (sound(node("Relu", ["x"], ["y"], alpha=1.0)), ["not valid ONNX", "alpha"]),
        (sound(node("Relu", ["x", "x"], ["y"])), ["not valid ONNX"]),
        (sound(node("Add", ["x", "w"], ["y"]), weights=[SHORT]), ["'w'", "too little"]),
        (sound(node("Add", ["x", "w"], ["y"]), weights=[FEW]), ["'w'", "too little"]),
        (sound(node("Add", ["x", "w"], ["y"]), weights=[STRANGE]), ["'w'", "unknown type 99"]),
        (sound(node("Add", ["x", "w"], ["y"]), weights=[NEGATIVE]), ["'w'", "negative"]),
        (sound(), ["no nodes"]),
        (model([node("Relu", ["x"], ["y"])], [X], []), ["no outputs"]),
        (model([node("Relu", ["x"], ["y"])], [X], [Y], ir_version=99), ["IR version 99", "knows up to"]),
    ],
)  # fmt: skip
def test_broken_models(tmp_path: Path, proto: onnx.ModelProto, said: list[str]) -> None:
    refused(write(tmp_path / "m.onnx", proto), *said)


def test_missing_parts(tmp_path: Path) -> None:
    for field, said in (
        ("graph", "no graph"),
        ("ir_version", "no IR version"),
        ("opset_import", "truncated"),
    ):
        proto = sound(node("Relu", ["x"], ["y"]))
        proto.ClearField(field)
        refused(write(tmp_path / f"{field}.onnx", proto), said)


def test_recursive_functions(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
    functions = [
        helper.make_function("l", a, ["i"], ["o"], [node(b, ["i"], ["o"], domain="l")], imports)
        for a, b in (("F", "G"), ("G", "F"))
    ]
    proto = model([node("F", ["x"], ["y"], domain="l")], [X], [Y], functions=functions, opset_imports=imports)
    refused(write(tmp_path / "m.onnx", proto), "calls itself")


def test_unknown_operators_are_fine_with_plugins(tmp_path: Path) -> None:
    nodes = [
        node("Relux", ["x"], ["a"]),
        node("Foo", ["a"], ["b"], domain="who"),
        node("Relu", ["b"], ["y"]),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("who", 1)]
    custom = model(nodes, [X], [Y], opset_imports=imports)
    path = write(tmp_path / "m.onnx", custom)
    refused(path, "Relux")
    assert load(path, allow_unknown=True).proto == custom  # and it is not changed by the check
    custom.graph.node[2].input[0] = "ghost"
    refused(write(tmp_path / "n.onnx", custom), "ghost", allow_unknown=True)


def test_odd_but_legitimate_models(tmp_path: Path) -> None:
    odd = model(
        [
            node("Relu", ["a"], ["y"], "same"),
            node("Add", ["x", "w"], ["a"], "same"),
            node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        ],
        [X], [helper.make_empty_tensor_value_info("y"), tensor_type("g", None)],
        [numpy_helper.from_array(np.float32([1, 2]), "w")], ir_version=3,
        opset_imports=[helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("com.microsoft", 1)],
    )  # fmt: skip
    odd.graph.name = ""
    flat = normalise(load(write(tmp_path / "m.onnx", odd)).proto)
    assert [n.op_type for n in flat.graph.node] == ["Add", "Relu", "Gelu"]
    assert run(flat.SerializeToString(), tmp_path, {"x": np.float32([-3, 3])})["y"].tolist() == [0, 5]


# External data


def external(location: str, **extra: int) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    if location:
        tensor.external_data.add(key="location", value=location)
    for key, value in extra.items():
        tensor.external_data.add(key=key, value=str(value))
    return sound(node("Add", ["x", "w"], ["y"]), weights=[tensor])


@pytest.mark.parametrize(
    ("proto", "said"),
    [
        (external(""), "no location"),
        (external("none.bin"), "none.bin does not exist"),
        (external("/etc/hostname"), "outside the model's folder"),
        (external("C:\\w.bin"), "outside the model's folder"),
        (external("../w.bin"), "outside the model's folder"),
        (external("a/../../w.bin"), "outside the model's folder"),
        (external("a\\..\\..\\w.bin"), "outside the model's folder"),
        (external("link.bin"), "leaves the model's folder"),
        (external("folder/w.bin"), "leaves the model's folder"),
        (external("."), "is no regular file"),
        (external("w.bin", offset=4), "truncated"),
        (external("w.bin", offset=-4), "cannot hold"),
        (external("w.bin", length=4), "cannot hold"),
        (external("w.bin", length=2**40), "cannot hold"),
    ],
)
def test_bad_external_data(tmp_path: Path, proto: onnx.ModelProto, said: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(8))
    (home / "w.bin").write_bytes(bytes(8))
    (home / "link.bin").symlink_to(tmp_path / "w.bin")
    (home / "folder").symlink_to(tmp_path)
    refused(write(home / "m.onnx", proto), "'w'", said)


def test_bad_external_data_inside_bodies_and_attributes(tmp_path: Path) -> None:
    tensor = external("none.bin").graph.initializer[0]
    body = helper.make_graph([node("Add", ["x", "w"], ["o"])], "b", [], [tensor_type("o", [2])], [tensor])
    inside = model([node("If", ["c"], ["y"], then_branch=body, else_branch=FINE)],
                   [X, tensor_type("c", [], TensorProto.BOOL)], [Y])  # fmt: skip
    refused(write(tmp_path / "a.onnx", inside), "none.bin")
    refused(write(tmp_path / "b.onnx", sound(node("Constant", [], ["y"], value=tensor))), "none.bin")


def test_a_link_beside_a_linked_model_is_fine(tmp_path: Path) -> None:
    """The layout of download caches: both are links into one folder."""
    blobs, view = tmp_path / "blobs", tmp_path / "view"
    blobs.mkdir()
    view.mkdir()
    (blobs / "1").write_bytes(np.float32([1, 2]).tobytes())
    write(blobs / "2", external("w.bin"))
    (view / "m.onnx").symlink_to(blobs / "2")
    (view / "w.bin").symlink_to(blobs / "1")
    loaded = load(view / "m.onnx")
    assert numpy_helper.to_array(loaded.proto.graph.initializer[0]).tolist() == [1, 2]


def big_external(folder: Path, name: str = "sub/w 1.bin") -> tuple[Path, np.ndarray]:
    """Two weights in one file: `w` at offset 4096, and a small one that is a shape."""
    value = np.arange(2048, dtype=np.float32)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(np.int64([2048]).tobytes() + bytes(4088) + value.tobytes())
    proto = model([node("Add", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["y"])],
                  [tensor_type("x", [2048])], [tensor_type("y", None)])  # fmt: skip
    for tensor, kind, dim, offset in (("w", 1, 2048, 4096), ("s", 7, 1, 0)):
        weight = TensorProto(name=tensor, data_type=kind, dims=[dim], data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=name)
        weight.external_data.add(key="offset", value=str(offset))
        proto.graph.initializer.append(weight)
    return write(folder / "m.onnx", proto), value


def test_external_data_is_not_loaded_but_counts_for_the_digest(tmp_path: Path) -> None:
    path, _ = big_external(tmp_path)
    loaded = load(path)
    weight, shape = loaded.proto.graph.initializer
    assert not weight.raw_data and weight.data_location == TensorProto.EXTERNAL
    assert numpy_helper.to_array(shape).tolist() == [2048]  # small ones are needed for inference
    digest = loaded.digest
    data = tmp_path / "sub" / "w 1.bin"
    os.utime(data, (0, 0))
    assert load(path).digest == digest
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert load(path).digest != digest


# The store


def adopted(path: Path, folder: Path) -> tuple[onnx.ModelProto, Store]:
    loaded = load(path)
    proto = normalise(loaded.proto)
    store = Store(folder)
    store.adopt(proto, path.parent, model_file=path.name)
    return proto, store


def test_adopt_never_links_external_files(tmp_path: Path) -> None:
    path, value = big_external(tmp_path / "home")
    proto, store = adopted(path, tmp_path / "store")
    (weight,) = [t for t in proto.graph.initializer if t.name == "w"]
    location = external_info(weight)["location"]
    assert "/" not in location and " " not in location
    mine = tmp_path / "home" / "sub" / "w 1.bin"
    assert mine.stat().st_nlink == (store.folder / location).stat().st_nlink == 1
    onnx.load(path)  # which onnx refuses where data has another link
    x = np.ones(2048, np.float32)
    np.testing.assert_array_equal(run(proto.SerializeToString(), store.folder, {"x": x})["y"], value + 1)
    before = proto.SerializeToString()
    store.adopt(proto, store.folder)  # twice is once
    assert proto.SerializeToString() == before
    again, _ = adopted(path, tmp_path / "store")  # as a run that is resumed does
    assert again == proto


def test_a_copy_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    path, value = big_external(tmp_path / "home")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "ext00000-w_1.writing").write_bytes(b"half")
    proto, store = adopted(path, tmp_path / "store")
    x = np.zeros(2048, np.float32)
    np.testing.assert_array_equal(run(proto.SerializeToString(), store.folder, {"x": x})["y"], value)


def test_a_full_disk_is_an_error_with_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numpy tells only how many bytes it has not written."""

    def full(*_: object, **__: object) -> None:
        raise OSError("3072 requested and 992 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        Store(tmp_path).put("x", np.zeros(3))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("external", [False, True])
def test_adopt_takes_weights_in_graph_and_bodies(external: bool, tmp_path: Path) -> None:
    big = np.arange(INLINE_LIMIT, dtype=np.float32)
    typed = helper.make_tensor("t", TensorProto.FLOAT, [INLINE_LIMIT], (big * 2).tolist())
    half = helper.make_tensor(
        "h", TensorProto.FLOAT16, [INLINE_LIMIT], np.ones(INLINE_LIMIT, np.float16).tolist()
    )
    kind = tensor_type("y", [INLINE_LIMIT])

    def body(name: str, weight: TensorProto) -> onnx.GraphProto:
        out = tensor_type(f"{name}_o", [INLINE_LIMIT])
        return helper.make_graph([node("Add", ["x", weight.name], [out.name])], name, [], [out], [weight])

    proto = model(
        [
            node("If", ["c"], ["i"], then_branch=body("then", typed),
                 else_branch=body("else", numpy_helper.from_array(big, "b"))),
            node("Cast", ["h"], ["hf"], to=1),
            node("Sum", ["i", "s", "hf"], ["y"]),
        ],
        [tensor_type("x", [INLINE_LIMIT]), tensor_type("c", [], TensorProto.BOOL)], [kind],
        [numpy_helper.from_array(np.float32([7]), "s"), half],
    )  # fmt: skip
    path = write(tmp_path / "m.onnx", proto)
    if external:
        onnx.save_model(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    flat, store = adopted(path, tmp_path / "store")
    assert len(flat.SerializeToString()) < 2000
    for flag, factor in ((True, 2), (False, 1)):
        feeds = {"x": np.ones(INLINE_LIMIT, np.float32), "c": np.array(flag)}
        for source, folder in ((flat.SerializeToString(), store.folder), (path.read_bytes(), tmp_path)):
            np.testing.assert_array_equal(run(source, folder, feeds)["y"], factor * big + 9)
    size = (store.folder / "weights.bin").stat().st_size
    again, _ = adopted(path, tmp_path / "store")
    assert again == flat and (store.folder / "weights.bin").stat().st_size == size


def test_embedded_weights_are_never_loaded(tmp_path: Path) -> None:
    values = np.arange(INLINE_LIMIT, dtype=np.float32)
    packed = numpy_helper.from_array(np.ones(2 * INLINE_LIMIT, np.int8).astype(ml_dtypes.int4), "p")
    double = helper.make_tensor("d", TensorProto.DOUBLE, [INLINE_LIMIT], values.tolist())
    inner = helper.make_graph(
        [node("Constant", [], ["w"], value=numpy_helper.from_array(values)), node("Mul", ["x", "w"], ["o"])],
        "body", [], [tensor_type("o", [INLINE_LIMIT])],
    )  # fmt: skip
    function = helper.make_function(
        "local", "F", ["a"], ["b"],
        [node("Constant", [], ["k"], value=numpy_helper.from_array(values)), node("Add", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    proto = model(
        [
            node("If", ["c"], ["i"], then_branch=inner, else_branch=inner),
            node("F", ["i"], ["f"], domain="local"),
            node("Cast", ["d"], ["e"], to=1),
            node("Cast", ["p"], ["q"], to=1),
            node("ReduceSum", ["q"], ["s"]),
            node("Sum", ["f", "e", "s"], ["y"]),
        ],
        [tensor_type("x", [INLINE_LIMIT]), tensor_type("c", [], TensorProto.BOOL)],
        [tensor_type("y", [INLINE_LIMIT])], [packed, double], opset=21,
    )  # fmt: skip
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    path = write(tmp_path / "m.onnx", proto)
    loaded = load(path)
    assert len(loaded.proto.SerializeToString()) < 2500 < len(path.read_bytes())
    assert loaded.digest == blake3(path.read_bytes()).hexdigest()
    flat, store = adopted(path, tmp_path / "store")
    feeds = {"x": np.ones(INLINE_LIMIT, np.float32), "c": np.array(True)}
    for source, folder in ((flat.SerializeToString(), store.folder), (path.read_bytes(), tmp_path)):
        np.testing.assert_array_equal(run(source, folder, feeds)["y"], 3 * values + 2 * INLINE_LIMIT)


def test_embedded_weights_are_aligned(tmp_path: Path) -> None:
    values = {f"w{i}": np.full(301 + i, i, np.float32) for i in range(3)}
    nodes = [node("ReduceSum", [name], [f"s_{name}"]) for name in values]
    nodes.append(node("Sum", [f"s_{name}" for name in values], ["y"]))
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    proto = model(nodes, [], [tensor_type("y", None)], weights)
    flat, store = adopted(write(tmp_path / "m.onnx", proto), tmp_path / "store")
    for tensor in flat.graph.initializer:
        assert int(external_info(tensor)["offset"]) % 64 == 0
        np.testing.assert_array_equal(numpy_helper.to_array(tensor, str(store.folder)), values[tensor.name])


KINDS = [
    np.float32, np.float16, np.float64, np.int8, np.int64, np.uint16, np.bool_, np.complex64,
    ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e8m0fnu,
    ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (70, 80)])
def test_records_keep_type_shape_and_bits(tmp_path: Path, kind: type, shape: tuple[int, ...]) -> None:
    store = Store(tmp_path)
    value = (np.arange(np.prod(shape, dtype=int)) % 7).reshape(shape).astype(kind)
    elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    path = store.put("some name/with: odd", value)
    assert path.parent == tmp_path and path.name == "t000000.npy"
    got = store.load(path, elem_type, shape)
    assert got.dtype == value.dtype and got.shape == shape and not got.flags.writeable
    assert got.tobytes() == value.tobytes()
    tensor = store.tensor("t", path, elem_type, shape)
    assert len(tensor.SerializeToString()) < INLINE_LIMIT + 100 or value.nbytes // 2 > INLINE_LIMIT
    back = numpy_helper.to_array(tensor, str(tmp_path))
    assert back.dtype == value.dtype and back.tobytes() == value.tobytes() and back.shape == shape


def test_records_are_in_c_order_never_pickled_and_never_overwritten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    value = np.arange(6000, dtype=np.float32).reshape(60, 100).T
    path = store.put("a", value)
    tensor = store.tensor("a", path, TensorProto.FLOAT, (100, 60))
    assert external_info(tensor)["location"] == path.name
    np.testing.assert_array_equal(numpy_helper.to_array(tensor, str(tmp_path)), value)
    assert Store(tmp_path).put("b", value) != path
    with pytest.raises(ValueError, match="odd is no array"):
        store.put("odd", np.array([{}], object))
    words = np.array(["a", "bc"], object)
    got = store.load(store.put("words", words), TensorProto.STRING)
    assert got.dtype == object and got.tolist() == ["a", "bc"]


def test_a_record_of_another_type_or_shape_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.put("a", np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="shape"):
        store.load(path, TensorProto.FLOAT, (3, 2))
    with pytest.raises(ValueError, match="float32"):
        store.load(path, TensorProto.INT32)
    with pytest.raises(ValueError, match="float32"):
        store.load(path, TensorProto.BFLOAT16)


def test_large_records_are_mapped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    got = store.load(store.put("a", np.zeros(1 << 19, ml_dtypes.bfloat16)), TensorProto.BFLOAT16, (1 << 19,))
    assert not got.flags.owndata and not got.flags.writeable
    assert got.base is not None and isinstance(got.base.base, mmap.mmap)  # behind a view of another type


@pytest.mark.parametrize("count", [5, 1 << 17])  # read, and mapped
def test_a_record_is_read_as_numpy_reads_it(tmp_path: Path, count: int) -> None:
    value = np.arange(2 * count, dtype=np.float32).reshape(2, count)
    by_column, path = tmp_path / "column.npy", Store(tmp_path).put("row", value)
    np.save(by_column, np.asarray(value, order="F"))
    for place in (by_column, path):
        np.testing.assert_array_equal(Store.load(place, TensorProto.FLOAT, (2, count)), np.load(place))
    whole = path.read_bytes()
    for short in (whole[:-1], whole[:140], whole[:9], b""):
        path.write_bytes(short)
        with pytest.raises((ValueError, EOFError)):
            Store.load(path, TensorProto.FLOAT)
    path.write_bytes(whole + b"more")
    np.testing.assert_array_equal(Store.load(path, TensorProto.FLOAT), value)
