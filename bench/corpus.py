"""`make corpus FOLDER=...`: a night over every model of a folder, and one table of its distinct failures.

The work is that of `bisect-trt nightly` with `one_of_each`: isolated, resumable, one model of each failure
and operator is reduced. `--node-tests` takes the models of onnx's own node tests, with their inputs, instead
of a folder. `--found FOLDER` keeps reproducers of at most 4 kB there, with `found.json`, which tests run
again; what crashes or hangs is never kept.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from bisect_trt.errors import BisectError
from bisect_trt.model.graph import opset_of
from bisect_trt.model.inputs.formats import write_samples
from bisect_trt.nightly.config import Config, parse
from bisect_trt.nightly.report import RESULTS
from bisect_trt.nightly.service import nightly
from bisect_trt.outcome import Symptom

KEPT = 4096  # bytes of a reproducer that may be kept
TIMEOUT = 60.0  # seconds of a probe
KEYS = ("name", "operators", "types", "opset", "bytes", "failure", "target", "models")
HARMLESS = (Symptom.ERROR, Symptom.MISMATCH, Symptom.NOT_FINITE)
FED, PLAIN = "fed", "made-up"  # folders of models that come with inputs, and of others
Row = dict[str, Any]


def node_tests(folder: Path, skip: str) -> None:
    """Write the models of onnx's node tests with their first inputs, as its Python API makes them."""
    from onnx.backend.test.case.node import collect_testcases

    for name in (FED, PLAIN):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for case in collect_testcases(None):
        if case.model is None or re.search(skip, case.name):
            continue
        sample = inputs_of(case.model, case.data_sets[0][0] if case.data_sets else [])
        place = folder / (FED if sample else PLAIN) / f"{case.name}.onnx"
        if not place.exists():
            if sample:
                write_samples(place.with_suffix(".npz"), [sample])
            place.write_bytes(case.model.SerializeToString(deterministic=True))


def inputs_of(proto: onnx.ModelProto, values: Sequence[Any]) -> Row:
    """Arrays by name; nothing where one is no tensor."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in weights]
    arrays = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]
    plain = len(names) == len(arrays) and all(hasattr(array, "dtype") for array in arrays)
    return dict(zip(names, arrays, strict=True)) if plain else {}


def configured(given: argparse.Namespace, base: Path) -> Config:
    """The night that looks at the models of `base`."""
    fed = [{"match": f"{FED}/*", "inputs": f"{FED}/{{stem}}.npz"}] if given.node_tests else []
    data = {
        "models": {"include": ["**/*.onnx"], "exclude": given.exclude},
        "out": str(given.out.absolute()),
        "confirm": 1,
        "one_of_each": True,
        "workers": given.workers,
        "budget": {"total": f"{given.minutes}m", "check": "2m", "per_model": "10m"},
        "defaults": {"timeout": TIMEOUT, "reference": given.reference},
        "target": [{"spec": given.target}],
        "model": fed,
    }
    return parse(data, base / "corpus.toml")


def read(out: Path) -> tuple[list[Row], list[Row]]:
    """What was seen of each model, and a row for each distinct failure that was reduced."""
    results: list[Row] = json.loads((out / RESULTS).read_text(encoding="utf-8"))["results"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in results:
        if failure := row["failure"]:
            key = (failure["stage"], failure["symptom"], failure["signature"], failure["op"])
            groups.setdefault(key, []).append(row)
    found = []
    for rows in groups.values():
        first = next((row for row in rows if row["repro"]), rows[0])
        found.append({**told(first, out), "models": len(rows)})
    return results, sorted(found, key=lambda row: (row["failure"]["stage"], row["name"]))


def told(row: Row, out: Path) -> Row:
    """What the table says of a failure: as its reproducer shows it, where there is one."""
    seen = {"name": Path(row["model"]).stem, "failure": row["failure"], "target": row["version"]}
    place = out / (row["repro"] or {"folder": "none"})["folder"]
    if not (place / "report.json").exists():
        return {**seen, "verified": False, "reason": row["reason"]}
    report = json.loads((place / "report.json").read_text(encoding="utf-8"))
    name = re.sub(r"[^a-z0-9]+", "-", f"{report['failure']['op']}-{seen['name']}".lower()).strip("-")[:80]
    issue = (place / "ISSUE.md").read_text(encoding="utf-8") if (place / "ISSUE.md").exists() else ""
    return {
        **seen,
        **described(onnx.load(place / "repro.onnx", load_external_data=False)),
        "name": name,
        "place": str(place),
        "bytes": (place / "repro.onnx").stat().st_size,
        "failure": report["failure"],
        "verified": report["verified"] >= report["repeats"] and report["finding"] == "wrong",
        "reference_runs": "runs it" in issue,
    }


def described(proto: onnx.ModelProto) -> Row:
    """Operators, types of the inputs and operator set of a model."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kinds = [v.type.tensor_type.elem_type for v in proto.graph.input if v.name not in weights]
    return {
        "operators": [node.op_type for node in proto.graph.node],
        "types": [TensorProto.DataType.Name(kind).lower() for kind in kinds if kind],
        "opset": opset_of(proto),
    }


