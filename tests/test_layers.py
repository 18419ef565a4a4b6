"""The map of the house: the rooms of docs/architecture.md in one order, held against the source."""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bisect_trt"
# Each is imported in one module only, so that one module knows its traps.
HEAVY = ("tensorrt", "tensorrt_rtx", "onnxruntime", "polygraphy", "onnx_graphsurgeon")
# The modules that wrap each: others go through them.
OWNERS = {
    "tensorrt": {"targets/tensorrt/backend.py"},
    "tensorrt_rtx": {"targets/tensorrt/backend.py"},
    "polygraphy": {"targets/tensorrt/backend.py"},
    "onnx_graphsurgeon": {"model/patch.py"},
    "onnxruntime": {"references/ort.py", "targets/ort/provider.py"},
}
MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


# The package itself hands out what the rooms below the command line offer, and the version is for all.
FREE = {"__init__", "__main__", "_version"}
LEVELS = 11
"""Rooms on the longest way of imports, which is what a reader has to know at most."""


def rooms() -> dict[str, int]:
    """Each room to its floor."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "docs/architecture.md").read_text(), re.M)
    return {name: int(number) for number, names in rows for name in re.findall(r"`(\w+)`", names)}


ROOMS = rooms()


def room(module: str) -> str:
    """The room of a module, given as a path below the package."""
    return module.split("/")[0].removesuffix(".py")


@cache
def parsed(source: str) -> ast.Module:
    """Each module is looked at by several tests."""
    return ast.parse(source)


def everything(source: str) -> Iterator[ast.AST]:
    """All nodes: what stands in functions and under TYPE_CHECKING counts too."""
    return ast.walk(parsed(source))


def at_import_time(source: str) -> Iterator[ast.AST]:
    """Only what runs when the module is imported."""
    todo: list[ast.AST] = [parsed(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        todo.extend(ast.iter_child_nodes(node))


def imports(nodes: Iterator[ast.AST], module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that the nodes import."""
    package = ["bisect_trt", *Path(module).parent.parts]
    for node in nodes:
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(func).endswith(("import_module", "__import__")):
                    yield node.lineno, name


def path_of(dotted: str) -> str | None:
    """The module of ours that a dotted name is or lies in, as a path below the package."""
    parts = dotted.split(".")
    if parts[0] != "bisect_trt":
        return None
    for end in range(len(parts), 1, -1):
        name = "/".join(parts[1:end])
        if (PACKAGE / f"{name}.py").is_file():
            return f"{name}.py"
        if (PACKAGE / name).is_dir():
            return f"{name}/__init__.py"
    return "__init__.py"


def wrong_imports(source: str, module: str) -> list[str]:
    """Imports of `module` from rooms on its own floor or above."""
    own, found = room(module), []
    for line, dotted in imports(everything(source), module):
        target = path_of(dotted)
        if target is None or room(target) in FREE | {own}:
            continue
        if ROOMS[room(target)] >= ROOMS[own] and not (ROOMS[own] == ROOMS[room(target)] == 0):
            found.append(f"{module}:{line} (floor {ROOMS[own]}) imports {target}")
    return found


def test_the_table_was_read() -> None:
    assert ROOMS["errors"] == 0 < ROOMS["model"] < ROOMS["targets"] < ROOMS["session"] < ROOMS["cli"]


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_floor_and_imports_from_below(module: str) -> None:
    assert room(module) in ROOMS or room(module) in FREE, "not in the table of architecture.md"
    if room(module) not in FREE:
        assert not wrong_imports((PACKAGE / module).read_text(), module)


@pytest.mark.parametrize(
    "source",
    [
        "import bisect_trt.reduction.problem",
        "from bisect_trt.reduction.problem import Problem",
        "from bisect_trt import reduction",
        "from ..reduction.problem import Problem",
        "def f():\n    from bisect_trt.session import oracle",
        "if TYPE_CHECKING:\n    from bisect_trt.cli import app",
        "importlib.import_module('bisect_trt.reduction')",
    ],
)
def test_imports_from_above_are_found(source: str) -> None:
    assert len(wrong_imports(source, "targets/base.py")) == 1
    assert not wrong_imports("from bisect_trt.outcome import Failure\nimport numpy", "targets/base.py")


def arrows() -> dict[str, set[str]]:
    """What each module imports of ours, lazily or not."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        source = (PACKAGE / module).read_text()
        paths = {path_of(dotted) for _, dotted in imports(everything(source), module)}
        found[module] = {p for p in paths if p and p != module and room(p) != "__init__"}
    return found


def test_there_is_no_circle_and_the_house_is_not_too_deep() -> None:
    pairs = [(a, b) for a, many in arrows().items() for b in many if room(a) != "__init__"]
    assert not list(nx.simple_cycles(nx.DiGraph(pairs)))
    levels = nx.DiGraph([(room(a), room(b)) for a, b in pairs if room(a) != room(b)])
    assert nx.dag_longest_path_length(levels) + 1 <= LEVELS


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_library_is_imported_in_one_module(library: str) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for _, dotted in imports(everything((PACKAGE / module).read_text()), module):
            where[dotted.split(".")[0]].add(module)
    assert where[library] <= OWNERS[library], sorted(where[library])


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_not_imported_at_import_time(module: str) -> None:
    now = imports(at_import_time((PACKAGE / module).read_text()), module)
    own = {library for library, owners in OWNERS.items() if module in owners}
    assert not {dotted.split(".")[0] for _, dotted in now} & set(HEAVY) - own


def test_what_runs_at_import_time() -> None:
    source = """
        import onnx
        if TYPE_CHECKING:
            import tensorrt
        try:
            import polygraphy
        except ImportError:
            pass
        def f():
            import onnxruntime
        class C:
            import numpy
    """
    found = {name for _, name in imports(at_import_time(textwrap.dedent(source)), "graph.py")}
    assert found == {"onnx", "polygraphy", "numpy"}
