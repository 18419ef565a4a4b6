"""Which attributes TensorRT-RTX reads otherwise than ONNX: onnx's node tests, without a GPU.

`python bench/defaults.py FILE` writes a line of JSON for each attribute that was tried. Of every test with
one node, each attribute that is left out is spelled out with ONNX's default (another engine: the default is
read otherwise), and each that is given with another value is left out (the same engine although ONNX's
reference evaluator gives other outputs: the attribute is ignored). Loops (RNN, GRU, LSTM) build differently
each time.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import AttributeProto, defs
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator


class Quiet(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, message: str) -> None:
        pass


LOG = Quiet()


def engine(proto: onnx.ModelProto) -> str:
    """Digest of the engine of a builder of its own; empty where there is none."""
    builder = trt.Builder(LOG)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse(proto.SerializeToString()):
        return ""
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    return "" if plan is None else hashlib.sha256(bytes(plan)).hexdigest()


def variants(proto: onnx.ModelProto) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """(`spelled` or `removed`, attribute, model) for each attribute of the only node that has a default."""
    node = proto.graph.node[0]
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if node.domain or not defs.has(node.op_type, version):
        return
    given = {a.name: a for a in node.attribute}
    for name, attribute in defs.get_schema(node.op_type, version).attributes.items():
        default = attribute.default_value
        if default.type == AttributeProto.UNDEFINED or given.get(name) == default:
            continue
        made = onnx.ModelProto()
        made.CopyFrom(proto)
        del made.graph.node[0].attribute[:]
        kept = [a for a in node.attribute if a.name != name]
        made.graph.node[0].attribute.extend(kept if name in given else [*kept, default])
        yield "removed" if name in given else "spelled", name, made


def outputs_differ(test: Any, made: onnx.ModelProto) -> bool | None:
    """Whether ONNX's own evaluator gives other outputs; None: it does not run the model."""
    inputs, expected = test.data_sets[0]
    feeds = {i.name: value for i, value in zip(test.model.graph.input, inputs, strict=False)}
    try:
        given = ReferenceEvaluator(made).run(None, feeds)
        both = zip(given, expected, strict=True)
        pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in both]
    except Exception:
        return None
    return any(a.shape != b.shape or not np.allclose(a, b, equal_nan=True) for a, b in pairs)


def main(place: Path) -> None:
    seen = set()
    with place.open("w") as file:
        for test in collect_testcases(None):
            if test.model is None or len(test.model.graph.node) != 1:
                continue
            op, tried = test.model.graph.node[0].op_type, list(variants(test.model))
            types = tuple(i.type.tensor_type.elem_type for i in test.model.graph.input)
            key = (op, types, tuple((how, name) for how, name, _ in tried))
            if not tried or key in seen or not (plain := engine(test.model)):
                continue
            seen.add(key)
            for how, name, made in tried:
                other = engine(made)
                row = {"test": test.name, "op": op, "attribute": name, "how": how, "builds": bool(other)}
                row["same_engine"] = other == plain
                if how == "removed" and other == plain:
                    row["outputs_differ"] = outputs_differ(test, made)
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]))
