"""Set-up that all tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

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


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of small models that fail for real."""
    return MODELS
