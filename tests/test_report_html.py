"""report.html: one file, sound for every kind of result, and quiet in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from msgspec.structs import replace
from onnx import helper

import bisect_trt
from bisect_trt.model.origin import Origin
from bisect_trt.model.summary import figures
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, Verdict
from bisect_trt.reproducer import archive, models
from bisect_trt.reproducer import document as documents
from bisect_trt.reproducer.page import drawing, pages, plots, timeline
from bisect_trt.reproducer.picture import picture
from bisect_trt.results import Reduction
from bisect_trt.session.journal import Journal
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from test_bundle import ANTIALIAS, MACHINE, NASTY, candidate, make_model, reduction, resize

EVIL = NASTY + "</script><img src=http://example.invalid/x onerror=alert(1)>"
SCHEMA = json.loads((Path(__file__).parents[1] / "docs/report.schema.json").read_text())
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt-get install chromium)")


@pytest.fixture
def accuracy(tmp_path: Path) -> Reduction:
    """A mismatch whose files are there, with hostile names wherever there is room for one."""
    (tmp_path / "w").mkdir()
    x = np.linspace(-2, 2, 400, dtype=np.float32).reshape(20, 20)
    nodes = [helper.make_node("Neg", ["x"], ["t"], EVIL), helper.make_node("Abs", ["t"], ["y"], "abs")]
    model = make_model(nodes, [20, 20], [20, 20])
    wanted = Failure(Stage.COMPARE, Symptom.MISMATCH, "outputs differ", EVIL, (EVIL,))
    found = reduction(
        candidate(model, tmp_path / "w", x, abs(x)), tmp_path / "m-repro", wanted,
        target=TargetInfo("planted", EVIL, True), settings=Settings(TargetSettings("planted:op=Abs")),
        original=figures(model), places=(3, 500), origins=(Origin(EVIL, "/a/model.py", 6, EVIL, "M.attn"),),
        log=f"[ERROR] {EVIL}\nfine\n", notes=(EVIL,), also_seen=(ANTIALIAS,), outputs_compared=True,
    )  # fmt: skip
    models.write_model(found.best, found.out)
    np.savez(found.out / "actual.npz", y=abs(x) + (x > 1) * 0.5)
    return found


def journal(out: Path, probes: int = 6) -> Path:
    with Journal.open(out / "journal.jsonl", {}) as written:
        for k in range(probes):
            verdict = [Verdict.REPRODUCES, Verdict.VANISHES, Verdict.UNRESOLVED][k % 3]
            failures = (ANTIALIAS,) if verdict is not Verdict.VANISHES else ()
            written.begin(f"k{k}", count=100 - k, nodes=[EVIL, "b"], cut="default")
            written.end(f"k{k}", Outcome(failures, 0.5), verdict)
    return out / "journal.jsonl"


def rendered(found: Reduction, probes: int = 6) -> dict[str, str]:
    document = documents.report(found, MACHINE)
    texts, facts = pages.render(found, document, journal(found.out, probes))
    return {**texts, "report.json": json.dumps(facts, allow_nan=False)}


class Reader(HTMLParser):
    """What a page has, as a parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_engine_is_shown_where_one_was_built(accuracy: Reduction) -> None:
    layer = {"name": EVIL, "kind": "gemm", "tactic": "sm90xmma", "types": ["Half"]}
    engine = {"layers": 7, "types": {"Half": 6, "Float": 1}, "shown": [layer]}
    for built in ({}, {"engine": engine}):
        pages_made = rendered(replace(accuracy, built=built))
        for name in ("report.html", "report.md"):
            assert ("sm90xmma" in pages_made[name]) is bool(built)
            assert ("7 layers" in pages_made[name]) is bool(built)
        assert "<img" not in pages_made["report.html"]


