"""Snapshots of TensorRT's Python API: what its modules have, without a GPU and without TensorRT's libraries.

    python -m pip download --no-deps -d wheels tensorrt-cu12-bindings==10.0.1     (and so on, see WHEELS)
    python tests/data/trt_api/snapshot.py wheels tests/data/trt_api

Each wheel of bindings is unpacked into a scratch folder and imported in a process of its own. The libraries
that it is linked to are made here: empty ones, with the few functions that it wants. So names, signatures
and enum members are those of the real bindings. Type stubs (`.pyi`) are read, not run. Needs a C compiler and
the Python that the wheels are for (3.11).
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WHEELS = [
    "tensorrt-bindings==8.6.1",
    "tensorrt-cu12-bindings==10.0.1",
    "tensorrt-stubs==10.13.0.35.1",
    "tensorrt-cu12-bindings==10.16.1.11",
    "tensorrt-cu12-bindings==11.0.0.114",
    "tensorrt-cu13-bindings==11.4.0.106",
    "tensorrt-lean-cu13-bindings==11.4.0.106",
    "tensorrt-rtx-cu13-bindings==1.4.0.76",
    "tensorrt-rtx-cu13-bindings==1.5.0.114",
    "tensorrt-rtx-cu13-bindings==1.6.1.120",
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
]
CLASSES = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "ErrorCode",
    "IBuilderConfig",
    "ICudaEngine",
    "IDebugListener",
    "IExecutionContext",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IProgressMonitor",
    "IPluginRegistry",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
    "IHostMemory",
]
"""The classes that are looked at; `Logger.Severity` goes as `ILogger.Severity`."""


def of_module(module: Any) -> dict[str, Any]:
    """The snapshot of an imported module."""
    classes: dict[str, dict[str, str]] = {}
    for name in CLASSES:
        kind = getattr(module, name, None)
        if kind is not None:
            classes[name] = {m: _signature(getattr(kind, m, None)) for m in dir(kind) if _wanted(m)}
    severity = getattr(module.ILogger, "Severity", None)
    if severity is not None:
        classes["ILogger.Severity"] = {m: "" for m in dir(severity) if _wanted(m)}
    names = sorted(n for n in dir(module) if _wanted(n))
    return {"names": names, "classes": classes}


def of_stubs(text: str, version: str) -> dict[str, Any]:
    """The snapshot of a module's type stubs."""
    # The stubs are no Python: defaults before parameters without one, and a parameter named `in`.
    text = re.sub(r"^ *def .*", lambda line: re.sub(r" = [^,)]+|\bin(?=:)", "", line[0]), text, flags=re.M)
    tree = ast.parse(re.sub(r"(?<=, ): ", "given: ", text))
    names = set()
    classes: dict[str, dict[str, str]] = {}
    for node in tree.body:
        for name in _defined(node):
            names.add(name)
        if isinstance(node, ast.ClassDef) and node.name in CLASSES:
            classes[node.name] = dict(_members(node))
        for inner in node.body if isinstance(node, ast.ClassDef) and node.name == "ILogger" else ():
            if isinstance(inner, ast.ClassDef) and inner.name == "Severity":
                classes["ILogger.Severity"] = dict(_members(inner))
    return {"version": version, "names": sorted(n for n in names if _wanted(n)), "classes": classes}


def in_package(text: str) -> list[str]:
    """Names that the package itself adds to what its binary has: the functions of its `__init__`."""
    return [n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and _wanted(n.name)]


def _members(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for inner in node.body:
        for name in filter(_wanted, _defined(inner)):
            plain = isinstance(inner, ast.FunctionDef) and not inner.decorator_list
            yield name, f"{name}({ast.unparse(inner.args)})" if plain else ""  # type: ignore[attr-defined]


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    return []


def _wanted(name: str) -> bool:
    return not name.startswith("_")


def _signature(member: Any) -> str:
    """The first line of pybind11's docstring, overloads joined; empty for what is no method."""
    found = re.findall(r"^(?:\d+\. )?(\w+\(.*\)(?: -> .*)?)$", getattr(member, "__doc__", "") or "", re.M)
    found = [re.sub(r"\b(?:tensorrt\w*\.)+", "", text) for text in found] if callable(member) else []
    return " | ".join(t for t in dict.fromkeys(found) if "*args" not in t)


def import_apart(wheel: Path, scratch: Path) -> dict[str, Any]:
    """Import a wheel of bindings in a process of its own; the libraries it is linked to are made up."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch)
    (binary,) = scratch.glob("*/tensorrt*.so")
    link = subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True
    ).stdout
    missing = re.findall(r" U ((?!_?Py)[^@\s]+)$", symbols, re.M)  # what has a version is the system's
    code = scratch / "empty.c"
    code.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in missing))
    for library in re.findall(r"\[(lib(?:nv|tensorrt|cud)\S+)\]", link):
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", "-o", scratch / library, code],
            check=True,
        )
    program = (
        f"import sys, json; sys.path[:0] = [{str(scratch)!r}, {str(Path(__file__).parent)!r}]\n"
        "import snapshot\n"
        "sys.setdlopenflags(1); import importlib.util as u\n"
        f"s = u.spec_from_file_location({binary.stem!r}, {str(binary)!r}); m = u.module_from_spec(s)\n"
        f"s.loader.exec_module(m); print(json.dumps(snapshot.of_module(m)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"LD_LIBRARY_PATH": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{wheel.name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    found["names"] = sorted({*found["names"], *in_package((binary.parent / "__init__.py").read_text())})
    return found


def main(wheels: Path, out: Path) -> None:
    """A JSON file for each wheel."""
    for wheel in sorted(wheels.rglob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        with tempfile.TemporaryDirectory() as scratch:
            if "stubs" in name:
                with zipfile.ZipFile(wheel) as archive:
                    text = archive.read("tensorrt_bindings/tensorrt.pyi").decode()
                    package = archive.read("tensorrt_bindings/__init__.pyi").decode()
                found = of_stubs(text, version)
                found["names"] = sorted({*found["names"], *in_package(package)})
            else:
                found = import_apart(wheel, Path(scratch))
        title = re.sub(r"_cu\d+|_bindings", "", name).replace("_stubs", "").replace("_", "-")
        found["version"] = version
        place = out / f"{title}-{version}.json"
        place.write_text(json.dumps({"wheel": wheel.name, **found}, indent=0, sort_keys=True) + "\n")
        print(place, len(found["names"]), {k: len(v) for k, v in found["classes"].items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
