"""Masking: one cause is one signature in every context, two causes are two."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.targets.signature import is_plain, mask, named_in

# Real messages of TensorRT-RTX 1.4, 1.6 and 1.7.1 on onnx's node tests, and TensorRT's own wording.
# `cause` was given by eye: rows with one number mean one thing.
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "data/messages.jsonl").read_text().splitlines()
]
BY_CAUSE = {c: list(rows) for c, rows in itertools.groupby(ROWS, key=lambda row: row["cause"])}

# What exporters and people call nodes and tensors; the plain ones are words of messages, too.
NAMES = st.one_of(
    st.sampled_from(["input", "output", "x", "y", "axis", "scales", "type", "mask", "Relu", "nms", "data"]),
    st.sampled_from(
        ["x:0", "/model/layers.0/self_attn/MatMul_output_0", "aten::add_1", "conv1.weight", "2083"]
    ),
    st.from_regex(r"/?[a-z]{1,8}([/._][A-Za-z]{1,8}){0,3}_[0-9]{1,4}", fullmatch=True),
    st.from_regex(r"[A-Z][a-z]{2,8}_[0-9]{1,3}", fullmatch=True),
)
TEMPLATES = [
    "Invalid Node - node_of_{0}\nITensor::getDimensions: Error Code 4: API Usage Error (Network"
    " input {1} is a"
    " shape tensor and must have type Int32 or Int64. Type is Float. In demandAndResolveInputTensor"
    " at /s/a.cpp:9)",
    "Invalid Node - {0}\nITensor::getDimensions: Error Code 3: API Usage Error ({0}_AttentionInput:"
    " Key and Value"
    " must have the same shape In validate at /_src/optimizer/api/layers/attentionInputLayer.cpp:177)",
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Tensor {0} has datatype FP4"
    " but is not"
    " consumed by IPluginLayer. In validateQuantizedTypes at /_src/optimizer/api/network.cpp:271)",
    "IBuilder::buildSerializedNetwork: Error Code 4: Internal Error (kOPT values for profile 0"
    " violate shape"
    " constraints: IShuffleLayer {0}: reshaping failed for tensor: data reshape would change volume"
    " 24 to 16)",
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (ICumulativeLayer {0}: {0}:"
    " ICumulativeLayer"
    " 'axis' value must be a build time constant but is (# 0 (VALUE {1})). In lowerParams at /a/b.cpp:12)",
    "IBuilder::buildSerializedNetwork: Error Code 1: Internal Error (Node"
    " {{ForeignNode[{0}...node_of_{1}]}} cannot"
    " be quantized by {1}. You might want to add a DQ node before {{ForeignNode[{0}...node_of_{1}]}}.",
    "[tacticSupply.cpp::getSupportedFormats::48] Error Code 2: Internal Error (Assertion"
    " !layerImpls.empty()"
    " failed. {0}_0 has no runners that implement it In getSupportedFormats at /_src/tacticSupply.cpp:48)",
    "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any"
    " implementation for"
    " node {0} + {1}.)",
    'While parsing node number 7 [Resize -> "{0}"]:',
    "In node 7 with name: {0} and operator: Resize (importResize): UNSUPPORTED_NODE: not supported",
]


def test_the_table_is_large_enough() -> None:
    assert len(ROWS) > 100
    assert sum(len(rows) > 1 for rows in BY_CAUSE.values()) > 5


@pytest.mark.parametrize("cause", [c for c, rows in BY_CAUSE.items() if len(rows) > 1])
def test_one_cause_in_several_models_has_one_signature(cause: int) -> None:
    assert len({mask(row["message"], row["names"]) for row in BY_CAUSE[cause]}) == 1


def test_any_two_causes_have_two_signatures() -> None:
    seen: dict[str, dict[str, Any]] = {}
    for row in (rows[0] for rows in BY_CAUSE.values()):
        signature = mask(row["message"], row["names"])
        assert signature not in seen, (row, seen[signature])
        seen[signature] = row


def test_real_messages_do_not_depend_on_which_names_the_graph_has() -> None:
    for row in ROWS:
        assert mask(row["message"], row["names"]) == mask(row["message"]), row["message"]


def test_real_messages_are_masked_once_and_for_all() -> None:
    for row in ROWS:
        signature = mask(row["message"], row["names"])
        assert mask(signature, row["names"]) == signature == mask(signature)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ('(p == 1 || p == 2) && "Only L1 and L2 normalization are supported."', "(p == 1 || p == 2)"),
        ('softcap == 0.0 && "Setting softcap is not supported"', "softcap == 0.0"),
        ("Assertion failed: inputs.at(2).is_weights(): only an initializer.", "inputs.at(2).is_weights()"),
        ("Assertion failed: node.output().size() == 1: one output of 3", "size() == 1: one output of <n>"),
        ("Assertion failed: status.is_success(): Found unsupported input type of UINT8", "UINT8"),
        ("x: Error Code 4: API Usage Error (Tensor t has datatype Int4 but is not", "Error Code 4"),
        ("[9] Assertion failed: a == 3: b", "[9] Assertion failed: a == 3"),
        ("Parameter check failed, condition: nbDims == 4. In f at /a/b.cpp:12", "condition: nbDims == 4. "),
        ("Assertion failed: t == DataType::kINT32: 4-bit needs an even number", "DataType::kINT32: 4-bit"),
        ("(DataType is FP16, BFloat16 or FP8)", "FP16, BFloat16 or FP8"),
    ],
)
def test_what_makes_the_meaning_is_kept(message: str, kept: str) -> None:
    names = ["p", "inputs", "inputs.at", "node", "type", "a", "b", "t", "nbDims", "output"]
    assert kept in mask(message, names)


@pytest.mark.parametrize(
    ("message", "signature"),
    [
        ("reshape [2,1,1] to {4, 3} at 0x7fff00aa", "reshape <dims> to <dims> at <addr>"),
        ("{[1,?,2..4],[?,..15]} and [..] or [...]", "{<dims>,<dims>} and <dims> or [...]"),
        ("[-340282346638528859811704183484516925440.000000, 1.5]", "<dims>"),  # FLT_MAX, by %f
        ("needs 4096 bytes or 1.5 GiB, -1 != 3", "needs <size> or <size>, <n> != <n>"),
        ("In f at /_src/a.cpp:123 (and b.h:7)", "In f at /_src/a.cpp:<line> (and b.h:<line>)"),
        ("[x.cpp::f::1295] failed", "[x.cpp::f::<line>] failed"),
        ("first line 1\nsecond line", "first line <n>"),
        ("", ""),
        (" \n\n ", ""),
    ],
)
def test_numbers_and_places_are_masked(message: str, signature: str) -> None:
    assert mask(message) == signature


@pytest.mark.parametrize("name", ["data", "sh", "w0", "a/b"])
@pytest.mark.parametrize(
    "said",
    [
        "In node -1 with name:  and operator:  (importInitializers): Failed to import initializer: ",
        "[OpenVINO-EP] /a/ov_compute.h:346 - I/O size mismatch between ONNX and OpenVINO for ",
    ],
)
def test_a_name_at_the_end_is_masked_whatever_it_is(said: str, name: str) -> None:
    """Plain words are masked by position: else a part whose tensor is called otherwise would not count."""
    assert mask(said + name) == mask(said + "x1", ["x1"]) and mask(said + name).endswith(" <name>")


def test_names_are_found_as_whole_words_and_with_suffixes() -> None:
    names = {"conv_1", "/a/b.c", "input", "type", "odd name (2)", "wq/MatMul"}
    text = "conv_1, conv_1_3 and '/a/b.c': odd name (2) by wq/MatMul; conv_12 of data type input"
    assert mask(text, names) == ("<name>, <name> and '<name>': <name> by <name>; conv_12 of data type input")


def test_one_of_ten_thousand_names() -> None:
    names = [f"/model/layers.{i}/MatMul_output_0" for i in range(10_000)]
    message = f"Assertion failed: x: bad tensor {names[77]} and {names[-1]}"
    assert mask(message, names) == "Assertion failed: x: bad tensor <name> and <name>"


@given(st.sampled_from(TEMPLATES), st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES), st.booleans())
def test_renaming_changes_nothing(
    template: str, some: tuple[str, str], others: tuple[str, str], known: bool
) -> None:
    one = mask(template.format(*some), some if known else ())
    assert one == mask(template.format(*others), others)
    assert "<name>" in one


@given(st.text(), st.lists(st.text(min_size=1), max_size=5))
def test_masking_twice_changes_nothing_in_any_text(message: str, names: list[str]) -> None:
    once = mask(message, names)
    assert mask(once, names) == once


@given(st.sampled_from(TEMPLATES), NAMES, NAMES, st.lists(NAMES, max_size=4))
def test_masking_twice_changes_nothing_in_real_messages(
    template: str, first: str, second: str, others: list[str]
) -> None:
    once = mask(template.format(first, second), [first, second, *others])
    assert mask(once, [first, second, *others]) == once


@given(st.from_regex(r'[ab:"()&=!. \[\]<>{}0-9\n-]{0,60}', fullmatch=True))
def test_masking_twice_changes_nothing_in_hostile_text(message: str) -> None:
    once = mask(message, ["a1", "b", "a b1"])
    assert mask(once, ["a1", "b", "a b1"]) == once


def test_names_at_positions_are_reported_plain_words_too() -> None:
    assert named_in("API Usage Error (Network input scales is a shape tensor)") == ["scales"]
    assert named_in("Could not find any implementation for node a + /b/c.)") == ["a + /b/c", "a", "/b/c"]
    assert named_in("nothing here") == []


@pytest.mark.parametrize("name", ["input", "MatMul", "RMS", "zero_point", "GELU", "x"])
def test_plain_words(name: str) -> None:
    assert is_plain(name)


@pytest.mark.parametrize("name", ["input_1", "x1", "a/b", "a.b", "x:0", "myTensor"])
def test_names_that_are_no_words(name: str) -> None:
    assert not is_plain(name)
