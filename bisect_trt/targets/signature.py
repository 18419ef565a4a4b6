"""Signatures: the message of a failure with all that belongs to its context masked.

`mask` keeps what names the *cause* (the text of the message, types, error codes, the assertion that
failed) and replaces what only says *where* it happened: names of nodes and tensors, dimensions,
numbers, source lines, addresses. Two messages of one cause in two models become equal.

A message is read as pieces of two kinds. *Source text* (assertion expressions, string literals of an
assertion, error codes) comes from the target's own source: it is the same in every context and is
copied as it is, so that `inputs.at(2)` survives even in a graph with a tensor called `inputs`. All else
is *formatted text*, where names are masked first by position, then by look-up, and numbers last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import islice

NAME = "<name>"
"""Stands for a node, layer or tensor."""

# Pieces that are source text. An expression ends at the `: ` or ` && "` that starts its explanation
# (`::` has no space after it), a `condition:` at the full stop.
_EXPLAINED = r"""
      [!(\w][^"\n]*?(?:"[^"\n]*"[^"\n]*?)*?\s&&\s"(?:[^"\n]|"(?=\w))*"      # EXPR && "literal"
    |"""
_SOURCES = r"""
      Assertion\ failed:\ (?:[^\s:"]|"[^"]*"|::|:(?!\s|$)|\s)+?(?=:\s|:?$)  # Assertion failed: EXPR
    | Assertion\ (?!failed)\S.*?\ failed\b                                  # Assertion EXPR failed
    | \bCHECK\([^\n]*?\)\ failed\b
    | \bcondition:\ .+?(?=\.(?:\s|\)|$|[A-Z]{3}))
    | \bError\ Code\ \d+
    | ^\[\d+\](?=\s)                                                        # the parser's error code
    """
_SOURCE = re.compile(_SOURCES, re.VERBOSE)


@cache
def _source(text_has_and: bool) -> re.Pattern[str]:
    """Return what finds the pieces: to find out letter by letter that a text has no `&&` takes long."""
    return re.compile(_EXPLAINED + _SOURCES, re.VERBOSE) if text_has_and else _SOURCE


# What comes before and after a name, in messages seen from TensorRT 8.6 to 11, ONNX Runtime and OpenVINO.
# `N` stands for the name itself. Names with spaces are replaced before, see `_odd_names`.
_N = r"[^\s<>]\S*?"
_POSITIONS = tuple(
    re.compile(pattern.replace("NAME", f"(?P<name>{_N}|{NAME})", 1).replace("NAME", f"(?:{_N}|{NAME})"))
    for pattern in (
        r"(?P<a>\bNetwork input )NAME(?P<b> is\b)",
        r"(?P<a>\b[Tt]ensor )NAME(?P<b> has (?:data ?type|type)\b)",
        r"(?P<a>\bInvalid Node - )NAME(?P<b>\s|$)",
        r"(?P<a>\(VALUE )NAME(?P<b>\))",
        r"(?P<a>\bI\w*Layer )NAME(?::\s+NAME)?(?P<b>:(?:\s|$))",
        r"(?P<a>\bI\w*Layer )NAME(?P<b> has `)",
        r"(?P<a>\b[Ll]ayer with name )NAME(?P<b>:?(?:\s|$))",
        r"(?P<a>\b(?:Error|Miscellaneous|Exception) \((?!\[))NAME(?::\s+NAME)?(?P<b>:\s)",
        r"(?P<a>\bviolate shape constraints: )NAME(?P<b>:\s)",
        r"(?P<a>\bError \(Node ){?NAME(?P<b> cannot be quantized)",
        r"(?P<a>\bbe quantized by )NAME(?P<b>\.(?:\s|$))",
        r"(?P<a>\bDQ node before )NAME(?P<b>\.(?:\s|$))",
        r"(?P<a>\bFailed to import initializer: )NAME(?P<b>$)",
        r"(?P<a>\bmismatch between ONNX and OpenVINO for )NAME(?P<b>$)",
        r"(?P<a>\bName: ?')NAME(?P<b>')",
        r'(?P<a>\[\w+ -> ")NAME(?P<b>"\])',
        r"(?P<a>\bfriendly_name ')NAME(?P<b>')",
        r"(?P<a>\bopset\d+::\w+ )NAME(?P<b>(?=[\s('\[<]|$))",  # OpenVINO's, with a counter
    )
)
# Positions whose names may hold spaces: fused layers are called `a + b` or `PWN(a, b)`.
_WIDE_POSITIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<a>\{ForeignNode\[)(?P<name>.*?)(?P<b>\]\})",
        r"(?P<a>\bwith name:)(?P<name>.*?)(?P<b> and operator:)",
        r"(?P<a>\bany implementation for node )(?P<name>.+?)(?P<b>(?:\.?\)?|\.\s.*|\sdue to\b.*)$)",
        r"(?P<a>(?:^|\bfailed)\. )(?P<name>.+?)(?P<b> has no runners\b)",
    )
)
LONGEST_MASKED = 1500
"""Characters of a message that make its signature: masking takes more time than in proportion."""

LONGEST_MESSAGE = 4000
"""Characters of a message that are kept with a failure; the target's log has the rest."""

_DERIVED = re.compile(
    r"\(Unnamed Layer\* (?:\d+|<n>)\)(?: \[[\w ]+\])?"
    r"|\bnode_of_[^\s:()\[\]{}]*[^\s:()\[\]{}.,;!]"
    r"|\bONNXTRT_\w+"
)
_SUFFIX = re.compile(r"(?:_\d+|_[A-Z][A-Za-z]*)$")  # what TensorRT appends: X_2, X_AttentionInput
TOKEN = re.compile(r"""[^\s"'`()\[\]{}<>,=]+""")
"""A word of a message, with the punctuation behind it."""

_SEPARATOR = re.compile(r"""[\s"'`()\[\]{}<>,=]""")
_PLAIN = re.compile(r"[A-Za-z]?[a-z]*|[A-Z]+|(?:[A-Z]+[a-z]*)+")
# Words with an underscore that TensorRT's own messages use for attributes and inputs: a graph may use
# them as names too, and whether it does must not change the signature.
_VOCABULARY = """
    attn_mask auto_pad axis_tensor batch_dims block_size ceil_mode center_point_box
    coordinate_transformation_mode count_include_pad cubic_coeff_a frame_step iou_threshold
    keep_aspect_ratio_policy kv_num_heads max_output_boxes_per_class num_heads output_dtype past_cache
    q_num_heads sampling_ratio scale_factor score_threshold seq_lens sequence_lens storage_order
    training_mode zero_point
"""
_WORDS = frozenset(_VOCABULARY.split())

# Whole numbers, `?`, and ranges as OpenVINO writes them (`1..`, `..15`). Possessive: tried again in parts, a
# number of 39 digits (FLT_MAX) would take for ever where no bracket follows.
_DIMS = re.compile(
    r"[\[{](?:\s*+(?:-?\d++|<n>|\?|\.\.|\(# (?:-?\d++|<n>) \(VALUE [^()]*\)\))\s*+,?+)++[\]}]"
)
_SIZE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?\s?(?:[KMGT]i?B|[Bb]ytes?)\b")
_LINE = re.compile(r"(\.(?:cpp|cc|cu|hpp|h|inl|py):+|::)\d+(?=[\s:)\],]|$)")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")
# Not part of a word (FP16, Int4, 4-bit, onnx/issues/5766).
_NUMBER = re.compile(r"(?<![\w./])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|-[A-Za-z]|\.\d)")
_GOT = re.compile(r"(\bgot )\d+(D\b)")


def mask(message: str, names: Iterable[str] = ()) -> str:
    """Return the signature of a message.

    Args:
        message: what the target said; of several lines only the first error counts.
        names: names of the nodes and tensors of the graph. Plain words (`input`, `scales`, `MatMul`)
            are masked by position only: else the result would depend on what a graph calls its tensors.

    Returns:
        One line. Idempotent: masking a signature again changes nothing.
    """
    known = names if isinstance(names, AbstractSet) else frozenset(names)
    odd = _odd_names(known)
    text = message
    for _ in range(8):  # to a fixed point; real messages need one round
        masked = _mask_once(text, known, odd)
        if masked == text:
            break
        text = masked
    return text


def _mask_once(message: str, names: AbstractSet[str], odd: list[str]) -> str:
    text = _first_error(message)
    pieces, at = [], 0
    for source in _source("&&" in text).finditer(text):
        pieces += [_mask_formatted(text[at : source.start()], names, odd), source.group()]
        at = source.end()
    pieces.append(_mask_formatted(text[at:], names, odd))
    return " ".join("".join(pieces).split())


def _first_error(message: str) -> str:
    """Return the first line, with the second when the first only says which node it is about."""
    lines = list(islice((short for line in message.splitlines() if (short := _shortened(line))), 2))
    if not lines:
        return ""
    if len(lines) > 1 and lines[0].startswith("Invalid Node - "):
        return f"Invalid Node - {NAME} {lines[1]}"[:LONGEST_MASKED]
    return lines[0]


def _shortened(line: str) -> str:
    """Return a line with plain spaces, cut where it is very long.

    The layers of a ForeignNode are one name.
    """
    if len(line) > LONGEST_MASKED:
        parts, at = [], 0
        while (start := line.find("ForeignNode[", at)) >= 0 and (end := line.find("]}", start)) >= 0:
            parts += [line[at:start], f"ForeignNode[{NAME}"]
            at = end
        line = "".join([*parts, line[at:]])[:LONGEST_MASKED]
    return " ".join(line.split())


def bounded(message: str) -> str:
    """Return a message as it is kept with a failure; one that is very long without its middle."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} ... {message[-half:]}"


def _mask_formatted(text: str, names: AbstractSet[str], odd: list[str]) -> str:
    for name in odd:
        if name in text:
            text = text.replace(name, NAME)
    for pattern in _WIDE_POSITIONS:
        text = pattern.sub(rf"\g<a>{NAME}\g<b>", text)
    text = _DERIVED.sub(NAME, text)
    for pattern in _POSITIONS:
        text = pattern.sub(rf"\g<a>{NAME}\g<b>", text)
    if names:
        text = TOKEN.sub(lambda token: _mask_token(token.group(), names), text)
    text = _ADDRESS.sub("<addr>", text)
    text = _LINE.sub(lambda m: f"{m.group(1)}<line>", text)
    text = _DIMS.sub("<dims>", text)
    text = _SIZE.sub("<size>", text)
    text = _GOT.sub(r"\1<n>\2", text)
    return _NUMBER.sub("<n>", text)


def _mask_token(token: str, names: AbstractSet[str]) -> str:
    """Return `<name>` when the token is a name of the graph, with its punctuation or TensorRT's suffixes."""
    if token in names and not is_plain(token):
        return NAME
    bare = token.rstrip(".:;!?")
    for word in (bare, _SUFFIX.sub("", bare)):
        if word in names and (not is_plain(word) or word != bare):
            return NAME + token[len(bare) :]
    return token


def named_in(message: str) -> list[str]:
    """Return what a message has in places where a name stands, plain words too, in order of the message."""
    text = " ".join(bounded(message).split())
    found = [m for pattern in (*_WIDE_POSITIONS, *_POSITIONS) for m in pattern.finditer(text)]
    names: dict[str, None] = {}
    for match in sorted(found, key=lambda m: m.start("name")):
        words = (word for word in TOKEN.findall(match.group("name")) if word != "+")
        names.update(dict.fromkeys((match.group("name"), *words)))
    return [name for name in names if name]


def is_plain(name: str) -> bool:
    """Return whether a name could be a word of a message: letters only, or a word of ONNX's vocabulary."""
    return name in _WORDS or _PLAIN.fullmatch(name) is not None


def _odd_names(names: AbstractSet[str]) -> list[str]:
    """Return the names that a tokeniser would split (spaces, brackets, quotes), longest first.

    Only those with a digit, slash, dot or underscore: `data type` may be a name as well.
    """
    odd = (n for n in names if _SEPARATOR.search(n) and re.search(r"[\d/._:]", n) and len(n) > 2)
    return sorted(odd, key=lambda n: (-len(n), n))
