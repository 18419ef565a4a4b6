"""What each rounding does alone, and the search that adds it up."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import bisect_trt
import precision_models as models
from bisect_trt.mixed_precision import asking, schedule
from bisect_trt.mixed_precision.answer import Answer, Harm, Keep
from bisect_trt.mixed_precision.exchange import Exchange
from bisect_trt.mixed_precision.harms import by_groups, grouped
from bisect_trt.mixed_precision.improve import improve
from bisect_trt.mixed_precision.search import Hints, Search
from bisect_trt.mixed_precision.switch import Edge
from bisect_trt.outcome import Array
from bisect_trt.session.journal import Journal
from bisect_trt.session.prober import Budget
from bisect_trt.settings import AccuracySettings, RunSettings, Settings

COUNT = 60
ITEMS = tuple(f"n{k}" for k in range(COUNT))


def many_small_errors(
    seed: int, count: int = COUNT, known: bool = True, luck: float = 0.2
) -> tuple[Search, list[int]]:
    """A chain, each tensor of which adds a small error: squares add up, and each set has some luck.

    What each rounding does cannot be measured unless it is `known`.
    """
    items, chance = tuple(f"n{k}" for k in range(count)), random.Random(seed)
    harms: list[Harm] = [
        (frozenset(items[k : k + 2]), math.exp(chance.gauss(0, 1.0))) for k in range(count - 1)
    ]
    total, calls = sum(harm for _, harm in harms), list[int]()

    def error(keep: Keep) -> float:
        drawn = int(hashlib.sha256(",".join(sorted(keep)).encode()).hexdigest()[:6], 16) / 16**6 - 0.5
        left = sum(harm for nodes, harm in harms if not nodes <= keep)
        return math.sqrt(left / (0.5 * total)) * (1 + luck * drawn)

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        return [Answer(error(keep) <= 1, error(keep)) for keep in keeps]

    def measured(most: int) -> tuple[int, list[Harm]]:
        calls.append(most)
        if not known:
            return 0, []
        return (len(harms), [(nodes, harm / (5 * total)) for nodes, harm in harms])  # a mean, not the worst

    near = {item: tuple(items[n] for n in (k - 1, k + 1) if 0 <= n < count) for k, item in enumerate(items)}
    return Search(items, ask, Hints(rank=items, near=near, harms=measured)), calls


def exchanged(seed: int) -> tuple[Search, int]:
    """The search after an exchange alone, and how many nodes its first set has."""
    made, _ = many_small_errors(seed)
    made.answers([frozenset(ITEMS), frozenset()])
    made.first()
    first = len(made.found.best)
    with made.limited(800):
        Exchange(made, made.harms(), random.Random(seed)).run()
    made.finish()
    return made, first


@pytest.mark.parametrize("seed", range(2))
def test_sums_of_squares_lead_to_smaller_sets(seed: int) -> None:
    made, first = exchanged(seed)
    best = made.found.best
    assert len(best) < 0.8 * first and made.found.one_minimal
    assert made.passes(best) and not any(made.passes(best - {item}) for item in best)
    assert made.asked == len(made.known) + COUNT - 1, "what was measured is counted"
    assert list(exchanged(seed)[0].known) == list(made.known), "the same questions again"


def test_a_sum_that_a_set_refutes_is_not_followed() -> None:
    """That the best set passes cannot be, by these harms: they tell nothing."""
    made, _ = many_small_errors(0)
    made.answers([frozenset(ITEMS), frozenset()])
    made.first()
    asked = made.asked
    Exchange(made, [(frozenset(ITEMS[:2]), 1e4), (frozenset(ITEMS[-2:]), 1e4)], random.Random(0)).run()
    assert made.asked == asked


def test_an_improvement_measures_once_where_nothing_is_proven() -> None:
    made, calls = many_small_errors(0)
    made.answers([frozenset(ITEMS), frozenset()])
    made.first()
    improve(made, 2000)
    assert len(calls) == 1 and not made.settled


def in_all(made: Search) -> Search:
    """Run all steps of a search as the command does."""
    made.answers([frozenset(made.items), frozenset()])
    schedule.cheap_questions(made, 0, 0, lambda text: None)
    best = made.found.best
    assert made.passes(best) and not any(made.passes(best - {item}) for item in best)
    return made


def test_where_many_nodes_count_roundings_are_measured_before_each_is_asked_for() -> None:
    """A chain of 300 and much luck: a hundred questions give no 1-minimal set, many more would be asked."""
    made, plain = (in_all(many_small_errors(0, 300, known, luck=0.5)[0]) for known in (True, False))
    assert len(made.found.best) < 0.5 * len(plain.found.best)


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def job(*arguments: Any) -> Any:
        calls.append(arguments)
        return 7, [(frozenset({"b", "a"}), 0.1), (frozenset({"c"}), 1e-30)]

    monkeypatch.setattr(asking, "job", job)
    with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
        told = []
        for _ in range(2):
            sessions = asking.Sessions(None, None, journal, Budget())  # type: ignore[arg-type]
            told.append(sessions.harms(9, frozenset("ab"), {}))
    assert told == [(7, [(frozenset({"a", "b"}), 0.1)])] * 2 and len(calls) == 1


def test_where_sums_lead_nowhere_the_list_search_goes_on() -> None:
    """By them a set of a few nodes would do; each is needed."""
    needed, asked = frozenset(ITEMS[5:53]), list[Keep]()

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        asked.extend(keeps)
        return [Answer(needed <= keep, 0.5 if needed <= keep else 9.0 - len(keep) / 10) for keep in keeps]

    alike = [(frozenset({item}), 1e-3) for item in ITEMS]
    made = in_all(Search(ITEMS, ask, Hints(rank=ITEMS, harms=lambda most: (0, alike))))
    plain = Search(ITEMS, ask, Hints(rank=ITEMS))
    plain.answers([frozenset(ITEMS), frozenset()])
    plain.first()
    assert made.found.best == plain.found.best == needed
    assert plain.asked > schedule.ENOUGH and set(plain.known) <= set(made.known)


def test_fewer_nodes_that_cost_more_are_no_step() -> None:
    """The nodes whose rounding counts most are the dear ones."""
    made, _ = many_small_errors(0, 300, luck=0.5)
    harms = made.hints.harms(1000)[1]
    worth = {item: sum(harm for nodes, harm in harms if item in nodes) for item in made.items}
    dear = set(sorted(worth, key=lambda item: worth[item])[-60:])
    made.cost = lambda item: 50.0 if item in dear else 1.0
    made.answers([frozenset(made.items), frozenset()])
    made.first()
    asked = made.asked
    with made.limited(2000):
        Exchange(made, harms, random.Random(0)).run()
    assert made.asked < asked + 2000, "it ends by itself"


def test_a_search_that_finds_nothing_for_long_ends() -> None:
    made, _ = many_small_errors(0)
    made.answers([frozenset(ITEMS), frozenset()])
    made.first()
    asked, fails = made.asked, [frozenset({item}) for item in ITEMS]
    with made.limited(40, idle=10):
        for keep in fails:
            made.passes(keep)
    assert made.asked == asked + 10
    with made.limited(40, idle=10):
        made.allow(5)
        for keep in fails:
            made.passes(keep)
    assert made.asked == asked + 25, "what proves something may take longer"


def test_roundings_of_twins_are_measured_together_first() -> None:
    """Of forty layers one is a hundred times as bad in one place: few runs tell which."""
    edges = [(f"{name}{layer}", f"{name}{layer}out") for name in "abc" for layer in range(40)]
    twins = {end: end.rstrip("out").rstrip("0123456789") for edge in edges for end in edge}
    harm = {edge: 10.0 if edge[0] == "b17" else 0.1 for edge in edges}
    asked = []

    def error(some: Collection[Edge]) -> Array:
        asked.append(len(some))
        return np.array([harm[edge] * (edge in some) for edge in edges])

    runs, errors = by_groups(edges, error, 20, twins)
    size = np.sqrt(np.sum(errors**2, axis=1))
    assert runs == len(asked) <= 20 and asked[:3] == [40, 40, 40]
    assert edges[int(np.argmax(size))] == ("b17", "b17out") and size.max() == pytest.approx(10.0)
    assert np.sum(size**2) == pytest.approx(sum(h**2 for h in harm.values()))
    assert by_groups(edges, error, 2, twins)[0] == 0, "there are three classes"
    assert by_groups(edges, error, 120, twins)[0] == 120, "each alone where that is allowed"


def test_the_same_number_rounded_three_times_counts_once() -> None:
    """As a sum of squares, what is added to it, and its root: all of their nodes have to stay."""
    rng = np.random.default_rng(0)
    same, other = rng.standard_normal((2, 50))
    edges = [("pow", "mean"), ("mean", "add"), ("add", "sqrt"), ("sqrt", "div"), ("", "div"), ("add", "end")]
    errors = np.array([same, 1.01 * same, same, other, np.zeros(50), 0.1 * same])
    found = dict(grouped(edges, errors))
    assert found.pop(frozenset({"pow", "mean", "add", "sqrt"})) == pytest.approx(np.mean((1.01 * same) ** 2))
    assert found == {
        frozenset({"sqrt", "div"}): pytest.approx(np.mean(other**2)),
        frozenset({"add", "end"}): pytest.approx(np.mean((0.1 * same) ** 2)),
    }


def test_what_is_measured_of_a_model_is_what_rounding_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overflow between two nodes, and a weight that FP16 does not hold; all else is exact."""
    seen: dict[Keep, float] = {}
    search_on = schedule.cheap_questions

    def spy(search: Search, *others: Any) -> None:
        assert search.hints.harms(1) == (0, [])
        runs, found = search.hints.harms(1000)
        seen.update(found)
        assert runs == 7, "x and a weight, or a tensor and a weight, for each, and what is given"
        search_on(search, *others)

    monkeypatch.setattr(schedule, "cheap_questions", spy)
    b = models.Builder()
    x = b.input("x", np.float32([1.0, 2.0, 4.0]))
    big = b("Mul", x, b.w(65536.0 / 2))
    small = b("Mul", big, b.w(2.0**-16))
    y = b("Mul", small, b.w(1.0 + 2.0**-5 + 2.0**-12))
    model, feeds = b.model(y=y), b.feeds
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    accuracy = AccuracySettings(rtol=(("", 1e-5),), atol=(("", 0.0),))
    settings = Settings(run=RunSettings(inputs=tmp_path / "inputs.npz", repeats=1), accuracy=accuracy)
    bisect_trt.precision(tmp_path / "model.onnx", settings, out=tmp_path / "out")
    weight = 1 + 2.0**-5 + 2.0**-12
    assert seen == {
        frozenset({big, small}): pytest.approx(100.0**2 * 2 / 4),  # two of three elements, and a zero
        frozenset({y, "y"}): pytest.approx((2.0**-12 / weight / 1e-5) ** 2 * 3 / 4, rel=1e-3),
    }
