"""Count what the house promises, print it as a table, and exit with 1 where a promise is broken.

`make house` runs it, and tests/test_house.py does in `make check`. Everything is read from the source and
nothing is imported. Lines of code are printed, too, and not judged: features come and go. They are compared
with those of a commit, where the history of the repository is there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TypeGuard

import networkx as nx

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bisect_trt"
BASE = "a045d4f"
"""The commit from which lines of code are counted."""

FREE = {"__init__", "__main__", "_version"}
SHORT = {
    "writing/text.py": "words that all rooms use",
    "writing/files.py": "the one way in which all rooms write a file",
    "mixed_precision/earlier.py": "what `precision` and `check --keep-fp32` read",
    "session/doubts.py": "what `check` and `precision` share",
    "_version.py": "one number",
    "__main__.py": "`python -m bisect_trt`",
    "cli/check.py": "a command each has a file",
    "cli/doctor.py": "a command each has a file",
    "cli/reduce.py": "a command each has a file",
    "cli/scan.py": "a command each has a file",
    "cli/simplify.py": "a command each has a file",
    "cli/output/blame_table.py": "what a command prints each has a file",
    "blaming/matrix.py": "what `verify --releases` asks, apart from `blame`",
    "cli/output/junit.py": "what a command prints each has a file",
    "cli/output/precision.py": "what a command prints each has a file",
    "machine/server.py": "what the isolated process imports, which must stay light",
    "mixed_precision/answer.py": "a value that workers and search share",
    "model/weight_values.py": "read by three rooms that share nothing else",
    "reduction/passes/tactics.py": "a pass each has a file",
    "targets/tensorrt/constraints.py": "what one kind of network alone can be asked",
    "targets/tensorrt/tactics.py": "what one version of TensorRT alone can do",
    "references/outputs.py": "a kind of reference each has a file",
    "references/target_at.py": "a kind of reference each has a file",
    "references/torchscript.py": "a kind of reference each has a file",
    "targets/narrow.py": "casts for two targets that share nothing else",
    "targets/ort/messages.py": "words of a provider, read by it and by the doctor",
    "session/pools.py": "pools of a session, used by check, scan and reduce",
    "session/cluster.py": "the one place that knows a cluster beside a session",
    "nightly/blame.py": "how a night asks another room",
    "reduction/cause.py": "words on a cause, apart from the search for it",
    "session/around.py": "going round nodes of which nothing can be said, for check alone",
    "session/judge_again.py": "saved outputs judged with other tolerances, which runs nothing",
    "session/shape_notes.py": "sentences on dimensions that were chosen",
    "targets/knobs.py": "what the rooms of three targets share",
    "targets/ort/openvino_knobs.py": "what one provider alone can be asked",
    "nightly/moved.py": "how history follows a model, apart from how it is read",
    "nightly/clock.py": "the clock that tests replace",
    "model/cutting/pieces.py": "bytes of a cut, apart from where it is decided what is cut",
    "reproducer/markdown.py": "a small language of its own",
}
"""Files of fewer than 60 lines, each with the reason why it is one."""

LONG = {
    "mixed_precision/search.py": "one search, whose state is shared by all of its steps",
    "model/patch.py": "stands alone: scripts that are handed over hold a copy of it",
}
"""Functions of 40 lines or more and files of more than 350, each with the reason why it is one piece."""

NOUNS = {"Run", "Session", "Problem", "Candidate", "Failure", "Found", "Reduction", "Selections"}
"""What is handed from step to step. A call is followed where one of these goes in or comes out."""

DOORS = {
    "session/cache.py": "only with --cache-dir",
    "session/cluster.py": "only with --cluster",
    "session/finite.py": "only for references that are NaN or Inf somewhere, and for made-up masks",
    "session/export_trial.py": "only with a --reference other than ONNX Runtime",
    "session/around.py": "only where a failure says no more than that no GPU is here",
    "reduction/judgement.py": "only for accuracy: whether a difference is a fault",
    "reduction/at_outputs.py": "only for accuracy that is judged at the model's outputs",
    "reduction/simplify/secrecy.py": "only with --anonymise",
    "reduction/passes/": "passes are alternatives behind one contract (menu.Pass): one of them is read",
    "reduction/simplify/": "passes are alternatives behind one contract (menu.Pass): one of them is read",
}
"""Where whoever follows one `reduce` does not go in, each with the reason."""

ONE_PASS = "reduction/passes/drop.py"
"""The pass that the reader does read: the one that proves 1-minimality."""

MENU = "reduction/menu.py"
"""The lists of passes: data, which no call leads to."""


@dataclass(frozen=True)
class Source:
    """One module of the package."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> list[ast.ImportFrom]:
        """Where a module imports from others, in functions too; asked thousands of times."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)]

    @property
    def room(self) -> str:
        return self.name.split("/")[0].removesuffix(".py")

    @property
    def dotted(self) -> str:
        return "bisect_trt." + self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def sources(folder: Path = PACKAGE) -> dict[str, Source]:
    """All modules by their path below the package."""
    paths = sorted(folder.rglob("*.py"))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {name: Source(name, path.read_text()) for name, path in zip(names, paths, strict=True)}


def code_lines(text: str) -> int:
    """Lines that hold code: no comments, no docstrings, no blanks."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if _is_text(node):
            docs.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    held: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - docs)


