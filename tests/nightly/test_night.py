"""Nights with a runner of our own: statuses, order, budgets, resumption, disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import Behaviour, FakeClock, FakeRunner, Site, alternates, fails, failure, passes, trouble

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.nightly.config import parse
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.runner import Cause, Checked, Reduced, Trouble
from bisect_trt.nightly.service import nightly


def test_a_night_and_the_next(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.night({"a": passes(), "b": fails("one"), "c": fails("two")})
    assert site.statuses() == {"a": "passes", "b": "new", "c": "new"}
    assert site.code == 1
    assert first.asked.count("reduce b") == 1
    assert first.closed
    second = site.night({"a": fails("three"), "b": passes("d2"), "c": fails("two")})
    assert site.statuses() == {"a": "new", "b": "fixed", "c": "known"}
    assert site.code == 1
    assert "reduce c" not in second.asked and "verify c" in second.asked
    assert site.rows()["c"].reduction == "kept"
    third = site.night({"a": fails("other"), "b": passes("d2"), "c": fails("two")})
    assert site.statuses() == {"a": "changed", "b": "passes", "c": "known"}
    assert "reduce a" in third.asked
    site.night({"a": fails("other"), "b": passes("d2"), "c": fails("two")})
    assert site.code == 0
    assert site.statuses() == {"a": "known", "b": "passes", "c": "known"}


def test_surprises_are_confirmed_and_the_expected_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    runner = site.night({"a": passes(), "b": fails("one")})
    assert runner.asked == ["check a", "check b", "check b", "check b", "reduce b"]
    runner = site.night({"a": passes(), "b": fails("one")})
    assert runner.asked == ["check a", "check b", "verify b"]


def test_a_failure_that_comes_and_goes_is_flaky(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": alternates(fails("one"), passes(), fails("one"))})
    assert site.statuses() == {"a": "flaky"} and site.code == 1
    assert len(site.rows()["a"].runs) == 2, "two runs that differ are enough"
    site.night({"a": alternates(fails("one"), passes(), fails("one"))})
    assert site.statuses() == {"a": "flaky"} and site.code == 0
    for _ in range(4):
        site.night({"a": passes()})
        assert site.statuses() == {"a": "flaky"}
    site.night({"a": passes()})
    assert site.statuses() == {"a": "fixed"}
    site.night({"a": passes()})
    assert site.statuses() == {"a": "passes"}


def test_reduce_that_cannot_see_the_failure_makes_it_flaky(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": fails("one")}, repro=lambda name: Trouble(Cause.STEADY, "it builds", 2.0))
    row = site.rows()["a"]
    assert row.status == "flaky" and row.reason == "not reduced: it builds"


def test_reduction_that_sees_it_come_and_go_makes_it_flaky(tmp_path: Path) -> None:
    site = Site(tmp_path)
    seen = Reduced(failure("one"), 1, "Relu#1", 2, 3, True, flaky=True, seconds=9.0)
    site.night({"a": fails("one")}, repro=lambda name: seen)
    row = site.rows()["a"]
    assert (row.status, row.reduction, row.news) == ("flaky", "done", True)
    site.night({"a": fails("one")}, repro=lambda name: seen)
    assert site.rows()["a"].status == "flaky" and not site.rows()["a"].news


def test_stale_reproducer_is_made_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": fails("one")})
    runner = site.night({"a": fails("one")}, stored=lambda name: Checked())
    assert runner.asked[-2:] == ["verify a", "reduce again a"]
    assert site.rows()["a"].status == "known" and site.rows()["a"].reduction == "done"


def test_removed_reproducer_is_made_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": fails("one")})
    (site.out / site.rows()["a"].repro / "repro.onnx").unlink()
    assert site.night({"a": fails("one")}).asked[-1] == "reduce a"


def test_of_several_failures_the_known_one_counts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": fails("one")})
    site.night({"a": fails("two", "one")})
    assert site.rows()["a"].status == "known" and site.rows()["a"].signature == "one"


@pytest.mark.parametrize(
    "cause", [Cause.USAGE, Cause.DIED, Cause.DEADLINE, Cause.MEMORY, Cause.DISK, Cause.BUG]
)
def test_trouble_of_one_model_costs_that_model(tmp_path: Path, cause: Cause) -> None:
    site = Site(tmp_path)
    site.night({"a": trouble(cause), "b": fails("one"), "c": passes()})
    assert site.statuses() == {"a": "not run", "b": "new", "c": "passes"}
    assert site.rows()["a"].reason == "because" and site.code == 1
    site.night({"a": passes(), "b": fails("one"), "c": passes()})
    assert site.statuses()["a"] == "passes"


def test_runner_that_raises_costs_one_model(tmp_path: Path) -> None:
    def raises(runner: FakeRunner, name: str) -> Checked:
        raise KeyError("bug of ours")

    site = Site(tmp_path)
    site.night({"a": raises, "b": passes()})
    assert site.statuses() == {"a": "not run", "b": "passes"}
    assert "bug of ours" in site.rows()["a"].reason


def test_not_run_is_stepped_over(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for behaviour, status in (
        (fails("one"), "new"),
        (trouble(Cause.DIED), "not run"),
        (fails("one"), "known"),
    ):
        site.night({"a": behaviour, "b": passes()})
        assert site.statuses()["a"] == status


def test_unresolved_is_not_run(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": lambda r, n: Checked(unresolved="the reference fails", seconds=1.0), "b": passes()})
    assert site.rows()["a"].status == "not run" and site.rows()["a"].reason == "the reference fails"


def test_vanished_file_is_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": passes(), "b": passes()})
    site.night({"a": passes()})
    assert site.statuses() == {"a": "passes", "b": "not run"}
    assert "gone" in site.rows()["b"].reason
    site.night({"a": passes()})
    assert site.statuses() == {"a": "passes"}


def test_order(tmp_path: Path) -> None:
    """All checks, then reductions: new before known, each bug once before its twins, cheap before dear."""
    site = Site(tmp_path, confirm=1)
    no = Trouble(Cause.DEADLINE, "too slow", 5.0)
    site.night({"old": fails("old"), "x": passes()}, repro=lambda name: no)
    runner = site.night(
        {
            "old": fails("old", seconds=0.1),
            "dear": fails("one", seconds=9.0),
            "cheap": fails("one", seconds=1.0),
            "middle": fails("two", seconds=5.0),
            "x": passes(),
        }
    )
    checks, reductions = runner.asked[:5], runner.asked[5:]
    assert all(c.startswith("check") for c in checks)
    assert reductions == ["reduce cheap", "reduce middle", "reduce dear", "reduce old"]
    again = site.night({name: passes() for name in ("old", "dear", "cheap", "middle", "x")})
    order = [a.split()[1] for a in again.asked[:5]]
    assert order == ["old", "cheap", "x", "middle", "dear"], "by the seconds of the night before"


def test_one_model_of_each_failure_is_reduced_where_that_is_asked_for(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, one_of_each=True)
    models = {"a": fails("one"), "b": fails("one"), "c": fails("two"), "d": passes(), "e": fails("one")}
    runner = site.night(models)
    assert [asked for asked in runner.asked if asked.startswith("reduce")] == ["reduce a", "reduce c"]
    rows = site.rows()
    assert {name: bool(row.repro) for name, row in rows.items() if row.key} == {
        "a": True, "b": False, "c": True, "e": False
    }  # fmt: skip
    assert {rows[name].phase for name in "abce"} == {"done"} and "another model" in rows["b"].reason
    assert {row.status.value for row in rows.values()} == {"new", "passes"}


def test_budget_of_a_model(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, budget={"check": 30, "per_model": 100})
    runner = site.night({"a": fails("one", seconds=20.0), "b": fails("two", seconds=99.5)})
    assert runner.limits[runner.asked.index("check a")] == 30
    assert runner.limits[runner.asked.index("reduce a")] == 80
    assert "reduce b" not in runner.asked and "per_model" in site.rows()["b"].reason


def test_total_budget_ends_the_night(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, budget={"total": 25})
    site.night({name: passes() for name in "abc"})
    assert site.code == 0
    runner = site.night({"a": lambda r, n: Checked(seconds=24.5), "b": passes(), "c": passes()})
    assert runner.asked == ["check a"] and site.code == 6
    assert site.statuses() == {"a": "passes", "b": "not run", "c": "not run"}
    assert site.rows()["b"].reason == "not reached"
    site.night({name: fails("new", seconds=24.5) for name in "abc"})
    assert site.code == 1, "new failures are told before an early end"


def test_until_is_read_from_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    __import__("time").tzset()
    site = Site(tmp_path, confirm=1, budget={"until": "07:00"})

    def sleepy(runner: FakeRunner, name: str) -> Checked:
        site.time.start += __import__("datetime").timedelta(hours=9)  # the machine slept, or was set
        return Checked(seconds=1.0)

    runner = site.night({"a": sleepy, "b": passes()})
    assert runner.limits[0] == 900  # 9 h are left, budget.check is less
    assert runner.asked == ["check a"] and site.code == 6


def test_signal_leaves_a_night_to_go_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)

    def kill(runner: FakeRunner, asked: str) -> None:
        if asked == "check b":
            os.kill(os.getpid(), signal.SIGTERM)

    site.night({"a": passes(), "b": passes(), "c": passes()}, before=kill)
    assert site.code == 6
    done = [n for n, r in site.rows().items() if r.phase == "done"]
    site.time.seconds -= 86400 - 60
    rest = site.night({"a": passes(), "b": passes(), "c": passes()})
    assert site.code == 0 and set(site.statuses().values()) == {"passes"}
    assert len(rest.asked) + len(done) == 3, "what was finished is not done again"


def test_a_reduction_that_a_signal_ended_is_gone_on_with(tmp_path: Path) -> None:
    """What it has found so far is in the report meanwhile."""
    site = Site(tmp_path, confirm=1)
    models = {"a": fails("one"), "b": passes()}
    best = Reduced(failure("one"), 5, "Relu#5", 3, 3, False, seconds=10.0, stop_reason="interrupted")

    def kill(runner: FakeRunner, asked: str) -> None:
        if asked == "reduce a":
            os.kill(os.getpid(), signal.SIGTERM)
            assert runner.cancelled.wait(60), "the night hears of it first, and ends what runs"

    site.night(models, before=kill, repro=lambda name: best)
    row = site.rows()["a"]
    assert (row.reduction, row.repro_nodes) == ("partial", 5) and "interrupted" in row.reason
    site.time.seconds -= 86400 - 60
    rest = site.night(models)
    assert rest.asked == ["reduce a"]
    row = site.rows()["a"]
    assert (row.night, row.reduction, row.repro_nodes, row.reason) == (1, "done", 1, "")


class Killed(BaseException):
    """As kill -9: nothing of ours runs any more."""


def test_killed_at_every_step_and_gone_on_with(tmp_path: Path) -> None:
    """Stopped before each job in turn; the results are those of a night that was let alone."""
    models = {"a": passes(), "b": fails("one"), "c": fails("two")}
    whole = Site(tmp_path / "whole")
    whole.base.mkdir()
    steps = len(whole.night(models).asked)
    assert steps >= 9
    for step in range(steps):
        site = Site(tmp_path / str(step))
        site.base.mkdir()

        def kill(runner: FakeRunner, asked: str, step: int = step) -> None:
            if len(runner.asked) == step + 1:
                raise Killed

        with pytest.raises(Killed):
            site.night(models, before=kill)
        site.time.sleep(60)
        rest = site.night(models)
        assert site.statuses() == whole.statuses()
        assert site.code == 1
        assert len(rest.asked) == steps - step, "only the job that was running is done again"


def test_old_unfinished_night_is_not_gone_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path, resume_within="20h")

    def kill(runner: FakeRunner, asked: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        site.night({"a": passes()}, before=kill)
    site.time.sleep(21 * 3600)
    site.night({"a": passes()})
    assert site.rows()["a"].night == 2


def test_model_that_kills_the_night_is_given_up(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)

    def kill(runner: FakeRunner, asked: str) -> None:
        if asked == "check b":
            raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            site.night({"a": passes(), "b": passes()}, before=kill)
        site.time.seconds += 60
    site.night({"a": passes(), "b": passes()}, before=kill)
    assert site.statuses() == {"a": "passes", "b": "not run"}
    assert "killed 3 times" in site.rows()["b"].reason


def test_changed_settings_are_done_again_after_a_kill(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)

    def kill(runner: FakeRunner, asked: str) -> None:
        if asked == "check b":
            raise Killed

    with pytest.raises(Killed):
        site.night({"a": passes(), "b": passes()}, before=kill)
    site.data["model"] = [{"match": "a.onnx", "seed": 5}]
    assert site.night({"a": passes(), "b": passes()}).asked == ["check a", "check b"]


def test_full_disk_is_tried_again_alone(tmp_path: Path) -> None:
    """With others at work it may be their doing; alone it is the model's own."""
    site = Site(tmp_path, confirm=1, workers=2)
    runner = site.night(
        {"a": trouble(Cause.DISK, "full"), "b": passes(), "c": alternates(trouble(Cause.DISK), passes())}
    )
    assert runner.asked.count("check a") == 2
    assert site.statuses() == {"a": "not run", "b": "passes", "c": "passes"}


