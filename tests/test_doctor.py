"""The doctor: real libraries in other processes; a machine without a GPU, and texts of one with."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import asdict
from rich.console import Console

from bisect_trt.cli.output.console import show_doctor
from bisect_trt.machine import environment
from bisect_trt.machine.environment import ABSENT, describe, gpu_of
from bisect_trt.targets.doctor import Row, apart, diagnose


def _answer() -> list[int]:
    print("rubbish on standard output")
    return [1, 2]


def _crash() -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def _hang() -> None:
    time.sleep(60)


def _raise() -> None:
    raise OSError("libcudart.so.13: cannot open shared object file")


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (_answer, [1, 2]),
        (_crash, "ended the process (exit code -11)"),
        (_hang, "took more than 3 s"),
        (_raise, "failed: OSError: libcudart.so.13: cannot open shared object file"),
    ],
)
def test_a_library_that_dies_is_a_finding(function: object, answer: object) -> None:
    assert apart(function, 3.0) == answer  # type: ignore[arg-type]


def test_diagnosis_of_this_machine() -> None:
    before = set(sys.modules)
    rows = {(row.group, row.name): row for row in diagnose()}
    assert not {"tensorrt_rtx", "onnxruntime", "tensorrt"} & (set(sys.modules) - before)
    rtx = rows["Targets", "tensorrt-rtx"]
    assert rtx.usable and "TensorRT-RTX 1." in rtx.detail
    assert rows["ONNX Runtime providers", "CPUExecutionProvider"].usable
    assert rows["Libraries", "onnx"].detail[0].isdigit()
    for row in rows.values():
        assert json.dumps(asdict(row))
        if row.usable is False:
            assert row.hint, row
    console = Console(file=io.StringIO(), width=60, highlight=False)
    with console.capture() as capture:
        show_doctor(list(rows.values()), console)
    assert "yes         tensorrt-rtx" in capture.get()


def test_commands_to_paste_are_never_wrapped() -> None:
    console = Console(width=40, highlight=False)
    hint = "pip install 'bisect-trt[trt]' --no-cache-dir --upgrade --verbose"
    with console.capture() as capture:
        show_doctor([Row("Targets", "tensorrt", False, "[bold]no[/bold] module " * 5, hint)], console)
    assert f"-> {hint}\n" in capture.get() and "[bold]no[/bold]" in capture.get()


REPORT = """
==============NVSMI LOG==============

Driver Version                            : 580.95.05
CUDA Version                              : 13.0

Attached GPUs                             : 2
    Driver Version                        : other
"""


def test_what_nvidia_smi_says() -> None:
    assert gpu_of("NVIDIA H200, 9.0\nNVIDIA H200, 9.0\n", REPORT) == (
        "2 x NVIDIA H200 (compute capability 9.0)",
        "580.95.05",
        "13.0 (newest that the driver takes)",
    )
    assert gpu_of("", "") == (ABSENT, ABSENT, ABSENT)


@pytest.mark.parametrize("script", ["exit 9", "echo NVIDIA-SMI has failed; exit 9", "exec sleep 30"])
def test_a_broken_driver_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(environment, "_SECONDS", 0.5)
    found = describe()
    assert (found.gpu, found.driver, found.cuda) == (ABSENT, ABSENT, ABSENT)
    assert found.system and found.python


@pytest.mark.skipif(sys.platform != "linux", reason="containers are recognised on Linux only")
def test_containers(tmp_path: Path) -> None:
    def seen(**variables: str) -> str:
        return environment._container(tmp_path, variables)

    assert seen() == "bare metal or virtual machine"
    assert seen(KUBERNETES_SERVICE_HOST="10.0.0.1") == "container"
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/init.scope\n")
    assert seen() == "bare metal or virtual machine"
    (tmp_path / "proc/1/cgroup").write_text("1:name=systemd:/docker/0123\n")
    assert seen() == "container"
