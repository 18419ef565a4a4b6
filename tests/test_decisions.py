"""Which decisions of a builder a failure hangs on: the search, the tables, and real fusion bugs."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import bisect_trt
import fake_trt
import openvino_cpu
from bisect_trt.accuracy.tolerance import OTHER_KIND
from bisect_trt.blaming.blame import Asking, Blame, blame
from bisect_trt.blaming.words import sentences
from bisect_trt.errors import TargetUnavailable
from bisect_trt.model import patch
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Outcome, Verdict
from bisect_trt.reduction.decisions import Trial, decide
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.knobs import Knob, switched
from bisect_trt.targets.ort import openvino_knobs
from bisect_trt.targets.registry import knobs_of
from bisect_trt.targets.tensorrt import knobs as trt_knobs
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool
from support import run

BAD, GOOD, DARK = Verdict.REPRODUCES, Verdict.VANISHES, Verdict.UNRESOLVED

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
ONES = "k0 = Constant<value = int64[3] {1, 1, 1}>() k = ConstantOfShape<value = float[1] {1.0}>(k0)"
# Fusion bugs of ONNX Runtime 1.32: what is told of them, and what of its optimisers it takes.
FOUR = "c0 = Constant<value = float {4.0}>() c = Sqrt(c0)"
CAST = f"{ONES} {FOUR} a = Div(k, x) b = Cast<to = 1>(a) y = Mul(c, b)"
DROPOUT = f"{ONES} {FOUR} d = Dropout(x) a = Div(k, d) y = Mul(a, c)"
RESHAPE = """
    h = Shape(s) i0 = Constant<value = int64 {0}>() i1 = Constant<value = int64 {1}>()
    t = Constant<value = int64[1] {0}>() g0 = Gather<axis = 0>(h, i0) g1 = Gather<axis = 0>(h, i1)
    d0 = Unsqueeze(g0, t) d1 = Unsqueeze(g1, t) m = Constant<value = int64[1] {-1}>()
    c = Concat<axis = 0>(d0, d1, m) y = Reshape(x, c)"""
LIVE = {
    "cast": (CAST, "float[4, 4] x", {"CastElimination", "ConstantFolding", "DivMulFusion"}),
    "dropout": (DROPOUT, "float[4, 4] x", {"ConstantFolding", "DivMulFusion"}),
    "reshape": (RESHAPE, "float[N, M, K] x, float[N, M] s", {"ReshapeFusion"}),
}


def knobs(count: int) -> list[Knob]:
    return [Knob(f"k{k}", f"without k{k}", (("optimizer", f"k{k}"),)) for k in range(count)]


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_one_decision_of_many_is_found_in_few_builds(drawn: tuple[int, int]) -> None:
    count, culprit = drawn
    table = knobs(count)
    found = decide(table, lambda taken: GOOD if table[culprit] in taken else BAD)
    assert found.helps == found.keeps == (table[culprit],)
    assert found.builds <= 2 * math.log2(count) + 4


@given(st.sets(st.integers(0, 29), min_size=1, max_size=4), st.booleans())
def test_what_helps_and_what_keeps_it_are_minimal(culprits: set[int], need_all: bool) -> None:
    table = knobs(30)
    wrong = {table[k] for k in culprits}

    def observe(taken: Sequence[Knob]) -> Verdict:
        off = wrong & set(taken)
        return GOOD if (off == wrong if need_all else off) else BAD

    found = decide(table, observe)
    assert set(found.helps) <= wrong and set(found.keeps) <= wrong
    assert len(found.helps) == (len(wrong) if need_all else 1)
    assert len(found.keeps) == (1 if need_all else len(wrong))


def test_a_knob_that_breaks_something_else_does_not_hide_the_others() -> None:
    table = [*knobs(5), Knob("level", "at a level", coarse=True)]

    def observe(taken: Sequence[Knob]) -> Verdict:
        names = {knob.name for knob in taken}
        return DARK if "k1" in names else GOOD if names & {"k3", "level"} else BAD

    found = decide(table, observe)
    assert [knob.name for knob in (*found.helps, *found.also)] == ["k3", "level"] and not found.keeps


def reproducer(folder: Path, name: str) -> Path:
    """As `reduce` writes it, of a bug of ONNX Runtime's that is there when this is run."""
    body, inputs, _ = LIVE[name]
    folder.mkdir()
    made = onnx.parser.parse_model(f"{HEAD} g ({inputs}) => (y) {{ {body} }}")
    made.graph.output[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(1, None))
    feeds: dict[str, Any] = {"x": np.arange(1, 17, dtype=np.float32).reshape(4, 4)}
    if name == "reshape":
        feeds = {"x": np.ones((4, 3, 2), np.float32), "s": np.ones((2, 3), np.float32)}
    (folder / "repro.onnx").write_bytes(made.SerializeToString())
    np.savez(folder / "inputs.npz", **feeds)
    np.savez(folder / "expected.npz", **run(made.SerializeToString(), folder, feeds))
    words = {"stage": "compare", "symptom": "mismatch", "signature": OTHER_KIND, "message": "y differs"}
    report = {"failure": words, "settings": {"target": {"spec": "ort:CPU"}}, "model": {"file": "model.onnx"}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def options(tmp_path: Path, place: Path, **more: Any) -> Blame:
    once = Settings(run=RunSettings(repeats=1))
    return blame(place, Asking(decisions=True, **more), once, out=tmp_path / "out")


@pytest.mark.parametrize("name", LIVE)
def test_a_fusion_bug_is_found_by_name(name: str, tmp_path: Path) -> None:
    found = options(tmp_path, reproducer(tmp_path / "live-repro", name)).decisions
    assert found is not None
    if not found.shows:
        pytest.skip("this ONNX Runtime has it no more")
    names = LIVE[name][2]
    (helps,) = found.decided.helps
    assert helps.name in names and {knob.name for knob in found.decided.keeps} == names
    assert found.decided.builds <= 2 * math.log2(found.decided.knobs) + 4
    assert [knob.name for knob in found.decided.also] == ["ORT_DISABLE_ALL"]
    assert len(found.outputs) == 1
    again = options(tmp_path, tmp_path / "live-repro").decisions  # from the journal
    assert again == found


def test_what_helps_is_tried_on_the_whole_model(tmp_path: Path) -> None:
    place = reproducer(tmp_path / "live-repro", "cast")
    whole = onnx.parser.parse_model(
        f"{HEAD} g (float[4, 4] x0) => (float[1, 4, 4] z) {{ e = Exp(x0) x = Sqrt(e) {CAST} z = Neg(y) }}"
    )
    onnx.save(whole, tmp_path / "model.onnx")
    found = options(tmp_path, place).decisions
    if found is not None and not found.shows:
        pytest.skip("this ONNX Runtime has it no more")
    assert found is not None and found.whole is not None
    assert found.whole.fails and [tried.agrees for tried in found.whole.tried] == [True, True, True]
    told = sentences(found)
    assert any(text.startswith("Without the optimiser") and "the whole model agrees" in text for text in told)
    feeds = {"x0": np.ones((4, 4), np.float32)}
    right = run(whole.SerializeToString(), tmp_path, feeds)["z"]
    patched = tmp_path / "again.onnx"
    script = [sys.executable, str(tmp_path / "out/apply.py"), str(tmp_path / "model.onnx"), str(patched)]
    subprocess.run(script, check=True, cwd=tmp_path)
    for model in (tmp_path / "out/workaround.onnx", patched):
        np.testing.assert_array_equal(run(model.read_bytes(), tmp_path, feeds)["z"], right)
    assert patched.read_bytes() == (tmp_path / "out/workaround.onnx").read_bytes()


@pytest.mark.long
def test_a_model_with_weights_in_a_file_is_patched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = reproducer(tmp_path / "live-repro", "cast")
    weight = onnx.numpy_helper.from_array(np.full((4, 4), 2, np.float32), "w")
    whole = onnx.parser.parse_model(
        f"{HEAD} g (float[4, 4] x0) => (float[1, 4, 4] z) {{ x = Mul(x0, w) {CAST} z = Neg(y) }}"
    )
    whole.graph.initializer.append(weight)
    mine = tmp_path / "mine"
    mine.mkdir()
    more = {"save_as_external_data": True, "location": "sub.bin", "size_threshold": 0}
    onnx.save(whole, mine / "net.onnx", **more)  # takes the values out of `whole`
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    found = options(tmp_path, place, on=mine / "net.onnx").decisions
    if found is not None and not found.shows:
        pytest.skip("this ONNX Runtime has it no more")
    assert found is not None and found.whole is not None and found.whole.tried[-1].patched
    assert {file.name: file.read_bytes() for file in mine.iterdir()} == before
    out = tmp_path / "out"
    assert (out / "workaround.onnx.data").read_bytes() == before["sub.bin"]
    feeds = {"x0": np.ones((4, 4), np.float32)}
    opened = onnx.load(out / "workaround.onnx")  # with its weights
    script = [sys.executable, str(out / "apply.py"), str(mine / "net.onnx"), str(tmp_path / "again.onnx")]
    subprocess.run(script, check=True, cwd=tmp_path)
    again = onnx.load(tmp_path / "again.onnx")
    assert [o.name for o in again.graph.output] == [o.name for o in opened.graph.output]
    values = [run(model.SerializeToString(), tmp_path, feeds)["z"] for model in (opened, again)]
    np.testing.assert_array_equal(values[0], np.full((1, 4, 4), -1, np.float32))  # -(2 / 2)
    np.testing.assert_array_equal(*values)
    other = onnx.parser.parse_model(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Relu(x) }}")
    onnx.save(other, tmp_path / "other.onnx")
    script[2] = str(tmp_path / "other.onnx")
    told = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 1 and "not found in this model" in told.stdout

    def full(source: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bisect_trt.blaming.patched.copy_file", full)
    found = options(tmp_path, place, on=mine / "net.onnx").decisions
    assert found is not None and found.whole is not None
    assert found.whole.tried[-1].said == "it was not patched: no space left on device"


def test_what_a_patch_leaves_alone() -> None:
    model = onnx.parser.parse_model(
        f"""{HEAD} g (float[N, 3] x) => (float[N, 3] y) {{
        a = Relu(x) b = Cast<to = 16>(a) s = SequenceConstruct(a, a) q = ConcatFromSequence<axis = 0>(s)
        c = Constant<value = float[1] {{2.0}}>() i = Identity(c) z = If(t) <
            then_branch = g1 () => (float[N, 3] p) {{ p = Neg(a) }},
            else_branch = g2 () => (float[N, 3] r) {{ r = Identity(a) }}> y = Add(z, i) }}"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "t"))
    onnx.helper.set_model_props(model, {"who": "me"})
    inner = patch.inner_tensors(model)
    made = patch.exposed(model, [*inner, "nothing"], onnx.shape_inference.infer_shapes(model))
    kinds = {o.name: o.type.tensor_type.elem_type for o in made.graph.output[1:]}
    assert kinds == dict.fromkeys("aqciz", 1) | {"b": 16}  # a sequence is left out
    del made.graph.output[1:]
    assert made == model
    fixed = patch.fixed(model, {"x": (2, 3), "nothing": (1,)})
    assert [dim.dim_value for dim in fixed.graph.input[0].type.tensor_type.shape.dim] == [2, 3]
    assert fixed.graph.node == model.graph.node and fixed.metadata_props == model.metadata_props
    assert patch.fixed(fixed, {"x": (5, 3)}) == fixed  # not dynamic any more


@pytest.mark.long
def test_fixed_shapes_help_the_whole_model_on_tensorrt_rtx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)  # where the model lies that the report names
    model = f"{HEAD} g (float[n, m] x) => (float[n, m] y) {{ a = Relu(x) e = EyeLike(a) y = Add(e, a) }}"
    onnx.save(onnx.parser.parse_model(model), tmp_path / "eye.onnx")
    sizes = (("x", (3, 4)),)
    target = TargetSettings("tensorrt-rtx", min_shapes=sizes, opt_shapes=sizes, max_shapes=sizes)
    run = RunSettings(repeats=1, simplify=False)
    reduced = bisect_trt.reduce(tmp_path / "eye.onnx", Settings(target, run), out=tmp_path / "eye-repro")
    found = options(tmp_path, reduced.out).decisions
    assert found is not None and found.fixed and not found.decided.helps
    assert found.whole is not None and [tried.agrees for tried in found.whole.tried] == [True]
    patched = onnx.load(tmp_path / "out/workaround.onnx")
    assert [dim.dim_value for dim in patched.graph.input[0].type.tensor_type.shape.dim] == [3, 4]
    assert any("names no build routes" in text for text in sentences(found))


def test_a_failure_that_does_not_show_here_is_not_explained(tmp_path: Path) -> None:
    place = reproducer(tmp_path / "live-repro", "cast")
    report = json.loads((place / "report.json").read_text())
    report["failure"] |= {"stage": "build", "symptom": "error", "signature": "something else"}
    (place / "report.json").write_text(json.dumps(report))
    found = options(tmp_path, place).decisions
    assert found is not None and not found.shows
    assert sentences(found)[0].startswith("The failure does not show on ONNX Runtime")


@pytest.mark.parametrize("spec", ["tensorrt", "tensorrt-rtx", "ort:CPU", "ort:CUDA", "ort:OpenVINO"])
def test_every_knob_changes_something_and_can_be_pasted(spec: str) -> None:
    target = TargetSettings(spec=spec)
    found = knobs_of(target)
    assert len({knob.name for knob in found}) == len(found) > 10
    for knob in found:
        assert switched(target, [knob]) != target and knob.paste and knob.told
    assert switched(target, found[:3]) == switched(target, found[2::-1]), "in any order"


@pytest.mark.parametrize("name", sorted(fake_trt.snapshots()))
def test_every_version_takes_every_decision(name: str) -> None:
    """What a version lacks is left alone; the stand-in refuses what its module has not."""
    if "lean" in name:
        return
    trt = fake_trt.Fake(fake_trt.snapshots()[name], name.rpartition("-")[0].replace("-", "_"))
    target = TargetSettings(spec=name.rpartition("-")[0])
    target = replace(switched(target, knobs_of(target, ["fusion=0"])), opt_level=None)
    config = trt.Builder(None).create_builder_config()
    trt_knobs.apply(trt, config, target)
    assert trt_knobs.network_flags(trt, target) >= 0
    if "all_build_routes" in trt.classes["IBuilderConfig"]:  # from 11.1 on
        assert config.build_route == "fusion=0"
        config.all_build_routes = json.dumps({"tuner_version": "1", "tuner_options": ROUTES})
        routes = trt_knobs.routes_of(config)
        assert routes == ["-kgen:tiling=0", "-fuse=off"]
        target = replace(switched(target, trt_knobs.knobs(target, routes)), opt_level=None)
        trt_knobs.apply(trt, config, target)
        assert set(config.build_route.split()) >= set(routes)
    else:
        assert trt_knobs.routes_of(config) == []


ROUTES = [
    {"option": "-kgen:tiling", "allowed_values": "-kgen:tiling=[0|1|2]", "default_value": "1", "help": ""},
    {"option": "-fuse", "allowed_values": "-fuse=[on|off]", "default_value": "on", "help": ""},
    {"option": "-range", "allowed_values": "-range=[0|1|...|64]", "default_value": "0", "help": ""},
    {"option": "-one", "allowed_values": "-one=[a]", "default_value": "a", "help": ""},
]


@pytest.mark.parametrize("told", ["", "not JSON", "[]", '{"tuner_options": 3}', '{"tuner_options": [3, {}]}'])
def test_build_routes_that_cannot_be_read_are_none(told: str) -> None:
    assert trt_knobs.routes_of(SimpleNamespace(all_build_routes=told)) == []


def test_decisions_that_a_target_refuses_tell_nothing() -> None:
    class Refusing:
        oracle = SimpleNamespace(target=TargetSettings("ort:OpenVINO"))

        def observe(self, candidate: object, run: int, target: TargetSettings) -> Outcome:
            if target.decisions:
                raise TargetUnavailable("OpenVINOExecutionProvider cannot be used here: unsupported property")
            return Outcome()

    trial = Trial(Refusing(), None, lambda outcome: GOOD)  # type: ignore[arg-type]
    assert (trial(()), trial(knobs(1))) == (GOOD, DARK)


def test_openvino_takes_its_knobs(tmp_path: Path) -> None:
    """Each alone: what the plugin does not know it refuses."""
    target = TargetSettings("ort:OpenVINO", ep_libraries=openvino_cpu.libraries(tmp_path))
    model = onnx.parser.parse_model(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Relu(x) }}")
    one = Candidate(model.SerializeToString(), tmp_path, ("n",))
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        for knob in openvino_knobs.knobs({}):
            reply = pool.submit(jobs.probe, switched(target, [knob]), one, timeout=60).result()
            assert reply.death is None and not reply.value.failures, knob.name
