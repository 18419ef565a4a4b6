"""`ort:PROVIDER` on the real OpenVINO provider: what it gets wrong, what it refuses, what users get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import openvino_cpu
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetResult
from bisect_trt.targets.narrow import Source
from bisect_trt.targets.ort import ep_libraries, provider
from bisect_trt.targets.ort.messages import essence
from bisect_trt.targets.ort.provider import OrtProvider, parse_spec
from probing import candidate, reference
from support import LIGHT, model, random_feeds, tensor_type

PIXELS = np.random.default_rng(7).standard_normal((1, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, Path], ...]:
    return openvino_cpu.libraries(tmp_path_factory.mktemp("openvino"))


@pytest.fixture(scope="module")
def target(libraries: tuple[tuple[str, Path], ...]) -> OrtProvider:
    return OrtProvider(TargetSettings(spec=openvino_cpu.SPEC, ep_libraries=libraries))


def weight(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def resize(weights: list[TensorProto], **attributes: Any) -> onnx.ModelProto:
    inputs = ["x", "", "scales"] if weights[0].name == "scales" else ["x", "", "", "sizes"]
    node = helper.make_node("Resize", inputs, ["y"], name="resize", **attributes)
    return model([node], [tensor_type("x", [1, 3, 16, 16])], [tensor_type("y", None)], weights, opset=19)


UP, DOWN = [weight("scales", np.float32([1, 1, 1.7, 1.7]))], [weight("scales", np.float32([1, 1, 0.4, 0.4]))]


def roi_align(mode: str) -> onnx.ModelProto:
    node = helper.make_node(
        "RoiAlign", ["x", "rois", "batch"], ["y"], name="roi", mode=mode, output_height=3, output_width=3,
        sampling_ratio=2,
    )  # fmt: skip
    rois = weight("rois", np.float32([[0, 0, 9, 9], [3, 3, 12, 10]]))
    weights = [rois, weight("batch", np.int64([0, 0]))]
    return model([node], [tensor_type("x", [1, 3, 16, 16])], [tensor_type("y", None)], weights, opset=19)


def top_k() -> onnx.ModelProto:
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], name="top")
    outputs = [tensor_type("values", None), tensor_type("indices", None, TensorProto.INT64)]
    return model([node], [tensor_type("x", [1, 64])], outputs, [weight("k", np.int64([10]))], opset=19)


def conv_relu() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    kernel = weight("kernel", rng.standard_normal((8, 3, 3, 3)).astype(np.float32))
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    return model(nodes, [tensor_type("x", [1, 3, 16, 16])], [tensor_type("y", None)], [kernel], opset=19)


def worst(
    target: OrtProvider, made: onnx.ModelProto, feeds: dict[str, Any], folder: Path
) -> dict[str, float]:
    """Largest difference to ONNX Runtime's CPU provider, for each output."""
    probe = candidate(made, feeds, folder)
    result = target.run(probe)
    assert result.outputs is not None, result.failures
    (given,), (wanted,) = result.outputs, reference(probe, feeds)
    assert given.keys() == wanted.keys()
    for name in wanted:
        assert given[name].dtype == wanted[name].dtype and given[name].shape == wanted[name].shape
    return {n: float(np.abs(given[n].astype(np.float64) - wanted[n]).max()) for n in wanted}


@pytest.mark.parametrize(
    ("made", "least"),
    [
        (resize(UP, mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1), 0.1),
        (resize(DOWN, mode="linear", antialias=1), 1.0),
        (roi_align("max"), 0.3),
    ],
    ids=["cubic-exclude-outside", "antialias", "roi-align-max"],
)
def test_openvino_really_differs(made: onnx.ModelProto, least: float, target: Any, tmp_path: Path) -> None:
    assert worst(target, made, {"x": PIXELS}, tmp_path)["y"] > least


@pytest.mark.parametrize(
    "made",
    [resize(UP, mode="cubic", cubic_coeff_a=-0.5), roi_align("avg"), conv_relu()],
    ids=["cubic", "roi-align-avg", "conv-relu"],
)
def test_openvino_agrees_next_door(made: onnx.ModelProto, target: OrtProvider, tmp_path: Path) -> None:
    assert worst(target, made, {"x": PIXELS}, tmp_path)["y"] < 1e-5


def test_top_k_orders_ties_otherwise(target: OrtProvider, tmp_path: Path) -> None:
    ties = np.zeros((1, 64), np.float32)
    ties[0, ::3] = 1
    differences = worst(target, top_k(), {"x": ties}, tmp_path)
    assert differences["values"] == 0 and differences["indices"] > 0
    distinct = np.random.default_rng(3).permutation(64).astype(np.float32)[None]
    assert worst(target, top_k(), {"x": distinct}, tmp_path) == {"values": 0, "indices": 0}


