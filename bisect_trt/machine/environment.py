"""What a bug report says about the machine. Standard library only; loads no GPU library."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from msgspec import Struct

ABSENT = "not present"
INSTALL = {
    "tensorrt": "pip install tensorrt (10 and 11; how 8.6 is installed: docs/gpu.md)",
    "tensorrt-rtx": "pip install tensorrt-rtx",
    "onnxruntime": "pip install onnxruntime",
    "torch": "pip install torch",
    "ray": "pip install 'ray[client]'",
}
"""How to get what a target or an option needs, beside this tool as it is installed: from a clone, an archive
or an index; so no line names the tool itself."""
_SECONDS = 10.0  # nvidia-smi can hang when a driver is broken


class Environment(Struct, frozen=True):
    """The fields of NVIDIA/TensorRT's issue template; `ABSENT` where the machine has no such thing."""

    gpu: str
    driver: str
    cuda: str
    cudnn: str
    system: str
    python: str
    tensorflow: str
    pytorch: str
    container: str


def describe() -> Environment:
    """Look at this machine; takes milliseconds without a GPU and never raises."""
    gpu, driver, cuda = gpu_of(
        _nvidia_smi("--query-gpu=name,compute_cap", "--format=csv,noheader"), _nvidia_smi("-q")
    )
    return Environment(
        gpu=gpu,
        driver=driver,
        cuda=cuda,
        cudnn=first_version("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
        system=_system(),
        python=f"{platform.python_version()} ({platform.python_implementation()}, {platform.machine()})",
        tensorflow=first_version("tensorflow", "tensorflow-cpu"),
        pytorch=first_version("torch"),
        container=_container(Path("/"), os.environ),
    )


@cache  # its metadata are parsed as an e-mail, and several ask for it
def version(distribution: str) -> str:
    """Return the installed version of a distribution without importing it, or `ABSENT`."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ABSENT


def first_version(*distributions: str) -> str:
    """Return the version of the first of these that is installed, or `ABSENT`."""
    return next((v for v in map(version, distributions) if v != ABSENT), ABSENT)


def gpu_of(table: str, report: str) -> tuple[str, str, str]:
    """Return GPU, driver and CUDA version from nvidia-smi's answers; `ABSENT` for what they do not say.

    Args:
        table: lines `NAME, COMPUTE_CAPABILITY`, one a GPU.
        report: the text of `nvidia-smi -q`; it tells the newest CUDA version that the driver takes.
    """
    gpus = [
        " (compute capability ".join(f.strip() for f in line.rsplit(",", 1)) + ")"
        for line in table.splitlines()
    ]
    names = ", ".join(f"{gpus.count(g)} x {g}" if gpus.count(g) > 1 else g for g in dict.fromkeys(gpus))
    said: dict[str, str] = {}
    for line in report.splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            said.setdefault(key.strip(), value.strip())
    driver = said.get("Driver Version", ABSENT)
    cuda = said.get("CUDA Version") or said.get("CUDA UMD Version")
    return names or ABSENT, driver, f"{cuda} (newest that the driver takes)" if cuda else ABSENT


def _nvidia_smi(*arguments: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _system() -> str:
    if sys.platform == "linux":
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {}
        if "PRETTY_NAME" in release:
            return f"{release['PRETTY_NAME']} (kernel {platform.release()}, {platform.machine()})"
    return f"{platform.system()} {platform.release()} ({platform.machine()})"


def _container(root: Path, environ: Mapping[str, str]) -> str:
    if sys.platform != "linux":
        return "bare metal or virtual machine"
    try:
        groups = (root / "proc/1/cgroup").read_text()
    except OSError:
        groups = ""
    signs = (
        (root / ".dockerenv").exists(),
        (root / "run/.containerenv").exists(),  # podman
        bool(environ.get("container")),
        "KUBERNETES_SERVICE_HOST" in environ,
        any(word in groups for word in ("docker", "kubepods", "containerd", "lxc", "libpod")),
    )
    return "container" if any(signs) else "bare metal or virtual machine"


def quiet_environ() -> dict[str, str]:
    """Return the variables for a program of another environment: nothing that leads back into ours."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
