"""Which calls of TensorRT's Python API the product makes: from its source and the templates of repro.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bisect_trt"
MODULES = sorted(PACKAGE.glob("targets/tensorrt/*.py"))
SCRIPT = "script_values.py"  # lines that configure the builder are put together there
TEMPLATES = [*sorted(PACKAGE.glob("reproducer/templates/*.py.j2")), PACKAGE / "reproducer" / SCRIPT]

# What a variable of this name is, everywhere in these files.
RECEIVERS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "e": "ParserError",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "module": "",
    "network": "INetworkDefinition",
    "output": "ITensor",
    "parser": "OnnxParser",
    "plan": "IHostMemory",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
    "trt": "",
}
# Variables that go by one of these names and are something else, by file.
OTHERS = {
    ("log.py", "layer"),
    ("engine.py", "error"),
    ("warm.py", "module"),
    *((file, "e") for file in ("log.py", "config.py", "backend.py", "timing.py", "timed.py", "warm.py")),
    *((SCRIPT, name) for name in ("tensor", "e", "module", "config")),
}
MADE_BY = {"get_plugin_registry": "IPluginRegistry"}
_ASKS = ("getattr", "hasattr", "detail", "setattr")
_TEXT = re.compile(r"\b(\w+)\.(\w+)(?:\.(\w+))?")
_ASKED = re.compile(r"""(?:getattr|hasattr)\((trt(?:\.\w+)?|\w+), ["'](\w+)["']""")


def calls() -> set[str]:
    """`Builder.create_network`, `BuilderFlag.TF32`, `volume`, ...: all of them, as written in the source."""
    found = {call for file in MODULES for call in of_source(file.read_text(), file.name)}
    found |= {"BuilderFlag.BF16"}  # its name is put together from --precision
    found |= {call for file in TEMPLATES for call in of_text(file.read_text(), file.name)}
    return {call for call in found if not call.rpartition(".")[2].startswith("__")}


def of_source(source: str, file: str) -> Iterator[str]:
    """Calls in a module of the adapter."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            kind = _kind(node.value, file)
            if kind is not None:
                yield f"{kind}.{node.attr}".lstrip(".")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ASKS:
            kind = _kind(node.args[0], file)
            name = node.args[1]
            if kind is not None and isinstance(name, ast.Constant):
                yield f"{kind}.{name.value}".lstrip(".")
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                kind = _kind(base, file)
                if kind:
                    yield from (f"{kind}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef))


def _kind(node: ast.expr, file: str) -> str | None:
    """The class that an expression is (of); empty for the module itself, None for what is not of TensorRT."""
    match node:
        case ast.Name(id=name):
            return None if (file, name) in OTHERS else RECEIVERS.get(name)
        case ast.Attribute(value=ast.Name(id="self"), attr="_trt"):
            return ""
        case ast.Attribute(value=value, attr=name) if _kind(value, file) == "":
            return name
        case ast.Attribute(attr="context"):
            return "IExecutionContext"
        case ast.Call(func=ast.Attribute(attr=name)) if name in MADE_BY:
            return MADE_BY[name]
    return None


def of_text(text: str, file: str) -> Iterator[str]:
    """Calls in a template, which is no Python yet."""
    for name, first, second in _TEXT.findall(text):
        if (file, name) in OTHERS or name not in RECEIVERS or (file == SCRIPT and name != "trt"):
            continue
        kind = RECEIVERS[name]
        yield f"{kind}.{first}".lstrip(".")
        if not kind and second and first[0].isupper():
            yield f"{first}.{second}"
    if file == SCRIPT:
        yield from (f"IBuilderConfig.{name}" for name in re.findall(r"\"config\.(\w+)", text))
        yield from ("IBuilderConfig.set_flag", "IBuilderConfig.clear_flag")
    for where, name in _ASKED.findall(text):
        kind = where.removeprefix("trt").lstrip(".") if where.startswith("trt") else RECEIVERS.get(where)
        if kind is not None:
            yield f"{kind}.{name}".lstrip(".")
    for base, body in re.findall(r"^class \w+\(trt\.(\w+)\):\n((?:(?: .*)?\n)+)", text, re.M):
        yield from (f"{base}.{name}" for name in re.findall(r"^    def (\w+)", body, re.M))
