"""Tests on a real card: skipped with a reason where none is, and one page at the end to paste back to us."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bisect_trt.errors import BisectError
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu, registry

HERE = Path(__file__).parent
FLAVOURS = ("tensorrt", "tensorrt-rtx")
_results: dict[str, tuple[str, float, str]] = {}


@functools.cache
def why_not(flavour: str) -> str:
    """Why a flavour cannot run engines here; empty when it can."""
    try:
        info = registry.open_target(TargetSettings(spec=flavour)).info()
    except BisectError as error:
        return error.message
    return "" if info.can_run else " ".join(info.notes)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything here needs a card."""
    if HERE in item.path.parents:
        item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each TensorRT that can run engines here."""
    why = why_not(request.param)
    if why:
        pytest.skip(f"{request.param}: {why}")
    yield request.param


@pytest.fixture
def many_gpus() -> int:
    """How many GPUs are here, at least two."""
    count = gpu.count()
    if count < 2:
        pytest.skip(f"{count} GPU here, two are needed")
    return count


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how each test of this folder ended."""
    if "tests/gpu/" not in report.nodeid.replace(os.sep, "/"):
        return
    if report.when == "call" or report.outcome != "passed":
        why = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            why = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            why = str(report.longrepr).strip().splitlines()[-1]
        _results[report.nodeid.partition("::")[2]] = (report.outcome, report.duration, why)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The page; not at the end of every run of all tests, where no card is."""
    asked = "gpu" in (terminalreporter.config.option.markexpr or "")
    if not _results or not (asked or any(outcome != "skipped" for outcome, _, _ in _results.values())):
        return
    card = gpu.find_gpu()
    versions = {} if card is None else dict(card.versions())
    terminalreporter.section("bisect-trt on this card: please paste this back to us")
    terminalreporter.write_line(f"{card.name if card else 'no GPU'} {versions} {platform.platform()}")
    for flavour in FLAVOURS:
        terminalreporter.write_line(f"{flavour}: {why_not(flavour) or 'runs'}")
    for name, (outcome, seconds, why) in sorted(_results.items()):
        terminalreporter.write_line(f"{outcome:8}{seconds:7.1f} s  {name}  {why[:200]}".rstrip())
