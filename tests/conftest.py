"""Set-up that all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from bisect_trt.reproducer import archive
from holding import COUNTS, looked_at, summary

# Builders are far slower than Hypothesis expects; `ci` is deterministic, so that a red run can be repeated.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

MODELS = Path(__file__).parents[1] / "models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no NVIDIA driver."""
    if shutil.which("nvidia-smi"):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.fixture(scope="session", autouse=True)
def _reproducers_are_looked_at() -> Iterator[None]:
    """Fail the test whose reduction hands over what passes, or what the reference refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "zipped", looked_at(archive.zipped))
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was counted to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["reproducers"] = dict(COUNTS)


def pytest_testnodedown(node: Any) -> None:
    """Add up what the processes of pytest-xdist counted."""
    COUNTS.update(getattr(node, "workeroutput", {}).get("reproducers", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many reproducers were looked at."""
    if COUNTS["reproducers"]:
        terminalreporter.write_line(summary(COUNTS))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of small models that fail for real."""
    return MODELS
