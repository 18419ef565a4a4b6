"""The examples of docs/nightly are what they claim to be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bisect_trt.nightly import service
from bisect_trt.nightly.report import JUNIT, PAGE, RESULTS, SUMMARY

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "nightly"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ["bisect-trt-nightly.service", "bisect-trt-nightly.timer"])
def test_systemd(tmp_path: Path, name: str) -> None:
    (tmp_path / "srv").mkdir()
    for unit in EXAMPLES.glob("*.service"):
        text = unit.read_text().replace("/srv/models", str(tmp_path / "srv"))
        (tmp_path / unit.name).write_text(text)
    shutil.copy(EXAMPLES / "bisect-trt-nightly.timer", tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "bisect-trt" in line]
    assert done.returncode == 0 and not ours, done.stderr


def test_systemd_calendar() -> None:
    (when,) = re.findall(r"OnCalendar=(.*)", (EXAMPLES / "bisect-trt-nightly.timer").read_text())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)


def scripts(node: Any) -> list[str]:
    """All shell scripts of a workflow."""
    if isinstance(node, dict):
        own = [v for k, v in node.items() if k == "run"]
        own += [line for k, v in node.items() if k == "script" for line in v]
        return own + [s for v in node.values() for s in scripts(v)]
    return [s for v in node for s in scripts(v)] if isinstance(node, list) else []


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_ci(name: str) -> None:
    data = yaml.safe_load((EXAMPLES / name).read_text())
    found = scripts(data)
    assert any("bisect-trt nightly nightly.toml" in s for s in found)
    for script in found:
        subprocess.run(["bash", "-n", "-c", script], check=True)
    text = (EXAMPLES / name).read_text()
    for view in (PAGE, SUMMARY, JUNIT, RESULTS):
        assert f"runs/{view}" in text


def test_github_actions_names() -> None:
    data = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    assert set(data) == {"name", True, "concurrency", "permissions", "jobs"}  # YAML 1.1 reads `on` as True
    (job,) = data["jobs"].values()
    assert set(job) == {"runs-on", "timeout-minutes", "steps"}
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert "uses" not in step or re.fullmatch(r"[\w-]+(/[\w-]+){1,2}@v\d+", step["uses"])
    kept = {s["uses"]: s for s in job["steps"] if "cache" in s.get("uses", "")}
    restored, saved = kept["actions/cache/restore@v4"], kept["actions/cache/save@v4"]
    assert saved["if"] == "always()", "the history is kept when there are new failures, too"
    assert saved["with"].items() <= restored["with"].items()


def test_gitlab_names() -> None:
    (job,) = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text()).values()
    assert set(job) <= {
        "image",
        "rules",
        "resource_group",
        "timeout",
        "cache",
        "script",
        "allow_failure",
        "artifacts",
    }
    assert job["allow_failure"] == {"exit_codes": [service.ENDED_EARLY]}
    assert job["artifacts"]["reports"] == {"junit": "runs/junit.xml"}


def test_exit_codes_are_told() -> None:
    text = (DOCS / "nightly.md").read_text()
    for code in (service.NOTHING_NEW, service.NEW_FAILURES, service.NO_TARGET, service.ENDED_EARLY):
        assert f"| {code} |" in text


def test_links() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "nightly.md").read_text())
    ours = [link for link in links if not link.startswith("https://")]
    assert ours and all((DOCS / link).is_file() for link in ours)
