"""`--anonymise`: the audit finds planted leaks, and a run leaves nothing of the original."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
from bisect_trt.anonymise.audit import find, left
from bisect_trt.anonymise.scrub import Scrubber, operators, require_clean
from bisect_trt.anonymise.secrets import WORD, secrets_of
from bisect_trt.errors import Leak, UsageError
from bisect_trt.model.editing.attributes import is_plain
from bisect_trt.model.load import LoadedModel, load
from bisect_trt.reduction.reduce import reduce
from bisect_trt.reduction.simplify.propose import best_draft
from bisect_trt.reduction.simplify.run import simplify
from bisect_trt.reduction.simplify.secrecy import require_synthetic
from bisect_trt.reduction.simplify.values import all_texts
from bisect_trt.reduction.state import Simplifying
from bisect_trt.results import Simplification
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from simplify_bench import node, problem_of, simplified, weight
from support import model

RTX = TargetSettings(spec="tensorrt-rtx")
RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((6, 8)).astype(np.float32)
INPUT = RNG.standard_normal((2, 6)).astype(np.float32)
SINGLE, QUANTISED = 0.0731234, RNG.integers(-128, 128, (5, 8)).astype(np.int8)
LONG = RNG.standard_normal(80).astype(np.float32)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A model full of things that must not be found."""
    first = node(
        "MatMul", ["camera_frames", "zebra.q_proj.kernel"], ["zebra/q_proj/hidden"], "zebra/q_proj/dot"
    )
    first.metadata_props.add(
        key="pkg.torch.onnx.stack_trace", value='File "/home/hopper77/zebranet/zoo.py", line 77'
    )
    first.metadata_props.add(key="namespace", value="ZebraNet.attention_block")
    first.doc_string = "the good idea"
    proto = model(
        [first, node("Relu", ["zebra/q_proj/hidden"], ["stripes"], "zebra/relu")],
        [helper.make_tensor_value_info("camera_frames", TensorProto.FLOAT, ["herd", 6])],
        [helper.make_tensor_value_info("stripes", TensorProto.FLOAT, ["herd", 8])],
        [
            numpy_helper.from_array(WEIGHT, "zebra.q_proj.kernel"),
            numpy_helper.from_array(np.array([SINGLE], np.float32), "zebra.temperature"),
            numpy_helper.from_array(QUANTISED, "zebra.q8"),
        ],
        producer_name="zebraexport",
    )
    long = node("Scaler", ["stripes"], ["scaled"], domain="ai.onnx.ml", offset=LONG.tolist())
    proto.graph.node.append(long)
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    place = tmp_path / "zebranet_v9.onnx"
    onnx.save(proto, place)
    return place


def found(secret: Path, **files: bytes) -> list[str]:
    settings = Settings(run=RunSettings(inputs=Path("/data/savanna/herd.npz")))
    words = np.array(["okapi in the mist"])
    secrets = secrets_of(load(secret), [{"camera_frames": INPUT, "words": words}], settings)
    return [str(f) for f in find({name.replace("__", "."): data for name, data in files.items()}, secrets)]


def npz(**arrays: np.ndarray) -> bytes:
    place = io.BytesIO()
    np.savez_compressed(place, **arrays)
    return place.getvalue()


def zipped(**files: bytes) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return place.getvalue()


def commented(text: str) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        archive.comment = text.encode()
    return place.getvalue()


def attribute(values: list[float]) -> bytes:
    proto = onnx.load_model_from_string(small())
    proto.graph.node.append(node("Scaler", ["x0"], ["t0"], "s", domain="ai.onnx.ml", offset=values))
    return proto.SerializeToString()


def small(tensor: onnx.TensorProto | None = None, name: str = "x0", text: str = "") -> bytes:
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y0", TensorProto.FLOAT, [1])
    proto = model([node("Relu", [name], ["y0"], "relu0")], [value], [out], [tensor] if tensor else [])
    proto.doc_string = text
    return proto.SerializeToString()


def named(value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, "w0")


def typed(value: np.ndarray) -> onnx.TensorProto:
    return helper.make_tensor("w0", TensorProto.FLOAT, value.shape, value.reshape(-1).tolist())


