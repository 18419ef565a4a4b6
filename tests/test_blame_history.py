"""Search in histories of releases, against brute force."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.blaming.history import NEAR, Change, History, search, sweep
from bisect_trt.outcome import Verdict

BAD, GOOD, DARK = Verdict.REPRODUCES, Verdict.VANISHES, Verdict.UNRESOLVED
Row = list[Verdict]

rows = st.lists(st.sampled_from([BAD, GOOD, DARK]), min_size=1, max_size=40)


@st.composite
def monotone(draw: st.DrawFn) -> Row:
    """One change at most; some that cannot be told, but not the ends."""
    first, second = draw(st.sampled_from([(GOOD, BAD), (BAD, GOOD)]))
    row = [first] * draw(st.integers(0, 40)) + [second] * draw(st.integers(1, 40))
    for k in draw(st.sets(st.integers(1, len(row)), max_size=len(row))):
        if k < len(row) - 1:
            row[k] = DARK
    return row


def brute(row: Row) -> tuple[Change, ...]:
    known = [k for k, answer in enumerate(row) if answer is not DARK]
    return tuple(Change(a, b) for a, b in pairwise(known) if row[a] is not row[b])


def run(row: Row, anchors: tuple[int, ...] = ()) -> tuple[History, list[int]]:
    asked: list[int] = []

    def ask(k: int) -> Verdict:
        asked.append(k)
        return row[k]

    return search(len(row), ask, anchors), asked


@given(monotone())
def test_the_one_change_is_found(row: Row) -> None:
    history, asked = run(row)
    assert history.changes == brute(row)
    assert len(asked) == len(set(asked))


@given(rows, st.lists(st.integers(0, 39), max_size=2).map(tuple))
def test_what_is_told_is_true_of_any_history(row: Row, anchors: tuple[int, ...]) -> None:
    history, asked = run(row, anchors)
    assert set(history.changes) <= set(brute(row))
    assert history.answers == {k: row[k] for k in sorted(asked)}
    assert bool(history.known) == any(answer is not DARK for answer in row)
    kinds = [row[k] for k in (0, len(row) - 1) if row[k] is not DARK]
    if len(set(kinds)) == 2:  # both ends can be told and differ
        assert history.changes


@given(monotone())
def test_few_are_asked(row: Row) -> None:
    _, asked = run(row)
    dark = sum(row[k] is DARK for k in asked)
    assert len(asked) <= 3 + 2 * NEAR + 3 * math.ceil(math.log2(len(row) + 1)) + dark


@given(rows)
def test_a_sweep_asks_for_all(row: Row) -> None:
    history = sweep(len(row), row.__getitem__)
    assert history.swept and history.changes == brute(row)


def test_where_it_was_seen_before_is_asked_too() -> None:
    row = [GOOD] * 9 + [BAD] * 3 + [GOOD] * 12
    assert run(row)[0].changes == ()
    history, asked = run(row, (10,))
    assert history.changes == brute(row) == (Change(8, 9), Change(11, 12))
    assert asked[:3] == [23, 0, 10] and len(asked) <= 14


def test_old_ones_of_which_nothing_can_be_told_are_not_asked_one_by_one() -> None:
    row = [DARK] * 30 + [GOOD] * 4 + [BAD] * 6
    history, asked = run(row)
    assert history.changes == (Change(33, 34),)
    assert len(asked) <= 14
