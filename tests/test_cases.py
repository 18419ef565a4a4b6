"""The spliced models fail as they say: the other tests rest on it. Real ONNX Runtime, real TensorRT-RTX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from cases import CASES, MIDDLE, SMALL, Case, base, small

# A builder that crashes must not take the tests along, so each probe is a process of its own.
PROBE = """
import sys, tensorrt_rtx as trt
class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            print(message)
log = Log()
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
if not parser.parse(open(sys.argv[1], "rb").read()):
    error = parser.get_error(0)
    print("STAGE parse", error.node_name(), error.node_operator(), error.desc())
elif builder.build_serialized_network(network, builder.create_builder_config()) is None:
    print("STAGE build")
else:
    print("STAGE ok")
"""


def probe(model: onnx.ModelProto, folder: Path) -> tuple[str, str]:
    """Stage at which TensorRT-RTX fails (`ok` if it does not, `crash`), and all that it said."""
    file = folder / "probe.onnx"
    onnx.save(model, file)
    command = [sys.executable, "-c", PROBE, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return "crash", done.stderr
    stages = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("STAGE ")]
    assert len(stages) == 1, done.stderr
    return stages[0], done.stdout


def expect(case: Case, model: onnx.ModelProto, folder: Path) -> None:
    """The model fails as the case says."""
    stage, said = probe(model, folder)
    assert stage == case.stage, said
    assert case.message in said or (case.also and case.also in said), said
    if stage == "parse":
        assert f" {case.op} " in said.split("STAGE parse", 1)[1]


def only(model: onnx.ModelProto, nodes: tuple[str, ...]) -> onnx.ModelProto:
    """The nodes by themselves: what comes from elsewhere is a graph input, but weights stay weights."""
    shapes = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = {v.name: v for v in [*shapes.value_info, *shapes.input, *shapes.output]}
    kept = [n for n in model.graph.node if n.name in nodes]
    made = {name for n in kept for name in n.output}
    used = {name for n in kept for name in n.input if name} - made
    weights = [t for t in model.graph.initializer if t.name in used]
    inputs = [known[name] for name in sorted(used - {t.name for t in weights})]
    outputs = [known.get(n, onnx.ValueInfoProto(name=n)) for n in kept[-1].output]
    graph = onnx.helper.make_graph(kept, "only", inputs, outputs, weights)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def find(name: str) -> Case:
    return small(name[len("models/") :]) if name.startswith("models/") else CASES[name]()


ALL = [*CASES, *(f"models/{name}" for name in SMALL)]


@pytest.mark.parametrize("name", ALL)
def test_whole_and_culprits_fail_the_same(name: str, tmp_path: Path) -> None:
    case = find(name)
    expect(case, case.model, tmp_path)
    expect(case, only(case.model, case.culprits), tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_runs_in_onnxruntime(name: str) -> None:
    import onnxruntime as ort

    case = find(name)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(case.model.SerializeToString(), options)
    (out,) = session.run(None, case.inputs())
    declared = [d.dim_value for d in case.model.graph.output[0].type.tensor_type.shape.dim]
    assert all(want in (0, got) for want, got in zip(declared, out.shape, strict=True))
    assert out.size and np.isfinite(out).all()


def test_ok_builds(tmp_path: Path, models_dir: Path) -> None:
    stage, said = probe(onnx.load(models_dir / "ok.onnx"), tmp_path)
    assert stage == "ok", said


def test_models_are_made_again_byte_for_byte(tmp_path: Path, models_dir: Path) -> None:
    subprocess.run([sys.executable, models_dir / "make_models.py", tmp_path], check=True)
    made = {f.name: f.read_bytes() for f in tmp_path.glob("*.onnx")}
    assert made == {f.name: f.read_bytes() for f in models_dir.glob("*.onnx")}
    assert {f"{name}.onnx" for name in [*SMALL, "ok"]} == set(made)
    assert max(map(len, made.values())) < 100_000


@pytest.mark.parametrize("left_out", CASES["two_branch_reshape"]().culprits[:-1])
def test_two_branches_need_every_culprit(left_out: str, tmp_path: Path) -> None:
    case = CASES["two_branch_reshape"]()
    fewer = tuple(n for n in case.culprits if n != left_out)
    # The nodes before the missing one end in nothing, those behind get an integer input.
    behind = fewer[case.culprits.index(left_out) :]
    stage, said = probe(only(case.model, behind), tmp_path)
    assert stage != "parse" and case.message not in said, said


@pytest.mark.slow
@pytest.mark.parametrize("name", MIDDLE)
def test_base_builds(name: str, tmp_path: Path) -> None:
    for opset in (9,) if name == "densenet121" else (9, 23):  # the first and the last that are used
        stage, said = probe(base(name, opset), tmp_path)
        assert stage == "ok", said
