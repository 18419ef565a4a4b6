"""What the search saw on its way that avoids the failure. Only what was tried is told."""

from __future__ import annotations

import onnx

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cut import CutStyle
from bisect_trt.outcome import Verdict
from bisect_trt.passes.neighbour import Neighbour
from bisect_trt.problem import Problem

_WHY = {
    CutStyle.UNFROZEN: "giving the shape-like inputs of these nodes as constants avoids it",
    CutStyle.DYNAMIC: "fixing the dynamic dimensions of the inputs of these nodes avoids it",
}


def workarounds(
    problem: Problem, found: Candidate, neighbour: Neighbour | None, avoided: list[str]
) -> tuple[str, ...]:
    """Sentences; `found` is the reduced model as it was cut, before it was simplified.

    `avoided` are those on options of the target.
    """
    told = list(avoided)
    if found.cut in set(CutStyle) - {CutStyle.DEFAULT}:
        plain = problem.cut(found.nodes)
        if problem.peek(plain) is Verdict.VANISHES:
            told.append(_by_cutting(found, plain))
    if neighbour is not None:
        told.append(f"The reduced model {neighbour.difference} does not fail (it is passing.onnx).")
    return tuple(text for text in told if text)


def _by_cutting(found: Candidate, plain: Candidate) -> str:
    style = CutStyle(found.cut)
    if style in _WHY:
        return f"Seen: {_WHY[style]}."
    hidden = set(_outputs(plain)) - set(_outputs(found))
    names = ", ".join(sorted(hidden)[:4])
    return f"Seen: making {names} an output of the network as well hides the failure." if names else ""


def _outputs(candidate: Candidate) -> list[str]:
    return [output.name for output in onnx.load_model_from_string(candidate.model).graph.output]