def test_full_disk_in_a_reduction_frees_its_folder(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    site.night(
        {"a": fails("one"), "b": fails("two")},
        repro=lambda n: Trouble(Cause.DISK, "full") if n == "a" else None,
    )
    assert [p.name[0] for p in (site.out / "reproducers").iterdir()] == ["b"]
    assert site.rows()["a"].reason == "not reduced: full" and site.rows()["a"].status == "new"


def test_partial_reduction_goes_on_the_next_night(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    part = Reduced(failure("one"), 40, "", 0, 3, False, seconds=9.0)
    site.night({"a": fails("one")}, repro=lambda n: part)
    assert site.rows()["a"].reduction == "partial" and "early" in site.rows()["a"].reason
    folder = site.rows()["a"].repro
    assert site.night({"a": fails("one")}).asked[-1] == "reduce a"
    assert site.rows()["a"].reduction == "done" and site.rows()["a"].repro == folder


def test_no_target_at_all(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with pytest.raises(TargetUnavailable, match="no driver"):
        site.night({"a": trouble(Cause.TARGET, "no driver"), "b": trouble(Cause.TARGET, "no driver")})
    assert (site.out / "index.html").exists()
    with pytest.raises(TargetUnavailable, match="not one model could be run: unreadable"):
        site.night({"a": trouble(Cause.USAGE, "unreadable")})


def test_a_model_that_can_no_longer_be_read_or_is_gone_is_news(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.night({"a": passes(), "b": passes(), "c": passes()})
    pointer = trouble(Cause.USAGE, "a Git LFS pointer")
    site.night({"a": passes(), "b": pointer})
    assert site.code == 1 and {n for n, row in site.rows().items() if row.news} == {"b", "c"}
    site.night({"a": passes(), "b": pointer})
    assert site.code == 0, "told once"
    allowed = Site(tmp_path / "allowed", allow_missing=True)
    allowed.base.mkdir()
    allowed.night({"a": passes(), "b": passes(), "c": passes()})
    allowed.night({"a": passes(), "b": pointer})
    assert allowed.code == 0


def test_a_target_that_is_missing_is_one_line(tmp_path: Path) -> None:
    site = Site(tmp_path, target=[{"name": "good"}, {"spec": "tensorrt"}])
    missing = trouble(Cause.TARGET, "no module")

    def both(runner: FakeRunner, name: str) -> Checked | Trouble:
        return (missing if len(runner.asked) % 2 else passes())(runner, name)

    site.night(dict.fromkeys("abcdefgh", both))
    assert sum("no module" in line for line in site.said) <= 2, site.said


def test_the_history_goes_on_when_a_folder_becomes_a_configuration(tmp_path: Path) -> None:
    def night(base: Path, include: str, **models: Behaviour) -> tuple[int, dict[str, str]]:
        config = parse({"models": {"include": [include]}, "out": str(tmp_path / "runs")}, base / "n.toml")
        made = FakeRunner(models, time=time)
        code = nightly(config, clock=time.clock(), make_runner=lambda folder, logs: made)
        time.sleep(86400)
        history = History(tmp_path / "runs" / FILE, read_only=True)
        last = history.last_night()
        assert last is not None
        found = {row.model: row.status.value for row in history.rows(last.id)}
        history.close()
        return code, found

    time = FakeClock()
    (tmp_path / "models/sub").mkdir(parents=True)
    for name in ("models/a.onnx", "models/sub/b.onnx"):
        (tmp_path / name).touch()
    models = {"a": fails("one"), "b": passes()}
    assert night(tmp_path / "models", "**/*.onnx", **models) == (
        1,
        {"a.onnx": "new", "sub/b.onnx": "passes"},
    )
    again = {"models/a.onnx": "known", "models/sub/b.onnx": "passes"}
    assert night(tmp_path, "models/**/*.onnx", **models) == (0, again)
    back = {"a.onnx": "known", "sub/b.onnx": "passes"}
    assert night(tmp_path / "models", "**/*.onnx", **models) == (0, back)
    content = b"what it holds"
    (tmp_path / "models/a.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()[:32]
    seen = Checked((failure("one"),), "", 7, "Fake 1.0", digest, 1.0)
    night(tmp_path / "models", "**/*.onnx", a=lambda runner, name: seen, b=passes())
    (tmp_path / "models/a.onnx").rename(tmp_path / "models/renamed.onnx")
    moved = {"renamed.onnx": "known", "sub/b.onnx": "passes"}
    assert night(tmp_path / "models", "**/*.onnx", renamed=fails("one"), b=passes()) == (0, moved)


def test_on_new_with_models_tells_a_known_bug_in_another_model(tmp_path: Path) -> None:
    script = tmp_path / "hook.py"
    script.write_text("import sys\nopen('called', 'a').write('|'.join(sys.argv[1:]) + '\\n')\n")
    site = Site(tmp_path, confirm=1, on_new=f"{sys.executable} hook.py {{models}}")
    site.night({"a": fails("one"), "b": fails("one"), "c": passes()})
    site.night({"a": fails("one"), "b": fails("one"), "c": fails("one")})
    assert (tmp_path / "called").read_text().splitlines() == ["a.onnx, b.onnx", "c.onnx"]


def test_on_new_once_for_each_bug(tmp_path: Path) -> None:
    script = tmp_path / "hook.py"
    script.write_text("import sys\nopen('called', 'a').write('|'.join(sys.argv[1:]) + '\\n')\n")
    site = Site(
        tmp_path,
        confirm=1,
        on_new=f"{sys.executable} hook.py {{repro}} {{model}} '{{status}} $(x); {{signature}}'",
    )
    models = {"a": fails("one `rm`"), "b": fails("one `rm`"), "c": fails("two"), "d": passes()}
    site.night(models)
    lines = (tmp_path / "called").read_text().splitlines()
    assert len(lines) == 2, "one bug in two models is one call"
    repro, model, _ = lines[0].split("|")
    assert (Path(repro) / "repro.onnx").exists() and model in ("a.onnx", "c.onnx")
    assert "new $(x); one `rm`" in (lines[0] + lines[1])
    site.night({**models, "d": fails("two")})
    assert len((tmp_path / "called").read_text().splitlines()) == 2, (
        "a known bug in another model is no new bug"
    )
    assert site.code == 1


def test_on_new_that_fails_or_hangs_costs_nothing(tmp_path: Path) -> None:
    for command, said in (
        ("/no/such/program {repro}", "cannot be started"),
        (f"{sys.executable} -c 'import sys; print(7); sys.exit(3)'", "exit code 3: 7"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "was killed after 1 s"),
    ):
        base = tmp_path / str(len(list(tmp_path.iterdir())))
        base.mkdir()
        site = Site(base, confirm=1, on_new=command, on_new_timeout=1)
        site.night({"a": fails("one")})
        assert site.code == 1
        assert any(said in line for line in site.said), site.said


def test_blame_is_asked_once_for_each_new_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command[command.index("blame") + 1])
        assert (Path(asked[-1]) / "repro.onnx").exists()
        return subprocess.CompletedProcess(command, 3, b'{"error": {"message": "no index answers"}}')

    monkeypatch.setattr("bisect_trt.nightly.blame.subprocess.run", run)
    site = Site(tmp_path, confirm=1, blame=True)
    models = {"a": fails("one"), "b": fails("one"), "c": fails("two")}
    site.night(models)
    assert len(asked) == 2 and site.code == 1
    assert sum("no index answers" in line for line in site.said) == 2
    site.night({**models, "d": fails("two")})
    assert len(asked) == 2, "a known bug is not asked again"


def test_on_new_is_checked_first(tmp_path: Path) -> None:
    for command in ("x {repo}", "x 'unbalanced"):
        with pytest.raises(UsageError, match="on_new"):
            Site(tmp_path, on_new=command).night({"a": passes()})
    assert not (tmp_path / "runs").exists()


def test_nothing_to_do_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model matches"):
        Site(tmp_path).night({})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.doc").touch()
    with pytest.raises(UsageError, match="not empty"):
        Site(tmp_path).night({"a": passes()})
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["thesis.doc"]


def test_parallel_night_is_the_same(tmp_path: Path) -> None:
    models = {f"m{k}": (fails(f"s{k % 3}", seconds=k) if k % 2 else passes()) for k in range(12)}
    results = []
    for workers in (1, 4):
        site = Site(tmp_path / str(workers), workers=workers)
        site.base.mkdir()
        site.night(models)
        results.append({n: (r.status, r.repro, r.runs) for n, r in site.rows().items()})
    assert results[0] == results[1]
