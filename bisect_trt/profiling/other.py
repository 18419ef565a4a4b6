"""`--against`: the other side, in the words of the command line."""

from __future__ import annotations

import re
import shlex

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.options.table import ROWS, Option
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.registry import resolve
from bisect_trt.workers.stopwatch import require_clock

EXAMPLE = "write --against ort:CPU, --against '--precision fp16', or --against onnxruntime==1.22.0"
_NOT = ("shapes", "min_shapes", "opt_shapes", "max_shapes", "build_only", "deep", "fail_regex", "verbose_log")
_OF_TENSORRT = ("workspace", "opt_level", "tf32", "timing_cache")
_TARGET = next(row for row in ROWS if row.key == "spec")
_TARGET_WORDS = re.compile(r"command:.*|(?!--|['\"]).+?(?=\s--|$)", re.DOTALL)  # up to the first option
_RELEASE = re.compile(r"[\w.-]+==\S+")


class Other(Struct, frozen=True):
    """The other side: settings, and `PACKAGE==VERSION` where it is another release."""

    target: TargetSettings
    release: str = ""


def other_side(text: str, target: TargetSettings) -> Other:
    """Read another target, the same one with other options, or another release of it.

    A target begins with no options but plugin libraries; options alone change those of the first side.

    Raises:
        UsageError: a word is no target and no option of one, or its time means nothing.
        TargetUnavailable: it is `auto`, and nothing that it may stand for is installed.
    """
    words = _words(text.strip())
    if not words:
        raise UsageError("--against says nothing", EXAMPLE)
    found, release = target, ""
    if _RELEASE.fullmatch(words[0]):
        release = words.pop(0)
    elif not words[0].startswith("--"):
        spec = resolve(_TARGET.kind.one(words.pop(0)))
        found = TargetSettings(spec, ep_libraries=target.ep_libraries, plugins=target.plugins)
    given = _options(words)
    require_clock("--against", found.spec)
    idle = [row.flag for row in given if row.key in _OF_TENSORRT and "tensorrt" not in found.spec]
    if idle:
        raise UsageError(f"--against: {idle[0]} says nothing to {found.spec}", EXAMPLE)
    return Other(replace(found, **{row.key: row.read(value) for row, value in given.items()}), release)


def _options(words: list[str]) -> dict[Option, list[str] | bool]:
    """Return what each option of a target was given: the texts, or whether a switch is on.

    Raises:
        UsageError: a word is no option of a target, or a value is missing.
    """
    known = [row for row in ROWS if row.section == "target" and row.key not in _NOT]
    rows = {flag: row for row in known for flag in row.flag.split("/")}
    switches: dict[Option, list[str] | bool] = {}
    texts: dict[Option, list[str]] = {}
    while words:
        flag, equals, value = words.pop(0).partition("=")
        row = rows.get(flag)
        if row is None:
            raise UsageError(f"--against: there is no option {flag} of a target", EXAMPLE)
        if row.kind.switch:
            switches[row] = flag == row.flag.partition("/")[0]
        elif equals or words:
            texts.setdefault(row, []).append(value if equals else words.pop(0))
        else:
            raise UsageError(f"--against: {flag} needs a value", EXAMPLE)
    return switches | texts


def _words(text: str) -> list[str]:
    """Split the text into words; a target keeps its quotes, as on a command line behind the shell.

    Raises:
        UsageError: a quote has no end.
    """
    target = _TARGET_WORDS.match(text)
    begun, rest = ([target[0].strip()], text[target.end() :]) if target else ([], text)
    try:
        return begun + shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"--against {text!r}: {error}", EXAMPLE) from error
