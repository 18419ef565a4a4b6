"""Whole nights with real processes: planted faults, kill -9, a full disk. Slow."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import disasters
import pytest
from small import BOMB, CRASH, ERROR, FLAKY, HANG, NUMBERS, SPEC, chain
from test_children import left_running

from bisect_trt.nightly import retention
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.verdicts import Result

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

START = """
import sys
from pathlib import Path
from bisect_trt.nightly import config, service
if __name__ == "__main__":
    sys.exit(service.nightly(config.load(Path(sys.argv[1])), lambda line: print(line, flush=True)))
"""


def write_config(base: Path, out: Path, **more: str) -> Path:
    lines = "\n".join(f"{key} = {value}" for key, value in more.items())
    text = f"""
out = '{out}'
confirm = 2
{lines}
[models]
include = ["models/**/*.onnx"]
[budget]
check = "60s"
[retention]
nights = 2
max_size = "40M"
[defaults]
timeout = 12.0
repeats = 3
memory_limit = "500M"
[[target]]
name = "planted"
spec = "{SPEC}"
"""
    path = base / "nightly.toml"
    path.write_text(text)
    return path


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A test that fails leaves no night behind."""
    yield
    for night in STARTED:
        night.kill()
        night.wait()
    STARTED.clear()


def start(config: Path) -> subprocess.Popen[str]:
    with config.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-c", START, str(config)]
        STARTED.append(subprocess.Popen(command, stdout=log, stderr=log, text=True))
    return STARTED[-1]


def rows(out: Path) -> dict[str, Row]:
    history = History(out / FILE, read_only=True)
    night = history.last_night()
    assert night is not None
    found = {Path(r.model).stem: r for r in history.rows(night.id)}
    history.close()
    return found


def wait_for_checks(process: subprocess.Popen[str], out: Path, wanted: int) -> None:
    """Until so many models of the night have been checked."""
    while process.poll() is None:
        if (out / FILE).exists():
            try:
                done = sum(r.phase != "planned" for r in rows(out).values())
            except Exception:  # it is being made
                done = 0
            if done >= wanted:
                return
        time.sleep(0.1)


