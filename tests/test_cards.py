"""GPUs that TensorRT-RTX does not take, on the real code path: a driver that has one is put in the way.

Real commands in processes of their own; TensorRT-RTX is real, too, and builds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bisect_trt.errors import TargetUnavailable
from bisect_trt.model.candidate import Candidate
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.tensorrt import backend, warm

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

REFUSED = (
    "TensorRT-RTX cannot run on this GPU (NVIDIA H100 80GB HBM3, compute capability 9.0;"
    " it takes 8.0, 8.6, 8.9 and 12.0 up)"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `libcuda.so.1` that has an H100."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("driver")
    what = ['-DNAME="NVIDIA H100 80GB HBM3"', "-DMAJOR=9", "-DMINOR=0", "-Wl,-soname,libcuda.so.1"]
    source = Path(__file__).with_name("fake_libcuda.c")
    command = [compiler, "-shared", "-fPIC", *what, "-o", str(folder / "libcuda.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


def bisect_trt(driver: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from bisect_trt.cli.app import main; sys.exit(main())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "COLUMNS": "300"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["check", "reduce"])
@pytest.mark.parametrize("model", ["nms.onnx", "ok.onnx"])
def test_the_card_is_refused_and_nothing_is_said_of_the_model(
    driver: Path, tmp_path: Path, models_dir: Path, command: str, model: str
) -> None:
    done = bisect_trt(driver, tmp_path, command, str(models_dir / model), "--target", "tensorrt-rtx")
    assert done.returncode == 3
    assert REFUSED in done.stderr and "--build-only" in done.stderr
    assert not done.stdout and not list(tmp_path.iterdir())


def test_build_only_is_done_on_request(driver: Path, tmp_path: Path, models_dir: Path) -> None:
    options = ["--target", "tensorrt-rtx", "--build-only", "--json"]
    done = bisect_trt(driver, tmp_path, "check", str(models_dir / "nms.onnx"), *options)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert [f["op"] for f in report["failures"]] == ["NonMaxSuppression"]
    assert f"{REFUSED}." in report["notes"]
    assert "--build-only: engines are built but not run, outputs are not compared." in report["notes"]
    assert report["target"]["versions"]["GPU"] == "NVIDIA H100 80GB HBM3 (9.0)"
    assert "--build-only" in report["reduce"]


def test_doctor_says_the_same(driver: Path, tmp_path: Path) -> None:
    rows = json.loads(bisect_trt(driver, tmp_path, "doctor", "--json").stdout)["rows"]
    (row,) = [row for row in rows if row["name"] == "tensorrt-rtx"]
    assert row["usable"] is False and row["detail"] == REFUSED
    assert "--build-only" in row["hint"]


def test_an_engine_that_the_card_refuses_is_no_failure_of_the_model(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the list of cards be out of date: the runtime's own words (TensorRT-RTX 1.7.1 on an H100)."""
    monkeypatch.setattr(gpu, "find_gpu", lambda: gpu.Gpu("H100", (12, 0), "13.0", "580"))
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))
    said = (
        "The engine cannot run on this GPU, which has compute capability 9.0."
        " Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0"
    )

    class Runtime:
        def __init__(self, logger: object) -> None:
            return None

        def deserialize_cuda_engine(self, plan: object) -> None:
            target._log.add("ERROR", said)

    monkeypatch.setattr(target._trt, "Runtime", Runtime)
    monkeypatch.setattr(warm, "_kept", {})  # or later tests of this process would be given this one
    model = (models_dir / "ok.onnx").read_bytes()
    with pytest.raises(TargetUnavailable, match="cannot run on this GPU") as error:
        target.run(Candidate(model, models_dir, ()))
    assert "--build-only" in error.value.hint


def test_a_tensorrt_that_cannot_make_a_builder_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT (not RTX) without a driver: pybind11 says TypeError, the log says why."""
    monkeypatch.setattr(gpu, "find_gpu", lambda: None)
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))

    def nothing(logger: object) -> None:
        target._log.add("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(target._trt, "Builder", nothing)
    monkeypatch.setattr(warm, "_kept", {})  # other tests of this process have made a builder
    with pytest.raises(TargetUnavailable, match="CUDA initialization failure with error: 35"):
        target.info()
