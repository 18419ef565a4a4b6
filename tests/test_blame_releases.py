"""`blame`: releases of a small index of wheels, each in an environment of its own."""

from __future__ import annotations

import errno
import json
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

import bisect_trt
import package_index as fake
from bisect_trt.blaming import oracle
from bisect_trt.blaming.blame import Asking, Blame, blame
from bisect_trt.blaming.environments import Environments
from bisect_trt.blaming.installer import INTERRUPTED, Installer, Processes, parse_index, without_addresses
from bisect_trt.blaming.oracle import Question
from bisect_trt.blaming.packages import PACKAGES, asked_for
from bisect_trt.blaming.words import answer
from bisect_trt.cli.app import main
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.outcome import Verdict
from bisect_trt.settings import RunSettings, Settings

BAD, GOOD, DARK = Verdict.REPRODUCES, Verdict.VANISHES, Verdict.UNRESOLVED
EIGHT = [f"1.{k}.0" for k in range(8)]
FOUR = EIGHT[:4]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that the user's pip is configured with."""
    place = tmp_path / "simple"
    place.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", place.as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bisect_trt.blaming.installer.find_uv", lambda: "")


def ask(tmp_path: Path, place: Path, run: RunSettings = RunSettings(), **asked: object) -> Blame:  # noqa: B008
    asked = asked if "releases_file" in asked else {"releases": "onnxruntime", **asked}
    return blame(place, Asking(**asked), Settings(run=run), out=tmp_path / "out")  # type: ignore[arg-type]


def row(found: Blame) -> dict[str, Verdict]:
    assert found.releases is not None
    return {tried.release: tried.verdict for tried in found.releases.tried}


def said(found: Blame) -> dict[str, str]:
    assert found.releases is not None
    return {tried.release: tried.said for tried in found.releases.tried}


def test_the_release_that_broke_it(index: Path, tmp_path: Path) -> None:
    fake.runtimes(index, {v: fake.BAD if v >= "1.5" else fake.GOOD for v in EIGHT})
    place = fake.reproducer(tmp_path / "model-repro", version="1.7.0")
    found = ask(tmp_path, place)
    assert found.releases is not None
    assert answer(found.releases) == "fails since 1.5.0 (1.4.0 is fine); still in 1.7.0, the newest"
    assert found.releases.probes == len(row(found)) <= 5
    document = json.loads((tmp_path / "out/blame.json").read_text())
    assert document["releases"]["changes"] == [["1.4.0", "1.5.0"]]
    assert "<svg" in (tmp_path / "out/releases.svg").read_text()
    issue = (tmp_path / "out/ISSUE.md").read_text()
    assert "Have you tried the latest release" in issue and "still fails in 1.7.0" in issue
    assert "the failure is gone" in (tmp_path / "out/output-1.4.0.txt").read_text()
    assert fake.MESSAGE in (tmp_path / "out/output-1.5.0.txt").read_text()
    again = ask(tmp_path, place, sweep=True)  # goes on: what was asked is not asked again
    assert again.releases is not None and again.releases.probes == 8 - len(row(found))


