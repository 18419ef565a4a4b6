"""The search against brute force: what it returns, and how many probes it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisect_trt.outcome import Verdict
from bisect_trt.reduction import list_search

Predicate = Callable[[frozenset[int]], Verdict]


class CountingJudge:
    """Remembers answers, counts probes and the items in them."""

    def __init__(self, predicate: Predicate) -> None:
        self.predicate = predicate
        self.answers: dict[tuple[int, ...], Verdict] = {}

    def __call__(self, items: Sequence[int]) -> Verdict:
        key = tuple(items)
        assert key, "an empty sublist is never worth a probe"
        assert list(key) == sorted(set(key)), "sublists keep order and hold nothing twice"
        if key not in self.answers:
            self.answers[key] = self.predicate(frozenset(key))
        return self.answers[key]

    @property
    def probes(self) -> int:
        return len(self.answers)

    @property
    def built(self) -> int:
        return sum(len(key) for key in self.answers)


def needs(culprits: frozenset[int]) -> Predicate:
    return lambda items: Verdict.REPRODUCES if culprits <= items else Verdict.VANISHES


@given(st.integers(1, 300), st.data())
def test_monotone_failures_end_at_exactly_the_culprits(n: int, data: st.DataObject) -> None:
    culprits = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1, max_size=8))
    judge = CountingJudge(needs(culprits))
    assert list_search.minimise(range(n), judge) == sorted(culprits)
    assert list_search.is_one_minimal(sorted(culprits), judge)
    # Halving and then windows and nested ranges in vain, a binary search and two tries for each
    # culprit, a sweep of the culprits and of up to FEW innocent ones between them.
    log = math.log2(n) + 1
    assert judge.probes <= 3 * log + len(culprits) * (log + 3) + list_search.FEW_ITEMS


@given(st.integers(1, 2000), st.data())
def test_a_single_culprit_costs_the_model_once_and_log_n_probes(n: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, n - 1))
    judge = CountingJudge(needs(frozenset([culprit])))
    assert list_search.minimise(range(n), judge) == [culprit]
    confirmation = 1
    assert judge.probes + confirmation <= math.log2(n) + 7
    assert judge.built + n <= 2.4 * n


LEAST = {1: 2, 2: 12, 3: 36, 4: 62, 5: 102}
"""A failure of neighbours that span so many nodes is within the bounds in lists of at least so many."""


def costs(n: int, culprits: frozenset[int]) -> tuple[int, int]:
    """Probes and items built, the confirmation of all `n` included."""
    judge = CountingJudge(needs(culprits))
    judge(range(n))
    assert list_search.minimise(range(n), judge) == sorted(culprits)
    return judge.probes, judge.built


@pytest.mark.parametrize("span", LEAST)
def test_neighbours_anywhere_stay_within_what_was_asked_for(span: int) -> None:
    """All positions and all subsets that span as much, also where the overlap changes."""
    inside = [c for size in range(span - 1) for c in combinations(range(1, span - 1), size)] or [()]
    least = LEAST[span]
    for n in sorted({*range(least, least + 5), 31, 32, 35, 61, 62, 67, 68, 101, 102, 132, 133}):
        for first, between in product(range(n - span + 1), inside if n >= least else ()):
            probes, built = costs(n, frozenset({first, first + span - 1, *(first + k for k in between)}))
            assert probes <= 2 * math.log2(n) + 4
            assert built <= 2.5 * n


@given(st.integers(2, 2000), st.integers(1, 5), st.data())
def test_a_local_failure_stays_within_what_was_asked_for(n: int, span: int, data: st.DataObject) -> None:
    span = min(span, max(s for s, least in LEAST.items() if n >= least))
    first = data.draw(st.integers(0, n - span))
    inside = st.frozensets(st.integers(first, first + span - 1))
    probes, built = costs(n, data.draw(inside) | {first, first + span - 1})
    assert probes <= 2 * math.log2(n) + 4
    assert built <= (2.5 if n < 500 else 2.15) * n


@pytest.mark.parametrize(
    ("k", "sizes"), [(2, range(3, 32)), (3, range(32, 62, 7)), (4, range(62, 102, 13)), (5, [102, 200])]
)
def test_no_search_builds_less_for_neighbours_anywhere(k: int, sizes: Sequence[int]) -> None:
    """The worst position costs exactly what docs/search.md proves to be the least of any search."""
    for n in sizes:
        least = 2 * n - k + (k - 1) * math.ceil(math.log2(n - k + 1)) + k * k
        assert max(costs(n, frozenset(range(f, f + k)))[1] for f in range(n - k + 1)) == least


@given(st.integers(1000, 3000), st.integers(6, 40), st.data())
def test_a_longer_run_of_neighbours_costs_three_probes_each(n: int, span: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n - span))
    judge = CountingJudge(needs(frozenset(range(first, first + span))))
    assert list_search.minimise(range(n), judge) == list(range(first, first + span))
    in_vain = list_search.WIDEST + 1  # items left out of a range that does not reproduce at all
    assert judge.probes <= 3 * math.log2(n) + 3 * span + in_vain


@given(st.integers(500, 1000), st.integers(2, 10), st.randoms(use_true_random=False))
def test_distant_culprits_within_the_bounds_asked_for(n: int, k: int, random: Random) -> None:
    culprits = frozenset(random.sample(range(n), k))
    judge = CountingJudge(needs(culprits))
    assert list_search.minimise(range(n), judge) == sorted(culprits)
    assert judge.probes <= (60 if k == 2 else 170)


@settings(max_examples=20)
@given(st.integers(25, 60), st.randoms(use_true_random=False))
def test_many_culprits_are_thinned_out_in_chunks(k: int, random: Random) -> None:
    culprits = frozenset(random.sample(range(1000), k))
    judge = CountingJudge(needs(culprits))
    assert list_search.minimise(range(1000), judge) == sorted(culprits)
    assert judge.probes <= 12 * k + 120


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.data())
def test_thinning_keeps_what_is_needed(n: int, density: float, data: st.DataObject) -> None:
    culprits = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1))
    judge = CountingJudge(needs(culprits | {-1, n}))
    assert list_search.thin(range(n), density, judge, [-1], [n]) == sorted(culprits)


def test_searching_again_with_the_same_answers_asks_the_same() -> None:
    """Looking ahead rests on it."""
    judge = CountingJudge(needs(frozenset([3, 70, 71, 140])))
    list_search.minimise(range(200), judge)
    again = CountingJudge(lambda items: judge.answers[tuple(sorted(items))])
    list_search.minimise(range(200), again)
    assert list(again.answers) == list(judge.answers)


@given(st.integers(2, 7), st.data())
def test_any_predicate_ends_one_minimal_and_reproducing(n: int, data: st.DataObject) -> None:
    """Not monotone, with unresolved answers: brute force over all sublists of the result."""
    sublists = [frozenset(c) for size in range(1, n) for c in combinations(range(n), size)]
    answers = {s: data.draw(st.sampled_from(list(Verdict))) for s in sublists}
    answers[frozenset(range(n))] = Verdict.REPRODUCES
    judge = CountingJudge(lambda items: answers[items])
    result = list_search.minimise(range(n), judge)
    assert judge.probes <= n * n, "of 2 ** n"
    assert answers[frozenset(result)] is Verdict.REPRODUCES
    for left_out in result:
        rest = frozenset(result) - {left_out}
        assert not rest or answers[rest] is not Verdict.REPRODUCES
    assert list_search.is_one_minimal(result, judge)


@given(st.integers(8, 300), st.integers(2, 3), st.data())
def test_unresolved_ranges_are_stepped_over(n: int, step: int, data: st.DataObject) -> None:
    """Half or two thirds of all long sublists say nothing; no more than what that hides is left over."""
    culprits = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1, max_size=3))

    def predicate(items: frozenset[int]) -> Verdict:
        if culprits <= items and len(items) > len(culprits) + 1 and len(items) % step and len(items) < n:
            return Verdict.UNRESOLVED
        return needs(culprits)(items)

    judge = CountingJudge(predicate)
    result = list_search.minimise(range(n), judge)
    assert culprits <= frozenset(result)
    assert len(result) <= len(culprits) + 4 * (step - 1)
    assert judge.probes <= 12 * len(culprits) * (math.log2(n) + 1) + 12


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=50), st.data())
def test_the_halves_weigh_as_equal_as_any_cut_can_make_them(
    weights: list[float], data: st.DataObject
) -> None:
    items = list(range(len(weights)))
    overlap = data.draw(st.integers(0, min(4, len(items) - 2)))
    middle = list_search.halfway(items, weights.__getitem__, overlap)
    cuts = range(1, len(items) - overlap)
    assert middle in cuts, "both halves are shorter than all"

    def gap(cut: int) -> float:
        return abs(sum(weights[: cut + overlap]) - sum(weights[cut:]))

    assert gap(middle) <= min(map(gap, cuts)) + 1e-6


def test_a_dear_item_makes_a_half_with_few_others() -> None:
    judge = CountingJudge(needs(frozenset([99])))
    weights = {k: 1000.0 if k == 0 else 1.0 for k in range(100)}
    assert 99 in list_search.localise(range(100), judge, weights.__getitem__)
    dear = [key for key in judge.answers if 0 in key]
    assert len(dear) == 1 and len(dear[0]) < 15


@given(st.integers(100, 600), st.sampled_from(["up", "down", "mixed"]), st.randoms(use_true_random=False))
def test_neither_weight_nor_number_is_built_many_times(n: int, order: str, random: Random) -> None:
    """Also where the heavy items are all at one end."""
    light = random.choice((1, 3, 20))
    weights = [random.choice((1.0,) * light + (4.0, 12.0, 24.0, 40.0)) for _ in range(n)]
    if order != "mixed":
        weights.sort(reverse=order == "down")
    culprit = random.randrange(n)
    judge = CountingJudge(needs(frozenset([culprit])))
    judge(range(n))
    assert list_search.minimise(range(n), judge, weights.__getitem__) == [culprit]
    assert judge.probes <= 2 * math.log2(n) + 4
    assert judge.built <= 3.3 * n
    # Items that are dear by themselves are built again with those beside them.
    assert sum(weights[k] for key in judge.answers for k in key) <= 3.5 * sum(weights) + 20 * max(weights)
