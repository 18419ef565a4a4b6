"""The search for a mixed precision against brute force, on made up answers: monotone ones, and any."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisect_trt.accuracy.compare import compare
from bisect_trt.errors import StoppedEarly
from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.hitting import cheapest_hitting_set
from bisect_trt.mixed_precision.improve import improve
from bisect_trt.mixed_precision.on_target import OnTarget
from bisect_trt.mixed_precision.schedule import by_emulation, dear_questions
from bisect_trt.mixed_precision.search import Hints, Search
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Measured, Outcome, Stage, Symptom

Passes = Callable[[Keep], bool]
QUICK = settings(max_examples=60, deadline=None)


def names(count: int) -> list[str]:
    return [f"n{k}" for k in range(count)]


def search(items: Sequence[str], passes: Passes, suspects: Sequence[str] = (), limit: int = 3000) -> Search:
    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        return [Answer(passes(k), 0.5 if passes(k) else 2 + len(items) - len(k)) for k in keeps]

    made = Search(items, ask, Hints(suspects=tuple(suspects), rank=tuple(items)))
    made.answers([frozenset(items), frozenset()])
    made.first()
    made.prove(limit)
    improve(made, limit)
    made.finish()
    return made


def least(items: Sequence[str], passes: Passes) -> int:
    sizes = range(len(items) + 1)
    return next(n for n in sizes if any(passes(frozenset(c)) for c in itertools.combinations(items, n)))


def check(made: Search, passes: Passes) -> None:
    best = made.found.best
    assert passes(best) and made.found.one_minimal
    assert all(not passes(best - {item}) for item in best)


conflicts = st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=3), min_size=1, max_size=6)


@QUICK
@given(conflicts, st.lists(st.integers(0, 8), max_size=4))
def test_monotone_answers_end_in_the_least_set(sets: list[set[int]], suspects: list[int]) -> None:
    """Whatever hits all conflicts passes."""
    items = names(9)
    wanted = [frozenset(items[k] for k in some) for some in sets]

    def passes(keep: Keep) -> bool:
        return all(keep & some for some in wanted)

    made = search(items, passes, [items[k] for k in suspects])
    check(made, passes)
    assert len(made.found.best) == least(items, passes)
    assert made.found.bound or len(made.found.best) == 1 or made.found.exhausted


@QUICK
@given(st.sets(st.frozensets(st.integers(0, 6)), max_size=40))
def test_any_answers_end_in_the_least_set_where_all_can_be_tried(bad: set[frozenset[int]]) -> None:
    """Not monotone at all: what passes is drawn at random; only nothing fails and everything passes."""
    items = names(7)
    failing = {frozenset(items[k] for k in some) for some in bad} - {frozenset(items)}
    failing |= {frozenset[str](), *(frozenset({item}) for item in items[:4])}

    def passes(keep: Keep) -> bool:
        return keep not in failing

    made = search(items, passes)
    check(made, passes)
    assert len(made.found.best) == least(items, passes)


@pytest.mark.parametrize("wanted", [1, 3, 8, 20])
def test_suspects_cost_little(wanted: int) -> None:
    """What ranges condemn, with as many innocent ones, in a model of a thousand nodes."""
    items = names(1000)
    needed = frozenset(items[100 : 100 + wanted])
    made = search(items, needed.issubset, items[100 : 100 + 2 * wanted], limit=0)
    check(made, needed.issubset)
    assert made.found.best == needed and made.found.first <= 5 + 4 * wanted


def test_twins_are_asked_about_together() -> None:
    """Of 24 suspects in blocks two of three classes are innocent: two questions instead of sixteen."""
    items = names(100)
    suspects = items[:24]
    twins = {item: str(k % 3) for k, item in enumerate(suspects)}
    needed = frozenset(suspects[::3])
    asked: list[Keep] = []

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        asked.extend(keeps)
        return [Answer(needed <= k, float(not needed <= k) * 2) for k in keeps]

    made = Search(items, ask, Hints(suspects=tuple(suspects), rank=tuple(items), twins=twins))
    made.first()
    assert made.found.best == needed and len(asked) <= 1 + 3 + 8 + 16


def test_the_same_seed_asks_the_same() -> None:
    items = names(30)
    needed = [frozenset(items[k : k + 2]) for k in range(0, 12, 3)]
    runs = [search(items, lambda keep: all(keep & some for some in needed)) for _ in range(2)]
    assert list(runs[0].known) == list(runs[1].known)


def test_what_a_node_costs_counts() -> None:
    items = names(6)
    price = {item: 1.0 for item in items} | {"n0": 5.0}

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        good = [bool({"n0"} <= k or {"n1", "n2"} <= k) for k in keeps]
        return [Answer(g, 0.5 if g else 2.0) for g in good]

    made = Search(items, ask, Hints(rank=tuple(items)), cost=price.__getitem__)
    made.first()
    made.prove(100)
    improve(made, 100)
    assert made.found.best == {"n1", "n2"}


@QUICK
@given(conflicts)
def test_hitting_sets_are_the_least(sets: list[set[int]]) -> None:
    items = names(9)
    wanted = [frozenset(items[k] for k in some) for some in sets]
    found, sure = cheapest_hitting_set(wanted, lambda _: 1.0, lambda item: items.index(item))
    assert sure and all(found & some for some in wanted)
    assert len(found) == least(items, lambda keep: all(keep & some for some in wanted))


def test_it_ends_where_the_necessary_nodes_do_not_suffice() -> None:
    """Two nodes must stay, and one of many helps them: a set of three is not looked at any further."""
    items = names(200)
    core, helpers = frozenset(items[50:52]), frozenset(items[100:130])

    def passes(keep: Keep) -> bool:
        return core <= keep and bool(keep & helpers)

    made = search(items, passes, items[:20], limit=3000)
    check(made, passes)
    assert len(made.found.best) == 3 and made.core_fails and made.settled
    assert made.asked < 1500


def test_where_a_node_more_hurts_proofs_are_not_believed() -> None:
    """Two do, six others do as well and are found first; one more can take the right answer away."""
    items = names(40)

    def passes(keep: Keep) -> bool:
        spoilt = "n0" in keep and len(keep) < 30
        return (keep >= {"n7", "n9"} or keep >= set(items[20:26])) and not spoilt

    made = search(items, passes, items[18:27], limit=3000)
    check(made, passes)
    assert made.odd and made.settled and made.found.best == {"n7", "n9"}
    assert made.smallest == "every smaller set was tried and fails"
    made.found.exhausted = 0
    assert made.smallest == "" and not made.settled


def test_neighbours_that_do_the_same_harm_are_added_together() -> None:
    """A norm of four nodes that is of use only as a whole, beside single nodes of less use."""
    items = names(60)
    near = {items[k]: (items[k - 1], items[k + 1]) for k in range(1, 59)}
    norm, core = frozenset(items[30:34]), frozenset(items[50:52])

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        given = []
        for keep in keeps:
            helped = 0.9 * (norm <= keep) + 0.08 * len(keep & set(items[:20]))
            error = 50.0 if not core <= keep else 1.85 - min(helped, 1.8)
            given.append(Answer(error <= 1, error, {"y": error}))
        return given

    made = Search(items, ask, Hints(suspects=tuple(items[48:54]), rank=tuple(items), near=near))
    made.answers([frozenset(items), frozenset()])
    made.first()
    made.prove(300)
    improve(made, 900)
    assert made.found.best == core | norm


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_goes_from_set_to_set_until_one_is_smaller(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of a chain pass; each overlaps with the next, a shorter one. Errors say nothing."""
    items = names(80)
    near = {items[k]: (items[k - 1], items[k + 1]) for k in range(1, 79)}
    stretches = [frozenset(items[10 + 3 * k : 18 + 2 * k]) for k in range(5)]

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        fine = [any(keep >= some for some in stretches) for keep in keeps]
        return [Answer(passes, 0.5 if passes else 2.0) for passes in fine]

    monkeypatch.setattr("bisect_trt.mixed_precision.improve.TURNS", 0)
    made = Search(items, ask, Hints(suspects=tuple(items[10:18]), rank=tuple(items), near=near))
    made.answers([frozenset(items), frozenset()])
    made.first()
    assert made.found.best == stretches[0]
    improve(made, 3000, seed)
    assert made.found.best == stretches[-1]


