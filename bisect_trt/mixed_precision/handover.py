"""What is handed over beside the model: scripts and lists for other tools, a page, a line."""

from __future__ import annotations

import math
import pprint
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisect_trt.mixed_precision.quantise import KINDS
from bisect_trt.mixed_precision.result import ALL_LOW, LOST, Kept, Precision
from bisect_trt.model import patch
from bisect_trt.targets import raised
from bisect_trt.targets.roles import Roles
from bisect_trt.writing.text import counted

APPLY, LAYERS, POLYGRAPHY, PAGE = "apply.py", "layer-precisions.txt", "polygraphy_precision.py", "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_FLOOR = 1e-4


def write_beside(result: Precision, known: Roles, version: str) -> None:
    """Write all files but the model and `precision.json` into the result's folder."""
    (result.out / PAGE).write_text(_page(result, known))
    if result.to in KINDS:  # scales are of this model and these samples; layers follow from the graph
        return
    names = [item.name for item in result.kept]
    (result.out / APPLY).write_text(_apply(result, known, version))
    (result.out / LAYERS).write_text(layer_precisions(layer_names(names, known), result.to))
    words = {"MODEL": result.model.name, "TO": result.to, "FILE": POLYGRAPHY, "KEEP": _literal(names)}
    lower = [known.names[key] for key in known.items if known.names[key] not in names]
    words |= {"LOWER": _literal(lower), "KIND": {"bf16": "bfloat16"}.get(result.to, "float16")}
    (result.out / POLYGRAPHY).write_text(_filled("polygraphy.py.txt", words))


def layer_names(names: list[str], known: Roles) -> list[str]:
    """Names of layers: TensorRT's parser calls a nameless node's `node_of_` its first output.

    A name that is that of an output may be the node's own as well: both are given.
    """
    return [t for n in names for t in ((n, f"node_of_{n}") if known.names.get(n) == n else (n,))]


def layer_precisions(names: list[str], to: str) -> str:
    """Options of trtexec, one a line; names that its syntax cannot say are told in a comment.

    The star stands for all layers that are not named: left to itself the builder may take FP32 for them.
    """
    usable = [name for name in names if not set(name) & set(',:"')]
    kept = "".join(f',"{name}":fp32' for name in usable)
    lines = [f"--{to}", "--precisionConstraints=obey", f"--layerPrecisions=*:{to}{kept}"]
    if usable:
        lines.append(f"--layerOutputTypes={kept.removeprefix(',')}")
    left = [name for name in names if name not in usable]
    return "\n".join([*lines, *(f"# trtexec cannot name {name}" for name in left)]) + "\n"


def readme(result: Precision) -> str:
    """Give a line for the README of the user's project."""
    low, count = result.to.upper(), len(result.kept)
    if result.status == ALL_LOW:
        but = f" but {counted(count, 'node')}" if count else ""
        return f"All of {result.model.name}{but} may be {low} (checked by bisect-trt, {_tolerance(result)})."
    minimal = ", none of which can be spared" if result.one_minimal else ""
    return (
        f"{low} with {count} of {result.nodes} nodes in FP32{minimal} "
        f"(found by bisect-trt, {_tolerance(result)})."
    )


def sure(result: Precision) -> list[str]:
    """Say why to believe it, as sentences without a full stop."""
    fresh = f"{result.verified} of {result.repeats} fresh runs of the written file pass"
    found = [fresh if result.repeats else "the written file was not run in a fresh process"]
    if result.kept and result.status != ALL_LOW and result.one_minimal:
        found.insert(0, "1-minimal: each of them alone was lowered, and that fails")
    if result.kept and result.smallest:
        found.insert(-1, result.smallest)
    return found


def _tolerance(result: Precision) -> str:
    accuracy = result.settings.accuracy
    parts = [f"rtol {v:g}" for _, v in accuracy.rtol[:1]] + [f"atol {v:g}" for _, v in accuracy.atol[:1]]
    return ", ".join(parts)


