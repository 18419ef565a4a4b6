"""Ways to spoil what strangers send: a walk over protobufs, JSON and bytes, driven by one random source."""

from __future__ import annotations

import zipfile
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper

NUMBERS = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 7, 255, 1 << 31, 1 << 40, (1 << 63) - 1)
FLOATS = (0.0, -1.0, 1e-45, 1e30, float("inf"), float("nan"))
TEXTS = ("", "x", "../up", "/etc/hosts", "a\nb", "\x1b[31m", "n" * 5000, "é", "NaN", "{0}%s", "ai.onnx", "\0")
SEEDS = 200
CORPUS = Path(__file__).with_name("seeds.zip")
"""Models that are spoiled: small sound ones of many operators, types and forms."""


def corpus() -> list[bytes]:
    """The models of `CORPUS`, always in the same order."""
    with zipfile.ZipFile(CORPUS) as archive:
        return [archive.read(name) for name in sorted(archive.namelist())]


def write_corpus() -> None:
    """Make `CORPUS` of onnx's own node tests (some seconds), and a model whose weight lies in a file."""
    from onnx.backend.test.case.node import collect_testcases

    cases = collect_testcases(None)
    made = {c.model.SerializeToString(deterministic=True) for c in cases if c.model is not None}
    some = sorted(made, key=lambda data: (len(data), data))[: 4 * SEEDS : 4]
    models = [*some[: SEEDS - 1], external().SerializeToString(deterministic=True)]
    with zipfile.ZipFile(CORPUS, "w", zipfile.ZIP_DEFLATED) as archive:
        for k, data in enumerate(models):
            archive.writestr(zipfile.ZipInfo(f"{k:03d}.onnx"), data, zipfile.ZIP_DEFLATED)


def external() -> onnx.ModelProto:
    """A model whose weight lies in a file `w.bin` beside it."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def spoil_message(message: Message, random: Random) -> None:
    """Change one thing somewhere in a protobuf message, in place."""
    here = message
    while True:
        fields = here.ListFields()
        if not fields:
            return
        field, value = random.choice(fields)
        inner = field.type == field.TYPE_MESSAGE
        if inner and random.random() < 0.8:
            here = random.choice(value) if field.is_repeated else value
            continue
        _change(here, field, value, random)
        return


def _change(message: Message, field: Any, value: Any, random: Random) -> None:
    way = random.randrange(4)
    if way == 0:
        message.ClearField(field.name)
    elif field.is_repeated:
        items = list(value)
        at = random.randrange(len(items))
        items = {1: items[:at] + items[at + 1 :], 2: items + items[at:], 3: items[::-1]}[way]
        if way == 3 and field.type != field.TYPE_MESSAGE:
            items[at] = _other(field, items[at], random)
        copies = [_copy(item) for item in items]
        message.ClearField(field.name)
        getattr(message, field.name).extend(copies)
    elif field.type != field.TYPE_MESSAGE:
        setattr(message, field.name, _other(field, value, random))


def _copy(item: Any) -> Any:
    return type(item).FromString(item.SerializeToString()) if isinstance(item, Message) else item


def _other(field: Any, value: Any, random: Random) -> Any:
    if field.type == field.TYPE_STRING:
        return random.choice((*TEXTS, value + "_", value[:-1]))
    if field.type == field.TYPE_BYTES:
        return spoil_bytes(value, random)
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice(FLOATS)
    if field.type == field.TYPE_ENUM:
        return random.choice(list(field.enum_type.values_by_number))
    low, high = {
        field.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
        field.TYPE_UINT64: (0, (1 << 64) - 1),
    }.get(field.type, (-(1 << 63), (1 << 63) - 1))
    return min(max(random.choice((*NUMBERS, value + 1, value - 1)), low), high)


def spoil_bytes(data: bytes, random: Random) -> bytes:
    """Cut, lengthened, or with a few bytes changed."""
    way = random.randrange(3)
    if way == 0 or not data:
        return data[: random.randrange(len(data) + 1)]
    if way == 1:
        return data + bytes(random.randrange(256) for _ in range(random.randrange(1, 9)))
    spoiled = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        spoiled[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def spoil_json(data: Any, random: Random) -> Any:
    """One value somewhere in plain data replaced, left out or doubled; the data is not changed."""
    if isinstance(data, dict) and data and random.random() < 0.85:
        key = random.choice(sorted(data))
        if random.random() < 0.1:
            return {k: v for k, v in data.items() if k != key}
        return {**data, key: spoil_json(data[key], random)}
    if isinstance(data, list) and data and random.random() < 0.85:
        at = random.randrange(len(data))
        return [*data[:at], spoil_json(data[at], random), *data[at + 1 :]]
    return random.choice([None, True, [], {}, [[]], {"a": 1}, *NUMBERS, 1e300, *TEXTS, [data], str(data)])


if __name__ == "__main__":
    write_corpus()