def test_the_page_needs_nothing_but_itself(accuracy: Reduction) -> None:
    page = Reader(rendered(accuracy)["report.html"])
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(key) or ""
            assert not value or value.startswith(("#", "data:")), (key, value)
        assert not any(key.startswith("on") for key in attributes)
    assert len(page.named("script")) == 1 and not page.named("link")[1:]
    [policy] = [m for m in page.named("meta") if m.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_everything_is_told(accuracy: Reduction) -> None:
    texts = rendered(accuracy)
    page, summary = texts["report.html"], texts["report.md"]
    for told in (
        "3 of 3 runs", "1-minimal", "model.py", "M.attn", "Errors</h2>",
        "float32[20,20]", "node 4, 501", "What fails", "Environment", "TestOS 1", "reproduces", "vanishes",
    ):  # fmt: skip
        assert told in page, told
    assert page.count("<svg") == 2 + 3 and "<mark>[ERROR]" in page and "<mark>fine" not in page
    parts = ("3 of 3 runs", "```mermaid", "## Errors", "| 100 | 400 |", "`model.py` line 6", "## Environment")
    for told in parts:
        assert told in summary, told
    facts = json.loads(texts["report.json"])
    document = json.loads(json.dumps(documents.report(accuracy, MACHINE)))
    jsonschema.validate({**document, **facts}, SCHEMA)
    assert [row["verdict"] for row in facts["probes"]] == ["reproduces", "vanishes", "unresolved"] * 2
    assert facts["errors"][0]["mismatches"] == 100 and f"# {facts['title']}\n" in summary
    assert [recipe["tool"] for recipe in facts["commands"]] == ["repro.py", "bisect-trt"]
    outside = re.sub(r"(?s)^ *(`{3,})\w*\n.*?^ *\1$", "", summary, flags=re.M)
    assert "<img" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)


def test_people_who_cannot_see_or_use_a_mouse(accuracy: Reduction) -> None:
    page = Reader(rendered(accuracy)["report.html"])
    assert page.named("html")[0]["lang"] == "en" and len(page.named("h1")) == 1
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(th.get("scope") for th in page.named("th"))
    for svg in page.named("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("aria-label") or svg.get("aria-labelledby")
    ids = [attributes["id"] for tag, attributes in page.tags if attributes.get("id") and tag != "g"]
    own = [i for i in ids if i in {"fails", "graph", "errors", "search", "log", "probes", "controls", "tip"}]
    assert len(own) == len(set(own)) >= 7
    labelled = {a.get("aria-labelledby") for tag, a in page.tags if tag == "section"}
    assert labelled <= set(ids)


def test_a_short_search_has_no_plots_of_itself(accuracy: Reduction) -> None:
    short = rendered(accuracy)["report.html"]
    assert short.count("<svg") == 2 + 3 and "Nodes left against" not in short
    longer = rendered(accuracy, probes=8)["report.html"]  # the journal has six of the first one
    assert longer.count("<svg") == 2 + 5 and "Nodes left against probes" in longer


def test_a_failure_without_outputs(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    ones = np.ones((1, 1, 8, 8), np.float32)
    found = reduction(candidate(resize(1), tmp_path / "w", ones, ones), tmp_path / "m-repro")
    models.write_model(found.best, found.out)
    page = rendered(found, probes=0)["report.html"]
    assert "Errors</h2>" not in page and "Outputs were not compared" in page and "0 probes" in page


def test_a_long_search_stays_a_usable_page(accuracy: Reduction, monkeypatch: pytest.MonkeyPatch) -> None:
    page = rendered(accuracy, probes=500)["report.html"]
    assert page.count("<tr><td class") == 500 and "500 probes (100 in print)" in page and len(page) < 700_000
    monkeypatch.setattr(pages, "ROWS", 200)
    page = rendered(accuracy, probes=500)["report.html"]
    assert page.count("<tr><td class") == 200 and "1,000 probes, the first 200" in page  # of both journals


def test_anonymous_pages_name_no_node_of_the_journal(accuracy: Reduction) -> None:
    rows = timeline.rows(
        [{"event": "begin", "key": "k", "count": 3, "nodes": ["secret"], "cut": "default"},
         {"event": "end", "key": "k", "verdict": "reproduces", "seconds": 1.0,
          "outcome": {"failures": [{"stage": "parse", "symptom": "error", "message": "secret"}]}}],
        9, names=False,
    )  # fmt: skip
    assert rows == [timeline.Row(1, 3, "default", "reproduces", 1.0, 1.0, 3, "parse error")]


def test_a_drawing_has_layers_from_top_to_bottom(accuracy: Reduction) -> None:
    drawn = drawing.draw(picture(accuracy.best.model))
    assert drawn is not None
    tops = [placed.y for placed in drawn.boxes]
    assert tops == sorted(tops) and len(set(tops)) == 4 and len(drawn.lines) == 3
    assert all(p.x >= 0 and p.x + p.width <= drawn.width for p in drawn.boxes)
    assert all(p.y + p.height <= drawn.height for p in drawn.boxes)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 0), (2, 3, 500), (300, 300)])
