"""`verify`: the same failure, another one, or fixed; suites; and reproducers that nobody should trust."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.cli.app import main
from bisect_trt.errors import UsageError
from bisect_trt.options import verify_line
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.reproducer import archive as attach
from bisect_trt.reproducer import untrusted
from bisect_trt.reproducer.verify import Status, Verification, exit_code, verify
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from test_bundle import ANTIALIAS, candidate, make_model, reduction, resize, write

MISMATCH = Failure(Stage.COMPARE, Symptom.MISMATCH, "outputs differ", "y differs")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproducer that TensorRT-RTX refuses, as `reduce` writes it."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "work").mkdir()
    ones = np.ones((1, 1, 8, 8), np.float32)
    best = candidate(resize(1), folder / "work", ones, ones[:, :, ::2, ::2])
    return write(reduction(best, folder / "m-repro"))


@pytest.fixture
def failing(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "m-repro"))


def planted(tmp_path: Path, spec: str, wanted: Failure = MISMATCH) -> Path:
    (tmp_path / "work").mkdir(exist_ok=True)
    x = np.ones((2, 3), np.float32)
    neg = helper.make_node("Neg", ["x"], ["y"], "n")
    best = candidate(make_model([neg], [2, 3], [2, 3]), tmp_path / "work", x, -x)
    info = TargetInfo("planted", "planted faults", True)
    settings = Settings(TargetSettings(f"planted:{spec}"))
    return write(reduction(best, tmp_path / "p-repro", wanted, target=info, settings=settings))


def changed(folder: Path, **more: Any) -> Path:
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, **more}))
    return folder


def test_a_folder_and_its_zip_still_fail(failing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(failing)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("Fails") and "same failure on TensorRT-RTX" in said and "Antialiasing" in said
    assert main(["verify", str(failing), "--until-fixed"]) == 0
    assert "Exit code   0: not fixed yet" in capsys.readouterr().out
    archive = attach.zip_it(failing, Stage.PARSE)
    shutil.rmtree(failing)
    capsys.readouterr()
    assert main(["verify", str(archive), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 1 and found["results"][0]["status"] == "same failure"


def test_fixed_and_otherwise(failing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(resize(0), failing / "repro.onnx")
    assert main(["verify", str(failing)]) == 0
    assert main(["verify", str(failing), "--until-fixed"]) == 1
    det = make_model([helper.make_node("Det", ["x"], ["y"], "d")], [1, 1, 8, 8], [1, 1])
    onnx.save(det, failing / "repro.onnx")
    capsys.readouterr()
    assert main(["verify", str(failing)]) == 4
    assert main(["verify", str(failing), "--until-fixed"]) == 4
    said = capsys.readouterr().out
    assert "other failure" in said and "Seen" in said and "Before" in said


def test_another_target_and_flaky_failures(tmp_path: Path) -> None:
    out = planted(tmp_path, "op=Neg,fail=mismatch")
    [same] = bisect_trt.verify(out)
    assert (same.status, same.runs) == (Status.SAME, 1)
    [fixed] = bisect_trt.verify(out, target="planted:op=Abs", repeats=2)
    assert (fixed.status, fixed.runs) == (Status.FIXED, 2)
    [elsewhere] = bisect_trt.verify(out, target="ort:CPU", repeats=1)  # nothing is fixed
    assert elsewhere.status is Status.ELSEWHERE and "failed on planted:" in elsewhere.why
    assert (elsewhere.exit_code(), elsewhere.exit_code(until_fixed=True)) == (0, 3)
    [other] = bisect_trt.verify(out, target="planted:op=Neg,fail=error,stage=parse", repeats=1)
    assert other.status is Status.OTHER and other.seen is not None and other.seen.stage is Stage.PARSE


def test_what_needs_to_run_cannot_be_told_where_nothing_runs(failing: Path) -> None:
    onnx.save(resize(0), failing / "repro.onnx")
    wanted = replace(ANTIALIAS, stage=Stage.RUN)
    [result] = verify(changed(failing, failure=wanted.to_json()))
    if result.status is not Status.FIXED:  # a card is here, and it runs
        assert result.status is Status.UNKNOWN and "it has to run" in result.why
        assert result.exit_code() == 3


def test_a_suite_and_its_junit(failing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "repros"
    suite.mkdir()
    shutil.copytree(failing, suite / "a")
    shutil.copytree(failing, suite / "b")
    shutil.copytree(failing, suite / "a again")
    onnx.save(resize(0), suite / "b/repro.onnx")
    attach.zip_it(suite / "a", Stage.PARSE)  # beside its folder: counted once
    (suite / "notes.txt").write_text("mine")
    (suite / "c").mkdir()
    (suite / "c/report.json").write_text("{}")
    assert main(["verify", str(suite), "--junit", str(tmp_path / "x/out.xml")]) == 1
    assert "3 reproducers: 1 same failure, 1 fixed, 1 cannot tell" in capsys.readouterr().out
    root = ET.parse(tmp_path / "x/out.xml").getroot()
    [found] = root.findall("testsuite")
    assert (found.get("tests"), found.get("failures"), found.get("errors")) == ("3", "1", "1")
    assert set(found.keys()) >= {"package", "id", "name", "timestamp", "hostname", "time"}  # Ant's schema
    assert [child.tag for child in found] == ["properties", *["testcase"] * 3, "system-out", "system-err"]
    kinds = {case.get("name"): [child.tag for child in case] for case in found.iter("testcase")}
    assert kinds == {"a": ["failure"], "b": [], "c": ["error"]}
    shutil.rmtree(suite / "a")
    shutil.rmtree(suite / "a again")
    (suite / "a-repro.zip").unlink()
    assert main(["verify", str(suite)]) == 3


@pytest.mark.parametrize(
    ("statuses", "code", "round_"),
    [
        ([Status.FIXED], 0, 1),
        ([Status.SAME], 1, 0),
        ([Status.FIXED, Status.SAME], 1, 1),
        ([Status.OTHER, Status.FIXED], 4, 1),
        ([Status.UNKNOWN, Status.OTHER], 4, 4),
        ([Status.UNKNOWN, Status.FIXED], 3, 1),
        ([Status.ELSEWHERE], 0, 3),
    ],
)
def test_exit_codes(statuses: list[Status], code: int, round_: int) -> None:
    results = [Verification("x", status) for status in statuses]
    assert exit_code(results) == code
    assert exit_code(results, until_fixed=True) == round_


def test_control_characters_do_not_break_the_xml(tmp_path: Path) -> None:
    from bisect_trt.cli.output import junit

    evil = Failure(Stage.RUN, Symptom.ERROR, "x", "\x00\x1b[2J <&>")
    junit.write([Verification("a\x01<b>", Status.OTHER, seen=evil)], tmp_path / "o.xml", until_fixed=False)
    assert ET.parse(tmp_path / "o.xml").find(".//testcase").attrib["name"] == "a?<b>"


def test_what_no_report_may_ask_for_is_given_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line that `reduce` ends with works, for a command and its `--fail-regex`, too."""
    out = planted(tmp_path, "op=Abs", Failure(Stage.RUN, Symptom.ERROR, "no N.g", "no Neg"))
    spec = f"command:{sys.executable} -c 'exit(\"no Neg\")' {{model}}"
    target = TargetSettings(spec, fail_regex="no N.g")
    changed(out, settings={"target": {"spec": spec, "fail_regex": "no N.g"}, "run": {}})
    assert main(["verify", str(out)]) == 2
    assert "--fail-regex 'no N.g'" in capsys.readouterr().err
    words = shlex.split(verify_line(out, Settings(target)))
    assert main(words[1:]) == 4 and "run error: no Neg" in capsys.readouterr().out
    assert verify_line("x", Settings(TargetSettings("ort:CPU", opt_level=2))) == "bisect-trt verify x"


