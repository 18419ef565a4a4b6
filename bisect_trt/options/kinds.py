"""Kinds of option values: how each is read from the text of a command line or of TOML, and written again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from bisect_trt.references.spec import ORT, OUTSIDE, SELF

_NUMBER = r"\d+(?:\.\d+)?"
_DIM = r"\d+(?:\.\.\d+)?"
_SHAPE = re.compile(
    rf"\s*(?P<name>[^\s,].*?):(?:\[\s*(?P<list>{_DIM}(?:\s*,\s*{_DIM})*)\s*\]|(?P<dims>{_DIM}(?:x{_DIM})*))"
    r"(?:\s*,\s*|\s+|$)"
)
_DURATION = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit})?" for unit in "dhms"), re.IGNORECASE)
_PART = re.compile(rf"({_NUMBER})\s*([smhd])", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LARGEST_BYTES = 2**62  # bytes; libraries take sizes as signed 64-bit numbers
_SIZE = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = " KMGT"


class Unreadable(ValueError):
    """A text that an option does not take."""

    def __init__(self, text: str, said: str) -> None:
        super().__init__(f"{text!r} {said}")


class Kind(Struct, frozen=True):
    """A kind of value.

    Attributes:
        one: the value that a text means; raises Unreadable.
        write: the text that means a value.
        metavar: what stands for the value in `--help`.
        example: a text that is right, for errors.
        many: the option can be repeated, and its value is a tuple.
        parts: with `many`: splits a text into pairs of name and text; the value is sorted by name.
        joint: what stands between a name and its text.
        flat: a named value is a tuple that stands in its entry without brackets of its own.
        switch: the option takes no text: it is there, or its opposite is.
    """

    one: Callable[[str], Any] = str
    write: Callable[[Any], str] = str
    metavar: str = "TEXT"
    example: str = ""
    many: bool = False
    parts: Callable[[str], Iterable[tuple[str, str]]] | None = None
    joint: str = ":"
    flat: bool = False
    switch: bool = False

    def read(self, texts: Sequence[str]) -> Any:
        """Return the value of an option that was given with these texts. Raises Unreadable."""
        if not self.many:
            return self.one(texts[-1])
        if self.parts is None:
            return tuple(map(self.one, texts))
        found: dict[str, Any] = {}
        for name, rest in (pair for text in texts for pair in self.parts(text)):
            value = self.one(rest)
            if found.setdefault(name, value) != value:
                raise Unreadable(name or rest, "is given two values" if name else "is a second value")
        return tuple((name, *value) if self.flat else (name, value) for name, value in sorted(found.items()))

    def texts(self, value: Any) -> list[str]:
        """Return the texts that `read` makes this value of."""
        if not self.many:
            return [self.write(value)]
        if self.parts is None:
            return [self.write(each) for each in value]
        found = []
        for name, *rest in value:
            text = self.write(tuple(rest) if self.flat else rest[0])
            found.append(f"{name}{self.joint}{text}" if name else text)
        return found

    def of_toml(self, value: Any) -> Any:
        """Return the value that stands in a TOML file: a text, a number, a list of them, or a table by name.

        Raises:
            Unreadable: it is none.
        """
        if self.switch:
            if not isinstance(value, bool):
                raise Unreadable(str(value), "is not true or false")
            return value
        if isinstance(value, Mapping) and self.parts is not None:
            named = ((name, self._toml_text(each)) for name, each in value.items())
            return self.read([f"{name}{self.joint}{text}" if name else text for name, text in named])
        texts = [self._toml_text(each) for each in (value if isinstance(value, list | tuple) else [value])]
        return self.read(texts if self.many else [",".join(texts)])

    def _toml_text(self, value: Any) -> str:
        # [1, 3] of a shape, [-1, 1] of a range
        if isinstance(value, list | tuple) and self.parts is not None:
            return (".." if self.flat else "x").join(map(str, value))
        if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
            raise Unreadable(str(value), f"is not {self.metavar}")
        return str(value)


def number_text(value: float) -> str:
    """Return the shortest text that is read as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def size(text: str) -> int:
    """Parse `2G`, `512MiB`, `1.5g` or plain bytes as bytes; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    scaled = float(match["number"]) * 1024 ** _UNITS.index(match["unit"].upper() or " ") if match else 0
    found = int(scaled) if scaled < _LARGEST_BYTES else 0
    if found and match and not match["unit"] and match["number"].isdecimal():
        found = int(match["number"])
    if found < 1:
        raise Unreadable(text, "is not a size")
    return found


def size_text(value: int) -> str:
    """Return `1G` where it is exactly that, else bytes."""
    for power in range(len(_UNITS) - 1, 0, -1):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{_UNITS[power]}"
    return str(value)


def duration(text: str) -> float:
    """Parse `90s`, `20m`, `1.5h`, `1h30m`, `2d` or plain seconds as seconds, more than 0."""
    plain = _number(text)
    if plain is None and text.strip() and _DURATION.fullmatch(text.strip()):
        plain = sum(float(n) * _SECONDS[unit.lower()] for n, unit in _PART.findall(text))
    if plain is None or not 0 < plain < math.inf:
        raise Unreadable(text, "is not a duration")
    return plain


def shapes(text: str) -> list[tuple[str, str]]:
    """Parse `x:1x3,y:2` and Polygraphy's `x:[1,3]`. Names may contain colons and spaces."""
    found, at = [], 0
    while at < len(text) or not text:
        match = _SHAPE.match(text, at)
        if match is None:
            raise Unreadable(text[at:].strip(), "is not NAME:DIMS")
        found.append((match["name"], match["dims"] or "x".join(match["list"].replace(" ", "").split(","))))
        at = match.end()
    return found


