"""The same failure with other people's tools: command lines that maintainers know by heart.

Input values in the formats of other tools: raw files for trtexec, JSON for Polygraphy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.accuracy.tolerance import precision_rtol
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.inputs.formats import write_samples
from bisect_trt.options import line, nameless, shape_text, verify_line
from bisect_trt.outcome import Stage
from bisect_trt.reproducer import seeded
from bisect_trt.reproducer.files import MODEL, narrow_file
from bisect_trt.reproducer.script_values import MODULES, Shape, bounds, profile_ranges
from bisect_trt.results import Reduction
from bisect_trt.targets.ort.ep_libraries import find_package
from bisect_trt.targets.ort.provider import parse_spec

RAW_INPUT, RAW_EXPECTED = "trtexec-input{}.raw", "trtexec-expected{}.raw"
JSON = "polygraphy-inputs.json"
TRTEXEC, POLYGRAPHY = "trtexec", "polygraphy"

# What makes the input files where they are not in the folder; a shell takes it in single quotes.
_MAKE_RAW = (
    'import numpy as np; [v.tofile(f"trtexec-{side}{k}.raw") for side, file in '
    '(("input", "inputs.npz"), ("expected", "expected.npz")) '
    "for k, (n, v) in enumerate(sorted(np.load(file).items()))]"
)
_MAKE_JSON = (
    "import numpy as np; from polygraphy.json import save_json; "
    f'save_json([dict(np.load("inputs.npz"))], "{JSON}")'
)


_FROM = "from NVIDIA's download or container, its wheels have no programs"


class Recipe(Struct, frozen=True):
    """One way to see the failure: lines for a shell in the folder of the reproducer."""

    tool: str
    lines: tuple[str, ...]
    note: str


def recipes(reduction: Reduction) -> tuple[Recipe, ...]:
    """Return all ways for the target of a reduction, the one that needs least first."""
    target = reduction.target.name
    script = "exit code 1: it still fails, 0: it is fixed, 2: something else"
    ways = [Recipe("repro.py", (line("python", "repro.py"),), script)]
    if target in MODULES:
        ways += [_trtexec(reduction), _polygraphy(reduction)]
    elif target.startswith("ort:") and _is_built_in(reduction):
        ways.append(_polygraphy_provider(reduction))
    if (reduction.out / seeded.SCRIPT).exists():
        first = line("python", seeded.SCRIPT)
        ways[1:] = [replace(way, lines=(first, *way.lines)) for way in ways[1:]]
    again = "needs bisect-trt; runs it again and compares it with what was seen"
    ours = Recipe("bisect-trt", (verify_line(".", nameless(reduction.settings)),), again)
    return (*ways, ours)


def _is_built_in(reduction: Reduction) -> bool:
    """Return whether Polygraphy can use the provider: built into ONNX Runtime, without options."""
    provider = reduction.target.name.partition(":")[2]
    target = reduction.settings.target
    return not (target.ep_libraries or parse_spec(target.spec)[1] or find_package(provider))


def _names(samples: Sequence[Feeds]) -> list[str]:
    """Return the names of the tensors of the first sample, in the order of its archive."""
    return sorted(samples[0]) if samples else []


def _trtexec(reduction: Reduction) -> Recipe:
    target, runs = reduction.settings.target, reduction.wanted.stage not in (Stage.PARSE, Stage.BUILD)
    program = "trtexec" if reduction.target.name == "tensorrt" else "tensorrt_rtx"
    model, flags = _model(reduction)
    words = [program, f"--onnx={model}", *flags]
    lines = []
    for option, shapes in _sides(reduction, ("--minShapes", "--optShapes", "--maxShapes")).items():
        listed = (f"{_quoted(n)}:{shape_text(s) or 'scalar'}" for n, s in shapes.items())
        words.append(f"{option}={','.join(listed)}")
    if target.workspace is not None:
        words.append(f"--memPoolSize=workspace:{target.workspace}B")
    if target.opt_level is not None:
        words.append(f"--builderOptimizationLevel={target.opt_level}")
    if target.tf32 is False:
        words.append("--noTF32")
    words += [f"--dynamicPlugins={library.name}" for library in target.plugins]
    note = "needs no inputs: it fails before they are used"
    if runs:
        if TRTEXEC not in reduction.settings.report.inputs_for:
            lines.append(line("python", "-c", _MAKE_RAW))
        words.append(f"--loadInputs={_files(RAW_INPUT, _names(reduction.best.feeds))}")
        compared = _compared(reduction)
        words += compared
        prints = "the outputs that it prints are to be compared with expected.npz"
        note = prints if "--dumpOutput" in compared else "it compares by itself"
    else:
        words.append("--skipInference")
    return Recipe(program, (*lines, line(*words, "--verbose")), f"{_FROM}; {note}")


def _model(reduction: Reduction) -> tuple[str, list[str]]:
    """Return the model file and flags for the precision: a flag up to TensorRT 10, casts from 11 on."""
    precision = reduction.settings.target.precision
    if not precision:
        return MODEL, []
    release = re.match(r"\d+", reduction.target.versions.get("tensorrt", ""))
    weak = reduction.target.name == "tensorrt" and release is not None and int(release[0]) < 11
    return (MODEL, [f"--{precision}"]) if weak else (narrow_file(precision), [])


def _compared(reduction: Reduction) -> list[str]:
    """trtexec compares by itself from TensorRT 11.1 on: the part of elements that are out of bounds."""
    version = reduction.target.versions.get("tensorrt", "")
    expected = _names(reduction.best.expected)
    new = tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= (11, 1)
    tolerances = _tolerances(reduction)
    if reduction.wanted.stage is not Stage.COMPARE or not (new and expected and tolerances):
        return ["--dumpOutput"]
    rtol, atol = (max(pair[k] for pair in tolerances.values()) for k in (0, 1))
    words = [f"--loadRefOutputs={_files(RAW_EXPECTED, expected)}", "--accuracyAlgorithm=l0"]
    return [*words, f"--rtol={rtol:g}", f"--atol={atol:.3g}", "--accuracyThreshold=1e-9"]


def _tolerances(reduction: Reduction) -> dict[str, tuple[float, float]]:
    """Return relative and absolute tolerance of each output that is compared, from the expected values."""
    accuracy, target = reduction.compared_as, reduction.settings.target
    found = {}
    for value in onnx.load_model_from_string(reduction.best.model).graph.output:
        if value.type.tensor_type.elem_type and value.name not in accuracy.ignore:
            rtol, atol = bounds(value, accuracy, precision_rtol(target))
            found[value.name] = rtol, rtol * _rms(reduction, value.name) if atol is None else atol
    return found


def _rms(reduction: Reduction, name: str) -> float:
    """Return the RMS of what is expected of an output; 1 where that is not known."""
    for sample in reduction.best.expected[:1]:
        values = np.load(sample[name], allow_pickle=False) if name in sample else np.ones(1)
        if values.dtype.kind == "f" and values.size:
            usual = values[np.isfinite(values) & (abs(values) < 1e9)].astype(np.float64)
            return float(np.sqrt(np.mean(usual**2))) if usual.size else 1.0
    return 1.0


def _files(pattern: str, names: list[str]) -> str:
    return ",".join(f"{_quoted(name)}:{pattern.format(k)}" for k, name in enumerate(names))


def _polygraphy(reduction: Reduction) -> Recipe:
    target = reduction.settings.target
    model, flags = _model(reduction)
    # in another precision ONNX Runtime is not to be asked for what it gives in that one
    apart = model != MODEL and reduction.wanted.stage is Stage.COMPARE
    words = ["polygraphy", "run", model, *([] if apart else ["--onnxrt"]), "--trt", *flags]
    sides = _sides(reduction, ("--trt-min-shapes", "--trt-opt-shapes", "--trt-max-shapes"))
    for option, shapes in sides.items():
        words += [option, *(f"{name}:[{','.join(map(str, shape))}]" for name, shape in shapes.items())]
    if target.workspace is not None:
        words += ["--pool-limit", f"workspace:{target.workspace}"]
    if target.opt_level is not None:
        words += ["--builder-optimization-level", str(target.opt_level)]
    if target.tf32 is not False:
        words.append("--tf32")  # TensorRT's own default, but not Polygraphy's
    if target.plugins:
        words += ["--plugins", *(library.name for library in target.plugins)]
    lines, loaded = _load_inputs(reduction)
    flavour = "" if reduction.target.name == "tensorrt" else "POLYGRAPHY_USE_TENSORRT_RTX=1 "
    note = "ONNX Runtime first, then the target; needs onnxruntime, too"
    if apart:
        lines.append(line("polygraphy", "run", MODEL, "--onnxrt", *loaded, "--save-outputs", "cpu.json"))
        loaded = [*loaded, "--load-outputs", "cpu.json"]
    return Recipe("polygraphy", (*lines, flavour + line(*words, *loaded, *_agreeing(reduction))), note)


def _polygraphy_provider(reduction: Reduction) -> Recipe:
    provider = reduction.target.name.partition(":")[2]
    lines, loaded = _load_inputs(reduction)
    cpu = ["polygraphy", "run", MODEL, "--onnxrt", *loaded, "--save-outputs", "cpu.json"]
    given, _ = _model(reduction)
    other = ["polygraphy", "run", given, "--onnxrt", "--providers", provider, *loaded]
    other += ["--load-outputs", "cpu.json", *_agreeing(reduction)]
    return Recipe("polygraphy", (*lines, line(*cpu), line(*other)), "the CPU first, then the provider")


def _agreeing(reduction: Reduction) -> list[str]:
    """Return our tolerances as Polygraphy's: its own would call anything a failure."""
    found = _tolerances(reduction) if reduction.wanted.stage is Stage.COMPARE else {}
    if not found:
        return []
    rtol, atol = ([f"{name}:{pair[k]:.3g}" for name, pair in found.items()] for k in (0, 1))
    return ["--rtol", *rtol, "--atol", *atol]


