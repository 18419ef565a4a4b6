"""The state of a search has one writer, and reading a property changes nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bisect_trt"
MODULES = sorted(PACKAGE.rglob("*.py"))
OWNED = {"problem": "reduction/problem.py", "_problem": "reduction/problem.py", "run": "reduction/context.py"}
"""Names under which the state is handed around, with the module whose class alone may write it."""


def chain(node: ast.expr) -> list[str]:
    """`self._problem.simplifying.draft` as a list of its names; what is no name is left out."""
    names: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.value
    return [*([node.id] if isinstance(node, ast.Name) else []), *reversed(names)]


def targets(tree: ast.AST) -> Iterator[ast.expr]:
    """All that is assigned to or deleted, in tuples too."""
    for node in ast.walk(tree):
        todo: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            todo = list(node.targets)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            todo = [node.target]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            todo = [ast.Attribute(node.args[0], "by setattr")]
        while todo:
            target = todo.pop()
            if isinstance(target, ast.Tuple | ast.List):
                todo += target.elts
            else:
                yield target


def outside_writes(source: str, module: str) -> list[str]:
    """Assignments to a field of the state in a module that does not own it."""
    found = []
    for target in targets(ast.parse(source)):
        names = chain(target)
        for name, owner in OWNED.items():
            if name in names[:-1] and module != owner and module.startswith("reduction/"):
                found.append(f"{module}: {ast.unparse(target)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_owner_writes_the_state_of_a_search(path: Path) -> None:
    assert not outside_writes(path.read_text(), path.relative_to(PACKAGE).as_posix())


@pytest.mark.parametrize(
    "source",
    [
        "problem.best = None",
        "problem.graph, problem.cutter = graph, cutter",
        "problem.simplifying.draft = draft",
        "self._problem.wanted = failure",
        "problem.counts.probes += 1",
        "problem.outcomes['last'] = outcome",
        "del run.cutter",
        "setattr(problem, 'best', None)",
    ],
)
def test_outside_writers_are_found(source: str) -> None:
    assert outside_writes(source, "reduction/passes/drop.py")
    assert not outside_writes("found.best = problem.best", "reduction/passes/drop.py")


def properties(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """All properties, cached ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            named = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
            if named & {"property", "cached_property"}:
                yield node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_property_writes_or_deletes(path: Path) -> None:
    for node in properties(ast.parse(path.read_text())):
        written = [ast.unparse(t) for t in targets(node) if chain(t)[:1] == ["self"]]
        removed = [c for c in ast.walk(node) if isinstance(c, ast.Call) and "rmtree" in ast.unparse(c.func)]
        assert not written and not removed, f"{path.name}: {node.name}"