def test_a_node_that_has_to_stay_is_believed_until_a_set_passes_without_it() -> None:
    """A node more hurts here, so groups tell nothing; two nodes fail when lowered alone, a third helps."""
    items = names(40)

    def passes(keep: Keep) -> bool:
        spoilt = "n0" in keep and len(keep) < 30
        return keep >= {"n5", "n6"} and bool(keep & set(items[20:30])) and not spoilt

    made = search(items, passes, [*items[18:27], "n0", "n5", "n6"], limit=3000)
    check(made, passes)
    assert not made.passes(made.found.best | {"n0"})
    assert made.odd and made.settled and len(made.found.best) == 3
    made.found.exhausted = 0
    made.known[frozenset({"n7"})] = Answer(True, 0.5)
    assert not made.settled


@pytest.mark.parametrize(("share", "most"), [(1.0, 4), (0.5, 5)])
def test_a_target_is_asked_little_after_an_emulation(share: float, most: int) -> None:
    """Where it loses as much, or twice as much: two ends, a set or two, one by halving, one for each node."""
    items = names(300)
    needed, more = frozenset(items[100:104]), frozenset(items[200:203])

    def answer(keep: Keep) -> Answer:
        error = 9.0 if not needed <= keep else 0.1 if more <= keep else 0.7
        return Answer(error <= 1, error)

    asked: list[Keep] = []

    def target(keeps: Sequence[Keep]) -> list[Answer]:
        asked.extend(keeps)
        return [Answer(answer(keep).error <= share, answer(keep).error / share) for keep in keeps]

    hints = Hints(suspects=tuple(items[90:120]), rank=tuple(items))
    cheap = Search(items, lambda keeps: [answer(k) for k in keeps], hints)
    told = by_emulation(cheap, lambda keep: target([keep])[0].passes, lambda text: None)
    assert (len(told.starts) == 1) == (share == 1), "stricter sets are looked for where they are needed"
    made = Search(items, target, told)
    made.answers([frozenset(items), frozenset()])
    dear_questions(made, lambda text: None)
    assert made.found.best == (needed if share == 1 else needed | more) and made.found.one_minimal
    assert len(set(asked)) <= most + len(made.found.best)


