"""The four views: they parse, agree, need no network, and no message gets out of its place."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from fakes import Site, alternates, fails, passes, trouble

from bisect_trt.nightly import report
from bisect_trt.nightly.runner import Cause
from bisect_trt.nightly.verdicts import Status

NASTY = "</script><script>alert(1)</script> `code` | \x00\x1b \udcff <b>&amp; {{ 7 * 7 }}"
VIEWS = ("index.html", "summary.md", "junit.xml", "results.json")


def two_nights(base: Path) -> Site:
    """Every status on one page."""
    site = Site(base)
    site.night(
        {"ok": passes(), "fixed": fails("f"), "known": fails("k"), "changed": fails("c1"), "twin": fails("k")}
    )
    models = {
        "ok": passes(),
        "fixed": passes("d2"),
        "known": fails("k"),
        "changed": fails("c2"),
        "twin": fails("k"),
        "new": fails(NASTY.replace("\udcff", "")),
        "flaky": alternates(fails("z"), passes()),
        "broken": trouble(Cause.USAGE, "not <an> ONNX file"),
        "sp ace#1": passes(),
    }
    site.night(models)
    return site


class Page(HTMLParser):
    """Links, text, open tags and everything that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        if tag == "a":
            self.links.append(values.get("href") or "")
        self.loads += [v for k, v in attrs if k in ("src", "srcset", "action", "data", "poster") and v]
        self.loads += [values.get("href") or ""] if tag == "link" else []
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_status_in_every_view(tmp_path: Path) -> None:
    site = two_nights(tmp_path)
    expected = {
        "ok": "passes",
        "fixed": "fixed",
        "known": "known",
        "changed": "changed",
        "twin": "known",
        "new": "new",
        "flaky": "flaky",
        "broken": "not run",
        "sp ace#1": "passes",
    }
    assert site.statuses() == expected
    data = json.loads((site.out / "results.json").read_text())
    assert {Path(r["model"]).stem: r["status"] for r in data["results"]} == expected
    assert sum(data["counts"].values()) == 9 and set(data["counts"]) == {s.value for s in Status}
    assert len(data["clusters"]) == 4, "k is one bug in two models"
    assert data["night"]["before"]["id"] == 1 and data["night"]["exit_code"] == 1
    (known,) = (c for c in data["clusters"] if c["signature"] == "k")
    assert [m[0] for m in known["models"]] == ["known.onnx", "twin.onnx"] and not known["new"]
    trends = {Path(r["model"]).stem: [s for _, s in r["trend"]] for r in data["results"]}
    assert trends["fixed"] == ["new", "fixed"] and trends["new"] == ["new"]


def test_junit(tmp_path: Path) -> None:
    site = two_nights(tmp_path)
    root = ElementTree.parse(site.out / "junit.xml").getroot()
    suite = root.find("testsuite")
    assert root.tag == "testsuites" and suite is not None
    counts = {k: int(suite.get(k, "")) for k in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": 9, "failures": 5, "skipped": 1, "errors": 0}
    failures = {
        c.get("name"): c.find("failure") for c in suite.iter("testcase") if c.find("failure") is not None
    }
    assert set(failures) == {f"{n}.onnx" for n in ("known", "changed", "twin", "new", "flaky")}
    new = failures["new.onnx"]
    assert new is not None and "</script><script>alert(1)" in (new.get("message") or "")
    assert "reproducer: reproducers/new-" in (new.text or "")


def test_page(tmp_path: Path) -> None:
    site = two_nights(tmp_path)
    (night,) = (site.out / "nights").glob("00002*")
    for place in (site.out, night):
        text = (place / "index.html").read_text()
        page = Page(text)
        assert page.scripts == 1 and not page.loads
        assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", text)
        assert "default-src 'none'" in text
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            if link.startswith("#"):
                assert link[1:] in page.ids, link
            else:
                assert (place / unquote(link)).is_file(), link
        assert any("ISSUE.md" in link for link in page.links)
        words = "".join(page.words)
        assert "{{ 7 * 7 }}" in words and "</script><script>alert(1)" in words
        assert "not <an> ONNX file" in words


def test_summary_is_a_chat_message(tmp_path: Path) -> None:
    site = two_nights(tmp_path)
    text = (site.out / "summary.md").read_text()
    first = text.splitlines()[0]
    assert "4 new or changed" in first and "of 9 checks" in first
    for said in (
        "`new.onnx` on Fake 1.0",
        "`changed.onnx` on Fake 1.0 (changed)",
        "`broken.onnx` on auto (not <",
    ):
        assert said in first
    assert "- fixed: `fixed.onnx`" in text and "- not run: 1 check (`broken.onnx`)" in text
    assert text.count("**NEW** ") == 3 and len(text) < 3000
    assert all(line.count("`") % 2 == 0 for line in text.splitlines()), "no message ends its code span"
    assert "\n\n\n" not in text


def test_a_known_bug_in_another_model_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    site.night({"a": fails("one"), "b": passes()})
    site.night({"a": fails("one"), "b": fails("one")})
    first = (site.out / "summary.md").read_text().splitlines()[0]
    assert "NEW: `b.onnx` on Fake 1.0 (as `a.onnx` before); 1 new or changed of 2 checks" in first
    assert site.said[-1] == f"night 2: 1 new, 1 known; exit code 1; {site.out / 'index.html'}"


def test_known_failures_can_be_skipped_in_junit(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, junit_skip_known=True)
    for _ in range(2):
        site.night({"a": fails("one"), "b": passes()})
    suite = ElementTree.parse(site.out / "junit.xml").getroot().find("testsuite")
    assert suite is not None and (suite.get("failures"), suite.get("skipped")) == ("0", "1")


def test_a_bug_whose_message_is_false_is_told_in_words() -> None:
    words = "TensorRT-RTX has no Col2Im (checkCol2Im)\nonnxOpCheckers.cpp:1110"
    assert report._words("UNSUPPORTED_NODE:Col2Im:checkCol2Im: false", words) == words.splitlines()[0]
    assert report._words("a message of its own", words) == "a message of its own"


def test_summary_of_many_bugs_stays_short(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    site.night({f"m{k:02}": fails(f"bug {'x' * 500} {k}") for k in range(30)})
    text = (site.out / "summary.md").read_text()
    assert "and 20 more" in text and len(text) < 6000


def test_nights_are_the_same_in_both_places_but_for_links(tmp_path: Path) -> None:
    site = two_nights(tmp_path)
    (night,) = (site.out / "nights").glob("00002*")
    for name in VIEWS[1:]:
        assert (site.out / name).read_bytes() == (night / name).read_bytes()
    there = (night / "index.html").read_text().replace("../../", "")
    assert there == (site.out / "index.html").read_text()


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    """Chromium runs the script, filters, and reports no error."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    site = two_nights(tmp_path)
    page = site.out / "index.html"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
    ]
    done = subprocess.run(
        [chromium, *options, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "9 of 9" in done.stdout, "the script ran"
    assert "CONSOLE" not in done.stderr
