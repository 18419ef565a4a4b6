"""The house keeps its promises, and the script that counts them (`make house`) counts right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import house  # noqa: E402


@pytest.fixture(scope="module")
def rows() -> dict[str, house.Row]:
    """Counted once: every process of the tests would do so if it were done to name the tests."""
    return {row.what: row for row in house.rows()}


@pytest.mark.parametrize("what", house.PROMISES)
def test_a_promise_is_kept(what: str, rows: dict[str, house.Row]) -> None:
    assert rows[what].kept, rows[what]


def test_every_reason_is_of_a_file_that_is_there() -> None:
    modules = house.sources()
    assert set(house.SHORT) <= set(modules)
    assert all(door in modules or door.endswith("/") for door in house.DOORS)


def test_code_lines_are_counted_without_words() -> None:
    text = '"""Doc.\n\nMore.\n"""\n\n# why\nX = 1  # one\n"""Of X."""\n\n\n'
    text += 'def f():\n    """Doc."""\n    return (\n        X\n    )\n'
    assert house.code_lines(text) == 5


def write(folder: Path, files: dict[str, str]) -> dict[str, house.Source]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return house.sources(folder)


def test_circles_and_levels_are_found(tmp_path: Path) -> None:
    modules = write(
        tmp_path,
        {
            "a.py": "from bisect_trt.b import x\n",
            "b.py": "def x() -> None:\n    from bisect_trt.c import y\n",
            "c.py": "y = 1\n",
        },
    )
    assert house.levels(house.arrows(modules), modules) == ["a", "b", "c"]
    modules = write(tmp_path, {"c.py": "from bisect_trt import a\n"})
    assert len(list(house.nx.simple_cycles(house.arrows(modules)))) == 1


def test_a_call_is_followed_through_what_carries_a_noun(tmp_path: Path) -> None:
    modules = write(
        tmp_path,
        {
            "reduction/reduce.py": "from bisect_trt.reduction.context import Run, leaf\n"
            "def reduce(run: Run) -> None:\n    run.step()\n    leaf(1)\n",
            "reduction/context.py": "from bisect_trt.session.prober import Prober, leaf\n"
            "class Run:\n    def __init__(self, prober: Prober) -> None:\n        self.prober = prober\n"
            "    def step(self) -> None:\n        self.prober.ask(self)\n",
            "session/prober.py": "from bisect_trt.session.journal import note\n"
            "class Prober:\n    def ask(self, candidate: 'Candidate') -> None:\n        note(1)\n"
            "    def take(self, run: 'Run') -> None: ...\n",
            "session/journal.py": "def note(n: int) -> None: ...\n",
            "reduction/passes/drop.py": "def drop() -> None: ...\n",
        },
    )
    found = house.followed(modules)
    assert {"reduction/reduce.py", "reduction/context.py"} <= found and "session/journal.py" not in found