def shape_text(shape: Iterable[int]) -> str:
    """Return dimensions as users write them: `1x3x224x224`."""
    return "x".join(str(d) for d in shape)


def _dims(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(?:x\d+)*", text):
        raise Unreadable(text, "is not dimensions such as 1x3x224x224")
    return tuple(int(d) for d in text.split("x"))


def _spans(text: str) -> tuple[tuple[int, int], ...]:
    """Parse `1..64x3` into the smallest and largest size of each dimension, equal where it is fixed."""
    if not re.fullmatch(rf"{_DIM}(?:x{_DIM})*", text):
        raise Unreadable(text, "is not dimensions such as 1..64x3x224x224")
    found = []
    for part in text.split("x"):
        low, _, high = part.partition("..")
        if int(high or low) < int(low):
            raise Unreadable(part, "is not LEAST..LARGEST")
        found.append((int(low), int(high or low)))
    return tuple(found)


def spans_text(value: Iterable[tuple[int, int]]) -> str:
    """Return dimensions as users write them: `1..64x3`."""
    return "x".join(str(low) if low == high else f"{low}..{high}" for low, high in value)


def _percent(text: str) -> float:
    """Parse `2%` or `0.02` as a part of one."""
    plain = _number(text.removesuffix("%"))
    found = None if plain is None else plain / 100 if text.endswith("%") else plain
    if found is None or not 0 < found < 1:
        raise Unreadable(text, "is not a percentage above 0 and below 100")
    return found


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return None if math.isnan(found) else found


def _tolerance(text: str) -> float:
    found = _number(text)
    if found is None or not 0 <= found < math.inf:
        raise Unreadable(text, "is not a number of at least 0")
    return found


def _range(text: str) -> tuple[float, float]:
    low, high = map(_number, (*text.split(".."), "")[:2]) if text.count("..") == 1 else (None, None)
    if low is None or high is None or not low <= high:
        raise Unreadable(text, "is not LO..HI")
    return low, high


def _metric(text: str) -> str:
    kind, colon, part = text.partition(":")
    quantile = _number(part)
    if kind == "quantile" and quantile is not None and 0 < quantile < 1:
        return text
    if kind in ("snr", "psnr") and quantile is not None and 0 < quantile < math.inf:
        return text
    if kind in ("max", "mean", "rms", "cosine", "boxes") and not colon:
        return text
    raise Unreadable(text, "is none of max, mean, rms, cosine, quantile:0.99, snr:30, psnr:40, boxes")


def _reference(text: str) -> str:
    known = (ORT, SELF, "target-at", *OUTSIDE)
    if text.partition(":")[0] not in known:
        raise Unreadable(text, f"is none of {', '.join(known)}")
    return text


_TARGETS = {
    "trt": "tensorrt",
    "trt-rtx": "tensorrt-rtx",
    "trtrtx": "tensorrt-rtx",
    "rtx": "tensorrt-rtx",
    "tensorrtrtx": "tensorrt-rtx",
    "cpu": "ort:CPU",
    "cuda": "ort:CUDA",
    **{name: f"emulate:{name}" for name in ("fp16", "bf16", "tf32", "fp8", "int8")},
}
"""What people call a target, in small letters and with dashes, and its name."""


def _target(text: str) -> str:
    name, colon, rest = text.partition(":")
    small = name.lower().replace("_", "-")
    plain = small in ("auto", "tensorrt", "tensorrt-rtx", "ort", "emulate", "command")
    return f"{_TARGETS.get(small, small if plain else name)}{colon}{rest}"


def _listed(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if "" in found or len(set(found)) < len(found):
        raise Unreadable(text, "is not a list of names, each once")
    return found


def _after_name(joint: str, form: str = "") -> Callable[[str], list[tuple[str, str]]]:
    def split(text: str) -> list[tuple[str, str]]:
        name, found, rest = text.partition("=") if joint == "=" else text.rpartition(joint)
        if form and not (name and found and rest):
            raise Unreadable(text, f"is not {form}")
        return [(name, rest)]

    return split


def word(*known: str, metavar: str = "") -> Kind:
    """Take one of these words."""

    def one(text: str) -> str:
        if text and text.lower() not in known:
            raise Unreadable(text, f"is none of {', '.join(known)}")
        return text.lower()

    return Kind(one, metavar=metavar or "|".join(known), example=known[0])


def words(*known: str, metavar: str) -> Kind:
    """Some of these words, with commas between them."""

    def one(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
        for part in found:
            if part not in known:
                raise Unreadable(part, f"is none of {', '.join(known)}")
        return found

    return Kind(one, ",".join, metavar, known[0])


def count(least: int, most: float = math.inf, metavar: str = "N") -> Kind:
    """Return a whole number between two limits."""

    def one(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text.strip()):
            raise Unreadable(text, "is not a whole number")
        if not least <= int(text) <= most:
            limit = f"at least {least}" if most == math.inf else f"between {least} and {most:g}"
            raise Unreadable(text, f"has to be {limit}")
        return int(text)

    return Kind(one, metavar=metavar, example=str(max(least, 1)))


def text(metavar: str, example: str = "") -> Kind:
    """Take any text."""
    return Kind(metavar=metavar, example=example)


SWITCH = Kind(metavar="", switch=True)
FILE = Kind(Path, metavar="FILE")
FOLDER = Kind(Path, metavar="DIR")
FILES = Kind(Path, metavar="LIB", many=True)
NAMES = Kind(metavar="NAME", many=True)
SIZE = Kind(size, size_text, "SIZE", "2G, 512M or a number of bytes")
TIME = Kind(duration, number_text, "TIME", "90s, 20m or 2h")
SHAPES = Kind(_dims, shape_text, "NAME:DIMS", "x:1x3x224x224, several separated by commas", True, shapes)
SPANS = Kind(_spans, spans_text, "NAME:DIMS", "x:1..64x3x224x224, several separated by commas", True, shapes)
PERCENT = Kind(_percent, lambda part: f"{number_text(part * 100)}%", "PERCENT", "2%")
TOLERANCE = Kind(_tolerance, number_text, "[NAME:]VALUE", "1e-3 or y:1e-3", True, _after_name(":"))
TOP = Kind(count(1).one, str, "NAME:K", "scores:5", True, _after_name(":", "NAME:K"))
RANGE = Kind(
    _range,
    lambda ends: "..".join(map(number_text, ends)),
    "NAME:LO..HI",
    "x:-1..1",
    True,
    _after_name(":", "NAME:LO..HI"),
    flat=True,
)
LIBRARIES = Kind(Path, str, "NAME=PATH", "NAME=PATH", True, _after_name("=", "NAME=PATH"), "=")
TARGET = Kind(_target, metavar="TARGET", example="tensorrt-rtx")
METRIC = Kind(_metric, metavar="METRIC", example="rms")
REFERENCE = Kind(_reference, metavar="REF", example="python:truth.py")
LISTED = Kind(_listed, ",".join, "GPU[,GPU...]", "0 or 0,1")