LEAKS = {
    "weight": ("repro__onnx", small(named(WEIGHT))),
    "weight in a typed field": ("repro__onnx", small(typed(WEIGHT))),
    "weight as double": ("repro__onnx", small(named(WEIGHT.astype(np.float64)))),
    "weight, some rows": ("repro__onnx", small(named(WEIGHT[2:4]))),
    "weight, half of a row": ("repro__onnx", small(named(WEIGHT[3:4, 4:]))),
    "weight in the neighbour": ("passing__onnx", small(named(WEIGHT))),
    "weight in raw data": ("repro__data", b"\0\1\2" + WEIGHT.tobytes()),
    "weight in inputs": ("inputs__npz", npz(x0=WEIGHT)),
    "weight printed": ("ISSUE__md", str(WEIGHT.tolist()).encode()),
    "weight in a script": ("repro__py", f"W = np.array({WEIGHT[0].tolist()})".encode()),
    "input": ("inputs__npz", npz(x0=INPUT)),
    "input as expected value": ("expected-1__npz", npz(y0=INPUT)),
    "input in the report": ("report__json", json.dumps({"v": INPUT.tolist()}).encode()),
    "tensor name in a model": ("repro__onnx", small(name="camera_frames")),
    "tensor name in inputs": ("inputs__npz", npz(camera_frames=np.zeros(1))),
    "node name in the report": ("report__json", b'{"nodes": ["zebra/q_proj/dot"]}'),
    "node name in the journal": ("journal__jsonl", b'{"t": 1, "nodes": ["zebra/relu"]}'),
    "derived name in the log": ("target__log", b"[E] node_of_zebra/q_proj/hidden: no way"),
    "part of a name": ("target__log", b"layer q_proj is slow"),
    "source path": ("ISSUE__md", b'see File "/home/hopper77/zebranet/zoo.py", line 77'),
    "user in a path": ("target__log", b"cannot open /home/hopper77/x"),
    "module name": ("ISSUE__md", b"in ZebraNet.attention_block"),
    "doc string": ("repro__onnx", small(text="the good idea")),
    "symbol": ("report__json", b'{"dims": "herd"}'),
    "file name": ("report__json", b'{"model": {"file": "zebranet_v9.onnx"}}'),
    "name of a file": ("zebranet_v9__log", b""),
    "inputs path": ("report__json", b'{"inputs": "savanna/herd.npz"}'),
    "producer": ("repro__onnx", small(text="zebraexport")),
}