def keep(rows: list[Row], folder: Path) -> list[Row]:
    """Copy what is small, verified, harmless and runs on the reference; gives these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for row in rows:
        small = row.get("verified") and row["bytes"] <= KEPT and row["reference_runs"]
        if small and Symptom(row["failure"]["symptom"]) in HARMLESS:
            shutil.copyfile(Path(row["place"]) / "repro.onnx", folder / f"{row['name']}.onnx")
            kept.append({k: row[k] for k in KEYS})
    (folder / "found.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


HEADS = ("operators", "types", "stage", "what it says", "models", "nodes", "bytes", "verified")


def page(rows: list[Row], counts: Mapping[str, int], title: str) -> str:
    """One HTML table: a row for each distinct failure."""
    lines = [f"<tr>{''.join(f'<th>{head}</th>' for head in HEADS)}</tr>"]
    for row in rows:
        failure = row["failure"]
        cells = (
            ", ".join(row.get("operators", [])) or failure["op"],
            ", ".join(row.get("types", [])),
            failure["stage"],
            (failure["message"] or row.get("reason", "")).split("\n")[0][:300],
            row["models"],
            len(row.get("operators", [])) or "-",
            row.get("bytes", "-"),
            "yes" if row.get("verified") else "no",
        )
        lines.append(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in cells)}</tr>")
    told_counts = ", ".join(f"{count} {name}" for name, count in counts.items())
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<style>body{font:14px sans-serif}td,th{text-align:left;padding:2px 8px;border-bottom:1px solid #ccc}"
        f"</style><h1>{html.escape(title)}</h1><p>{html.escape(told_counts)}</p><table>{''.join(lines)}</table>\n"
    )


def arguments() -> argparse.ArgumentParser:
    """What can be given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--node-tests", action="store_true")
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--reference", default="ort")
    parser.add_argument("--out", type=Path, default=Path("build/corpus"))
    parser.add_argument("--minutes", type=int, default=600)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--skip", default="$^", help="names of node tests that are left out, an expression")
    parser.add_argument("--exclude", nargs="*", default=["*-repro/*"], help="globs of models to leave out")
    parser.add_argument("--found", type=Path)
    return parser


def main() -> int:
    """Run it; the exit code is that of the night, 0 also where it found failures."""
    parser = arguments()
    given = parser.parse_args()
    base = given.out.with_name(f"{given.out.name}-models") if given.node_tests else given.folder
    if given.node_tests:
        node_tests(base, given.skip)
    if base is None or not base.is_dir():
        parser.error("give a folder of models, or --node-tests")
    try:
        code = nightly(configured(given, base.absolute()), print)
    except BisectError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    results, found = read(given.out)
    counts = {status: sum(row["status"] == status for row in results) for status in STATUSES}
    title = f"{len(results)} models on {given.target}, {len(found)} distinct failures"
    (given.out / "corpus.html").write_text(page(found, counts, title), encoding="utf-8")
    print(title, counts, f"see {given.out / 'corpus.html'}", sep="\n")
    if given.found is not None:
        print(f"{len(keep(found, given.found))} reproducers kept in {given.found}")
    return code if code > 1 else 0


STATUSES = ("new", "changed", "known", "flaky", "fixed", "passes", "not run")


if __name__ == "__main__":
    sys.exit(main())
