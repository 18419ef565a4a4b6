"""onnx's node tests on TensorRT: parse, build, run, compare; one JSON line for each in OUT/nodes.jsonl.

    python bench/card_nodes.py OUT [--target tensorrt] [--workers 8] [--most N] [--seconds N] [--only OP ...]

Each worker keeps its builder; optimisation level 0, no TF32. What is compared with are the outputs that the
tests carry, by our own tolerances. A test whose inputs no feed can have (sequences, optionals, strings) is
left out and counted. The tests are taken operator by operator in turn, so that a sweep that is stopped has
seen every operator.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.session.oracle import outcome_of
from bisect_trt.settings import DEFAULT_ACCURACY, TargetSettings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

LIMIT = 60.0  # seconds for one test
MESSAGE = 160  # characters that are kept of what TensorRT says


def tests() -> list[Any]:
    """All node tests, so that each operator comes early."""
    from onnx.backend.test.case.node import collect_testcases

    by_op = defaultdict(list)
    for test in collect_testcases(None):
        by_op[operator(test.model)].append(test)
    rounds = zip_longest(*(by_op[op] for op in sorted(by_op)))
    return [test for row in rounds for test in row if test is not None]


def operator(model: onnx.ModelProto) -> str:
    """Of the node under test: the last one whose operator is not a helper."""
    ops = [node.op_type for node in model.graph.node if node.op_type not in ("Constant", "Identity", "Cast")]
    return ops[0] if ops else model.graph.node[0].op_type if model.graph.node else ""


def types(model: onnx.ModelProto) -> list[str]:
    """Of the inputs, each once."""
    elems = [v.type.tensor_type.elem_type for v in model.graph.input]
    return sorted({TensorProto.DataType.Name(e) for e in elems})


def arrays(values: Any, infos: Any) -> dict[str, np.ndarray[Any, Any]] | None:
    """Values by name, with the types that the model declares; None where one is no tensor of numbers."""
    found = {}
    for info, value in zip(infos, values, strict=False):
        elem = info.type.tensor_type.elem_type
        if not info.type.HasField("tensor_type") or elem in (TensorProto.UNDEFINED, TensorProto.STRING):
            return None
        if isinstance(value, TensorProto):
            value = onnx.numpy_helper.to_array(value)
        if not isinstance(value, np.ndarray | np.generic | float | int):
            return None
        found[info.name] = np.asarray(value).astype(helper.tensor_dtype_to_np_dtype(elem), copy=False)
    return found


def candidate(test: Any, folder: Path) -> Candidate | None:
    """A test as a candidate with the outputs that it expects; its own file of values."""
    model, store = test.model, Store(folder)
    given, wanted = test.data_sets[0]
    feeds = arrays(given, model.graph.input)
    expected = arrays(wanted, model.graph.output)
    if feeds is None or expected is None:
        return None
    nodes = tuple(node.name or f"n{k}" for k, node in enumerate(model.graph.node))
    sides = [{name: store.put(f"{side}-{name}", value) for name, value in values.items()}
             for side, values in (("in", feeds), ("out", expected))]  # fmt: skip
    return Candidate(model.SerializeToString(), folder, nodes, (sides[0],), expected=(sides[1],))


def row(test: Any, outcome: Any) -> dict[str, Any]:
    """What came of a test, in a line."""
    told: dict[str, Any] = {"test": test.name, "op": operator(test.model), "types": types(test.model)}
    failure = next(iter(outcome.failures), None)
    told["result"] = "right" if failure is None else f"{failure.stage} {failure.symptom}"
    if outcome.unresolved:
        told["result"] = "unclear"
    said = failure.message if failure else outcome.unresolved
    told["says"] = " ".join(said.split())[:MESSAGE]
    told["seconds"] = round(outcome.seconds, 3)
    return told


def main() -> None:
    """Sweep and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", default="tensorrt")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--most", type=int)
    parser.add_argument("--seconds", type=float, default=1e9, help="no test begins after so many")
    parser.add_argument("--only", nargs="*", default=[], help="operators")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    settings = TargetSettings(spec=given.target, opt_level=0, tf32=False)
    every = [test for test in tests() if not given.only or operator(test.model) in given.only][: given.most]
    began = time.monotonic()
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as scratch,
        (given.out / "nodes.jsonl").open("w") as lines,
        Pool(given.workers, log_dir=Path(scratch) / "logs", warm=jobs.warm_job(settings)) as pool,
    ):

        def submit(k: int, test: Any) -> Any:
            folder = Path(scratch) / str(k)
            folder.mkdir()
            try:
                one = candidate(test, folder)
            except (ValueError, TypeError, KeyError):
                one = None
            return one and pool.submit(jobs.probe, settings, one, DEFAULT_ACCURACY, timeout=LIMIT)

        tasks = [(test, submit(k, test)) for k, test in enumerate(every)]
        print(f"{len(tasks)} tests made in {time.monotonic() - began:.0f} s", flush=True)
        for test, task in tasks:
            if task is None:
                told = {"test": test.name, "op": operator(test.model), "result": "no tensors"}
            elif time.monotonic() - began > given.seconds and not task.future.done():
                task.cancel()
                told = {"test": test.name, "op": operator(test.model), "result": "not reached"}
            else:
                try:
                    told = row(test, outcome_of(task.result()))
                except Exception as error:  # a bug of ours must not end the sweep
                    told = {"test": test.name, "op": operator(test.model), "result": "error of ours"}
                    told["says"] = repr(error)[:MESSAGE]
            counts[told["result"]] += 1
            lines.write(json.dumps(told) + "\n")
            lines.flush()
    print(f"{len(every)} tests, {time.monotonic() - began:.0f} s: {dict(counts.most_common())}")


if __name__ == "__main__":
    main()