def test_keep_aspect_ratio_is_refused_at_build(target: OrtProvider, tmp_path: Path) -> None:
    made = resize([weight("sizes", np.int64([20, 30]))], axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    (failure,) = target.run(candidate(made, {"x": PIXELS}, tmp_path)).failures
    assert (failure.stage, failure.symptom) == (Stage.BUILD, Symptom.ERROR)
    assert "I/O size mismatch" in failure.signature


def test_a_light_model_with_weights_outside(target: OrtProvider, tmp_path: Path) -> None:
    """Two samples; the weights are external data of the store."""
    whole = normalise(onnx.load(LIGHT / "light_shufflenet.onnx"))
    whole.graph.initializer.append(weight("big", np.ones((64, 64), np.float32)))
    whole.graph.node.add(op_type="Identity", input=["big"], output=["copy"], name="copy")
    whole.graph.output.append(tensor_type("copy", [64, 64]))
    Store(tmp_path).adopt(whole, tmp_path)
    assert (tmp_path / "weights.bin").exists()
    samples = [random_feeds(whole, 0), random_feeds(whole, 1)]
    probe = candidate(whole, samples, tmp_path)
    result = target.run(probe)
    assert result.outputs is not None and len(result.outputs) == 2
    for given, wanted in zip(result.outputs, reference(probe, *samples), strict=True):
        for name in wanted:
            np.testing.assert_allclose(given[name], wanted[name], rtol=1e-3, atol=1e-5)


def chain(*ops: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node(op, ["x" if k == 0 else f"t{k}"], [f"t{k + 1}"], name=f"{op.lower()}_{k}")
        for k, op in enumerate(ops)
    ]
    out = tensor_type(f"t{len(ops)}", None)
    return model(nodes, [tensor_type("x", [2, 4, 4])], [out], opset=19)


def test_what_the_provider_does_not_take_fails_to_build(target: OrtProvider, tmp_path: Path) -> None:
    feeds = {"x": np.ones((2, 4, 4), np.float32)}
    result = target.run(candidate(chain("Relu", "Det"), feeds, tmp_path))
    (failure,) = result.failures
    assert (failure.stage, failure.symptom) == (Stage.BUILD, Symptom.ERROR)
    assert failure.nodes == ("det_1",) and failure.op == "Det"
    assert result.facts == {"not_taken": {"Det": 1}}
    (alone,) = target.run(candidate(chain("Det"), feeds, tmp_path)).failures
    assert alone.same_as(failure)  # in another context, under another name


def test_wrong_feeds_fail_while_it_runs(target: OrtProvider, tmp_path: Path) -> None:
    feeds = {"x": np.ones((3, 4, 4), np.float32)}
    (failure,) = target.run(candidate(chain("Relu"), feeds, tmp_path)).failures
    assert failure.stage is Stage.RUN and "INVALID_ARGUMENT" in failure.signature


def test_a_model_that_onnx_runtime_refuses(target: OrtProvider, tmp_path: Path) -> None:
    feeds = {"x": np.ones((2, 4, 4), np.float32)}
    (failure,) = target.run(candidate(chain("Relu", "Nonsense"), feeds, tmp_path)).failures
    assert failure.stage is Stage.BUILD and failure.nodes[:1] == ("nonsense_1",)
    assert "nonsense_1" not in failure.signature and "Nonsense" in failure.message


def test_several_instances_and_libraries_in_one_process(
    libraries: tuple[tuple[str, Path], ...], target: OrtProvider, tmp_path: Path
) -> None:
    """The library leaves and comes back under two names while the first target lives on."""
    feeds = {"x": -np.ones((2, 4, 4), np.float32)}
    library = libraries[0][1] if libraries else openvino_cpu.plugin()
    other = OrtProvider(TargetSettings(spec="ort:mine", ep_libraries=(("mine", library),)))
    assert other.name == openvino_cpu.PROVIDER
    with pytest.raises(UsageError, match="cannot open"):
        wrong = ((openvino_cpu.PROVIDER, tmp_path / "no.so"),)
        OrtProvider(TargetSettings(spec="ort:openvino", ep_libraries=wrong))
    for each in (other, target, other):
        outputs = each.run(candidate(chain("Relu"), feeds, tmp_path)).outputs
        assert outputs is not None and not outputs[0]["t1"].any()


def test_info_names_provider_device_and_versions(target: OrtProvider) -> None:
    info = target.info()
    assert info.name == f"ort:{openvino_cpu.PROVIDER}" and info.can_run
    assert "on CPU" in info.title and {"onnxruntime", openvino_cpu.PROVIDER} == set(info.versions)


def test_the_cpu_provider_itself(tmp_path: Path) -> None:
    cpu = OrtProvider(TargetSettings(spec="ort:cpu"))
    outputs = cpu.run(candidate(chain("Det"), {"x": np.ones((2, 4, 4), np.float32)}, tmp_path)).outputs
    assert outputs is not None and outputs[0]["t1"].shape == (2,)


def test_unknown_provider_lists_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        OrtProvider(TargetSettings(spec="ort:Nope"))
    assert "CPUExecutionProvider" in caught.value.hint and "--ep-library" in caught.value.hint


@pytest.mark.parametrize("name", ["NvTensorRTRTX", "nv-tensorrt-rtx", "NvTensorRTRTXExecutionProvider"])
def test_a_missing_package_is_named(name: str) -> None:
    if ep_libraries.find_package(name):
        pytest.skip("it is installed")
    with pytest.raises(TargetUnavailable) as caught:
        OrtProvider(TargetSettings(spec=f"ort:{name}"))
    assert "pip install onnxruntime-ep-nv-tensorrt-rtx" in caught.value.hint


def test_wrong_options_and_devices(libraries: tuple[tuple[str, Path], ...]) -> None:
    def open_with(query: str) -> None:
        OrtProvider(TargetSettings(spec=f"ort:OpenVINO?{query}", ep_libraries=libraries)).info()

    with pytest.raises(UsageError, match="no device gpu"):
        open_with("device_type=gpu")
    with pytest.raises(UsageError, match="no device cpu number 9"):
        open_with("device_type=cpu&device_id=9")
    with pytest.raises(UsageError, match="does not take the options"):
        open_with("load_config={{")
    open_with("device_type=cpu&device_id=0")


def test_a_trial_is_made_only_where_a_model_does_not_build(
    libraries: tuple[tuple[str, Path], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []  # folders of what sessions are made of; the trial has none
    made = OrtProvider._made

    def counted(self: OrtProvider, source: Source, *given: Any, **more: Any) -> Any:
        built.append(source.folder)
        return made(self, source, *given, **more)

    def run(query: str, op: str) -> TargetResult:
        built.clear()
        target = OrtProvider(TargetSettings(spec=f"ort:OpenVINO{query}", ep_libraries=libraries))
        return target.run(candidate(chain(op), {"x": np.ones((2, 4, 4), np.float32)}, tmp_path))

    monkeypatch.setattr(OrtProvider, "_made", counted)
    monkeypatch.setattr(provider, "_TRIED", set())
    assert run("", "Nonsense").failures and built[:2] == [tmp_path, Path()]
    assert run("?device_type=cpu", "Relu").outputs and built == [tmp_path]
    with pytest.raises(UsageError, match="does not take the options"):
        run("?load_config={{", "Relu")


def test_spec() -> None:
    assert parse_spec("ort:CUDA?a=1&b=x%26y=z") == ("CUDA", {"a": "1", "b": "x&y=z"})
    for wrong in ("ort", "ort:", "ort:?a=1", "ort:CUDA?a"):
        with pytest.raises(UsageError):
            parse_spec(wrong)


def test_packages_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "onnxruntime_ep_nv_tensorrt_rtx_cu13-0.5.0.dist-info"
    info.mkdir()
    name = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.5.0\n")
    (info / "RECORD").write_text("fake_nv_rtx/__init__.py,,\nfake_nv_rtx/libonnxruntime_providers_nv.so,,\n")
    (tmp_path / "fake_nv_rtx").mkdir()
    (tmp_path / "fake_nv_rtx/__init__.py").write_text("raise OSError('libcudart is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = ep_libraries.find_package("NvTensorRTRTXExecutionProvider")
    assert package is not None and (package.module, package.version) == ("fake_nv_rtx", "0.5.0")
    with pytest.raises(TargetUnavailable, match="libcudart is missing"):
        ep_libraries.library_of(package)
    (tmp_path / "fake_nv_rtx/__init__.py").write_text("")
    (tmp_path / "fake_nv_rtx/libonnxruntime_providers_nv.so").write_text("")
    assert ep_libraries.library_of(package).name == "libonnxruntime_providers_nv.so"


def test_essence_keeps_what_says_why() -> None:
    message = (
        "[ONNXRuntimeError] : 11 : EP_FAIL : Exception from src/inference/src/cpp/core.cpp:117:\n"
        "Exception from src/inference/src/dev/plugin.cpp:54:\nUnsupported operation: Foo\n\n"
    )
    assert essence(message) == "EP_FAIL: Unsupported operation: Foo"
    assert essence("plain") == "plain"
    path = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc"
    cuda = (
        f"{path}:154 T CudaCall(...) {path}:146 T CudaCall(...) CUDA failure 700: an illegal"
        f" memory access was encountered ; GPU=0 ; hostname=secret ; file={path} ; line=358 ;"
        " expr=cudaDeviceSynchronize();"
    )  # onnxruntime-gpu 1.31.1 on an H200
    assert essence(cuda) == (
        "CUDA failure 700: an illegal memory access was encountered (cudaDeviceSynchronize())"
    )