def _is_text(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Whether a node is a text that nobody uses: a docstring, of whatever stands before it."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def base_code_lines() -> int | None:
    """Lines of code of the package in the base commit; None where the history is not there."""
    listed = _git("ls-tree", "-r", "--name-only", BASE, "bisect_trt")
    if listed is None:
        return None
    names = [name for name in listed.splitlines() if name.endswith(".py")]
    texts = [_git("show", f"{BASE}:{name}") for name in names]
    return sum(code_lines(text) for text in texts if text)


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def imported(source: Source, modules: dict[str, Source]) -> Iterator[tuple[str, str, str]]:
    """Each name of ours that a module imports anywhere: the local name, the module, the name in it or ""."""
    for node in source.imports:
        if node.module and node.module.startswith("bisect_trt"):
            base = node.module.removeprefix("bisect_trt").lstrip(".").replace(".", "/")
            for alias in node.names:
                local = alias.asname or alias.name
                inner = f"{base}/{alias.name}".lstrip("/")
                if f"{inner}.py" in modules:
                    yield local, f"{inner}.py", ""
                elif f"{base}.py" in modules:
                    yield local, f"{base}.py", alias.name
                elif f"{base}/__init__.py" in modules:
                    yield local, f"{base}/__init__.py", alias.name


def arrows(modules: dict[str, Source]) -> nx.DiGraph:
    """Which module imports which, lazily or not; the package's own `__init__` hands out and is left out."""
    graph = nx.DiGraph()
    for name, source in modules.items():
        if source.room not in FREE:
            used = {to for _, to, _ in imported(source, modules)}
            graph.add_edges_from((name, to) for to in used if to != name and modules[to].room not in FREE)
    return graph


def levels(graph: nx.DiGraph, modules: dict[str, Source]) -> list[str]:
    """Rooms on the longest way of imports, from the command line down."""
    pairs = {(modules[a].room, modules[b].room) for a, b in graph.edges}
    rooms = nx.DiGraph([(a, b) for a, b in pairs if a != b])
    return list(nx.dag_longest_path(rooms))


class Names:
    """What the names in a module stand for: functions and classes, as (module, name)."""

    def __init__(self, modules: dict[str, Source]) -> None:
        self._modules = modules
        self._known = {name: self._of(source) for name, source in modules.items()}

    def _of(self, source: Source) -> dict[str, tuple[str, str]]:
        own = {
            node.name: (source.name, node.name)
            for node in source.tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        return {local: (to, name) for local, to, name in imported(source, self._modules)} | own

    def body(self, module: str, name: str) -> ast.FunctionDef | ast.ClassDef | None:
        """The definition of a function or class, of a method as `Class.method`."""
        outer, _, inner = name.partition(".")
        found = next((n for n in self._modules[module].tree.body if getattr(n, "name", "") == outer), None)
        if inner and isinstance(found, ast.ClassDef):
            found = next((n for n in found.body if getattr(n, "name", "") == inner), None)
        return found if isinstance(found, ast.FunctionDef | ast.ClassDef) else None

    def called(self, module: str, body: ast.AST, self_class: str) -> Iterator[tuple[str, str]]:
        """Functions and methods that a body calls or hands on, where a type or an import tells which."""
        types = dict(self._parameters(module, body))
        if self_class:
            types["self"] = (module, self_class)
        for node in ast.walk(body):
            if isinstance(node, ast.Name) and node.id in self._known[module]:
                to, name = self._known[module][node.id]
                if name and name[0].islower() | name.startswith("_"):
                    yield to, name
                elif name and self.body(to, f"{name}.__init__"):
                    yield to, f"{name}.__init__"
                elif name:
                    yield to, name
            elif isinstance(node, ast.Attribute):
                yield from self._attribute(module, node, types)

    def _attribute(
        self, module: str, node: ast.Attribute, types: dict[str, tuple[str, str]]
    ) -> Iterator[tuple[str, str]]:
        if isinstance(node.value, ast.Name) and self._known[module].get(node.value.id, ("", "x"))[1] == "":
            yield self._known[module][node.value.id][0], node.attr
            return
        owner = self._type(module, node.value, types)
        if owner and self.body(owner[0], f"{owner[1]}.{node.attr}"):
            yield owner[0], f"{owner[1]}.{node.attr}"

    def _type(
        self, module: str, node: ast.expr, types: dict[str, tuple[str, str]]
    ) -> tuple[str, str] | None:
        if isinstance(node, ast.Name):
            return types.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._type(module, node.value, types)
            return self._field(owner, node.attr) if owner else None
        return None

    def _field(self, owner: tuple[str, str], field: str) -> tuple[str, str] | None:
        """The class of a field, from its annotation or from the parameter that it is set to."""
        body = self.body(*owner)
        if not isinstance(body, ast.ClassDef):
            return None
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == field:
                return self._annotated(owner[0], node.annotation)
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                given = dict(self._parameters(owner[0], node))
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Assign) and ast.unparse(inner.targets[0]) == f"self.{field}":
                        return given.get(ast.unparse(inner.value))
        return None

    def _parameters(self, module: str, body: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
        """Names in a function whose class is known: its parameters, and what it makes by a call."""
        if not isinstance(body, ast.FunctionDef):
            return
        for argument in (*body.args.posonlyargs, *body.args.args, *body.args.kwonlyargs):
            if argument.annotation and (found := self._annotated(module, argument.annotation)):
                yield argument.arg, found
        for node in ast.walk(body):
            if isinstance(node, ast.Assign):
                yield from self._made(module, node.targets[0], node.value)
            if isinstance(node, ast.withitem):
                yield from self._made(module, node.optional_vars, node.context_expr)

    def _made(
        self, module: str, target: ast.expr | None, value: ast.expr
    ) -> Iterator[tuple[str, tuple[str, str]]]:
        if isinstance(value, ast.Call) and isinstance(target, ast.Name):
            made = self._known[module].get(ast.unparse(value.func), ("", ""))
            if made[1] and (found := self._returned(made)):
                yield target.id, found

    def _returned(self, made: tuple[str, str]) -> tuple[str, str] | None:
        body = self.body(*made)
        if isinstance(body, ast.ClassDef):
            return made
        return self._annotated(made[0], body.returns) if body and body.returns else None

    def _annotated(self, module: str, annotation: ast.expr) -> tuple[str, str] | None:
        for node in ast.walk(annotation):
            if isinstance(node, ast.Name) and node.id in self._known[module]:
                to, name = self._known[module][node.id]
                if name and isinstance(self.body(to, name), ast.ClassDef):
                    return to, name
        return None


def followed(modules: dict[str, Source]) -> set[str]:
    """Modules of session/ and reduction/ that one reads to follow one `reduce`, from `reduce()` on.

    A call is followed where an import, an annotation or a constructor tells what is called, and where one of
    the `NOUNS` goes in or comes out: what has none of them is a leaf, whose docstring says what it does.
    Other rooms (model, targets, workers, ...) are not gone into, nor are the `DOORS`; of passes one is read.
    """
    names, seen = Names(modules), set[tuple[str, str]]()
    todo = [("reduction/reduce.py", "reduce"), (ONE_PASS, "drop")]
    while todo:
        module, name = todo.pop()
        if (module, name) in seen or not module.startswith(("reduction/", "session/")):
            continue
        if module != ONE_PASS and any(module.startswith(door) for door in DOORS):
            continue
        body = names.body(module, name)
        if body is None or not _carries_a_noun(body, name):
            continue
        seen.add((module, name))
        if isinstance(body, ast.FunctionDef):
            todo += names.called(module, body, name.partition(".")[0] if "." in name else "")
    return {module for module, _ in seen} | {MENU}


def _carries_a_noun(body: ast.FunctionDef | ast.ClassDef, name: str) -> bool:
    """Whether a noun stands in a signature; a method of a noun has it as its first argument."""
    words = {name.partition(".")[0]}
    if isinstance(body, ast.FunctionDef):
        every = (*body.args.posonlyargs, *body.args.args, *body.args.kwonlyargs)
        for annotation in (*(argument.annotation for argument in every), body.returns):
            words |= {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)} if annotation else set()
    return bool(words & NOUNS) or name == "reduce"


def functions(modules: dict[str, Source]) -> list[tuple[int, str]]:
    """Lines and place of each function, the longest first; its docstring makes no function long."""
    found = []
    for name, source in modules.items():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if _is_text(node.body[0]):
                    lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                found.append((lines, f"{name}:{node.name}"))
    return sorted(found, reverse=True)


@dataclass(frozen=True)
class Row:
    """One promise: what is counted, how many there are, how many there may be, and which."""

    what: str
    count: int
    limit: int
    which: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return self.count <= self.limit


def rows() -> list[Row]:
    """All promises, counted."""
    modules = sources()
    entries = sorted({name.split("/")[0] for name in modules} | {"py.typed"})
    graph = arrows(modules)
    circles = list(nx.simple_cycles(graph))
    way, read = levels(graph, modules), sorted(followed(modules))
    long = functions(modules)
    files = [(s.lines, name) for name, s in modules.items() if not name.endswith("__init__.py")]
    big = [name for lines, name in files if lines > 350 and name not in LONG]
    short = [name for lines, name in files if lines < 60 and name not in SHORT]
    counted: list[tuple[int, int, tuple[str, ...]]] = [
        (len(entries), 27, tuple(entries)),
        (len(circles), 0, tuple(map(str, circles[:3]))),
        (len(way), LEVELS, tuple(way)),
        (len(read), 15, tuple(read)),
        (sum(modules[name].lines for name in read), 2500, ()),
        _over(long, 45),
        _over(long, 39),
        (len(big), 0, tuple(big)),
        (len(short), 0, tuple(short)),
    ]
    return [Row(what, *told) for what, told in zip(PROMISES, counted, strict=True)]


PROMISES = (
    "entries in bisect_trt/",
    "import circles, lazy imports counted",
    "levels of imports",
    "files to follow one reduce",
    "lines to follow one reduce",
    "functions over 45 lines",
    "functions of 40 lines or more",
    "files over 350 lines",
    "files under 60 lines without a reason",
)
"""What is counted, in the order of `rows`."""

LEVELS = 11


def _over(long: list[tuple[int, str]], limit: int) -> tuple[int, int, tuple[str, ...]]:
    over = [f"{place} {lines}" for lines, place in long if lines > limit and place not in LONG]
    return len(over), 0, tuple(over)


def main() -> int:
    """Print the table; the answer is 1 when a promise is broken."""
    found = rows()
    for row in found:
        mark = "ok " if row.kept else "NOT"
        print(f"{mark} {row.what:42} {row.count:7,}  of {row.limit:,}")
        if row.which and (not row.kept or "--list" in sys.argv):
            print(*(f"      {one}" for one in row.which), sep="\n")
    now, base = sum(code_lines(source.text) for source in sources().values()), base_code_lines()
    print(f"    lines of code {now:,}" + (f", in {BASE} {base:,}" if base else ""))
    return int(not all(row.kept for row in found))


if __name__ == "__main__":
    sys.exit(main())
