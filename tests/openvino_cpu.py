"""OpenVINO's execution provider for tests: a real compiler that runs on a CPU."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

PROVIDER = "OpenVINOExecutionProvider"
# OpenVINO computes in bfloat16 where the CPU can: that would be another test.
SPEC = 'ort:OpenVINO?load_config={"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}'
_SOURCE = Path(__file__).with_name("openvino_any_cpu.c")


def plugin() -> Path:
    """The library of the installed package; skips the test where there is none."""
    package = pytest.importorskip("onnxruntime_ep_openvino", reason="needs onnxruntime-ep-openvino")
    return Path(package.get_library_path())


@cache
def is_intel() -> bool:
    """Whether the plugin takes this CPU as it is."""
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text()


def libraries(folder: Path) -> tuple[tuple[str, Path], ...]:
    """What `TargetSettings.ep_libraries` has to be for the provider to work on this CPU.

    Nothing on Intel's CPUs, where the package is found by itself.
    """
    real = plugin()
    if is_intel():
        return ()
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("OpenVINO's plugin takes Intel CPUs only, and no C compiler is here")
    library = folder / "libopenvino_any_cpu.so"
    if not library.exists():
        part = library.with_suffix(".part")
        # The plugin keeps pointers into this library when ONNX Runtime unloads both: stay.
        flags = ["-shared", "-fPIC", "-O1", "-Wl,-z,nodelete", f'-DPLUGIN="{real}"']
        subprocess.run([compiler, *flags, "-o", str(part), str(_SOURCE), "-ldl"], check=True)
        part.replace(library)
    return ((PROVIDER, library),)
