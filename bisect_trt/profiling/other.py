"""`--against`: the other side, in the words of the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class Other:
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
    given: dict[str, list[str] | bool] = {}
    known_rows = [row for row in ROWS if row.section == "target" and row.key not in _NOT]
    rows = {flag: row for row in known_rows for flag in row.flag.split("/")}
    while words:
        flag, equals, value = words.pop(0).partition("=")
        row = rows.get(flag)
        if row is None:
            raise UsageError(f"--against: there is no option {flag} of a target", EXAMPLE)
        if row.kind.switch:
            given[row.key] = flag == row.flag.partition("/")[0]
            continue
        if not equals and not words:
            raise UsageError(f"--against: {flag} needs a value", EXAMPLE)
        text_ = value if equals else words.pop(0)
        known = given.setdefault(row.key, [])
        assert isinstance(known, list)
        known.append(text_)
    changes: dict[str, Any] = {key: _row(key).read(value) for key, value in given.items()}
    require_clock("--against", found.spec)
    idle = [_row(key).flag for key in changes if key in _OF_TENSORRT and "tensorrt" not in found.spec]
    if idle:
        raise UsageError(f"--against: {idle[0]} says nothing to {found.spec}", EXAMPLE)
    return Other(replace(found, **changes), release)


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


def _row(key: str) -> Option:
    return next(row for row in ROWS if row.key == key)