def test_plots_take_any_tensor(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape or (1,))
    b = np.where(rng.random(a.shape) < 0.3, np.nan, a * 1.1)
    if a.size:
        for svg in (plots.histogram(b - a), plots.scatter(a, b), plots.heat_map(b - a)):
            ElementTree.fromstring(svg)
            assert "nan" not in svg and "inf" not in svg


def chromium(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    flags += ["--enable-logging=stderr", "--virtual-time-budget=5000"]
    command = [BROWSER, *flags, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=180, check=False
    )


@needs_browser
@pytest.mark.parametrize("width", [390, 1100])
def test_a_real_browser_is_content(accuracy: Reduction, tmp_path: Path, width: int) -> None:
    """No line in its console, no request but the page, nothing wider than the window; the script works."""
    page = tmp_path / "report.html"
    text = rendered(accuracy)["report.html"]
    # What the page's own script did, and how it is laid out, told by a second script.
    probe = (
        "<script>document.querySelector('#text').value='parse';"
        "document.querySelector('#text').dispatchEvent(new Event('input'));"
        "document.querySelectorAll('#probes th button')[1].click();"
        "document.title=JSON.stringify({shown:document.querySelector('#shown').textContent,"
        "sort:document.querySelectorAll('#probes th')[1].getAttribute('aria-sort'),"
        "first:document.querySelector('#probes tbody tr:not([hidden])').cells[1].textContent,"
        "wide:document.documentElement.scrollWidth-document.documentElement.clientWidth,"
        "svgs:[...document.querySelectorAll('svg')].every(s=>s.getBoundingClientRect().width>0)})</script>"
    )
    page.write_text(text.replace("</body>", f"{probe}</body>"))
    log = tmp_path / "net.json"
    done = chromium(
        f"--window-size={width},2000", f"--log-net-log={log}", "--dump-dom", page.as_uri(), folder=tmp_path
    )
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found, done.stdout[:500]
    told = json.loads(found[1])
    assert told["shown"] == "4 of 6 shown" and told["sort"] == "ascending" and told["first"] == "95"
    assert told["svgs"] and told["wide"] <= 0, told
    requests = re.findall(r'"url":"((?:https?|wss?):[^"]*)"', log.read_text())
    assert not [url for url in requests if "example.invalid" in url]


@needs_browser
def test_it_prints(accuracy: Reduction, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(rendered(accuracy)["report.html"])
    done = chromium(f"--print-to-pdf={tmp_path / 'x.pdf'}", page.as_uri(), folder=tmp_path)
    assert done.returncode == 0 and (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_reduce_writes_both(models_dir: Path, tmp_path: Path) -> None:
    """The real thing: a planted mismatch, with what the target gave beside what was expected."""
    node = "/backbone/layer1/conv1/Conv"
    settings = Settings(TargetSettings(f"planted:node={node},fail=mismatch"))
    settings = replace(settings, run=replace(settings.run, repeats=1, simplify=False))
    result = bisect_trt.reduce(models_dir / "ok.onnx", settings, out=tmp_path / "out")
    page = (result.out / "report.html").read_text()
    assert (result.out / "actual.npz").exists() and "Errors</h2>" in page and page.count("<svg") == 7
    assert not any("disagrees" in note for note in result.notes), result.notes
    assert [o.node for o in result.origins] == [node] and result.places == (2,)
    assert result.original is not None and result.original.nodes == 17
    names = {path.name for path in archive.attachments(result.out)}
    assert {"report.html", "report.md", "actual.npz"} <= names
