"""Ask every model of models/found/ on the installed TensorRT-RTX, and write the table of docs/found.md.

What each release says is noted in `found.json`: `same` failure, `other` words or `fine`. Run it once in an
environment of each release; `--page` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bisect_trt.machine.environment import first_version
from bisect_trt.outcome import Failure
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.workers.pool import Pool

ROOT = Path(__file__).parents[1]
FOLDER, PAGE = ROOT / "models" / "found", ROOT / "docs" / "found.md"
OTHER = "openvino"
BETWEEN = """## OpenVINO, silently wrong

ONNX Runtime 1.32 with OpenVINO's provider on a CPU in FP32 (`fails on` is the release of onnxruntime-ep-
openvino), against ONNX Runtime's own CPU provider, with made-up inputs of seed 0. The target is
`ort:OpenVINO?load_config={"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}`; the models lie in
models/found/openvino/. Integers saturate where ONNX has them wrap (BitShift, Mul, Sub), int64 is
computed in 32 bits (Pow), attributes are passed over (keep_aspect_ratio_policy of Resize, mode of
SpaceToDepth), indices and shapes are others (MaxPool, DFT, Loop), and MultiHeadAttention with a bias
is wrong in part of a row (ONNX Runtime's values were computed by hand, too). Softmax of an operator set
before 13 goes over one axis where ONNX has it go over all from `axis` on; QuantizeLinear to uint16 gives 0,
and with the DequantizeLinear behind it the value as it was; MatMulInteger of a vector keeps a dimension;
FusedMatMul passes over `transBatchA`. TopK of equal values gives other indices, which ONNX allows. One Tile
gave what looked like memory that nobody wrote; it is not kept.
"""
HEAD = "| model | operators | types of inputs | opset | stage | fails on | what it says | models | bytes |"
LONGEST = 130  # characters of a message
SHOWN = 3  # operators of a row
Row = dict[str, Any]


def ask(rows: list[Row], version: str) -> None:
    """Note what the installed release says of each."""
    with tempfile.TemporaryDirectory() as logs, Pool(1, log_dir=Path(logs)) as pool:
        for row in rows:
            place = FOLDER / f"{row['name']}.onnx"
            settings = Settings(TargetSettings("tensorrt-rtx"), RunSettings(timeout=60))
            failures = check(place, settings, warm=pool).outcome.failures
            same = Failure.from_json(row["failure"]).key in [failure.key for failure in failures]
            row.setdefault("releases", {})[version] = (
                "same" if same else "other" if failures else "fine"
            )


def released(row: Row) -> str:
    """First and last release on which it fails, and whether those between do."""
    versions = sorted(row["releases"], key=lambda version: [int(part) for part in version.split(".")])
    failing = [version for version in versions if row["releases"][version] != "fine"]
    if not failing:
        return "none"
    span = versions[versions.index(failing[0]) : versions.index(failing[-1]) + 1]
    told = failing[0] if len(failing) == 1 else f"{failing[0]} to {failing[-1]}"
    return told + ("" if span == failing else ", not all between") + (
        "" if failing[-1] != versions[-1] else " (latest)"
    )


def line(row: Row) -> str:
    """A row of the table."""
    message = " ".join(row["failure"]["message"].split())[:LONGEST].replace("|", "\\|").replace("`", "'")
    more = len(row["operators"]) - SHOWN
    few = ", ".join(row["operators"][:SHOWN]) + (f" and {more} more" if more > 0 else "")
    cells = (
        row["name"], few, ", ".join(row["types"]), row["opset"], row["failure"]["stage"], released(row),
        message, row["models"], row["bytes"],
    )  # fmt: skip
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(rows: list[Row]) -> str:
    """The whole table: what the latest release does first."""
    order = sorted(
        rows, key=lambda row: ("latest" not in released(row), row["failure"]["stage"], row["name"])
    )
    return "\n".join([HEAD, "|---|---|---|---:|---|---|---|---:|---:|", *map(line, order)]) + "\n"


def page(rows: list[Row], other: list[Row]) -> str:
    """Both tables, and what stands between them."""
    return f"{table(rows)}\n{BETWEEN}\n{table(other)}"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="ask nothing")
    given = parser.parse_args()
    file = FOLDER / "found.json"
    rows: list[Row] = json.loads(file.read_text())
    version = first_version("tensorrt-rtx")
    if not given.page and version:
        ask(rows, version)
        file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    text = PAGE.read_text()
    other: list[Row] = json.loads((FOLDER / OTHER / "found.json").read_text())
    PAGE.write_text(text[: text.index("| model |")] + page(rows, other))
    return 0


if __name__ == "__main__":
    sys.exit(main())
