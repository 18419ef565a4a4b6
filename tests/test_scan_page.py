"""What people see of a scan: table, sentences, page; and the view inside an engine."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto
from rich.console import Console

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.cli.output.scan_table import show_scan
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.references.base import Record, recorded_values
from bisect_trt.scanning import jobs, words
from bisect_trt.scanning import page as scan_page
from bisect_trt.scanning.page import document
from bisect_trt.scanning.result import Histogram, Scan, Scanned, error_of
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo, TargetResult
from bisect_trt.targets.tensorrt.backend import TensorRT

MODELS = Path(__file__).parents[1] / "models"
NASTY = "<script>alert(1)</script>[bold]\x1b[2J"
GPU = TargetInfo("tensorrt", "TensorRT 11.4", True)


def diff(error: float, name: str = "y", **more: Any) -> TensorDiff:
    kind = {"ok": error < 0.01, "elements": 100, "rms_error": error, "max_abs": error, **more}
    symptom = None if kind["ok"] else Symptom.MISMATCH
    return TensorDiff(name, **{"mismatches": 0 if kind["ok"] else 7, "symptom": symptom, **kind})


def tensor(k: int, own: float | None, effect: float | None = None, context: float | None = None) -> Scanned:
    return Scanned(
        f"t{k}", f"n{k}", "Conv", k, k + 1,
        own=None if own is None else diff(own, f"t{k}"),
        above_noise=bool(own),
        effect=None if effect is None else (diff(effect),),
        context=None if context is None else diff(context, f"t{k}"),
    )  # fmt: skip


def scan(*tensors: Scanned, out: Path = Path("out"), **more: Any) -> Scan:
    known = {
        "model": Path("m.onnx"), "settings": Settings(), "target": GPU, "reference": "ONNX Runtime 1",
        "sources": {t.node: (f"t{t.position - 1}",) for t in tensors}, "nodes": len(tensors),
        "outputs": (diff(0.001),), "context_why": "no", "builds": 3, "seconds": {"record": 1.0},
    }  # fmt: skip
    return Scan(out=out, tensors=tensors, **{**known, **more})


LOST = replace(tensor(1, 1.0, 1.0), own=diff(1.0, "t1", symptom=Symptom.NOT_FINITE, nans=(0, 5), infs=(1, 3)))
REFUSED = replace(
    tensor(2, None), failure=Failure(Stage.BUILD, Symptom.CRASH, "s", f"died {NASTY}"), suspects=3
)


# Figures and sentences


def test_one_figure_for_a_tensor() -> None:
    assert error_of(diff(0.5)) == 0.5
    assert error_of(LOST.own) == float("inf")  # type: ignore[arg-type]
    assert error_of(TensorDiff("y", False, 10, difference="shape", symptom=Symptom.MISMATCH)) == float("inf")
    assert error_of(TensorDiff("y", False, 10, 3, symptom=Symptom.MISMATCH)) == 0.3  # integers
    zeros = TensorDiff("y", False, 10, 4, rms_error=float("inf"), symptom=Symptom.MISMATCH)
    assert error_of(zeros) == 0.4  # the reference is all zeros


def test_noise_is_what_rounding_explains() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16):
        exact = rng.standard_normal(4096)
        error = float(np.sqrt(np.mean((exact.astype(dtype).astype(np.float64) - exact) ** 2)))
        assert error < jobs.noise(np.dtype(dtype)) < 100 * error
    assert jobs.noise(np.dtype(np.int32)) == jobs.noise(np.dtype(bool)) == 0.0


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (scan(tensor(0, 0.5, 0.2), outputs=(diff(0.2),)), "One tensor alone makes the outputs disagree"),
        (scan(tensor(0, 0.5, 0.2)), "run as a whole, the model agrees"),
        (scan(tensor(0, 0.5, 0.2), tensor(1, 0.5, 0.3)), "2 tensors, each alone.*The worst is t1"),
        (scan(tensor(0, 1, 0.004), tensor(1, 0.1, 0.008), outputs=(diff(0.02),)), "accumulates.*most 0.012"),
        (scan(tensor(0, 0.0), outputs=(diff(0.1),)), "does not explain it"),
        (scan(tensor(0, 1, 0.004), outputs=(diff(0.1),)), "does not explain it.*4.0e-03"),
        (scan(tensor(0, 1, 0.004), outputs=(diff(0.1),), effects_left=3), "accumulates"),
        (scan(tensor(0, 0.0)), "no tensor has an error above rounding"),
        (scan(tensor(0, 0.5, 0.0)), "largest own error, 0.5.*without effect"),
        (scan(tensor(0, 0.5, 0.001)), "agrees at its outputs. The largest effect, 1.0e-03"),
        (scan(tensor(0, 0.0), outputs=(), whole="no room"), "not known"),
    ],
)
def test_verdict(found: Scan, told: str) -> None:
    assert re.search(told, words.verdict(found)), words.verdict(found)


def test_what_is_only_bad_in_context() -> None:
    """Its own error and what comes in are small there: only then fusion is the suspect."""
    items = (
        tensor(0, 1e-4, context=1e-4),
        tensor(1, 1e-4, context=0.5),  # here
        tensor(2, 1e-4, context=0.5),  # takes it over
        tensor(3, 0.1, context=0.6),  # its own fault
        tensor(4, 1e-4),
    )
    found = scan(*items, context_why="", unmapped=("engine/x",))
    assert [t.tensor for t in found.only_in_context] == ["t1"]
    assert "t1" in words.in_context(found) and "1 tensors of the engine" in words.in_context(found)
    lost = replace(items[4], context=LOST.own)
    told = words.in_context(scan(*items[:4], lost, context_why=""))
    assert "The first that is not finite there is t4" in told
    assert words.in_context(scan(*items, context_why="no GPU")) == "No view in context: no GPU."
    other = TargetInfo("ort:X", "X", True)
    assert words.in_context(scan(*items, target=other)) == ""


def test_order_of_the_table() -> None:
    rows = scan(REFUSED, tensor(0, 0.1, 0.001), tensor(3, 0.9), tensor(4, 0.2, 0.5), LOST).ranked
    assert [t.tensor for t in rows] == ["t1", "t4", "t0", "t3", "t2"]


def test_table_on_a_narrow_and_a_wide_screen() -> None:
    nasty = replace(tensor(5, 0.3, 0.4, 0.5), tensor=NASTY, op="Re[red]size")
    found = scan(nasty, LOST, REFUSED, context_why="", effects_left=9, notes=("a [bold]note",))
    for width in (50, 120):
        out = io.StringIO()
        show_scan(found, Console(file=out, width=width))
        text = out.getvalue()
        assert "\x1b" not in text and "a [bold]note" in text
        assert width == 50 or "Re[red]size" in text
        assert "In context" in text and "not finite" in text
        flat = " ".join(text.split())
        assert "one of 3 nodes" in flat and "9 more" in flat and "5 NaN and 2 Inf" in flat


# The page


def example(out: Path) -> Scan:
    out.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    items = [tensor(k, float(10 ** rng.uniform(-8, -1)), 1e-3 * k / 60, 1e-4 * k) for k in range(60)]
    items[7] = replace(LOST, tensor="t7", position=7)
    items[9] = replace(REFUSED, position=9)
    items[11] = replace(tensor(11, 0.3, 0.5), tensor=f"a/{NASTY}", op="<b>Op</b>")
    histogram = Histogram("t7", (0.0, 1.0, 2.0), (5, 9), (0, 14), (-3, -2, -1), (1, 0, 4), 9, 2)
    notes = (f"a note {NASTY}",)
    return scan(*items, out=out, context_why="", histogram=histogram, notes=notes, unmapped=("x",))


def test_page_and_document_are_written(tmp_path: Path) -> None:
    scan_page.write(example(tmp_path))
    page = (tmp_path / "scan.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "http" not in re.sub(r"http-equiv", "", page)
    assert page.count("<rect") > 3 * 60 and "not finite" in page and "NaN or Inf born" in page
    assert json.loads((tmp_path / "scan.json").read_text())["first_not_finite"] == "t7"


def test_a_phone_shows_the_effect(tmp_path: Path) -> None:
    """Columns that are left out on a narrow screen are the others; a shadow says that more is to the side."""
    scan_page.write(example(tmp_path))
    page = (tmp_path / "scan.html").read_text()
    head = page.partition("<thead>")[2].partition("</thead>")[0]
    kept = [text for kind, text in re.findall(r"<th([^>]*)>([^<]*)<", head) if "opt" not in kind]
    assert kept[:3] == ["Tensor", "Effect", "Own error"]
    assert "no-repeat local" in page


def test_strange_numbers_do_not_break_the_page(tmp_path: Path) -> None:
    for found in (
        scan(out=tmp_path),
        scan(tensor(0, 0.0), out=tmp_path),
        scan(tensor(0, 1e-30, 1e-300, 1e30), out=tmp_path, context_why=""),
        scan(replace(LOST, position=0), out=tmp_path, histogram=Histogram("t1")),
        scan(*(replace(tensor(k, 0.1, 0.1), depth=99999) for k in range(3)), out=tmp_path, outputs=()),
    ):
        scan_page.write(found)
        page = (tmp_path / "scan.html").read_text()
        assert "nan" not in re.sub(r"<title>.*?</title>", "", page) and "inf" not in page.replace("Inf", "")
        json.loads(json.dumps(document(found), allow_nan=False))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_page_in_a_browser_says_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    scan_page.write(example(tmp_path / "out"))
    log = tmp_path / "net.json"
    line = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        "--disable-background-networking", "--disable-component-update",
        f"--log-net-log={log}", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
        f"file://{tmp_path / 'out/scan.html'}",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert "Heat strip" in done.stdout and "CONSOLE" not in done.stderr
    asked = set(re.findall(r'"url":"https?://([^/:"]*)', log.read_text()))
    its_own = re.compile(r"(?:^|\.)(?:google|googleapis|gvt1|gstatic)\.com$")  # a browser calls home
    assert not [host for host in asked if not its_own.search(host)]


# Inside an engine


class Shows:
    """A target that shows what is inside, as TensorRT does with debug tensors."""

    def __init__(self, inside: Mapping[str, Any], fails: bool = False) -> None:
        self._inside, self._fails, self.runs = inside, fails, 0

    def info(self) -> TargetInfo:
        return GPU

    def run(self, candidate: Candidate) -> TargetResult:
        self.runs += 1
        return TargetResult(outputs=({"y": np.float32([2, 2])},))

    def run_in_context(self, candidate: Candidate) -> TargetResult:
        if self._fails:
            return TargetResult((Failure(Stage.BUILD, Symptom.ERROR, "s", "no debug tensors"),))
        return TargetResult(outputs=({"y": np.float32([2, 2]), **self._inside},))


def recorded(folder: Path, **values: Any) -> Record:
    store = Store(folder)
    return Record(folder, 1, {k: recorded_values(store, k, [np.float32(v)]) for k, v in values.items()})


def whole(target: Shows, folder: Path, monkeypatch: pytest.MonkeyPatch) -> jobs.Whole:
    record = recorded(folder, y=[1, 2], t=[[1, 2], [3, 4]])
    output = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output])).SerializeToString()
    candidate = Candidate(model, folder, (), ({},), record.values(["y"]))
    monkeypatch.setattr(jobs, "opened", lambda settings: target)
    return jobs.whole(TargetSettings(), candidate, Settings().accuracy, record)


def test_tensors_inside_are_mapped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"t": np.float32([1, 2, 3, 5]), "t_reformatted": np.float32([1]), "y2": np.float32([1, 1])}
    found = whole(Shows(shown), tmp_path, monkeypatch)
    assert [(d.name, d.max_abs) for d in found.context] == [("t", 1.0)]  # another layout of the same elements
    assert found.unmapped == ("t_reformatted", "y2") and found.context_why == "" and found.builds == 1
    assert [d.name for d in found.outputs] == ["y"] and found.outputs[0].mismatches == 1


def test_an_engine_that_debug_tensors_break_is_built_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Shows({}, fails=True)
    found = whole(target, tmp_path, monkeypatch)
    assert found.builds == 2 and target.runs == 1 and found.outputs and not found.failures
    assert found.context_why == "with debug tensors the engine fails: no debug tensors"
    assert whole(Shows({}), tmp_path, monkeypatch).context_why == "the engine shows no tensors"


def test_real_tensorrt_builds_with_marked_tensors(tmp_path: Path) -> None:
    """Without a GPU nothing is shown; that the mark leaves the build as it is can be seen."""
    pytest.importorskip("tensorrt_rtx")
    path = MODELS / "ok.onnx"
    candidate = Candidate(path.read_bytes(), path.parent, ())
    target = TensorRT(TargetSettings(spec="tensorrt-rtx"))
    marked, plain = target.run_in_context(candidate), target.run(candidate)
    assert not marked.failures and not plain.failures
    assert marked.facts["engine_bytes"] > 0 and plain.facts["engine_bytes"] > 0
