"""First contact: what people type who know another tool, or nothing yet, as the words that are meant."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.errors import UsageError
from bisect_trt.options import ROWS, line
from bisect_trt.settings import Settings

SCREEN = f"""\
bisect-trt {__version__}: the smallest part of an ONNX model that fails on TensorRT

  bisect-trt check model.onnx     does it fail, and where? One try, a few seconds.
  bisect-trt reduce model.onnx    the smallest part that still fails, to report it
  bisect-trt doctor               what can be used on this machine

For example, what would FP16 do to this model? No GPU is needed:

  bisect-trt check model.onnx --target emulate:fp16

bisect-trt --help lists all commands, bisect-trt COMMAND --help its options.
"""

_ALSO: dict[str, tuple[str, ...]] = {flag: words for row in ROWS for flag, words in row.also} | {"--onnx": ()}
_REPRODUCER = "report.json"


def understood(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return the same command line in the words of ours.

    Raises:
        UsageError: the first word is no command; says which command it may have been meant for.
    """
    found = [*words]
    if found and found[0] in ("-V", "-v"):
        found[0] = "--version"
    if found and found[0] == "help":
        found = [*found[1:2], "--help"]
    if found and not found[0].startswith("-") and found[0] not in commands:
        raise _no_command(found[0], commands)
    return [other for word in found for other in _meant(word)]


def _meant(word: str) -> tuple[str, ...]:
    """Return the words of ours for one of another tool; trtexec and Polygraphy give values after `=`, too."""
    flag, equals, value = word.partition("=")
    if flag not in _ALSO:
        return (word,)
    *before, last = _ALSO[flag] or ("",)
    return tuple(filter(None, (*before, f"{last}{equals}{value}" if last else value)))


def opened(model: Path, settings: Settings) -> tuple[Path, Settings]:
    """Return the model that a path means, and its input values where it is a reproducer's: those beside it.

    Raises:
        UsageError: it is something else that people have; says what to do with it.
    """
    from bisect_trt.reproducer.files import INPUTS, MODEL  # heavy imports wait until a command runs

    if (model / MODEL).is_file():
        model = model / MODEL
    beside = model.parent / INPUTS
    if model.name == MODEL and settings.run.inputs is None and beside.is_file():
        print(f"inputs: {beside}, as none are given", file=sys.stderr)
        return model, replace(settings, run=replace(settings.run, inputs=beside))
    if model.is_dir() and len(list(model.glob("*.onnx"))) > 1:
        hint = f"many models: {line('bisect-trt', 'nightly', model)}"
        raise UsageError(f"{model} is a folder, and this command takes one model", hint)
    if model.suffix == ".zip" and model.is_file():
        hint = f"a reproducer: {line('bisect-trt', 'verify', model)}; a model: unpack it first"
        raise UsageError(f"{model} is an archive, not an ONNX file", hint)
    if model.suffix == ".py" and model.is_file():
        raise UsageError(f"{model} is Python, not an ONNX file", "export the model with torch.onnx.export")
    return model, settings


def _no_command(word: str, commands: Collection[str]) -> UsageError:
    path = Path(word)
    if path.suffix == ".onnx" or path.exists():
        what, command = "a file", "check"
        if path.suffix == ".zip" or (path / _REPRODUCER).exists():
            what, command = "a reproducer", "verify"
        elif path.is_dir() or path.suffix == ".toml":
            what, command = "a folder" if path.is_dir() else "a configuration", "nightly"
        return UsageError(
            f"{word} is {what}, and which command is missing", line("bisect-trt", command, word)
        )
    near = difflib.get_close_matches(word, commands, 1)
    hint = f"did you mean: bisect-trt {near[0]}" if near else f"commands: {', '.join(commands)}"
    return UsageError(f"there is no command {word!r}", hint)