def kill(process: subprocess.Popen[str], out: Path) -> None:
    """kill -9 the night, and see that all that it started ends with it."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while (left := left_running(out)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


@pytest.fixture
def small_disk(tmp_path: Path, nothing_left: None) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def plant(models: Path) -> dict[str, str]:
    """One model of every kind, and the status that it must get."""
    chain(models / "fine.onnx", "Abs")
    chain(models / "crash.onnx", "Abs", CRASH)
    chain(models / "hang.onnx", "Abs", HANG)
    chain(models / "bomb.onnx", "Abs", BOMB)
    chain(models / "flaky.onnx", "Abs", FLAKY)
    chain(models / "numbers.onnx", NUMBERS, "Abs")
    corrupt = chain(models / "corrupt.onnx", "Abs")
    corrupt.write_bytes(corrupt.read_bytes()[:50])
    expected = {"fine": "passes", "corrupt": "not run"}
    for k in range(3):
        chain(models / f"error{k}.onnx", *["Abs"] * k, ERROR, "Relu")
    new = ("crash", "hang", "bomb", "numbers", "error0", "error1", "error2")
    return expected | dict.fromkeys(new, "new")


def settled(found: dict[str, Row]) -> dict[str, str]:
    """Statuses, without that of the model which fails in half of all runs: luck has a say in it."""
    statuses = {name: str(row.status) for name, row in found.items()}
    assert statuses.pop("flaky") in ("flaky", "passes", "new", "fixed", "known")
    return statuses


def test_small_night_and_the_next(tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "runs"
    expected = plant(models)
    hook = tmp_path / "hook.py"
    hook.write_text(f"import sys; open({str(tmp_path / 'called')!r}, 'a').write(sys.argv[1] + chr(10))")
    config = write_config(tmp_path, out, on_new=f"'{sys.executable} hook.py {{repro}}'", workers="2")
    night = start(config)
    assert night.wait(1100) == 1, config.with_suffix(".log").read_text()
    found = rows(out)
    assert settled(found) == expected
    assert {n: r.symptom for n, r in found.items() if n != "flaky" and r.status == "new"} == {
        "crash": "crash",
        "hang": "hang",
        "bomb": "out of memory",
        "numbers": "mismatch",
        **dict.fromkeys(("error0", "error1", "error2"), "error"),
    }
    for name in ("crash", "hang", "bomb", "error0", "error1", "error2"):
        assert (found[name].reduction, found[name].repro_nodes) == ("done", 1), found[name]
    assert found["numbers"].reduction == "done"
    assert "corrupt.onnx" in found["corrupt"].reason
    assert len({found[f"error{k}"].shape for k in range(3)}) == 1, "one bug in three models"
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) >= 5 and all((Path(c) / "repro.onnx").exists() for c in called)
    assert not left_running(out) and not (out / "tmp").exists()

    chain(models / "error0.onnx", "Abs")  # fixed
    chain(models / "fine.onnx", ERROR, ERROR)  # broken
    (models / "error2.onnx").unlink()
    night = start(config)
    assert night.wait(1100) == 1
    second = rows(out)
    known = dict.fromkeys(("crash", "hang", "bomb", "numbers", "error1"), "known")
    assert settled(second) == {
        **known,
        "corrupt": "not run",
        "error0": "fixed",
        "fine": "new",
        "error2": "not run",
    }
    assert "gone" in second["error2"].reason
    assert all(second[name].reduction == "kept" for name in known)
    assert {n for n, r in second.items() if r.news and n != "flaky"} == {"fine", "error2"}  # broken, and gone


def test_flaky_for_real(tmp_path: Path) -> None:
    """A program that fails every other time it is asked."""
    chain(tmp_path / "models" / "m.onnx", "Abs")
    (tmp_path / "harness.py").write_text(
        "import pathlib, sys\n"
        "count = pathlib.Path(sys.argv[2])\n"
        "n = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(n + 1))\n"
        "sys.exit('out of luck' if n % 2 == 0 else 0)\n"
    )
    config = write_config(tmp_path, tmp_path / "runs")
    command = f"command:{sys.executable} harness.py {{model}} {tmp_path / 'count'}"
    config.write_text(config.read_text().replace(SPEC, command))
    assert start(config).wait(300) == 1
    row = rows(tmp_path / "runs")["m"]
    assert (row.status, row.result, row.news) == ("flaky", Result.MIXED, True)
    assert "out of luck" in row.message


def test_night_in_fast_motion(tmp_path: Path, small_disk: Path, models_dir: Path) -> None:
    """60 models with everything planted among them, on a small disk, killed twice on the way."""
    models, out = tmp_path / "models", small_disk / "runs"
    expected = plant(models)
    big = 10_000_000  # floats: input and output of this one do not fit on the disk together
    chain(models / "full.onnx", *["Abs"] * 8, size=big)
    expected["full"] = "not run"
    for path in models_dir.glob("*.onnx"):  # real ones, with inputs of their own
        shutil.copy(path, models / f"real_{path.name}")
    count = len(list(models.glob("*.onnx")))
    for k in range(61 - count):
        chain(models / f"gen{k:02}.onnx", *["Abs"] * (k % 5), *(["Erf"] if k % 8 == 0 else []), "Relu")
        expected[f"gen{k:02}"] = "new" if k % 8 == 0 else "passes"
    assert len(list(models.glob("*.onnx"))) == 61
    config = write_config(tmp_path, out, workers="2")
    for checks in (15, 40):
        night = start(config)
        wait_for_checks(night, out, checks)
        before = {n: (r.runs, r.result) for n, r in rows(out).items() if r.phase != "planned"}
        kill(night, out)
        if checks == 15:
            (models / "gen01.onnx").unlink(missing_ok=True)
            expected["gen01"] = expected["gen01"] if "gen01" in before else "not run"
    night = start(config)
    assert night.wait(1100) == 1, config.with_suffix(".log").read_text()[-3000:]
    found = rows(out)
    assert {n: r.night for n, r in found.items()} == dict.fromkeys(found, 1), "one night, three starts"
    for name, (runs, result) in before.items():
        assert found[name].runs[: len(runs)] == runs or result is Result.UNKNOWN, "nothing is lost"
    seen = settled(found)
    assert {n: s for n, s in seen.items() if n in expected} == expected
    assert "space" in found["full"].reason
    assert not left_running(out) and not (out / "tmp").exists()
    assert retention.size_of(out) <= 40 * 2**20
    reduced = [r for n, r in found.items() if r.status == "new" and n != "flaky"]
    assert all(r.reduction == "done" for r in reduced), [(r.model, r.reason) for r in reduced]

    chain(models / "error1.onnx", "Abs")  # one bug fixed and one new
    chain(models / "gen02.onnx", CRASH)
    night = start(config)
    assert night.wait(1100) == 1
    second = rows(out)
    statuses = settled(second)
    assert [n for n, s in statuses.items() if s == "fixed"] == ["error1"]
    told = [n for n, r in second.items() if r.news and n != "flaky" and r.status != "not run"]
    assert told == ["gen02"]  # a model that is gone is news besides
    assert not set(statuses.values()) - {
        "fixed",
        "new",
        "known",
        "passes",
        "flaky",
        "not run",
    }
    assert [p.name for p in small_disk.iterdir()] == ["runs"]


def test_a_night_of_disasters(tmp_path: Path) -> None:
    """Every status is right, the scheduler stays small, nothing is left, and kills cost nothing."""
    seen = disasters.run(tmp_path, 100, 2)
    told = seen.told()
    assert seen.wrong == [] and seen.orphans == [] and seen.kills == 2, told
    assert told["peak"] < 200e6 and told["growth"] < 30e6, told


def test_a_night_of_disasters_on_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """What fails while something else holds the last byte is asked again, or says that there is no room."""
    (tmp_path / "night").mkdir()
    seen = disasters.run(tmp_path / "night", 50, 1, disk=64)
    assert all("no space left" in said for said in seen.wrong) and len(seen.wrong) < 5, seen.told()
    assert seen.orphans == [] and seen.filled == 2, seen.told()
