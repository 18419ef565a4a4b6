"""Which packages can be asked about which target, and what their releases need to be tried."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bisect_trt.errors import UsageError
from bisect_trt.targets.ort.ep_libraries import Package as Plugin
from bisect_trt.targets.ort.ep_libraries import bare
from bisect_trt.targets.ort.provider import parse_spec

_PLUGIN = "onnxruntime-ep-openvino"
_OPENVINO = "openvino"

# A model of one Relu, which whoever can be asked at all can run (IR 8, opset 13).
_RELU = "CAg6NwoMCgF4EgF5IgRSZWx1EgV0cmlhbFoPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0="
# Raises where the provider and the ONNX Runtime beside it do not go together.
_PLUGIN_TRIAL = f"""
import base64, os, onnxruntime as ort
ort.register_execution_provider_library("plugin", onnxruntime_ep_openvino.get_library_path())
found = [device for device in ort.get_ep_devices() if device.ep_name == "OpenVINOExecutionProvider"]
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
if found:
    options.add_provider_for_devices(found[:1], {{}})
    ort.InferenceSession(base64.b64decode("{_RELU}"), options)
os._exit(0)
"""


class Package(Struct, frozen=True):
    """A package on an index.

    Attributes:
        name: as users ask for it.
        module: what is imported to see whether it works.
        wheels: the packages that hold it, where `name` itself is a source archive that only asks for these.
        beside: what a script needs besides.
        alias: a module that is made to stand for `module`, where the package of that name is left out.
        partner: a package of `beside` that does not go with it in every release, and says so nowhere.
        trial: Python that ends well where the two go together.
    """

    name: str
    module: str
    wheels: tuple[str, ...] = ()
    beside: tuple[str, ...] = ("numpy",)
    alias: str = ""
    partner: str = ""
    trial: str = ""

    def requirements(self, version: str, *, build: bool = False) -> list[str]:
        """Return what to install for one release; with `build` source archives may be built."""
        names = (self.name,) if build or not self.wheels else self.wheels
        return [*(f"{name}=={version}" for name in names), *self.beside]

    @property
    def listed(self) -> str:
        """The package whose releases are listed."""
        return self.wheels[-1] if self.wheels else self.name


def _tensorrt(name: str, module: str) -> Package:
    held = name if "cu1" in name else f"{name}-cu13"
    wheels = (f"{held}-libs", f"{held}-bindings")
    return Package(name, f"{module}_bindings", wheels, alias=module)


_ALL = (
    _tensorrt("tensorrt-rtx", "tensorrt_rtx"),
    Package("tensorrt", "tensorrt"),
    _tensorrt("tensorrt-cu12", "tensorrt"),
    _tensorrt("tensorrt-cu13", "tensorrt"),
    Package("onnxruntime", "onnxruntime"),
    Package("onnxruntime-gpu", "onnxruntime"),
    Package("onnxruntime-openvino", "onnxruntime"),
    Package(
        _PLUGIN,
        "onnxruntime_ep_openvino",
        beside=("onnxruntime", "numpy"),
        partner="onnxruntime",
        trial=_PLUGIN_TRIAL,
    ),
    Package(_OPENVINO, "openvino"),
)
PACKAGES = {package.name: package for package in _ALL}
_FOR = {
    "tensorrt-rtx": ("tensorrt-rtx",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "openvino": (_PLUGIN, "onnxruntime-openvino", _OPENVINO),
    "ort": ("onnxruntime", "onnxruntime-gpu"),
}


class Asked(Struct, frozen=True):
    """Releases of a package that are asked for."""

    package: Package
    specifier: SpecifierSet
    text: str

    def among(self, listed: Sequence[str], *, pre: bool = False) -> list[str]:
        """Return those of the listed releases that are asked for, and each that is named, listed or not.

        Pre-releases and yanked ones (which are not listed) on request only: to name one asks for it.
        """
        named = [s.version for s in self.specifier if s.operator == "==" and "*" not in s.version]
        return in_order(
            [*(v for v in listed if self.specifier.contains(v, prereleases=pre or v in named)), *named]
        )


def parsed(version: str) -> Version | None:
    """Return a version; None when it is none."""
    try:
        return Version(version)
    except InvalidVersion:
        return None


def kind_of(spec: str) -> str:
    """Say which row of the table a target belongs to; empty: no package has it."""
    name = spec.partition(":")[0]
    if name == "ort":
        return "openvino" if bare(parse_spec(spec)[0]) == "openvino" else "ort"
    return name if name in _FOR else ""


def default_for(spec: str) -> str:
    """Return the package that has a target. Raises UsageError when none has."""
    kind = kind_of(spec)
    if not kind:
        hint = "give a command for each release with --releases-file"
        raise UsageError(f"no package on an index has the target {spec}", hint)
    return _FOR[kind][0]


def asked_for(text: str, spec: str) -> Asked:
    """Parse `PACKAGE[>=A,<B]`, for a target.

    Raises:
        UsageError: it is no such text, or the package says nothing of that target.
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"--releases {text!r}: {why}", "write it as 'onnxruntime>=1.20,<1.30'") from error
    package = PACKAGES.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
    fitting = _FOR.get(kind_of(spec), ())
    if package is None or package.name not in fitting:
        known = ", ".join(fitting) or "none; give commands with --releases-file"
        why = f"--releases {requirement.name}: it says nothing of the target {spec}"
        raise UsageError(why, f"packages: {known}")
    if requirement.url or requirement.extras or requirement.marker:
        raise UsageError(f"--releases {text!r}: only a package and versions can be asked for")
    return Asked(package, requirement.specifier, text)


def newest_of_lines(versions: Sequence[str]) -> list[str]:
    """Return the newest release of each line (1.31.x, 1.30.x, ...), the newest line first."""
    lines: dict[tuple[int, int], str] = {}
    for text in in_order(versions):
        found = parsed(text)
        assert found is not None
        lines[found.major, found.minor] = text
    return [lines[key] for key in sorted(lines, reverse=True)]


def by_its_own_api(package: Package | None) -> bool:
    """Return whether a package is asked through its own interface, not through ONNX Runtime's."""
    return package is not None and package.name == _OPENVINO


def plugin_of(package: Package) -> Plugin | None:
    """Return the plugin with a provider that an environment with this package has.

    None: it is built in, or none.
    """
    if package.name == _PLUGIN:
        return Plugin(package.name, "", "openvino", package.module)
    return None


def in_order(versions: Sequence[str]) -> list[str]:
    """Sort from the oldest to the newest; what is no version is left out."""
    pairs = [(found, text) for text in dict.fromkeys(versions) if (found := parsed(text)) is not None]
    return [text for _, text in sorted(pairs)]