# Strangers


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def entries(folder: Path, inside: str = "m/") -> dict[str, bytes]:
    return {inside + p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_zip_writes_nothing_outside(failing: Path, tmp_path: Path) -> None:
    evil = {"../evil.txt": b"x", "/tmp/evil": b"x", "m/../../report.json": b"x", "m/sub/repro.onnx": b"x"}
    archive = make_zip(tmp_path / "a-repro.zip", {**evil, **entries(failing)})
    before = {p for p in tmp_path.rglob("*") if failing not in p.parents}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder, _ = untrusted.opened(archive, scratch)
    names = {p.name for p in folder.iterdir()}
    assert names == {"repro.onnx", "inputs.npz", "expected.npz", "report.json", "target.log"}
    after = {p for p in tmp_path.rglob("*") if failing not in p.parents and scratch not in p.parents}
    assert after - before == {scratch}


def test_bombs_are_not_unpacked(failing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "LIMIT", 1 << 20)
    archive = make_zip(tmp_path / "a-repro.zip", {**entries(failing), "m/repro.data": b"\0" * (2 << 20)})
    (tmp_path / "s").mkdir()
    with pytest.raises(UsageError, match="when unpacked"):
        untrusted.opened(archive, tmp_path / "s")
    with zipfile.ZipFile(failing / "inputs.npz", "w", zipfile.ZIP_DEFLATED) as values:
        values.writestr("x.npy", b"\0" * (2 << 20))
    with pytest.raises(UsageError, match=r"inputs\.npz holds"):
        untrusted.opened(failing, tmp_path / "s")


def external(location: str) -> onnx.ModelProto:
    model = resize(1)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return model


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "report.json"])
def test_a_model_reads_nothing_outside(failing: Path, location: str) -> None:
    (failing / "repro.onnx").write_bytes(external(location).SerializeToString())
    with pytest.raises(UsageError, match="refers to files outside"):
        verify(failing)


