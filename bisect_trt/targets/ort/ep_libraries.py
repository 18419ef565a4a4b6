"""Plugin libraries of ONNX Runtime execution providers: from the user, and from pip packages.

A package is found by its distribution's name (`onnxruntime-ep-NAME`), not by importing it: importing
NVIDIA's loads TensorRT-RTX. Only the one that was asked for is imported, for its `get_library_path()`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

from msgspec import Struct

from bisect_trt.errors import BisectError, TargetUnavailable, UsageError

_DISTRIBUTION = re.compile(r"onnxruntime[-_.]ep[-_.](?P<provider>.+)", re.IGNORECASE)
_NAME = re.compile(r"^Name: *(.*?) *$", re.MULTILINE)
_LIBRARY = re.compile(r"(?:lib)?onnxruntime_providers_\w+\.(?:so|dll|dylib)$")
# Distribution for a provider that is not there; the keys are what `bare` gives.
PACKAGES = {
    "openvino": "onnxruntime-ep-openvino",
    "nvtensorrtrtx": "onnxruntime-ep-nv-tensorrt-rtx",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "dml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "qnn": "onnxruntime-qnn",
    "webgpu": "onnxruntime-ep-webgpu",
}

# The loader's words for a library that is missing, which is nobody's mistake in writing.
_LACKS = re.compile(r"(\S+\.so[\w.]*): cannot open shared object file")

_registered: dict[str, Path] = {}
"""Name to library: ONNX Runtime keeps its own list for the whole process."""


class Package(Struct, frozen=True):
    """A pip package with a provider. `provider` is its name as `bare` writes it."""

    distribution: str
    version: str
    provider: str
    module: str


def bare(provider: str) -> str:
    """Return what is left of a provider's name: `OpenVINOExecutionProvider`, `open-vino`: `openvino`."""
    letters = re.sub(r"[^a-z0-9]", "", provider.lower())
    return letters.removesuffix("executionprovider") or letters


def packages() -> list[Package]:
    """Return the installed packages with providers, by name; nothing is imported."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = _name(distribution)
        match = _DISTRIBUTION.fullmatch(name)
        files = distribution.files or () if match else ()
        modules = [f.parts[0] for f in files if f.name == "__init__.py" and len(f.parts) == 2]
        if match and modules:  # a meta package has none
            package = Package(name, distribution.version, bare(match["provider"]), modules[0])
            found[name.lower()] = package
    return [found[name] for name in sorted(found)]


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Return its name.

    `metadata` parses the whole text as a mail, which takes a millisecond of each package.
    """
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = _NAME.search(text)
    return found[1] if found else ""


def find_package(provider: str) -> Package | None:
    """Return the installed package for a provider; `...-cu13` and the like are variants of it."""
    start = bare(provider)
    fitting = [p for p in packages() if p.provider.startswith(start)]
    return min(fitting, key=lambda p: len(p.provider), default=None)


def library_of(package: Package) -> Path:
    """Return the library in a package, which gets imported.

    Raises:
        TargetUnavailable: the package cannot be imported or has no library.
    """
    try:
        module = importlib.import_module(package.module)
        if hasattr(module, "get_library_path"):
            return Path(module.get_library_path())
        folder = Path(str(module.__file__)).parent
        libraries = sorted(path for path in folder.iterdir() if _LIBRARY.fullmatch(path.name))
        if not libraries:
            raise FileNotFoundError(f"no provider library in {folder}")
        return libraries[0]
    except Exception as e:  # it loads what it likes
        raise TargetUnavailable(
            f"{package.distribution} {package.version} cannot be used: {' '.join(str(e).split())[:300]}",
            f"Install it again: pip install --force-reinstall {package.distribution}",
        ) from e


def register(ort: Any, name: str, library: Path, *, given: bool) -> None:
    """Register a library, once in this process; another one under the same name takes its place.

    Args:
        ort: the module onnxruntime.
        name: of the provider; most libraries do not care.
        library: the plugin.
        given: whether the user named the file (then a bad one is his mistake).

    Raises:
        UsageError: the file that the user gave is no provider library.
        TargetUnavailable: a package's library does not load, or ONNX Runtime takes no plugins.
    """
    if not hasattr(ort, "register_execution_provider_library"):
        raise TargetUnavailable(
            f"ONNX Runtime {ort.__version__} takes no plugin libraries",
            "Update it: pip install -U onnxruntime",
        )
    library = library.resolve()
    if _registered.get(name) == library:
        return
    try:
        if name in _registered:
            ort.unregister_execution_provider_library(name)
            del _registered[name]
        ort.register_execution_provider_library(name, str(library))
    except Exception as e:  # ONNX Runtime's exceptions have no common base but this
        why = " ".join(str(e).split())
        if "already registered" not in why:
            raise _not_registered(name, library, why, given=given) from e
    _registered[name] = library


def _not_registered(name: str, library: Path, why: str, *, given: bool) -> BisectError:
    """Return the error that says whose fault it is: of the machine, of the user, or of the library."""
    lacks = _LACKS.search(why)
    if lacks and Path(lacks[1]).name != library.name:
        hint = "It comes with NVIDIA's driver." if "cuda" in lacks[1] else "Install what has it."
        return TargetUnavailable(
            f"{name}: {library.name} needs {lacks[1]}, which is not on this machine", hint
        )
    if given:
        return UsageError(
            f"--ep-library {name}={library}: {why}", "Name a plugin library of an execution provider."
        )
    return TargetUnavailable(f"{library.name} cannot be loaded: {why}")
