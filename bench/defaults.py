"""Which attributes TensorRT-RTX reads otherwise than ONNX: onnx's node tests, without a GPU.

`python bench/defaults.py FILE` writes a line of JSON for each attribute that was tried. Of every test with
one node, each attribute that is left out is spelled out with ONNX's default (another engine: the default is
read otherwise), each that is given with another value is left out, and each gets other values (the same
engine although the outputs are others: the attribute is ignored). Then the model is said to be of each
operator set from 13 to 25 (the same engine although the outputs are others: a change of meaning is ignored),
and converted to it (another engine: the older form is read otherwise). Outputs are those of ONNX Runtime,
else of ONNX's own evaluator. Loops (RNN, GRU, LSTM) build differently each time.
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
import onnxruntime as ort
import tensorrt_rtx as trt
from onnx import AttributeProto, defs, helper, version_converter
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from bisect_trt.model.graph import is_onnx, opset_of


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
    given = {a.name: a for a in node.attribute}
    for name, default in defaults(proto):
        if default.type == AttributeProto.UNDEFINED or given.get(name) == default:
            continue
        more = [] if name in given else [default]
        yield "removed" if name in given else "spelled", name, with_attribute(proto, name, more)


def defaults(proto: onnx.ModelProto) -> Iterator[tuple[str, AttributeProto]]:
    """The attributes that the only node may have, each with its default, which may be undefined."""
    node, version = proto.graph.node[0], opset_of(proto)
    if not node.domain and defs.has(node.op_type, version):
        for name, attribute in defs.get_schema(node.op_type, version).attributes.items():
            yield name, attribute.default_value


def with_attribute(proto: onnx.ModelProto, name: str, more: list[AttributeProto]) -> onnx.ModelProto:
    """The model whose only node has these in place of the attribute of that name."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    del made.graph.node[0].attribute[:]
    kept = [a for a in proto.graph.node[0].attribute if a.name != name]
    made.graph.node[0].attribute.extend([*kept, *more])
    return made


# Values of texts, by name of the attribute; what an operator does not know its checker refuses.
TEXTS = {
    "mode": ("constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic", "DCR", "CRD", "max", "avg"),
    "padding_mode": ("zeros", "border", "reflection"),
    "auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"),
    "coordinate_transformation_mode": (
        *("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"),
        *("tf_crop_and_resize", "output_half_pixel"),
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    "reduction": ("none", "add", "mul", "min", "max", "sum", "mean"),
    "approximate": ("none", "tanh"),
    "direction": ("LEFT", "RIGHT", "forward", "reverse"),
    "round_mode": ("up", "down", "nearest"),
}
VERSIONS = range(13, 26)
NO_MATTER = ("sorted", "seed")


def others(attribute: AttributeProto, usual: AttributeProto | None) -> Iterator[AttributeProto]:
    """The attribute, or its default where it is left out, with other values."""
    known = usual if usual is not None else attribute
    value = helper.get_attribute_value(known) if known.type else None
    values: list[Any] = []
    if known.type == AttributeProto.STRING:
        values = [text for text in TEXTS.get(attribute.name, ()) if text.encode() != value]
    elif known.type == AttributeProto.INT:
        values = [v for v in ((0, 1) if value in (0, 1) else (2, -1, value + 1)) if v != value]
    elif known.type == AttributeProto.FLOAT:
        values = [value * 2 + 0.5]
    elif known.type == AttributeProto.INTS:
        values = [[v + 1 for v in value], [1] * len(value), [*value[::-1]], [*range(len(value))]]
        values = [v for v in values if v != list(value)]
    for one in values:
        yield helper.make_attribute(attribute.name, one)


def changed(proto: onnx.ModelProto) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """(`changed`, attribute and value, model) for other values of each attribute."""
    node = proto.graph.node[0]
    given = {a.name: a for a in node.attribute}
    for name, default in defaults(proto):
        held = given.get(name) or (default if default.type != AttributeProto.UNDEFINED else None)
        if held is None or name in NO_MATTER or (name == "auto_pad" and "pads" in given):
            continue
        for other in others(held, held):
            made = loose(with_attribute(proto, name, [other]))
            yield "changed", f"{name}={helper.get_attribute_value(other)}", made


def versions(proto: onnx.ModelProto) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """(`said` or `converted`, operator set, model) for each in which the operator has another definition."""
    node = proto.graph.node[0]
    here = opset_of(proto)
    if node.domain or not defs.has(node.op_type, here):
        return
    since = {defs.get_schema(node.op_type, here).since_version}
    for version in reversed(VERSIONS):
        if not defs.has(node.op_type, version):
            continue
        known = defs.get_schema(node.op_type, version).since_version
        if known in since:
            continue
        since.add(known)
        made = onnx.ModelProto()
        made.CopyFrom(proto)
        for one in made.opset_import:
            one.version = version if is_onnx(one.domain) else one.version
        yield "said", str(version), loose(made)
        try:
            yield "converted", str(version), version_converter.convert_version(proto, version)
        except Exception:
            continue


def loose(made: onnx.ModelProto) -> onnx.ModelProto:
    """Without the shapes of outputs, which may be others now."""
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    return made


def outputs(test: Any, made: onnx.ModelProto) -> list[Any] | None:
    """What a model gives on the first inputs of a test; None: nobody runs it."""
    inputs = test.data_sets[0][0]
    feeds = {i.name: value for i, value in zip(test.model.graph.input, inputs, strict=False)}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))
    except Exception:
        pass
    try:
        return list(ReferenceEvaluator(made).run(None, feeds))
    except Exception:
        return None


def outputs_differ(test: Any, made: onnx.ModelProto) -> bool | None:
    """Whether the outputs are others by more than rounding; None: nobody runs one of the models."""
    usual, given = outputs(test, test.model), outputs(test, made)
    if usual is None or given is None:
        return None
    try:
        both = zip(usual, given, strict=True)
        pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in both]
    except (TypeError, ValueError):
        return None
    return any(a.shape != b.shape or not np.allclose(a, b, 1e-3, 1e-5, equal_nan=True) for a, b in pairs)


def tell(test: Any, how: str, name: str, made: onnx.ModelProto, plain: str) -> dict[str, Any] | None:
    """One line, or nothing where an engine need not be built or nothing can be said."""
    differ = None
    if how != "spelled":
        differ = outputs_differ(test, made)
        if differ is None or differ == (how == "converted"):
            return None
    other = engine(made)
    return {
        "test": test.name,
        "op": test.model.graph.node[0].op_type,
        "attribute": name,
        "how": how,
        "builds": bool(other),
        "same_engine": other == plain,
        "outputs_differ": differ,
    }


def main(place: Path) -> None:
    seen = set()
    with place.open("w") as file:
        for test in collect_testcases(None):
            if test.model is None or len(test.model.graph.node) != 1 or not test.data_sets:
                continue
            node = test.model.graph.node[0]
            types = tuple(i.type.tensor_type.elem_type for i in test.model.graph.input)
            given = tuple(sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute))
            key = (node.op_type, types, given)
            if key in seen or not (plain := engine(test.model)):
                continue
            seen.add(key)
            made = (*variants(test.model), *changed(test.model), *versions(test.model))
            for how, name, model in made:
                row = tell(test, how, name, model, plain)
                if row is not None:
                    file.write(json.dumps(row) + "\n")
                    file.flush()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]))
