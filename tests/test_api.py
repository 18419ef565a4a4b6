"""The package from a script, a notebook and a pipe; every example of README and docs/api.md is run."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bisect_trt
from bisect_trt import api
from bisect_trt.cli import app
from bisect_trt.errors import UsageError
from bisect_trt.options import keywords
from bisect_trt.settings import Settings, TargetSettings

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the models of the repository in it."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(text: str, names: dict[str, Any]) -> doctest.TestResults:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(doctest.DocTestParser().get_doctest(text, names, "example", None, 0))
    return runner.summarize()


def test_the_example_of_readme_runs(here: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    done = run(example, {})
    assert done.attempted == 4 and done.failed == 0


@pytest.mark.parametrize("name", ["check", "reduce"])
def test_the_examples_of_docstrings_run(name: str, here: Path) -> None:
    done = run(inspect.getdoc(getattr(api, name)) or "", vars(api).copy())
    assert done.attempted >= 2 and done.failed == 0


def test_the_page_is_made_of_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_api

    assert (ROOT / "docs/api.md").read_text() == make_api.page(), "make docs writes it anew"


SCRIPT = """
import bisect_trt
print("begun")
found = bisect_trt.check("models/ok.onnx", target="emulate:fp16")
print(found)
"""


@pytest.mark.parametrize("how", ["script", "pipe"])
def test_a_script_needs_no_main_guard(how: str, here: Path) -> None:
    (here / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py" if how == "script" else "-"]
    done = subprocess.run(
        command, input=SCRIPT if how == "pipe" else "", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("begun") == 1 and len(done.stdout.splitlines()) == 6


def test_what_is_offered_is_shown_before_it_is_used() -> None:
    code = "import sys, bisect_trt; names = dir(bisect_trt); print(*names); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, loaded = (line.split() for line in done.stdout.splitlines())
    assert set(names) == set(bisect_trt.__all__) == {*bisect_trt._WHERE, "__version__"}
    assert {"reduce", "Settings", "Reduction", "UsageError"} <= set(names)
    assert not {"onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "numpy"} & set(loaded)
    assert all(getattr(bisect_trt, name) for name in names)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bisect_trt.check(3), "model is the path of a file, not int"),  # type: ignore[arg-type]
        (lambda: bisect_trt.check("m.onnx", "x"), "settings is a bisect_trt.Settings, not str"),  # type: ignore[arg-type]
        (lambda: bisect_trt.reduce("m.onnx", targets="a"), "there is no option targets"),
        (lambda: bisect_trt.reduce("m.onnx", repeats="3"), "repeats is int, not str"),
        (lambda: bisect_trt.reduce("m.onnx", seed=True), "seed is int, not bool"),
        (lambda: bisect_trt.scan("m.onnx", ignore="y"), "ignore is a list or a mapping, not str"),
        (lambda: bisect_trt.simplify("m.onnx", out=1), "out is the path of a file, not int"),
        (lambda: bisect_trt.verify(None), "path is the path of a file, not NoneType"),  # type: ignore[arg-type]
        (lambda: bisect_trt.check("m.onnx", target="emulate:fp16"), "m.onnx does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(call: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_options_become_settings() -> None:
    given = {"target": "ort:CPU", "shapes": {"b": [2, 3], "a": (1,)}, "rtol": 1e-3, "inputs": "x.npz"}
    chosen = keywords.chosen_settings(Settings(TargetSettings(opt_level=2)), given | {"ignore": ["y"]})
    assert chosen.target == TargetSettings("ort:CPU", shapes=(("a", (1,)), ("b", (2, 3))), opt_level=2)
    assert chosen.accuracy.rtol == (("", 1e-3),) and chosen.accuracy.ignore == ("y",)
    assert chosen.run.inputs == Path("x.npz")


ELSEWHERE = {
    "as_json": "a result has `to_json`",
    "junit": "for programs that read files",
    "until_fixed": "another exit code",
    "again": "runs nothing, and gives no `Check`",
    "clean": "asks for nothing of a reproducer",
    "every": "`reduce_all`",
    "other": "`target`",
    "releases of verify": "`blame` with `sweep`",
}
"""Options of commands that no keyword stands for, and why."""


@pytest.mark.parametrize("name", sorted(set(api.__all__) - {"reduce_all"}))
def test_every_option_of_a_command_is_a_keyword(name: str) -> None:
    [command] = [command for command in app.COMMANDS if command.name == name]
    keywords_of = inspect.signature(getattr(api, name)).parameters
    for row in command.options:
        known = row.section or row.key in ELSEWHERE or f"{row.key} of {name}" in ELSEWHERE
        assert known or row.key in keywords_of, row.flag
    assert {"settings", "options"} <= set(keywords_of)  # which take the rows of the table


def test_a_result_is_five_lines_and_a_table(here: Path) -> None:
    found = bisect_trt.check(Path("models/ok.onnx"), Settings(TargetSettings("emulate:fp16")))
    lines = repr(found).splitlines()
    assert len(lines) == 5 and lines[0] == "Fine        agrees with the reference"
    head, table = found._repr_html_().split("<table>")
    assert head == "<h3>agrees with the reference</h3>" and table.count("<tr>") == 4


def test_names_of_a_model_are_no_markup() -> None:
    class Odd(api_summary()):
        def lines(self) -> list[tuple[str, str]]:
            return [("Fails", "<script>\x1b[31m"), ("Where", "a&b\nc")]

    assert repr(Odd()) == "Fails       <script>?[31m\nWhere       a&b c"
    assert "<script>" not in Odd()._repr_html_() and "a&amp;b c" in Odd()._repr_html_()


def api_summary() -> Any:
    from bisect_trt.writing.text import Summary

    return Summary
