"""Options and values: numbers in attributes that are values, and inputs that are options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from bisect_trt.model.edit_bodies import inner_nodes
from bisect_trt.model.edit_synthetic import Recipe, parse

Array = npt.NDArray[Any]

LONG = 64
"""A list of at most so many numbers is an option."""

_OPTIONS = {
    "Clip": (1, 2),
    "Dropout": (1,),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}
"""Inputs that were attributes in older operator sets."""


def option_inputs(node: onnx.NodeProto) -> list[str]:
    """Inputs that were attributes in older operator sets: scales of a Resize, ends of a Clip, ..."""
    slots = _OPTIONS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
    return [node.input[k] for k in slots if k < len(node.input)]


def values_of(attribute: AttributeProto) -> Array | None:
    """The numbers of an attribute that holds values; None when it holds none."""
    if attribute.type == AttributeProto.TENSOR and attribute.t.data_type != TensorProto.STRING:
        inside = attribute.t.data_location != TensorProto.EXTERNAL
        return numpy_helper.to_array(attribute.t) if inside else None
    if len(attribute.floats) > LONG:
        return np.array(attribute.floats, np.float32)
    return np.array(attribute.ints, np.int64) if len(attribute.ints) > LONG else None


def recipe_of(attribute: AttributeProto) -> Recipe | None:
    """How such numbers were made, as its doc string tells."""
    return parse(attribute.doc_string)


def give_values(attribute: AttributeProto, values: Array, recipe: Recipe | None) -> None:
    """Other numbers of the same type and shape, in place."""
    if attribute.type == AttributeProto.TENSOR:
        attribute.t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values)))
    elif attribute.floats:
        attribute.floats[:] = values.tolist()
    else:
        attribute.ints[:] = values.tolist()
    attribute.doc_string = recipe.text if recipe is not None else ""


def attribute_values(graph: onnx.GraphProto) -> Iterator[tuple[Array, Recipe | None]]:
    """All such numbers, those of bodies too."""
    for node in inner_nodes(graph):
        for attribute in node.attribute:
            values = values_of(attribute)
            if values is not None:
                yield values, recipe_of(attribute)
