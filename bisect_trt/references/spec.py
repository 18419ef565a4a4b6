"""What `--reference` says, checked without running anything."""

from __future__ import annotations

import shlex
from pathlib import Path

from msgspec import Struct

from bisect_trt.errors import UsageError

ORT, SELF = "ort", "self"
OUTSIDE = ("python", "torchscript", "command", "outputs")
"""References that give the outputs of the whole model and nothing else."""

_USAGE = "ort, python:FILE[:FUNCTION], torchscript:FILE.pt, command:CMD, outputs:FILE, target-at:fp32, self"


class Spec(Struct, frozen=True):
    """A reference by kind (`ort`, `python`, ...) and what follows the colon."""

    kind: str
    argument: str = ""

    @property
    def outside(self) -> bool:
        """Whether it gives outputs of the whole model only."""
        return self.kind in OUTSIDE


def parse(text: str) -> Spec:
    """Return the reference that a text names.

    Raises:
        UsageError: there is no such reference, or its file does not exist.
    """
    kind, _, argument = text.partition(":")
    plain = text == "target-at:fp32" or (kind in (ORT, SELF) and not argument)
    if not plain and not (kind in OUTSIDE and argument):
        raise UsageError(f"--reference {text!r} is none that is known", f"References: {_USAGE}.")
    if kind in ("python", "torchscript", "outputs"):
        file = split_function(argument)[0] if kind == "python" else Path(argument)
        if not file.exists():
            raise UsageError(f"--reference {text}: there is no file {file}")
    if kind == "command":
        try:
            shlex.split(argument)
        except ValueError as error:
            raise UsageError(f"--reference {text!r}: {error}", "quote as for a shell") from error
        if "{outputs}" not in argument:
            raise UsageError(
                f"--reference {text!r} has no {{outputs}}",
                "write --reference 'command:python run.py {inputs} {outputs}'; {model} is there, too",
            )
    return Spec(kind, argument)


def split_function(text: str) -> tuple[Path, str]:
    """Split `FILE.py:FUNCTION` in its parts; the function is empty when it is not named."""
    file, colon, function = text.rpartition(":")
    if colon and function.isidentifier() and file.endswith(".py"):
        return Path(file), function
    return Path(text), ""


def python_loader(path: Path) -> tuple[Path, str] | None:
    """Return the file and function when `--inputs` names a Python loader.

    Raises:
        UsageError: the file does not exist, or no function is named.
    """
    file, function = split_function(str(path))
    if file.suffix != ".py":
        return None
    if not file.is_file():
        raise UsageError(f"--inputs {path}: there is no file {file}")
    if not function:
        raise UsageError(f"--inputs {path} names no function", f"write --inputs {file}:FUNCTION")
    return file, function
