"""The state machine of the history: a table, and properties over any sequence of nights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.nightly.verdicts import WINDOW, Past, Result, Status, combine, is_news, status

ONE, TWO = ("build", "error", "one"), ("build", "error", "two")
RESULTS = {
    "P": (Result.PASS, None),
    "1": (Result.FAIL, ONE),
    "2": (Result.FAIL, TWO),
    "M": (Result.MIXED, ONE),
}
RESULTS["?"] = (Result.UNKNOWN, None)


def nights(text: str) -> list[Status]:
    """Night by night: P pass, 1 and 2 failures, M mixed, ? not run; at a dot model or target changes."""
    past: list[Past] = []
    found = []
    for letter in text:
        if letter == ".":
            past = [Past(p.result, p.key, p.status, False) for p in past]
            continue
        result, key = RESULTS[letter]
        found.append(status(result, key, past))
        past.insert(0, Past(result, key, found[-1]))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P", "passes"),
        ("1", "new"),
        ("?", "not run"),
        ("M", "flaky"),
        ("PP", "passes"),
        ("P1", "new"),
        ("11", "known"),
        ("12", "changed"),
        ("1P", "fixed"),
        ("1PP", "passes"),
        ("1?1", "known"),
        ("P?1", "new"),
        ("1?P", "fixed"),
        ("?1", "new"),
        ("P1P", "flaky"),  # nothing changed, and it came and went
        ("P.1.P", "fixed"),
        ("1P.1", "new"),
        ("P1P1", "flaky"),
        ("MP", "flaky"),
        ("MPPPP", "flaky"),
        ("MPPPPP", "fixed"),
        ("MPPPPPP", "passes"),
        ("M.P", "fixed"),
        ("M.1", "known"),
        ("M.2", "changed"),
    ],
)
def test_table(text: str, expected: str) -> None:
    assert nights(text)[-1] == expected


@given(st.text("P12M?.", max_size=30))
def test_properties(text: str) -> None:
    found = nights(text)
    letters = [c for c in text if c != "."]
    known: list[tuple[str, Status]] = []
    for letter, now in zip(letters, found, strict=True):
        assert (now is Status.NOT_RUN) == (letter == "?")
        if letter == "?":
            continue
        if letter == "P":
            assert now in (Status.PASSING, Status.FIXED, Status.FLAKY)
        else:
            assert now in (Status.NEW, Status.KNOWN, Status.CHANGED, Status.FLAKY)
        assert letter != "M" or now is Status.FLAKY
        if known and now is Status.KNOWN:
            assert known[-1][0] in (letter, "M")
        if known and now is Status.FIXED:
            assert known[-1][0] != "P" or known[-1][1] is Status.FLAKY
        known.append((letter, now))
    calm = text[-2 * WINDOW - 2 :]
    if len(calm) > 2 * WINDOW and set(calm) == {"P"}:
        assert found[-1] is Status.PASSING, "whatever was before, peace returns"


@given(st.text("P12M?.", max_size=12), st.sampled_from("P12M?"))
def test_nights_that_did_not_run_change_nothing(text: str, last: str) -> None:
    assert nights(text + last)[-1] == nights(text.replace("?", "") + last)[-1]


@given(st.lists(st.sampled_from([RESULTS[c] for c in "P12?"]), min_size=1, max_size=5))
def test_combine(runs: list[tuple[Result, tuple[str, str, str] | None]]) -> None:
    result, key = combine(runs)
    seen = {r for r in runs if r[0] is not Result.UNKNOWN}
    if not seen:
        assert (result, key) == (Result.UNKNOWN, None)
    elif len(seen) == 1:
        assert (result, key) == seen.pop()
    else:
        assert result is Result.MIXED and key is not None


def test_news() -> None:
    passing, flaky = Past(Result.PASS, None, Status.PASSING), Past(Result.MIXED, ONE, Status.FLAKY)
    assert is_news(Status.NEW, []) and is_news(Status.CHANGED, [flaky])
    assert is_news(Status.FLAKY, []) and is_news(Status.FLAKY, [passing])
    assert not is_news(Status.FLAKY, [flaky, passing])
    assert not is_news(Status.FLAKY, [Past(Result.FAIL, ONE, Status.KNOWN)])
    assert not any(
        is_news(s, [passing]) for s in (Status.KNOWN, Status.FIXED, Status.PASSING, Status.NOT_RUN)
    )


def test_the_word_of_older_histories_is_understood() -> None:
    """A first night said of what passes that it still does."""
    assert Status("still passing") is Status.PASSING
    with pytest.raises(ValueError, match="never passing"):
        Status("never passing")
