"""Random weights that do not travel: made again, bit by bit, by a script without us and by `verify`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
from bisect_trt.errors import UsageError
from bisect_trt.machine.environment import describe
from bisect_trt.model.seeded_values import Recipe, ramp
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.reproducer import archive as attach
from bisect_trt.reproducer import document as documents
from bisect_trt.reproducer import files, models, seeded
from bisect_trt.reproducer import write as texts
from bisect_trt.reproducer.verify import Status
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from support import model, tensor_type
from test_bundle import ANTIALIAS, candidate, make_model, reduction, start, write

NORMAL = Recipe(5, 0.0123, 1.23)
QUANTILES = Recipe(7, 0.0, 1.0, (-3.5, -1.25, -0.011, 0.0, 0.125, 2.5, 70000.0))
MISMATCH = Failure(Stage.COMPARE, Symptom.MISMATCH, "mismatch", "mismatch")
CPU = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime", True)
CPU_SETTINGS = Settings(TargetSettings(spec="ort:CPUExecutionProvider"))
REPORTS = {"ISSUE.md", "report.json", "report.html", "report.md", "target.log"}


def random(name: str, recipe: Recipe, shape: tuple[int, ...], dtype: Any = np.float32) -> TensorProto:
    tensor = numpy_helper.from_array(recipe.make(shape, np.dtype(dtype)), name)
    tensor.doc_string = recipe.text
    return tensor


def product(size: int, recipe: Recipe = NORMAL, *, antialias: bool = False) -> onnx.ModelProto:
    """x @ w; with `antialias` a Resize behind it, which TensorRT does not parse."""
    weights = [random("w", recipe, (size, size))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m" if antialias else "y"], "mm")]
    if antialias:
        weights.append(helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 0.5, 0.5]))
        nodes.append(
            helper.make_node("Resize", ["m", "", "scales"], ["y"], "up", mode="linear", antialias=1)
        )
    ins, outs = ([1, 1, 4, size], [1, 1, 2, size // 2]) if antialias else ([2, size], [2, size])
    return make_model(nodes, ins, outs, initializer=weights)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return next(folder.iterdir())


def light(archive: Path) -> int:
    """Bytes of a zip apart from reports."""
    with zipfile.ZipFile(archive) as content:
        return sum(e.compress_size for e in content.infolist() if Path(e.filename).name not in REPORTS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.int32, np.uint16])
def test_the_script_makes_the_same_bytes(dtype: Any, store: Path, tmp_path: Path) -> None:
    """Of several weights, those in between as well; a wrong file is made again."""
    kinds = (random("a", NORMAL, (99, 101), dtype), random("b", QUANTILES, (4099,), dtype))
    weights = [kinds[0], random("few", NORMAL, (10,)), kinds[1]]
    proto = make_model([helper.make_node("Relu", ["x"], ["y"])], [1], [1], initializer=weights)
    out = tmp_path / "out"
    models.write_model(candidate(proto, store, np.ones(1, np.float32), np.ones(1, np.float32)), out)
    whole = (out / seeded.FILE).read_bytes()
    again = onnx.load(out / files.MODEL)
    for old, new in zip(weights, again.graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(old), numpy_helper.to_array(new))
    for change in (lambda f: f.unlink(), lambda f: f.write_bytes(b"\0" * len(whole))):
        change(out / seeded.FILE)
        line = [sys.executable, "-I", str(out / seeded.SCRIPT)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (out / seeded.FILE).read_bytes() == whole
    place = tmp_path / "made"
    assert seeded.write(onnx.load(out / files.MODEL, load_external_data=False), place)
    assert place.read_bytes() == whole


def test_a_reproducer_with_large_random_weights_is_small(store: Path, tmp_path: Path) -> None:
    x = np.ones((1, 1, 4, 1024), np.float32)
    best = candidate(product(1024, antialias=True), store, x, x[:, :, ::2, ::2])
    found = reduction(best, tmp_path / "m-repro", ANTIALIAS)
    models.write_model(best, found.out)
    models.write_beside(best, found.out, "passing.onnx")  # of the same weights
    texts.write_texts(found, documents.report(found, describe()))
    assert (found.out / seeded.FILE).stat().st_size == 4 << 20
    archive = attach.zip_it(found.out, found.wanted.stage)
    assert light(archive) < 25_000 and archive.stat().st_size < 50_000
    [result] = bisect_trt.verify(archive)
    assert result.status is Status.SAME, (result.seen, result.why)
    folder = unpacked(archive, tmp_path / "elsewhere")
    assert not (folder / seeded.FILE).exists() and not (folder / "expected.npz").exists()
    done = start(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ONNX Runtime 1" in done.stdout and "runs it" in done.stdout
    for name in (files.MODEL, files.PASSING):
        [w] = [t for t in onnx.load(folder / name).graph.initializer if t.name == "w"]
        assert np.array_equal(numpy_helper.to_array(w), NORMAL.make((1024, 1024), np.dtype(np.float32)))
    assert "python seeded.py" in (folder / "ISSUE.md").read_text()


def fed(text: str, values: np.ndarray, store: Path) -> tuple[onnx.ModelProto, Any]:
    """A sum of two inputs, of which one tells how it is made."""
    dims = list(values.shape)
    proto = make_model([helper.make_node("Add", ["x", "z"], ["y"], "add")], dims, dims)
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, dims))
    proto.graph.input[0].doc_string = text
    best = candidate(proto, store, values, values + 1)
    z = Store(store).put("z", np.ones(dims, np.float32))
    return proto, replace(best, feeds=({**best.feeds[0], "z": z},))


TOLD = {
    NORMAL.text: NORMAL.make((8, 300), np.dtype(np.float32)),
    QUANTILES.text: QUANTILES.make((8, 300), np.dtype(np.float32)),
    "bisect-trt ramp": ramp((8, 300), np.dtype(np.float32)),
}


@pytest.mark.parametrize("text", TOLD)
def test_input_values_that_a_line_tells_do_not_travel(text: str, store: Path, tmp_path: Path) -> None:
    """They are in the folder; `verify` and `repro.py` put them where they are missing."""
    _, best = fed(text, TOLD[text], store)
    wrong = Failure(Stage.COMPARE, Symptom.MISMATCH, "mismatch", "mismatch")
    found = reduction(best, tmp_path / "m-repro", wrong, target=CPU, settings=CPU_SETTINGS)
    found = replace(found, best=replace(best, expected=({"y": Store(store).put("y", 2 * TOLD[text] + 2)},)))
    out = write(found)
    assert {*np.load(out / "inputs.npz")} == {"x", "z"}
    folder = unpacked(attach.zip_it(out, Stage.COMPARE), tmp_path / "elsewhere")
    assert {*np.load(folder / "inputs.npz")} == {"z"}
    [sample] = models.read_model(folder, tmp_path).feeds
    assert np.array_equal(np.load(sample["x"]), TOLD[text])
    done = start(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    made = np.load(folder / "inputs.npz")
    assert np.array_equal(made["x"], TOLD[text]) and made["x"].dtype == np.float32
    model = onnx.load(folder / "repro.onnx")
    model.graph.input[0].doc_string = model.graph.input[0].doc_string.replace("sha256:", "sha256:0")
    with pytest.raises(UsageError, match="not what the reproducer was written with"):
        seeded.complete(model, ({},), tmp_path)


def test_one_value_throughout_travels_as_a_file(store: Path, tmp_path: Path) -> None:
    """Zeros take a few hundred bytes: an empty archive and a script that fills it would be odd."""
    _, best = fed("bisect-trt all 0.1", np.full((8, 300), 0.1, np.float32), store)
    out = write(reduction(best, tmp_path / "m-repro", MISMATCH, target=CPU, settings=CPU_SETTINGS))
    archive = attach.zip_it(out, Stage.COMPARE)
    with zipfile.ZipFile(archive) as content:
        assert content.getinfo("m-repro/inputs.npz").compress_size < 1000
    folder = unpacked(archive, tmp_path / "elsewhere")
    assert {*np.load(folder / "inputs.npz")} == {"x", "z"} and not (folder / "seeded.py").exists()


def test_input_values_that_are_others_are_stored(store: Path, tmp_path: Path) -> None:
    values = TOLD[NORMAL.text].copy()
    values[3, 4] += 1e-3
    _, best = fed(NORMAL.text, values, store)
    out = write(reduction(best, tmp_path / "m-repro", MISMATCH, target=CPU, settings=CPU_SETTINGS))
    folder = unpacked(attach.zip_it(out, Stage.COMPARE), tmp_path / "elsewhere")
    assert np.array_equal(np.load(folder / "inputs.npz")["x"], values)
    assert not onnx.load(folder / "repro.onnx").graph.input[0].doc_string


@pytest.mark.parametrize(("error", "code"), [(0.0, 0), (0.5, 1)])
def test_the_values_are_those_of_the_failure(error: float, code: int, store: Path, tmp_path: Path) -> None:
    """ONNX Runtime agrees with what numpy makes of the values, and with nothing else."""
    x = np.random.default_rng(1).standard_normal((2, 256)).astype(np.float32)
    y = x @ NORMAL.make((256, 256), np.dtype(np.float32)) + np.float32(error * 16)
    best = candidate(product(256), store, x, y)
    out = write(reduction(best, tmp_path / "m-repro", MISMATCH, target=CPU, settings=CPU_SETTINGS))
    (out / seeded.FILE).unlink()
    done = start(out)
    assert done.returncode == code, done.stdout + done.stderr
    assert len((out / "repro.py").read_text().splitlines()) < 120


def test_what_is_not_as_its_recipe_tells_is_stored(store: Path, tmp_path: Path) -> None:
    proto = product(64)
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[3, 4] += 1e-3
    proto.graph.initializer[0].raw_data = values.tobytes()
    x = np.ones((2, 64), np.float32)
    out = tmp_path / "out"
    models.write_model(candidate(proto, store, x, x), out)
    assert not (out / seeded.FILE).exists() and not (out / seeded.SCRIPT).exists()
    assert np.array_equal(numpy_helper.to_array(onnx.load(out / files.MODEL).graph.initializer[0]), values)


@pytest.mark.parametrize(
    "recipe", ["", "bisect-trt random 6 0.0123 1.23", "bisect-trt random 9999999999 0 1"]
)
def test_other_values_are_never_taken_for_them(recipe: str, store: Path, tmp_path: Path) -> None:
    x = np.ones((2, 64), np.float32)
    out = tmp_path / "out"
    models.write_model(candidate(product(64), store, x, x), out)
    proto = onnx.load(out / files.MODEL, load_external_data=False)
    proto.graph.initializer[0].doc_string = recipe
    (out / files.MODEL).write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match=r"nothing tells|not what the reproducer was written with"):
        models.read_model(out, tmp_path)
    script = (out / seeded.SCRIPT).read_text()
    (out / seeded.SCRIPT).write_text(script.replace("4096, 5,", "4096, 6,"))
    (out / seeded.FILE).unlink()
    done = subprocess.run([sys.executable, str(out / seeded.SCRIPT)], capture_output=True, text=True)
    assert done.returncode != 0 and not (out / seeded.FILE).exists()


def test_a_file_that_asks_for_too_much_is_refused(store: Path, tmp_path: Path) -> None:
    x = np.ones((2, 64), np.float32)
    out = tmp_path / "out"
    models.write_model(candidate(product(64), store, x, x), out)
    proto = onnx.load(out / files.MODEL, load_external_data=False)
    proto.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(UsageError, match="more than"):
        seeded.write(proto, tmp_path / "made")
    proto.graph.initializer[0].dims[:] = [-1, 64]
    with pytest.raises(UsageError, match="negative"):
        seeded.write(proto, tmp_path / "made")


@pytest.mark.slow
def test_a_whole_run_whose_failure_needs_random_weights(tmp_path: Path) -> None:
    """The program fails on 150 kB that cannot be packed: no simpler values do, and no fewer."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent("""
        import sys, zlib
        from pathlib import Path
        if len(zlib.compress(Path(sys.argv[1]).read_bytes())) > 150_000:
            sys.exit("error: too many different values")
    """))
    w = np.random.default_rng(3).standard_normal((250, 220)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "mm"), helper.make_node("Relu", ["h"], ["y"], "r")]
    x, y = tensor_type("x", [1, 250]), tensor_type("y", [1, 220])
    onnx.save(model(nodes, [x], [y], [numpy_helper.from_array(w, "w")]), tmp_path / "m.onnx")
    spec = f"command:{shlex.join([sys.executable, str(program)])} {{model}}"
    settings = Settings(TargetSettings(spec=spec), RunSettings(repeats=1, simplify_budget=60.0))
    result = bisect_trt.reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    assert result.archive is not None and light(result.archive) < 25_000
    assert (result.out / seeded.FILE).stat().st_size > 150_000
    [verified] = bisect_trt.verify(result.archive, target=spec)
    assert verified.status is Status.SAME, (verified.seen, verified.why)
    folder = unpacked(result.archive, tmp_path / "elsewhere")
    environment = {**os.environ, "PYTHONPATH": str(Path(bisect_trt.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "repro.py"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
