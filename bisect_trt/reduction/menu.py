"""The menu: which passes there are, what each may change, and in which order they run.

A pass is a function of the problem. It proposes candidates, the problem judges them and decides what is kept
(docs/architecture.md, "How to write a pass"). The lists below are all there is to the order.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from bisect_trt.model.candidate import Form
from bisect_trt.reduction.passes.adding_up import wrong_alone
from bisect_trt.reduction.passes.bodies import enter_bodies
from bisect_trt.reduction.passes.drop import drop, recut
from bisect_trt.reduction.passes.flaky import steady
from bisect_trt.reduction.passes.localise import follow_hints, localise
from bisect_trt.reduction.passes.outputs import accumulate
from bisect_trt.reduction.passes.standing import stand_alone
from bisect_trt.reduction.passes.strongest import strongest
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.attributes import simple_attributes
from bisect_trt.reduction.simplify.boundary import fewer_inputs, fewer_outputs, fewer_samples
from bisect_trt.reduction.simplify.bypass import bypass, without_nodes
from bisect_trt.reduction.simplify.dimensions import smaller_dimensions
from bisect_trt.reduction.simplify.names import plain_names
from bisect_trt.reduction.simplify.types import lower_opset, narrower_types
from bisect_trt.reduction.simplify.values import (
    generators,
    simple_inputs,
    simple_texts,
    simple_weights,
    sparse_values,
)


class Pass(Struct, frozen=True):
    """A pass by what it does, and what of the best candidate it may change, in words."""

    run: Callable[[Problem], None]
    changes: str

    @property
    def name(self) -> str:
        """Return its name for people."""
        return self.run.__name__.replace("_", " ")


class Schedule(Struct, frozen=True):
    """The passes of a search in the order in which they run.

    `proves_minimal`: the last ones try every single node without, so that what is left is 1-minimal.
    """

    passes: tuple[Pass, ...]
    proves_minimal: bool


def as_it_is(problem: Problem) -> None:
    """Keep all nodes, in the first way of cutting in which they fail by themselves."""
    for style in (Form.DEFAULT, Form.DYNAMIC, Form.UNFROZEN, Form.HIDDEN):
        if problem.attempt(problem.cut(problem.scope, style)):
            return


SEARCH = Schedule(
    (
        Pass(follow_hints, "nodes: those that the target names; one probe often ends the search"),
        Pass(strongest, "nodes: the one with the largest effect, where some fail by themselves"),
        Pass(localise, "nodes: halves, until nothing smaller fails"),
        Pass(steady, "how often a probe is repeated, where the failure comes and goes"),
        Pass(accumulate, "nothing; says which nodes fail together where no range fails by itself"),
        Pass(drop, "nodes: each is tried without; this proves 1-minimality"),
        Pass(recut, "the way of cutting, and nodes that another way does not need"),
        Pass(wrong_alone, "nodes: one that no rounding explains, where errors add up"),
        Pass(stand_alone, "the outputs that are compared, and nodes where it has to grow to fail at its own"),
        Pass(enter_bodies, "the graph: nodes of an If, Loop or Scan in place of it"),
    ),
    proves_minimal=True,
)
"""What `reduce` does."""

AS_IT_IS = Schedule((Pass(as_it_is, "the way of cutting"),), proves_minimal=False)
"""What `simplify` does: it looks for no fewer nodes."""

SIMPLIFY = (
    Pass(plain_names, "names"),
    Pass(fewer_outputs, "outputs, and nodes that only they need"),
    Pass(fewer_samples, "samples of input values"),
    Pass(simple_weights, "weights"),
    Pass(simple_inputs, "input values"),
    Pass(simple_texts, "texts that are values"),
    Pass(smaller_dimensions, "dimensions"),
    Pass(bypass, "nodes that pass something on"),
    Pass(without_nodes, "nodes"),
    Pass(fewer_inputs, "inputs, which become constants"),
    Pass(simple_attributes, "attributes, optional inputs and outputs"),
    Pass(narrower_types, "element types"),
    Pass(lower_opset, "versions of the operator set and of the file"),
    Pass(sparse_values, "single elements of input values"),
    Pass(generators, "how large constants are stored"),
)
"""What a simplification runs, again and again until a whole round changes nothing.

Names first: they cost one probe, and whatever comes later is worth less while a secret is in it.
"""

SECRET = tuple(
    one
    for one in SIMPLIFY
    if one.run in (plain_names, simple_weights, simple_inputs, simple_texts, simple_attributes)
)
"""What must not be shared; with `--anonymise` no budget ends these."""