@pytest.mark.long
def test_what_cannot_be_told_is_a_line_each_and_the_rest_goes_on(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "_START", 2.0)
    bodies = [fake.GOOD, fake.GOOD, fake.GOOD, fake.HANGS, fake.OTHER, fake.DIES, fake.BAD, fake.BAD]
    firsts = {"1.1.0": fake.DIES, "1.2.0": "raise ImportError('no such library')"}
    fake.runtimes(index, dict(zip(EIGHT, bodies, strict=True)), firsts=firsts)
    fake.add(index, "onnxruntime", "1.7.1", "", needs="no-such-package==3")
    fake.add(index, "onnxruntime", "1.7.2", "", yanked=True)
    fake.add(index, "onnxruntime", "2.0.0rc1", "")
    place = fake.reproducer(tmp_path / "model-repro", timeout=0.5)
    found = ask(tmp_path, place, RunSettings(workers=2), sweep=True)
    assert row(found) == {
        "1.0.0": GOOD,
        **dict.fromkeys(("1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.7.1"), DARK),
        **dict.fromkeys(("1.6.0", "1.7.0"), BAD),
    }
    words = said(found)
    assert words["1.1.0"] == "onnxruntime cannot be imported: it ends with -11"
    assert "cannot be imported" in words["1.2.0"] and "no such library" in words["1.2.0"]
    assert words["1.3.0"] == "no answer in 3 s"
    assert words["1.4.0"].startswith("it fails otherwise: build: ")
    assert "signal 11" in words["1.5.0"]
    assert words["1.7.1"].startswith("not tried: ")
    assert found.releases is not None
    told = answer(found.releases)
    assert told.startswith("fails since 1.6.0 (1.0.0 is fine; of 1.1.0 to 1.5.0 nothing can be told)")
    assert told.endswith("still in 1.7.0, the newest that can be told")


@pytest.mark.long
def test_a_history_that_comes_and_goes(index: Path, tmp_path: Path) -> None:
    bodies = [fake.BAD, fake.GOOD, fake.GOOD, fake.BAD]
    fake.runtimes(index, dict(zip(EIGHT[:4], bodies, strict=True)))
    place = fake.reproducer(tmp_path / "model-repro")
    found = ask(tmp_path, place, sweep=True)
    assert found.releases is not None
    assert answer(found.releases) == (
        "gone since 1.1.0 (1.0.0 still fails); fails since 1.3.0, the newest (1.2.0 is fine); "
        "it comes and goes: bad, good, bad"
    )


@pytest.mark.long
def test_without_uv(index: Path, without_uv: None, tmp_path: Path) -> None:
    fake.runtimes(index, {"1.0.0": fake.GOOD, "1.1.0": fake.BAD})
    found = ask(tmp_path, fake.reproducer(tmp_path / "model-repro"))
    assert row(found) == {"1.0.0": GOOD, "1.1.0": BAD}


