"""`make corpus FOLDER=...`: check every model of a folder, reduce one of each failure, write one table.

Models are checked by a warm worker, so that whatever one does ends that worker only; rows are written as they
come, so a run that was stopped goes on. `--node-tests` takes the models of onnx's own node tests instead of a
folder. `--found FOLDER` keeps reproducers of at most 4 kB there, with `found.json`, which tests run again;
what crashes or hangs is never kept.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from bisect_trt.errors import BisectError
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Symptom
from bisect_trt.reduction.reduce import reduce
from bisect_trt.results import Reduction
from bisect_trt.session.check import check
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

KEPT = 4096  # bytes of a reproducer that may be kept
TIMEOUT = 60.0  # seconds of a probe
KEYS = ("name", "operators", "types", "opset", "bytes", "failure", "target", "models")
HARMLESS = (Symptom.ERROR, Symptom.MISMATCH, Symptom.NOT_FINITE)
Row = dict[str, Any]


def node_tests(folder: Path) -> None:
    """Write the models of onnx's node tests, as its Python API makes them."""
    from onnx.backend.test.case.node import collect_testcases

    folder.mkdir(parents=True, exist_ok=True)
    for case in collect_testcases(None):
        place = folder / f"{case.name}.onnx"
        if case.model is not None and not place.exists():
            place.write_bytes(case.model.SerializeToString(deterministic=True))


def read(place: Path) -> list[Row]:
    """Rows that were written before; a line that was cut is left out."""
    rows = []
    for line in place.read_text().splitlines() if place.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def checked(models: list[Path], settings: Settings, out: Path, until: float) -> Iterator[Row]:
    """A row for each model, as far as there is time: what `check` says."""
    place = out / "checks.jsonl"
    known = {row["model"]: row for row in read(place)}
    with place.open("a") as file, Pool(1, log_dir=out / "logs") as pool:
        for model in models:
            if model.name not in known:
                if time.monotonic() > until:
                    return
                row = one_check(model, settings, pool)
                file.write(json.dumps(row) + "\n")
                file.flush()
                known[model.name] = row
            yield known[model.name]


def one_check(model: Path, settings: Settings, pool: Pool) -> Row:
    """What is seen of one model."""
    began = time.monotonic()
    try:
        found = check(model, settings, warm=pool)
    except BisectError as error:
        return {"model": model.name, "status": f"refused ({error.exit_code})", "message": error.message}
    except Exception as error:
        return {"model": model.name, "status": "bug of ours", "message": repr(error)}
    status = "fine" if not found.outcome.failures else "fails"
    status = "unclear" if found.outcome.unresolved and not found.outcome.failures else status
    failures = [failure.to_json() for failure in found.outcome.failures]
    seconds = round(time.monotonic() - began, 3)
    told_of = {"model": model.name, "status": status, "target": found.target.title}
    return {**told_of, "failures": failures, "seconds": seconds}


def key_of(row: Row) -> str:
    """What is the same for all models with one failure: its identity and the operator."""
    first = Failure.from_json(row["failures"][0])
    return json.dumps([*first.key, first.op])


def reduced(rows: list[Row], folder: Path, settings: Settings, out: Path, until: float) -> list[Row]:
    """A row for each distinct failure, those of the builder first: the smallest model that shows it."""
    place = out / "reductions.jsonl"
    known = {row["key"]: row for row in read(place)}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "fails":
            groups.setdefault(key_of(row), []).append(row)
    order = sorted(groups, key=lambda key: (json.loads(key)[0] == "parse", key))
    with place.open("a") as file, Pool(1, log_dir=out / "again") as pool:
        for key in order:
            if key in known or time.monotonic() > until:
                continue
            some = [next(folder.rglob(row["model"])) for row in groups[key]]
            model = min(some, key=lambda path: (path.stat().st_size, path.name))
            row = as_it_is(key, model, settings, out, pool) or one_reduction(key, model, settings, out)
            file.write(json.dumps(row) + "\n")
            file.flush()
            known[key] = row
    return [{**known[key], "models": len(groups[key])} for key in order if key in known]


def as_it_is(key: str, model: Path, settings: Settings, out: Path, pool: Pool) -> Row | None:
    """A row for a small model of one node: nothing is to be reduced, and it is checked again elsewhere."""
    proto = onnx.load(model, load_external_data=False)
    if len(proto.graph.node) != 1 or model.stat().st_size > KEPT or proto.functions:
        return None
    again = one_check(model, settings, pool)
    if again["status"] != "fails":
        return None
    alone = Candidate(model, model.parent, ())
    loads = pool.submit(jobs.reference_error, alone, settings.accuracy, timeout=TIMEOUT).result()
    name = slug(key, model)
    (out / "repros" / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, out / "repros" / name / "repro.onnx")
    failure = Failure.from_json(again["failures"][0])
    return {
        "key": key,
        "model": model.name,
        "name": name,
        **described(proto),
        "bytes": model.stat().st_size,
        "failure": failure.to_json(),
        "verified": key_of(again) == key and failure.symptom in HARMLESS,
        "reference": loads.value if loads.death is None else loads.death.message,
        "target": again["target"],
    }


