"""Where a model makes small errors large, why, and what helps: in words, from the growth of errors."""

from __future__ import annotations

from msgspec import Struct

from bisect_trt.accuracy.operators import NORMS, SUMS, THRESHOLDS

LARGE = 8.0
"""Times that a node has to make an error larger to be named: any sum of many terms does a little of that."""

_EXPONENTIAL = frozenset({"Softmax", "LogSoftmax", "Exp", "Pow", "ReduceLogSumExp", "ReduceProd"})
_DIVIDING = NORMS | {"Div", "Reciprocal", "Mod", "Log", "Sqrt", "BatchNormalization", "InstanceNormalization"}
_DIVIDING |= {"GroupNormalization", "LpNormalization", "MeanVarianceNormalization"}

_KINDS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        THRESHOLDS | {"Where"},
        "a threshold: one unit in the last place of its input decides what it gives",
        "compare what lies before it, or allow some elements to differ (--metric quantile:0.999)",
    ),
    (
        frozenset({"Add", "Sub", "Sum"}),
        "cancellation: what goes in is far larger than what comes out",
        "rewrite it so that the large part never enters (subtract before adding, fold both constants)",
    ),
    (
        _EXPONENTIAL,
        "large exponents: of a large number an exponential makes the absolute error a relative one",
        "scale what goes in down to some tens; logits so large say only which is the largest (--topk)",
    ),
    (
        frozenset(_DIVIDING),
        "division by a small number, which is itself known to few digits",
        "add a larger epsilon, or compute the small number without a difference of large ones",
    ),
    (
        SUMS,
        "a sum whose terms cancel: they are far larger than the sum",
        "centre or scale what goes in, so that the terms are no larger than the sum",
    ),
)
_OTHER = ("a steep function: small changes of its input become large ones", "scale what goes in")


class Amplifier(Struct, frozen=True):
    """A node that makes errors larger.

    Attributes:
        node: its name.
        op: its operator.
        why: what it does, in words.
        advice: which rewriting helps.
        before: RMS error over RMS of what goes in.
        behind: the same of what comes out.
    """

    node: str
    op: str
    why: str
    advice: str
    before: float
    behind: float

    @property
    def growth(self) -> float:
        """How many times larger the error is behind it."""
        return self.behind / self.before if self.before > 0 else 0.0


def amplifier(node: str, op: str, before: float, behind: float) -> Amplifier:
    """Return what a node does to errors, named by its operator."""
    why, advice = next(((why, advice) for ops, why, advice in _KINDS if op in ops), _OTHER)
    return Amplifier(node, op, why, advice, before, behind)
