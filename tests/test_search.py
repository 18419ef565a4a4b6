"""The search against brute force: what it returns, and how many probes it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from bisect_trt import search
from bisect_trt.outcome import Verdict

Predicate = Callable[[frozenset[int]], Verdict]


class CountingJudge:
    """Remembers answers, counts probes and the items in them."""

    def __init__(self, predicate: Predicate) -> None:
        self.predicate = predicate
        self.answers: dict[tuple[int, ...], Verdict] = {}

    def verdict(self, items: Sequence[int]) -> Verdict:
        key = tuple(items)
        assert list(key) == sorted(set(key)), "sublists keep order and hold nothing twice"
        if key not in self.answers:
            self.answers[key] = self.predicate(frozenset(key))
        return self.answers[key]

    def prefetch(self, sublists: Sequence[Sequence[int]]) -> None:
        assert all(sublists), "an empty sublist is never worth a probe"

    @property
    def probes(self) -> int:
        return len(self.answers)

    @property
    def built(self) -> int:
        return sum(len(key) for key in self.answers)


def needs(culprits: frozenset[int]) -> Predicate:
    return lambda items: Verdict.REPRODUCES if culprits <= items else Verdict.VANISHES


@given(st.integers(1, 200), st.data())
def test_monotone_failures_end_at_exactly_the_culprits(n: int, data: st.DataObject) -> None:
    culprits = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1, max_size=8))
    judge = CountingJudge(needs(culprits))
    assert search.minimise(range(n), judge) == sorted(culprits)
    assert search.is_one_minimal(sorted(culprits), judge)
    assert judge.probes <= (len(culprits) + 2) * (math.log2(n) + 2) + len(culprits)


@given(st.integers(1, 2000), st.data())
def test_a_single_culprit_costs_the_model_once_and_log_n_probes(n: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, n - 1))
    judge = CountingJudge(needs(frozenset([culprit])))
    assert search.minimise(range(n), judge) == [culprit]
    assert judge.probes <= math.log2(n) + 2
    assert judge.built <= n + math.log2(n) + 2


@given(st.integers(16, 2000), st.data())
def test_a_straddling_pair_is_local_too(n: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n - 2))
    judge = CountingJudge(needs(frozenset([first, first + 1])))
    assert search.minimise(range(n), judge) == [first, first + 1]
    assert judge.built <= 1.5 * n + 128


@given(st.integers(500, 1000), st.integers(2, 10), st.randoms(use_true_random=False))
def test_distant_culprits_within_the_bounds_asked_for(n: int, k: int, random: object) -> None:
    culprits = frozenset(random.sample(range(n), k))  # type: ignore[attr-defined]
    judge = CountingJudge(needs(culprits))
    assert search.minimise(range(n), judge) == sorted(culprits)
    assert judge.probes <= (60 if k == 2 else 170)


@given(st.integers(2, 7), st.data())
def test_any_predicate_ends_one_minimal_and_reproducing(n: int, data: st.DataObject) -> None:
    """Not monotone, with unresolved answers: brute force over all sublists of the result."""
    sublists = [frozenset(c) for size in range(1, n) for c in combinations(range(n), size)]
    answers = {s: data.draw(st.sampled_from(list(Verdict))) for s in sublists}
    answers[frozenset(range(n))] = Verdict.REPRODUCES
    judge = CountingJudge(lambda items: answers[items])
    result = search.minimise(range(n), judge)
    assert answers[frozenset(result)] is Verdict.REPRODUCES
    for left_out in result:
        rest = frozenset(result) - {left_out}
        assert not rest or answers[rest] is not Verdict.REPRODUCES
    assert search.is_one_minimal(result, judge)


@given(st.integers(8, 300), st.data())
def test_unresolved_ranges_are_stepped_over(n: int, data: st.DataObject) -> None:
    """Long sublists of odd length say nothing; no more than what that hides is left over."""
    culprits = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1, max_size=3))

    def predicate(items: frozenset[int]) -> Verdict:
        if culprits <= items and len(items) > len(culprits) + 1 and len(items) % 2 and len(items) < n:
            return Verdict.UNRESOLVED
        return needs(culprits)(items)

    result = search.minimise(range(n), CountingJudge(predicate))
    assert culprits <= frozenset(result)
    assert len(result) <= len(culprits) + 3


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=50))
def test_split_halves_the_weight_as_well_as_any_cut_can(weights: list[float]) -> None:
    items = list(range(len(weights)))
    first, second = search.split(items, lambda k: weights[k])
    assert first and second and [*first, *second] == items

    def gap(cut: int) -> float:
        return abs(sum(weights[:cut]) - sum(weights[cut:]))

    assert gap(len(first)) <= min(gap(cut) for cut in range(1, len(items))) + 1e-6


def test_localise_weighs_items_by_their_cost() -> None:
    judge = CountingJudge(needs(frozenset([99])))
    weights = {k: 1000.0 if k == 0 else 1.0 for k in range(100)}
    assert search.localise(range(100), judge, weights.__getitem__) == [99]
    assert (0,) in judge.answers, "the dear item is a half of its own"
