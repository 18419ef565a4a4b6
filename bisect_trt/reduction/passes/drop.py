"""Drop nodes until every one that is left was tried without.

VANISHES is weak evidence while cutting itself can hide a failure: try the other ways of cutting.
"""

from __future__ import annotations

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.reduction import list_search
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.selections import Selections


def drop(problem: Problem) -> None:
    """Minimise the node set of the best candidate; without one, of the whole model.

    An accumulated error has no culprits to find one by one.
    """
    if problem.hybrid is not None and problem.hybrid.accumulated:
        return
    if problem.best is None:
        problem.attempt(problem.cut(problem.scope))
    if problem.best is not None:
        minimise(problem, problem.best)


def minimise(problem: Problem, candidate: Candidate) -> None:
    """Offer ever fewer of the nodes of a candidate that reproduces, cut as it was.

    What cannot be cut apart comes back with what is left, so that few names may stand for many nodes: these
    are left out, too, as long as that makes the cut smaller.
    """
    style = candidate.form
    judge = Selections(problem, style)
    names = judge.run(lambda asked: list_search.sweep(list_search.isolate(candidate.nodes, asked), asked))
    nodes = problem.cut(names, style).nodes
    while len(nodes) > len(names):
        whole = nodes
        names = judge.run_apart(list_search.sweep, whole)
        nodes = problem.cut(names, style).nodes
        if len(nodes) >= len(whole):
            break


def is_one_minimal(problem: Problem) -> bool:
    """Return whether every single node of the best candidate was tried without, and was needed.

    A node that cannot be left out, as nothing can be cut between it and the others, is needed; but where
    that is only because values were not recorded, nothing is proved.
    """
    if problem.best is None:
        return False
    judge = Selections(problem, problem.best.form)
    return judge.run_apart(list_search.is_one_minimal, problem.best.nodes)


RESERVE = (Form.NARROW, Form.HIDDEN, Form.UNFROZEN, Form.DYNAMIC, Form.UNTYPED)
FEW_NODES = 16


def recut(problem: Problem) -> None:
    """Drop nodes again in each reserve style that also reproduces, while it makes a difference.

    Types like int4 may be cut after all and sequences be outputs (NARROW), an exposed tensor cannot be
    fused away (HIDDEN), a frozen one is no longer computed (UNFROZEN), a static dimension is no longer
    dynamic (DYNAMIC). Where only the file as it is fails so far, types of interior tensors and shapes of
    outputs, which it may not have, are left out (UNTYPED).
    """
    if problem.hybrid is not None and problem.hybrid.accumulated:
        return
    for style in RESERVE:
        best = problem.best
        if best is not None and len(best.nodes) == 1:
            return
        if style is Form.UNTYPED and best is not None:
            continue
        again = problem.cut(best.nodes if best else problem.scope, style)
        if best is not None and again.digest == best.digest and len(best.nodes) > FEW_NODES:
            continue  # cut alike as a whole; that its parts would not be is not worth many probes
        if problem.attempt(again):
            minimise(problem, again)
