"""Spoiled models, inputs, reports, configurations and journals: an answer or one of our errors, nothing else.

Asked: no exception that is not ours, no file that takes long, none written outside the folder that is
meant, and little memory. `make check` looks at some hundred files, `make test-long` at thousands and at
targets too. What fails is found by its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bisect_trt.errors import BisectError
from bisect_trt.machine import native
from fuzz import spoiled
from fuzz.soak import OURS, Seen, soak, strays

SHORT = 100  # examples of each kind, models twice that
LONG = 6000  # files of all kinds, on the way to a target: ten minutes
MOST_MEMORY = 1 << 30  # bytes of the tool's own process

Seed = st.integers(0, 2**32 - 1)


def examples(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which everything happens; beside it nothing may appear."""
    inside = tmp_path / "in" / "here"
    inside.mkdir(parents=True)
    spoiled.begin(inside)
    yield inside
    assert strays(tmp_path, {"in"}) == [] and strays(tmp_path / "in", {"here", "logs"}) == []


KINDS = (spoiled.prepared, spoiled.inputs, spoiled.report, spoiled.configuration, spoiled.journal)


@pytest.mark.parametrize("work", KINDS, ids=lambda work: work.__name__)
def test_what_is_spoiled_is_answered(work: Callable[[Path, int], None], folder: Path) -> None:
    @examples(2 * SHORT if work is spoiled.prepared else SHORT)
    @given(Seed)
    def one(seed: int) -> None:
        try:
            work(folder, seed)
        except BisectError as error:
            assert error.exit_code != OURS, error
            assert error.message and "\n" not in error.message.split("\nhint")[0][:1]

    one()


@examples(SHORT)
@given(Seed)
def test_the_walk_changes_something_and_reads_back(seed: int) -> None:
    data = spoiled.model(seed)
    try:
        onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    assert data not in spoiled.seeds() or len(data) < 200  # a change may be undone by the next


def test_the_seed_corpus_is_large_and_small() -> None:
    assert len(set(spoiled.seeds())) == 200 and max(map(len, spoiled.seeds())) < 1024


def no_fault(seen: Seen) -> None:
    told = seen.told()
    assert told["faults"] == [] and told["peak"] <= MOST_MEMORY, told


def test_a_target_behind_them(folder: Path) -> None:
    """A few go on through `check` on ONNX Runtime in a worker."""
    seen = soak(range(12), folder, targets=("ort:CPU",))
    no_fault(seen)
    assert sum(seen.counts.values()) >= 12


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_many_on_targets(folder: Path) -> None:
    no_fault(soak(range(LONG), folder))


def test_a_fault_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, seed: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(spoiled, "prepared", broken)
    assert soak([1], folder, targets=()).faults == ["model 1: ZeroDivisionError: "]


def test_onnx_is_never_asked_in_this_process() -> None:
    """What spoiled models do to onnx's native code they do to a process of its own."""
    assert not native._service.here