def _apply(result: Precision, known: Roles, version: str) -> str:
    kept = {item.name: item.op for item in result.kept}
    lowered = {
        known.names[key]: (known.ops[key], list(inputs), list(outputs))
        for key, (inputs, outputs) in known.slots.items()
        if known.names[key] not in kept
    }
    head = f"# Written by bisect-trt {version}: python {APPLY} MODEL.onnx MIXED.onnx\n"
    source = Path(patch.__file__).read_text() + (_alone(Path(raised.__file__)) if result.raised else "")
    stays = [known.names.get(key, key) for key in known.stays]
    words = {"TO": repr(result.to), "RAISED": repr(result.raised)}
    lists = {"KEEP": kept, "LOWER": lowered, "STAYS": stays}
    words |= {name: _literal(value) for name, value in lists.items()}
    return head + source + _filled("apply_tail.py.txt", words)


def _alone(module: Path) -> str:
    """Give a module of ours as it stands behind another one: without its text, and without what is ours."""
    _, _, code = module.read_text().partition("from __future__ import annotations\n")
    return "".join(line for line in code.splitlines(keepends=True) if "bisect_trt" not in line)


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (_TEMPLATES / template).read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=110, compact=True, sort_dicts=False)


def _page(result: Precision, known: Roles) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_TEMPLATES))
    place = {known.names[key]: k for k, key in enumerate(known.items)}
    step = 1000 / max(1, len(place))
    marks = [
        {"x": round(place[item.name] * step, 2), "width": round(max(2.0, step * 0.9), 2), "name": item.name}
        for item in result.kept
        if item.name in place
    ]
    points, limit = _points(result)
    return made.get_template("report.html.j2").render(
        title=f"{result.model.name}: what must stay in FP32",
        verdict=readme(result),
        nodes=result.nodes,
        kept=[_row(item) for item in result.kept],
        marks=marks,
        points=points,
        limit=limit,
        first=result.curve[0][0] if result.curve else 0,
        last=result.curve[-1][0] if result.curve else 0,
        sure=sure(result),
        notes=list(result.notes),
        use=_use(result),
        readme=readme(result),
    )


def _use(result: Precision) -> list[str]:
    if result.to in KINDS:
        return ["trtexec --onnx=mixed.onnx --stronglyTyped  # TensorRT 10 and later"]
    engine = f"trtexec --onnx={result.model.name} $(cat {LAYERS})"
    return [
        "trtexec --onnx=mixed.onnx --stronglyTyped  # TensorRT 10 and later",
        f"{engine}  # up to TensorRT 10",
        f"python {APPLY} NEXT-EXPORT.onnx MIXED.onnx",
        f"bisect-trt check {result.model.name} --keep-fp32 precision.json --target emulate:{result.to}",
    ]


def share(error: float) -> str:
    """Say how far off outputs are, in words: `1.3 times the allowed error`, `42 % of the allowed error`."""
    if not math.isfinite(error):
        return LOST
    if error > 1:
        return f"{error:.3g} times the allowed error"
    return f"{100 * error:.2g} % of the allowed error"


def memory(result: Precision) -> str:
    """Give the share of activations that stays in FP32, in percent."""
    return f"{100 * result.activations['kept'] / max(1, result.activations['all']):.3g} %"


def price(result: Precision) -> str:
    """`FP16 6.1 ms, FP32 26.3 ms, this 6.4 ms`; empty where no card measured it."""
    words = {"low": result.to.upper(), "fp32": "FP32", "mixed": "this"}
    known = result.run_seconds
    return ", ".join(f"{words[name]} {1e3 * known[name]:.3g} ms" for name in words if name in known)


def _row(item: Kept) -> dict[str, str]:
    without = share(item.error) if item.error else "not tried"
    return {"name": item.name, "op": item.op, "why": item.why, "without": without}


def _points(result: Precision) -> tuple[list[dict[str, Any]], float]:
    """Circles of the plot, and where one tolerance is."""
    known = [(count, max(_FLOOR, error)) for count, error in result.curve if math.isfinite(error)]
    if len(known) < 2:
        return [], 0.0
    low = min(math.log10(min(e for _, e in known)), -0.5)
    high = max(math.log10(max(e for _, e in known)), 0.5)
    last = max(1, max(count for count, _ in known))

    def y(error: float) -> float:
        return round(10 + 220 * (high - math.log10(error)) / (high - low), 1)

    points = [
        {
            "x": round(50 + 940 * count / last, 1),
            "y": y(error),
            "best": count == len(result.kept),
            "text": f"{counted(count, 'node')}: {share(error)}",
        }
        for count, error in known
    ]
    return points, y(1.0)
