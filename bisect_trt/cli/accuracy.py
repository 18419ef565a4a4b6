"""Options on accuracy: references, tolerances, input values; and how their texts become settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bisect_trt.errors import UsageError
from bisect_trt.settings import AccuracySettings

_ACCURACY = "Accuracy"
_INPUTS = "Input values"

Texts = list[str] | None
Reference = Annotated[
    str,
    typer.Option(
        "--reference",
        metavar="REF",
        help="Where truth comes from: ort, python:FILE[:FUNCTION], torchscript:FILE.pt, command:CMD, "
        "outputs:FILE, target-at:fp32, self.",
        rich_help_panel=_ACCURACY,
    ),
]
ReferenceProvider = Annotated[
    str,
    typer.Option(
        "--reference-provider",
        metavar="PROVIDER",
        help="Execution provider of ONNX Runtime as the reference.",
        rich_help_panel=_ACCURACY,
    ),
]
CustomOps = Annotated[
    list[Path] | None,
    typer.Option(
        "--custom-ops",
        metavar="LIB",
        help="Custom operators of ONNX Runtime as the reference; repeat it.",
        rich_help_panel=_ACCURACY,
    ),
]
Rtol = Annotated[
    Texts,
    typer.Option(
        "--rtol",
        metavar="[NAME:]VALUE",
        help="Relative tolerance, of one output or all; repeat it.",
        rich_help_panel=_ACCURACY,
    ),
]
Atol = Annotated[
    Texts,
    typer.Option(
        "--atol",
        metavar="[NAME:]VALUE",
        help="Absolute tolerance, of one output or all; repeat it.",
        rich_help_panel=_ACCURACY,
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="max, mean, rms, cosine or quantile:0.99: what of an output has to be within tolerance.",
        rich_help_panel=_ACCURACY,
    ),
]
Ignore = Annotated[
    Texts,
    typer.Option(
        "--ignore",
        metavar="NAME",
        help="Output that is not compared; repeat it.",
        rich_help_panel=_ACCURACY,
    ),
]
TopK = Annotated[
    Texts,
    typer.Option(
        "--topk",
        metavar="NAME:K",
        help="Compare only which K are the best along the last axis; repeat it.",
        rich_help_panel=_ACCURACY,
    ),
]
Judge = Annotated[
    str,
    typer.Option(
        "--judge",
        metavar="WHERE",
        help="outputs: compare the model's outputs whatever part runs on the target; local: the part's own.",
        rich_help_panel=_ACCURACY,
    ),
]
InputRange = Annotated[
    Texts,
    typer.Option(
        "--input-range",
        metavar="NAME:LO..HI",
        help="Range of random values of an input; repeat it.",
        rich_help_panel=_INPUTS,
    ),
]
SaveInputs = Annotated[
    Path | None,
    typer.Option(
        "--save-inputs",
        metavar="FILE",
        help="Write the input values: .npz, or .json for Polygraphy.",
        rich_help_panel=_INPUTS,
    ),
]
SaveOutputs = Annotated[
    Path | None,
    typer.Option(
        "--save-outputs",
        metavar="DIR",
        help="Write all outputs of both sides, for each sample.",
        rich_help_panel=_INPUTS,
    ),
]
RecordBudget = Annotated[
    str | None,
    typer.Option(
        "--record-budget",
        metavar="SIZE",
        help="Recorded tensors held in memory at once, such as 4G; a quarter of it all without.",
        rich_help_panel=_ACCURACY,
    ),
]

_RANGE = re.compile(r"(?P<name>.+):(?P<low>[^:]+?)\.\.(?P<high>[^:]+)")


def accuracy_settings(
    *,
    reference: str,
    reference_provider: str,
    custom_ops: Sequence[Path] | None,
    rtol: Texts,
    atol: Texts,
    metric: str,
    ignore: Texts,
    topk: Texts,
    judge: str,
) -> AccuracySettings:
    """Texts of the command line as settings.

    Raises:
        UsageError: a text cannot be read, or a library is missing.
    """
    if judge not in ("outputs", "local"):
        raise UsageError(f"--judge {judge!r} is neither outputs nor local")
    return AccuracySettings(
        rtol=parse_tolerances("--rtol", rtol),
        atol=parse_tolerances("--atol", atol),
        metric=_metric(metric),
        ignore=tuple(ignore or ()),
        topk=tuple(sorted(_count(text) for text in topk or ())),
        judge=judge,
        reference=reference,
        reference_provider=reference_provider,
        custom_ops=libraries(custom_ops),
    )


def libraries(custom_ops: Sequence[Path] | None) -> tuple[Path, ...]:
    """Raises UsageError when one does not exist."""
    for library in custom_ops or ():
        if not library.is_file():
            raise UsageError(f"--custom-ops {library}: no such file", "give the path of a shared library")
    return tuple(custom_ops or ())


def parse_tolerances(option: str, texts: Texts) -> tuple[tuple[str, float], ...]:
    """`["1e-3", "y:0.1"]` as pairs of name ("" for all others) and value, sorted.

    Raises:
        UsageError: a value is no number of at least 0, or given twice.
    """
    found: dict[str, float] = {}
    for text in texts or ():
        name, _, value = text.rpartition(":")
        number = _number(value)
        if number is None or not 0 <= number < float("inf"):
            hint = f"write {option} 1e-3 or {option} y:1e-3"
            raise UsageError(f"{option} {text!r} is not [NAME:]VALUE", hint)
        if found.setdefault(name, number) != number:
            raise UsageError(f"{option}: {name or 'the value for all outputs'} is given twice")
    return tuple(sorted(found.items()))


def parse_ranges(texts: Texts) -> tuple[tuple[str, float, float], ...]:
    """`["x:-1..1"]` as name, least and largest.

    Raises:
        UsageError: a text is no such thing.
    """
    found = []
    for text in texts or ():
        match = _RANGE.fullmatch(text)
        low, high = (_number(match[k]) for k in ("low", "high")) if match else (None, None)
        if match is None or low is None or high is None or not low <= high:
            raise UsageError(f"--input-range {text!r} is not NAME:LO..HI", "write --input-range x:-1..1")
        found.append((match["name"], low, high))
    return tuple(sorted(found))


def _metric(text: str) -> str:
    kind, colon, part = text.partition(":")
    quantile = _number(part)
    if kind == "quantile" and quantile is not None and 0 < quantile < 1:
        return text
    if kind in ("max", "mean", "rms", "cosine") and not colon:
        return text
    raise UsageError(f"--metric {text!r} is unknown", "metrics: max, mean, rms, cosine, quantile:0.99")


def _count(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition(":")
    if not name or not count.isdecimal() or int(count) < 1:
        raise UsageError(f"--topk {text!r} is not NAME:K", "write --topk scores:5")
    return name, int(count)


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return None if found != found else found