def _load_inputs(reduction: Reduction) -> tuple[list[str], list[str]]:
    """Return the lines that make the file, and the words that use it."""
    if not _names(reduction.best.feeds):
        return [], []
    make = [] if POLYGRAPHY in reduction.settings.report.inputs_for else [line("python", "-c", _MAKE_JSON)]
    return make, ["--load-inputs", JSON]


def _sides(reduction: Reduction, options: tuple[str, str, str]) -> dict[str, Mapping[str, Shape]]:
    """Return least, best and most dimensions of dynamic inputs, by option; nothing when all are static."""
    proto = onnx.load_model_from_string(reduction.best.model)
    ranges = profile_ranges(reduction.settings.target, proto, reduction.best)
    sides = ({name: three[k] for name, three in ranges.items()} for k in range(3))
    return dict(zip(options, sides, strict=True)) if ranges else {}


def _quoted(name: str) -> str:
    """Return a name as trtexec takes it: in single quotes when it holds what separates names."""
    return name if re.fullmatch(r"[\w./-]+", name) else f"'{name}'"


def write(candidate: Candidate, tools: tuple[str, ...], folder: Path) -> None:
    """Write what the tools need; trtexec gets the first sample only, in the order of the names.

    Types that numpy does not know stay the bits of each element, as in the archives.
    """
    if TRTEXEC in tools:
        for pattern, samples in ((RAW_INPUT, candidate.feeds), (RAW_EXPECTED, candidate.expected)):
            for k, (_, path) in enumerate(sorted(samples[0].items()) if samples else ()):
                np.load(path, mmap_mode="r", allow_pickle=False).tofile(folder / pattern.format(k))
    if POLYGRAPHY in tools and candidate.feeds:
        loaded = [
            {name: np.load(path, allow_pickle=False) for name, path in sorted(sample.items())}
            for sample in candidate.feeds
        ]
        write_samples(folder / JSON, loaded)
