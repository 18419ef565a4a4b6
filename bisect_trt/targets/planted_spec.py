"""The grammar of `planted:SPEC`, and where a fault shows in a graph; see `targets.planted`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import onnx
from msgspec import Struct

from bisect_trt.errors import UsageError
from bisect_trt.model.graph import consumed
from bisect_trt.outcome import Stage

WHAT = ("op", "node", "pair", "nodes", "fused")
HOW = ("fail", "stage", "p", "seed", "message", "hint")
_KEYS = (*WHAT, *HOW, "cost")
FAILS = ("error", "crash", "hang", "oom", "mismatch", "nan")
STAGES = ("parse", "build", "run")
_EXAMPLE = "Example: planted:op=Resize,fail=error,stage=parse+node=conv_1,fail=crash"


class Fault(Struct, frozen=True):
    """One planted fault: it shows when `what` finds `where` in the candidate."""

    what: str
    where: str
    fail: str = "error"
    stage: Stage = Stage.BUILD
    p: float = 1.0
    seed: int | None = None
    message: str = ""
    hint: bool = False

    @property
    def text(self) -> str:
        """The message of the fault, with `{node}` where the culprit's name goes."""
        return self.message or f"planted {self.fail} of {self.what} {self.where}"


class Spec(Struct, frozen=True):
    """The planted faults, and the seconds that each node of a candidate costs."""

    faults: tuple[Fault, ...]
    cost: float = 0.0


def parse_spec(text: str) -> Spec:
    """Read a SPEC.

    Raises:
        UsageError: names the part that is wrong and what is allowed.
    """
    faults: list[Fault] = []
    cost = 0.0
    for part in text.split("+"):
        options = _options(part)
        if "cost" in options:
            cost = _value(part, "cost", options.pop("cost"))
        if options:
            faults.append(_fault(part, options))
    if not faults:
        raise UsageError(f"planted:{text}: no fault given", _EXAMPLE)
    return Spec(tuple(faults), cost)


def _options(part: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for option in part.split(","):
        key, equals, value = option.partition("=")
        key = key.strip()
        if not equals or not value:
            raise UsageError(f"planted: {option!r} is not KEY=VALUE", _EXAMPLE)
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, 1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"planted: unknown key {key!r} in {part!r}{meant}", f"Keys: {', '.join(_KEYS)}.")
        if key in options:
            raise UsageError(f"planted: {key!r} is given twice in {part!r}", "Join faults with '+'.")
        options[key] = unquote(value)
    return options


def _fault(part: str, options: Mapping[str, str]) -> Fault:
    what = [key for key in WHAT if key in options]
    if len(what) != 1:
        raise UsageError(f"planted: {part!r} needs exactly one of {', '.join(WHAT)}", _EXAMPLE)
    where = options[what[0]]
    if what[0] == "pair" and len([op for op in where.split(">") if op]) != 2:
        raise UsageError(f"planted: pair={where!r} is not OPA>OPB", "Example: planted:pair=Conv>Resize")
    values = {key: _value(part, key, text) for key, text in options.items() if key in HOW}
    if values.get("fail") in ("mismatch", "nan"):
        if "stage" in values:
            said = f"planted: stage does not go with fail={values['fail']} in {part!r}"
            raise UsageError(said, "Outputs differ when run.")
        values["stage"] = Stage.RUN
    return Fault(what[0], where, **values)


_WORDS: dict[str, dict[str, Any]] = {
    "fail": {word: word for word in FAILS},
    "stage": {word: Stage(word) for word in STAGES},
    "hint": {"yes": True, "no": False},
}
_READ: dict[str, Callable[[str], float]] = {"p": float, "seed": int, "cost": float}
_MOST = {"p": 1.0, "seed": math.inf, "cost": 3600.0}
"""The largest number."""


def _value(part: str, key: str, text: str) -> Any:
    if key in _WORDS:
        if text not in _WORDS[key]:
            raise UsageError(f"planted: {key}={text!r} in {part!r}", f"Allowed: {', '.join(_WORDS[key])}.")
        return _WORDS[key][text]
    if key not in _READ:
        return text
    try:
        number = _READ[key](text)
    except ValueError:
        number = -1
    if not 0 <= number <= _MOST[key]:
        upto = f" up to {_MOST[key]:g}" if _MOST[key] < math.inf else ""
        raise UsageError(f"planted: {key}={text!r} in {part!r}", f"{key} is a number from 0{upto}.")
    return number


def culprits(fault: Fault, graph: onnx.GraphProto) -> list[int]:
    """Return indices of the nodes whose fault it is, in graph order; empty when the fault does not show."""
    nodes = graph.node
    if fault.what == "op":
        return [at for at, node in enumerate(nodes) if node.op_type == fault.where]
    if fault.what == "node":
        return [at for at, node in enumerate(nodes) if node.name == fault.where]
    if fault.what == "nodes":
        named = {name for name in fault.where.split(";") if name}
        found = [at for at, node in enumerate(nodes) if node.name in named]
        return found if len({nodes[at].name for at in found}) == len(named) else []
    if fault.what == "pair":
        first, _, second = fault.where.partition(">")
        return _reached(graph, first, second)
    return _makers_of_internal(graph, fault.where)


def _reached(graph: onnx.GraphProto, first: str, second: str) -> list[int]:
    """Return the nodes of operator `second` with a directed path from a node of operator `first`."""
    tainted: set[str] = set()
    found = []
    for at, node in enumerate(graph.node):  # in topological order
        inside = not tainted.isdisjoint(consumed(node))
        if inside and node.op_type == second:
            found.append(at)
        if inside or node.op_type == first:
            tainted.update(filter(None, node.output))
    return found


def _makers_of_internal(graph: onnx.GraphProto, tensor: str) -> list[int]:
    """Return the maker of a tensor that is made and used inside and is no output."""
    used = {name for node in graph.node for name in consumed(node)}
    inside = tensor in used - {output.name for output in graph.output}
    return [at for at, node in enumerate(graph.node) if inside and tensor in node.output]