def test_a_target_that_loses_less_than_an_emulation_is_asked_for_what_ranges_condemn() -> None:
    """Four of thirty suspects overflow; the emulation needs twenty nodes more, as it rounds more often."""
    items = names(300)
    needed, rounding = frozenset(items[100:104]), frozenset(items[200:220])
    asked: list[Keep] = []

    def emulated(keeps: Sequence[Keep]) -> list[Answer]:
        errors = [1.5 - 0.03 * len(rounding & k) if needed <= k else 90.0 for k in keeps]
        return [Answer(error <= 1, error) for error in errors]

    def target(keeps: Sequence[Keep]) -> list[Answer]:
        asked.extend(keeps)
        return [Answer(needed <= keep, 0.5 if needed <= keep else 50.0) for keep in keeps]

    cheap = Search(items, emulated, Hints(suspects=tuple(items[90:120]), rank=tuple(items)))
    told = by_emulation(cheap, lambda keep: target([keep])[0].passes, lambda text: None)
    assert told.starts == (tuple(items[100:104]),) and told.hard == needed
    made = Search(items, target, told)
    made.answers([frozenset(items), frozenset()])
    dear_questions(made, lambda text: None)
    assert made.found.best == needed and made.found.one_minimal and len(set(asked)) == 4 + len(needed)


def test_a_target_that_loses_a_little_more_is_asked_by_halving_and_hard_nodes_once() -> None:
    """The set for a half of the tolerance has nodes too many; four are lost without, rounding needs two."""
    items = names(300)
    hard, rounding = frozenset(items[100:104]), items[200:211]
    asked: list[Keep] = []

    def error(keep: Keep) -> float:
        return 90.0 if not hard <= keep else 0.95 - 0.045 * len(keep & set(rounding))

    def target(keeps: Sequence[Keep]) -> list[Answer]:
        asked.extend(keeps)
        return [Answer(error(keep) <= 0.87, error(keep) / 0.87) for keep in keeps]

    hints = Hints(suspects=tuple(items[90:120]), rank=tuple(items))
    cheap = Search(items, lambda keeps: [Answer(error(k) <= 1, error(k)) for k in keeps], hints)
    told = by_emulation(cheap, lambda keep: target([keep])[0].passes, lambda text: None)
    made = Search(items, target, told)
    made.answers([frozenset(items), frozenset()])
    dear_questions(made, lambda text: None)
    assert len(made.found.best) == 6 and hard < made.found.best and made.found.one_minimal
    assert len(set(asked)) <= 15 + 6, "two ends, sets of the emulation, some by halving, the proof"