def slug(key: str, model: Path) -> str:
    """A plain name for a reproducer."""
    return re.sub(r"[^a-z0-9]+", "-", f"{json.loads(key)[3]}-{model.stem}".lower()).strip("-")[:80]


def described(proto: onnx.ModelProto) -> Row:
    """Operators, types of the inputs and operator set of a model."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kinds = [v.type.tensor_type.elem_type for v in proto.graph.input if v.name not in weights]
    return {
        "operators": [node.op_type for node in proto.graph.node],
        "types": [TensorProto.DataType.Name(kind).lower() for kind in kinds if kind],
        "opset": next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0),
    }


def one_reduction(key: str, model: Path, settings: Settings, out: Path) -> Row:
    """Reduce one model into a folder of its own."""
    name = slug(key, model)
    try:
        found = reduce(model, settings, out=out / "repros" / name, force=True)
    except BisectError as error:
        return {"key": key, "model": model.name, "name": name, "error": error.message}
    except Exception as error:
        return {"key": key, "model": model.name, "name": name, "error": repr(error), "bug": True}
    return {"key": key, "model": model.name, "name": name, **told(found)}


def told(found: Reduction) -> Row:
    """What the table says of a reproducer."""
    return {
        **described(onnx.load(found.out / "repro.onnx", load_external_data=False)),
        "bytes": (found.out / "repro.onnx").stat().st_size,
        "failure": found.wanted.to_json(),
        "verified": found.sure,
        "reference": found.reference_error,
        "target": found.target.title,
    }


def keep(rows: list[Row], out: Path, folder: Path) -> list[Row]:
    """Copy what is small, verified, harmless and runs on the reference; gives these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.onnx"):
        old.unlink()
    kept = []
    for row in rows:
        if not row.get("verified") or row["bytes"] > KEPT or row["reference"] != "":
            continue
        if Symptom(row["failure"]["symptom"]) not in HARMLESS:
            continue
        shutil.copyfile(out / "repros" / row["name"] / "repro.onnx", folder / f"{row['name']}.onnx")
        kept.append({k: row[k] for k in KEYS})
    (folder / "found.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def page(rows: list[Row], counts: Mapping[str, int], title: str) -> str:
    """One HTML table: a row for each distinct failure."""
    heads = ("operators", "types", "stage", "what it says", "models", "nodes", "bytes", "verified")
    lines = [f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
    for row in rows:
        failure = row.get("failure") or {"stage": json.loads(row["key"])[0], "message": row.get("error", "")}
        cells = (
            ", ".join(row.get("operators", [])) or json.loads(row["key"])[3],
            ", ".join(row.get("types", [])),
            failure["stage"],
            failure["message"].splitlines()[0][:300] if failure["message"] else "",
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


def main() -> int:
    """Run it; the exit code is 1 where something was a bug of ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--node-tests", action="store_true")
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--reference", default="ort")
    parser.add_argument("--out", type=Path, default=Path("build/corpus"))
    parser.add_argument("--minutes", type=float, default=600.0, help="two thirds of them for the checks")
    parser.add_argument("--skip", default="$^", help="names of models that are left out, as an expression")
    parser.add_argument("--found", type=Path)
    given = parser.parse_args()
    now = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if given.node_tests else given.folder
        if folder is None or not folder.is_dir():
            parser.error("give a folder of models, or --node-tests")
        if given.node_tests:
            node_tests(folder)
        accuracy = AccuracySettings(reference=given.reference)
        settings = Settings(TargetSettings(given.target), RunSettings(timeout=TIMEOUT), accuracy)
        models = [place for place in sorted(folder.rglob("*.onnx")) if not re.search(given.skip, place.name)]
        rows = list(checked(models, settings, given.out, now + 40 * given.minutes))
        found = reduced(rows, folder, settings, given.out, now + 60 * given.minutes)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    title = f"{len(rows)} models on {given.target}, {len(found)} distinct failures reduced"
    (given.out / "index.html").write_text(page(found, counts, title), encoding="utf-8")
    print(title, counts, f"see {given.out / 'index.html'}", sep="\n")
    if given.found is not None:
        print(f"{len(keep(found, given.out, given.found))} reproducers kept in {given.found}")
    return int(any(row["status"] == "bug of ours" for row in rows) or any(row.get("bug") for row in found))


if __name__ == "__main__":
    sys.exit(main())