@pytest.mark.long
def test_offline_uses_what_was_installed(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.runtimes(index, {"1.0.0": fake.GOOD, "1.1.0": fake.BAD})
    place = fake.reproducer(tmp_path / "model-repro")
    with pytest.raises(TargetUnavailable, match="was listed before"):
        ask(tmp_path, place, offline=True)
    blame(place, Asking(releases="onnxruntime>=1.1"), out=tmp_path / "first")
    for page in index.glob("*/*"):
        page.unlink()
    found = ask(tmp_path, place, offline=True)
    assert row(found) == {"1.0.0": DARK, "1.1.0": BAD}
    assert said(found)["1.0.0"].startswith("not tried: ")


@pytest.mark.long
def test_the_oldest_environments_go_when_there_is_too_much(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.runtimes(index, {"1.0.0": fake.GOOD, "1.1.0": fake.BAD})
    place = fake.reproducer(tmp_path / "model-repro")
    blame(place, Asking(releases="onnxruntime<1.1"), out=tmp_path / "a")
    cache = tmp_path / "cache/bisect-trt/releases"
    assert len(list(cache.glob("onnxruntime-1.0.0-*/ready.json"))) == 1
    blame(place, Asking(releases="onnxruntime>=1.1", cache_limit=1), out=tmp_path / "b")
    assert [path.parent.name[:17] for path in cache.glob("*/ready.json")] == ["onnxruntime-1.1.0"]
    assert main(["blame", "--clean"]) == 0
    assert capsys.readouterr().out.startswith("removed ") and not cache.exists()


def test_commands_for_releases(tmp_path: Path) -> None:
    place = fake.reproducer(tmp_path / "model-repro")
    file = tmp_path / "releases.txt"
    fails = "sh -c 'echo Actual: bad; exit 1'"
    file.write_text(f"# old ones first\n9.0: sh -c 'exit 0' {{script}}\n10.0: {fails}\n11.0: /nowhere/python")
    found = ask(tmp_path, place, releases_file=file)
    assert row(found) == {"9.0": GOOD, "10.0": BAD, "11.0": DARK}
    assert said(found)["10.0"] == "bad" and "cannot be started" in said(found)["11.0"]
    file.write_text("9.0 no colon")
    with pytest.raises(UsageError, match="line 1 is not NAME: COMMAND"):
        blame(place, Asking(releases_file=file), out=tmp_path / "other")


def test_what_is_asked_for_has_to_fit_the_target() -> None:
    listed = ["1.20.0", "1.21.1", "1.22.0", "2.0rc1"]
    assert asked_for("onnxruntime>=1.20,<1.22", "ort:CPU").among(listed) == ["1.20.0", "1.21.1"]
    assert asked_for("onnxruntime>=1.22", "ort:CPU").among(listed) == ["1.22.0"]
    assert asked_for("onnxruntime==2.0rc1", "ort:CPU").among(listed) == ["2.0rc1"]
    assert asked_for("onnxruntime==1.21.0", "ort:CPU").among(listed) == ["1.21.0"]  # yanked, may be
    wrong = [("tensorrt-rtx", "ort:CPU"), ("onnxruntime>", "ort:CPU"), ("onnxruntime", "planted:op=Relu")]
    for text, spec in wrong:
        with pytest.raises(UsageError):
            asked_for(text, spec)


def test_the_index_of_pip_is_handed_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "SSL_CERT_FILE", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    said = "global.index-url='https://user:secret@host.example/simple'\n:env:.index-url='https://mine.example'\n"
    found = parse_index(said + "global.extra-index-url='\\nfile:///a\\nfile:///b'\nglobal.cert='/c.pem'\n")
    assert found.default == "https://mine.example" and found.extra == ("file:///a", "file:///b")
    assert found.for_uv()["UV_INDEX"] == "file:///a file:///b"
    assert "secret" not in without_addresses("error at https://user:secret@host.example/simple/x")


def test_openvino_is_asked_through_its_own_interface(index: Path, tmp_path: Path) -> None:
    fake.add(index, "numpy", "2.0.0", fake.NUMPY)
    refuses = "OpenVINO does not support the following ONNX operations: Relu"
    bodies = {"2023.0.0": refuses, "2024.0.0": "No conversion rule found for operations: Relu-7"}
    bodies |= {"2025.0.0": "another thing", "2026.0.0": ""}
    for version, said in bodies.items():
        fake.add(index, "openvino", version, fake.OPENVINO.format(version=version, said=said))
    place = fake.reproducer(tmp_path / "model-repro")
    report = json.loads((place / "report.json").read_text())
    words = "OpenVINOExecutionProvider does not take Relu"
    report["failure"] |= {"signature": words, "message": f"{words} (n)"}
    (place / "report.json").write_text(json.dumps(report))
    found = blame(
        place,
        Asking(releases="openvino", sweep=True),
        target='ort:OpenVINO?load_config={"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}',
        out=tmp_path / "out",
    )
    assert list(row(found).values()) == [BAD, BAD, DARK, GOOD]
    assert "f32" in found.releases.tried[-1].output if found.releases else False


def test_the_partner_of_a_package_is_one_that_goes_with_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider as a plugin says nowhere which ONNX Runtime it needs."""
    monkeypatch.setattr(oracle, "_START", 5.0)
    fake.runtimes(index, {"1.21.0": fake.GOOD, "1.22.1": fake.GOOD, "1.22.9": fake.GOOD, "1.23.0": fake.GOOD})
    plugin = "def get_library_path(): return ''\n"
    needs = "import onnxruntime\nassert onnxruntime.__version__ < '1.23', 'made for an older one'\n"
    fake.add(index, "onnxruntime-ep-openvino", "1.0.0", plugin + needs)
    fake.add(index, "onnxruntime-ep-openvino", "1.1.0", plugin + "raise ImportError('it never works')")
    processes = Processes()
    environments = Environments(processes, folder=tmp_path / "envs")
    package = PACKAGES["onnxruntime-ep-openvino"]
    package = replace(package, trial="")  # the real one opens a session
    fitting = environments.get(package, "1.0.0")
    assert not fitting.broken and fitting.versions["onnxruntime"] == "1.22.9"
    never = environments.get(package, "1.1.0")
    assert "it never works" in never.broken and never.versions["onnxruntime"] == "1.23.0"


def test_no_network_is_a_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # where nobody listens
    monkeypatch.setenv("PIP_RETRIES", "0")
    place = fake.reproducer(tmp_path / "model-repro")
    assert main(["blame", str(place), "--releases", "onnxruntime", "--out", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "the releases of onnxruntime cannot be listed: no index answers" in told
    assert "--offline tries what was installed before" in told and told.count("\n") == 2


def test_python_has_the_call_with_plain_texts(tmp_path: Path) -> None:
    place = fake.reproducer(tmp_path / "model-repro")
    file = tmp_path / "releases.txt"
    file.write_text("9.0: sh -c 'exit 0'\n10.0: sh -c 'exit 1'\n")
    found = bisect_trt.blame(str(place), releases_file=str(file), out=str(tmp_path / "out"), repeats=1)
    assert repr(found).splitlines()[0] == "Releases    fails since 10.0, the newest (9.0 is fine)"
    assert "<table>" in found._repr_html_()
    with pytest.raises(UsageError, match="no option repeat"):
        bisect_trt.blame(str(place), repeat=1)
    with pytest.raises(UsageError, match=r"--on .*gone.onnx: no such file"):
        bisect_trt.blame(str(place), on=str(tmp_path / "gone.onnx"))


def test_a_user_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blame", str(tmp_path / "nothing")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["blame"]) == 2
    assert "no reproducer is given" in capsys.readouterr().err


def test_a_matrix_of_reproducers_and_releases(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.runtimes(index, {"1.0.0": fake.BAD, "1.1.0": fake.GOOD})
    (tmp_path / "many").mkdir()
    for name in ("a-repro", "b-repro"):
        fake.reproducer(tmp_path / "many" / name)
    report = tmp_path / "many/b-repro/report.json"
    report.write_text(report.read_text().replace("ort:CPU", "emulate:fp16"))
    code = main(["verify", str(tmp_path / "many"), "--releases", "onnxruntime>=1.0", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == found["exit_code"] == 3  # of one nothing can be told
    first, second = found["results"]
    assert first["releases"]["changes"] == [["1.0.0", "1.1.0"]]
    assert "releases" not in second and "says nothing of the target emulate:fp16" in second["notes"][0]
    one = str(tmp_path / "many/a-repro")
    assert main(["verify", one, "--releases", "onnxruntime", "--until-fixed"]) == 1
    assert "gone since 1.1.0" in capsys.readouterr().out


def test_an_interrupt_and_a_full_disk_are_a_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.runtimes(index, {"1.0.0": fake.GOOD, "1.1.0": fake.BAD})
    words = ["blame", str(fake.reproducer(tmp_path / "model-repro")), "--releases", "onnxruntime"]

    def full(self: Installer, place: Path, requirements: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Installer, "install", full)
        assert main([*words, "--out", str(tmp_path / "full")]) == 0
    told = capsys.readouterr().out
    assert told.count("not tried: no space left on the disk") == 2

    def interrupted(self: Question, *given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Question, "ask", interrupted)
        assert main([*words, "--out", str(tmp_path / "out")]) == 6
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "fails since 1.1.0, the newest (1.0.0 is fine)" in capsys.readouterr().out


def test_what_an_interrupt_ended_says_nothing_of_the_release() -> None:
    """An import that was killed by Ctrl-C was kept as one that ends with -9."""
    processes = Processes()
    ending = threading.Timer(0.3, processes.end_all)
    ending.start()
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert processes.run(sleeping, timeout=30) == (None, INTERRUPTED)
    assert processes.run([sys.executable, "-c", ""], timeout=30) == (None, INTERRUPTED)
    ending.join()