LEAKS |= {
    "single value": ("repro__onnx", small(named(np.array([SINGLE], np.float32)))),
    "single value printed": ("target__log", f"epsilon {SINGLE:.9g} is odd".encode()),
    "quantised weight": ("repro__onnx", small(named(QUANTISED))),
    "weight in an attribute": ("repro__onnx", attribute(LONG.tolist())),
    "other case": ("target__log", b"in ZEBRANET_V9"),
    "texts of an input": ("inputs__npz", npz(x0=np.array(["ok", "okapi in the mist"]))),
    "folder in an archive": ("a__zip", zipped(**{"zebranet_v9/x": b""})),
    "weight in a plot": ("report__html", b'{"bdata":"' + base64.b64encode(WEIGHT.tobytes()) + b'"}'),
    "comment of an archive": ("a__zip", commented("made by hopper77")),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_audit_finds_planted_leaks(leak: str, secret: Path) -> None:
    name, data = LEAKS[leak]
    clean = {"ISSUE__md": b"## Description\n\nIt fails.", "repro__onnx": small()}
    assert found(secret, **clean) == []
    assert found(secret, **{**clean, name: data}), "in a file"
    assert found(secret, other__zip=zipped(**{**clean, name: data})), "in an archive"


def texted(message: Any, word: Iterator[str]) -> None:
    """Put a word into every text of a message and of all that can be inside it."""
    for field in message.DESCRIPTOR.fields:
        kind, several = field.type, field.is_repeated
        if kind == field.TYPE_STRING and (type(message).__name__, field.name) not in NO_NAMES:
            if several:
                getattr(message, field.name).append(next(word))
            else:
                setattr(message, field.name, next(word))
        elif kind == field.TYPE_MESSAGE and field.name not in ("g", "graphs", "elem_type", "value_type"):
            owner = getattr(message, field.name)
            texted(owner.add() if several else owner, word)


NO_NAMES = {("NodeProto", "op_type"), ("AttributeProto", "name")}


def test_every_text_that_a_model_can_hold_is_a_secret() -> None:
    """Also what a later ONNX adds: metadata, training, sharding, quantization, sparse weights, ..."""
    proto, count = onnx.ModelProto(), itertools.count()
    words: list[str] = []

    def word() -> Iterator[str]:
        while True:
            words.append(f"okapi{next(count)}x")
            yield words[-1]

    texted(proto, word())
    body = proto.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g
    texted(body, word())
    proto.graph.node[0].domain = "own"
    proto.graph.node[0].attribute[0].strings.append(b"okapi_attribute")
    proto.graph.initializer[0].string_data.append(b"okapi_tensor")
    loaded = LoadedModel(Path("zebranet_v9.onnx"), proto, "")
    known = secrets_of(loaded, [], Settings()).whole
    data = proto.SerializeToString()
    planted = {text for text in words if text.encode() in data}  # of some fields only one can be set
    assert len(planted) > 100
    assert {*planted, "okapi_attribute", "okapi_tensor"} <= known.keys()


def test_texts_that_are_values_become_plain(tmp_path: Path) -> None:
    """The failure needs different texts; equal ones stay equal, also those that are fed."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [3])
    texts = helper.make_tensor("a", TensorProto.STRING, [3], [b"lion", b"tiger", b"lion"])
    suffix = helper.make_tensor("suffix", TensorProto.STRING, [1], [b"_okapi"])
    nodes = [node("StringConcat", ["a", "suffix"], ["y"]), node("Relu", ["x"], ["z"])]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [3])
    proto = model(nodes, [x], [y, z], [texts, suffix], opset=20)

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        held = [text for t in proto.graph.initializer for text in t.string_data]
        return len(proto.graph.node) == 2 and len(held) == 4 and len(set(held)) == 3

    left, _, problem = simplified(proto, {"x": np.ones(3, np.float32)}, fails, tmp_path)
    held = [text.decode() for t in left.graph.initializer for text in t.string_data]
    assert held[0] == held[2] and all(is_plain(text) for text in held)
    require_synthetic(problem, Simplification(nodes=()), "out")
    draft = best_draft(problem).copy()
    draft.samples[0]["t"] = np.array([["lion", "bear"]], object)
    assert all_texts(True, draft)
    assert len(set(map(str, draft.samples[0]["t"].flat))) == 2 and is_plain(draft.samples[0]["t"][0, 1])


def test_what_is_no_leak(secret: Path) -> None:
    assert not found(
        secret,
        repro__onnx=small(named(np.zeros((6, 8), np.float32))),
        other__onnx=small(named(np.arange(48, dtype=np.float32).reshape(6, 8))),
        inputs__npz=npz(x0=RNG.standard_normal((50, 50)).astype(np.float32)),
        ISSUE__md=b"The weight of relu0 is an input of the model; MatMul, conv1, x0, input, output",
        report__json=json.dumps(
            {"versions": ["1.32.0", "3.11.7"], "seconds": [0.1, 2.5, 3.25, 9.125]}
        ).encode(),
    )


def test_names_that_we_would_give_and_own_operators_are_no_leaks(secret: Path) -> None:
    """A node called `Conv0` looks like ours; an operator of the user's is named by its node, too."""
    proto = onnx.load(secret)
    proto.graph.node[0].name, proto.graph.node[1].name = "Conv0", "stripes/ZebraCrossing"
    onnx.save(proto, secret)
    kept = onnx.load_model_from_string(small())
    kept.graph.node[0].name = "conv0"
    kept.graph.node.add(op_type="ZebraCrossing", domain="zoo.ops", name="zebracrossing0")
    secrets = secrets_of(load(secret), [], Settings())
    data = kept.SerializeToString()
    assert [str(f) for f in find({"a.onnx": data}, secrets)]
    assert not find({"a.onnx": data}, secrets.without(operators([data])))


def test_host_and_user_are_secrets(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gnu-17.savanna.example")
    monkeypatch.setattr("getpass.getuser", lambda: "attenborough")
    assert found(secret, target__log=b"built on gnu-17.savanna.example")
    assert found(secret, target__log=b"/opt/attenborough/lib")


def test_texts_are_scrubbed(secret: Path) -> None:
    secrets = secrets_of(load(secret), [], Settings())
    text = "zebra/q_proj/dot: node_of_zebra/q_proj/hidden in /home/hopper77/zebranet/zoo.py has no runners"
    clean = Scrubber(secrets).text(text)
    assert clean.endswith("has no runners") and not find({"a.log": clean.encode()}, secrets)


@pytest.mark.parametrize(
    "file",
    [
        "reproducer/templates/repro.py.j2",
        "reproducer/page/templates/report.md.j2",
        "writing/style.css",
    ]
)
def test_names_of_a_model_that_are_words_of_ours_leave_our_files_alone(secret: Path, file: str) -> None:
    """A node called `builder` took that word out of `repro.py`, which was no Python any more."""
    text = (Path(bisect_trt.__file__).parent / file).read_text() + "written by bisect-trt"
    proto = onnx.load(secret)
    proto.producer_name = "bisect-trt"
    words = sorted(set(WORD.findall(text)))
    proto.graph.node.extend(helper.make_node("Relu", ["stripes"], [f"t{k}"], w) for k, w in enumerate(words))
    onnx.save(proto, secret)
    assert Scrubber(secrets_of(load(secret), [], Settings())).text(text) == text


def test_a_failure_that_needs_its_weights_is_told_and_not_written(tmp_path: Path) -> None:
    """Only this very value overflows: nothing like it does."""
    value = np.array([[1.0, 2.0, 3.0, 70000.5, 5.5, 6.25]], np.float32)
    proto = model(
        [node("MatMul", ["x", "secret_w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [numpy_helper.from_array(value, "secret_w")],
    )

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return any(np.array_equal(numpy_helper.to_array(t), value) for t in proto.graph.initializer)

    problem = problem_of(proto, {"x": np.ones((2, 1), np.float32)}, fails, tmp_path)
    problem.simplify_by(Simplifying(synthetic=True))
    simplify(problem)
    why = r"w0 \('secret_w' in the original\) \(float32 1x6.*1 elements are above 65504"
    with pytest.raises(Leak, match=why) as error:
        require_synthetic(problem, Simplification(nodes=()), "out")
    assert error.value.exit_code == 7 and "--anonymise" in error.value.hint


def test_no_budget_keeps_a_secret_in_place(tmp_path: Path) -> None:
    """What has to be replaced is replaced when the time for everything else is over."""
    proto = model(
        [node("MatMul", ["x", "secret_w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 40])],
        [weight("secret_w", (30, 40))],
    )

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return numpy_helper.to_array(proto.graph.initializer[0]).std() > 0.5

    problem = problem_of(proto, {"x": np.ones((2, 30), np.float32)}, fails, tmp_path)
    problem.simplify_by(Simplifying(synthetic=True, until=problem.counts.asked_seconds))
    simplify(problem)
    assert problem.simplifying.end.why
    require_synthetic(problem, Simplification(nodes=()), "out")
    assert "smaller dimensions" not in problem.simplifying.tallies


def test_synthetic_values_stand_in_for_weights(tmp_path: Path) -> None:
    """A failure that needs the spread of the weights gets seeded values of it."""
    values = weight("secret_w", (1, 400))
    proto = model(
        [node("MatMul", ["x", "secret_w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 400])],
        [values],
    )

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        arrays = [numpy_helper.to_array(t) for t in proto.graph.initializer]
        return any(a.dtype == np.float32 and a.std() > 0.7 and a.size >= 100 for a in arrays)

    problem = problem_of(proto, {"x": np.ones((2, 1), np.float32)}, fails, tmp_path)
    problem.simplify_by(Simplifying(synthetic=True))
    simplify(problem)
    require_synthetic(problem, Simplification(nodes=()), "out")


def test_a_whole_run_leaves_nothing(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = onnx.load(models_dir / "averagepool_dilated.onnx")
    for k, one in enumerate(original.graph.node):
        one.metadata_props.add(
            key="pkg.torch.onnx.stack_trace", value=f'File "/home/hopper77/zebra{k}.py", line {k}'
        )
    place = tmp_path / "zebranet_v9.onnx"
    onnx.save(original, place)
    settings = Settings(RTX, RunSettings(anonymise=True, repeats=1))
    monkeypatch.chdir(tmp_path)
    result = reduce(place, settings)
    assert result.out.name == "anonymous-repro" and result.verified == 1
    secrets = secrets_of(load(place), [], settings)
    assert result.archive is not None
    require_clean([result.out, result.archive], secrets)
    assert any(line.startswith("the original: 21 nodes") for line in result.left)
    for path in result.out.iterdir():
        data = path.read_bytes()
        assert b"zebra" not in data and b"hopper77" not in data and b"/context" not in data, path.name
    (result.out / "note.txt").write_text("see /home/hopper77/zebra3.py")
    with pytest.raises(Leak, match=r"zebra3"):
        require_clean([result.out], secrets)
    with pytest.raises(UsageError, match="holds a finished run"):
        reduce(place, settings)
    journal = result.out / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert "done" in lines[-1] and "scrubbed" in lines[-2]
    journal.write_text("\n".join(lines[:-1]) + "\n")  # killed in between: its probes tell nothing any more
    with pytest.raises(UsageError, match="ended before its audit"):
        reduce(place, settings)


def test_what_is_left_is_listed() -> None:
    lines = left(small(numpy_helper.from_array(np.array([1, 2], np.int64), "w0")))
    assert "operator Relu" in lines and any("input of float, shape 1" in line for line in lines)
    assert any("values [1, 2]" in line for line in lines)
