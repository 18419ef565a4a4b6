"""`import bisect_trt` and the help stay light: neither a target nor ONNX Runtime is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "onnxruntime", "polygraphy", "torch", "cuda")
# Prints what is loaded, whatever the command did.
SEEN = """
import json, sys
sys.argv[0] = "bisect-trt"
try:
    {body}
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("LOADED", json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def loaded(body: str, *args: str) -> set[str]:
    """Top-level modules of a fresh process that ran `body`."""
    code = SEEN.format(body=body)
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("LOADED ")]
    return set(json.loads(line.removeprefix("LOADED ")))


def test_import_is_light() -> None:
    modules = loaded("import bisect_trt")
    assert "bisect_trt" in modules
    assert not modules & set(HEAVY)


def test_the_script_is_light_until_it_runs() -> None:
    """Each worker process imports the script that started the tool."""
    modules = loaded("from bisect_trt.cli import main")
    assert not modules & {*HEAVY, "typer", "numpy", "onnx"}


@pytest.mark.parametrize("command", ["", "reduce", "check", "doctor"])
def test_help_is_light(command: str) -> None:
    modules = loaded("from bisect_trt.cli.app import main; main()", *command.split(), "--help")
    assert "typer" in modules
    assert not modules & set(HEAVY)


def test_what_draws_on_a_terminal_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # as a CI job may have it
        monkeypatch.delenv(name, raising=False)
    modules = loaded("from bisect_trt.cli.app import main; main()", "doctor")
    assert "psutil" in modules and not modules & {"rich"}


def test_the_probe_of_this_test_sees_a_heavy_import() -> None:
    assert "onnxruntime" in loaded("import onnxruntime")