@pytest.mark.parametrize("name", ["repro.onnx", "inputs.npz", "report.json"])
def test_links_are_not_followed(failing: Path, tmp_path: Path, name: str) -> None:
    (failing / name).rename(tmp_path / "elsewhere")
    (failing / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a plain file"):
        verify(failing)


@pytest.mark.parametrize(
    "spec", ["command:touch /tmp/x", "ort:TensorRT?trt_extra_plugin_lib_paths=/x.so", "python:x.py", "auto;x"]
)
def test_a_report_starts_no_program(failing: Path, spec: str) -> None:
    changed(failing, settings={"target": {"spec": spec}, "run": {}})
    with pytest.raises(UsageError, match="may start programs"):
        verify(failing)


def test_custom_operators_come_from_the_command_line(failing: Path) -> None:
    """No library of a report is loaded: the user is told to give it."""
    proto = onnx.load(failing / "repro.onnx")
    proto.graph.node[0].domain = "own"
    onnx.save(proto, failing / "repro.onnx")
    changed(failing, settings={"target": {"spec": "ort:CPU"}, "accuracy": {"custom_ops": ["/x/ops.so"]}})
    with pytest.raises(UsageError, match=r"needs custom operators.*of own") as caught:
        verify(failing)
    assert "--custom-ops ops.so" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"report.json: .*Failed to load"):
        bisect_trt.verify(failing, custom_ops=[failing / "report.json"])


def test_paths_of_a_report_are_not_used(failing: Path) -> None:
    hostile: dict[str, Any] = {"spec": "tensorrt-rtx", "timing_cache": "/x", "opt_level": 1}
    hostile |= {"verbose_log": "/x", "plugins": ["x.so"]}
    compared = {"reference": "command:rm", "custom_ops": ["/x.so"], "rtol": [["", 0.5]]}
    changed(failing, settings={"target": hostile, "run": {}}, compared=compared)
    _, report = untrusted.opened(failing, failing)
    with pytest.raises(UsageError, match="loaded only for you") as refused:
        report.target(None)
    assert refused.value.hint == "if you trust it, give this yourself: --plugins x.so"
    mine = TargetSettings(plugins=(Path("/mine.so"),))
    assert report.target(None, mine).plugins == mine.plugins
    target = report.target("tensorrt-rtx")
    assert (target.plugins, target.timing_cache, target.verbose_log, target.opt_level) == ((), None, None, 1)
    assert (report.accuracy.reference, report.accuracy.custom_ops) == ("ort", ())
    assert report.accuracy.rtol == (("", 0.5),)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("report.json", b"{}"),
        ("report.json", b"["),
        ("report.json", b'{"failure": {"stage": "x"}}'),
        ("report.json", b"[" * 100_000),
        ("repro.onnx", b"no model"),
        ("inputs.npz", b"no archive"),
    ],
)
def test_broken_reproducers_are_one_clear_line(
    failing: Path, name: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (failing / name).write_bytes(data)
    assert main(["verify", str(failing)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "Traceback" not in said.err


def test_nothing_to_verify(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        assert main(["verify", str(place)]) == 2
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert main(["verify", str(tmp_path / "x.zip")]) == 2


@pytest.mark.parametrize("damage", ["cut", "pickled", "another type", "another name", "four terabytes"])
def test_values_that_are_damaged_are_a_wrong_use(failing: Path, damage: str) -> None:
    """Each of these ended with a traceback of numpy's."""
    place = failing / "inputs.npz"
    name = onnx.load(failing / "repro.onnx").graph.input[0].name
    array = np.load(place)[name]
    if damage == "four terabytes":
        raw = io.BytesIO()
        np.save(raw, array)
        wide = rb"\(\d+, [^)]*\)"
        data = re.sub(wide, lambda m: b"(" + b"9" * (len(m[0]) - 3) + b",)", raw.getvalue(), count=1)
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr(f"{name}.npy", data)
    else:
        values = {
            "cut": {name: array},
            "pickled": {name: np.array([{}], dtype=object)},
            "another type": {name: array.astype(np.int8)},
            "another name": {f"{name}_": array},
        }[damage]
        np.savez(place, **values)
    if damage == "cut":
        place.write_bytes(place.read_bytes()[:-30])
    with pytest.raises(UsageError, match=r"inputs\.npz"):
        verify(failing)