def test_on_a_target_where_luck_decides_builds_are_bounded_and_it_is_said() -> None:
    """Each set rounds other numbers: one of four passes, and so nodes that can be spared never end."""
    items, asked = names(100), dict[Keep, bool]()

    def target(keeps: Sequence[Keep]) -> list[Answer]:
        for keep in keeps:
            drawn = hashlib.sha256(",".join(sorted(keep)).encode()).digest()[0]
            asked[keep] = keep >= set(items[:70]) or (len(keep) > 3 and drawn < 64)
        return [Answer(asked[keep], 0.5 if asked[keep] else 2.0) for keep in keeps]

    def made() -> Search:
        asked.clear()
        some = Search(items, target, Hints(rank=tuple(items), starts=(tuple(items[:70]),)))
        some.answers([frozenset(items), frozenset()])
        return some

    bounded = made()
    with pytest.raises(StoppedEarly, match="not proven") as stopped:
        dear_questions(bounded, lambda text: None, lambda: len(asked))
    best = bounded.found.best
    assert asked[best] and not bounded.found.one_minimal
    assert len(asked) <= 15 + len(best)
    left = sum(best - {item} not in asked for item in best)
    assert left > 0 and f"{left} nodes not asked alone" in stopped.value.message
    free = made()
    dear_questions(free, lambda text: None)
    assert free.found.one_minimal and len(asked) > 15 + len(free.found.best)


class Dice:
    """Stands for a prober: the model without "n1" in FP32 fails in one of three runs."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], int]] = []

    def observe(self, candidate: Candidate, run: int = 0) -> Outcome:
        assert candidate.keep is not None
        self.asked.append((candidate.keep, run))
        failure = Failure(Stage.COMPARE, Symptom.MISMATCH, "wrong", "wrong")
        return Outcome((failure,) if "n1" not in candidate.keep and run % 3 == 2 else ())


def test_on_a_target_whose_failure_comes_and_goes_a_set_has_to_pass_often() -> None:
    dice, names = Dice(), {f"k{k}": f"n{k}" for k in range(3)}
    asker = OnTarget(dice, Candidate(b"", Path(), ()), names)  # type: ignore[arg-type]
    assert asker.ask([frozenset()])[0].passes, "one run sees nothing"
    asker.look(frozenset(), 3)
    assert asker.runs > 10 and 0.2 < asker.rate < 0.4
    dice.asked.clear()
    told = asker.ask([frozenset({"k0"}), frozenset({"k1"})])
    assert [answer.passes for answer in told] == [False, True]
    assert dice.asked == [*((("n0",), k) for k in range(3)), *((("n1",), k) for k in range(asker.runs))]


def test_a_steady_failure_is_asked_once() -> None:
    asker = OnTarget(Dice(), Candidate(b"", Path(), ()), {"k1": "n1"})  # type: ignore[arg-type]
    asker.look(frozenset({"k1"}), 3)
    assert asker.runs == 1 and not asker.rate


class Off:
    """Stands for a prober: of four elements of 1.0 one is off by so much, at a tolerance of 0.01 + 0.01."""

    def __init__(self, off: float) -> None:
        self.off = off

    def observe(self, candidate: Candidate, run: int = 0) -> Outcome:
        reference = np.ones(4, np.float32)
        diff = compare("y", reference, reference + np.float32([0, self.off, 0, 0]), rtol=0.01)
        failure = Failure(Stage.COMPARE, Symptom.MISMATCH, "wrong", "wrong")
        errors, damage = {"y": diff.rms_error}, {} if diff.ok else {"y": diff.damage}
        measured = Measured(1, (diff.to_json(),), errors=errors, damage=damage)
        return Outcome(() if diff.ok else (failure,), measured=measured)


@pytest.mark.parametrize(("off", "allowed"), [(1.0, 50), (0.04, 2), (0.01, 0.5), (0.0, 0)])
def test_the_error_on_a_target_is_told_in_tolerances(off: float, allowed: float) -> None:
    asker = OnTarget(Off(off), Candidate(b"", Path(), ()), {})  # type: ignore[arg-type]
    [answer] = asker.ask([frozenset()])
    assert answer.passes == (allowed <= 1) and answer.error == pytest.approx(allowed, rel=1e-3)
