"""All targets by name. A new one is a line in `TABLE`."""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.environment import INSTALL
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import Target
from bisect_trt.targets.knobs import Knob

AUTO = "auto"


class Entry(Struct, frozen=True):
    """A row of the table.

    Attributes:
        title: for people.
        made_by: the class of the target, below this package; imported in workers only.
        how_to_get: the command that makes the target usable.
        argument: what follows `NAME:`; empty when nothing does.
        trial: a spec to try by `doctor`.
        installed: cheap look for the target's module; nothing heavy is imported.
        heavy: importing the class imports a library of the target.
    """

    title: str
    made_by: str
    how_to_get: str = ""
    argument: str = ""
    trial: str = ""
    installed: Callable[[], bool] = lambda: True
    heavy: bool = False


def _has_tensorrt() -> bool:
    """Return whether `tensorrt` is there with its bindings: PyPI's own `tensorrt` is a stub without them."""
    spec = importlib.util.find_spec("tensorrt")
    if spec is None:
        return False
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    bindings = importlib.util.find_spec("tensorrt_bindings") is not None
    return bindings or any(next(place.glob("tensorrt*.[sp][oy]*"), None) for place in places)


def _has_tensorrt_rtx() -> bool:
    return importlib.util.find_spec("tensorrt_rtx") is not None


TABLE: dict[str, Entry] = {
    "tensorrt": Entry("TensorRT", "tensorrt.backend:TensorRT", INSTALL["tensorrt"], installed=_has_tensorrt),
    "tensorrt-rtx": Entry(
        "TensorRT-RTX", "tensorrt.backend:TensorRT", INSTALL["tensorrt-rtx"], installed=_has_tensorrt_rtx
    ),
    "planted": Entry(
        "ONNX Runtime with planted faults",
        "planted:Planted",
        argument="SPEC",
        trial="planted:op=Example",
        heavy=True,
    ),
    "ort": Entry(
        "ONNX Runtime's execution providers",
        "ort.provider:OrtProvider",
        INSTALL["onnxruntime"],
        argument="PROVIDER[?OPTION=VALUE&...]",
        trial="ort:CPU",
    ),
    "emulate": Entry(
        "A precision emulated on the CPU",
        "emulate.backend:Emulate",
        argument="fp16|bf16|tf32|fp8|int8",
        trial="emulate:fp16",
    ),
    "command": Entry(
        "A program of yours",
        "command:Command",
        argument="CMD",
        trial=f"command:{shlex.quote(sys.executable)} {{model}}",
    ),
}


def resolve(spec: str) -> str:
    """Return the spec with `auto` replaced and the name checked. Cheap: nothing heavy is imported.

    Raises:
        UsageError: no target has that name, or its argument is missing.
        TargetUnavailable: `auto`, and neither TensorRT nor TensorRT-RTX is installed.
    """
    if spec == AUTO:
        for name in ("tensorrt", "tensorrt-rtx"):
            if TABLE[name].installed():
                return name
        raise TargetUnavailable(
            "neither TensorRT nor TensorRT-RTX is installed",
            f"{INSTALL['tensorrt-rtx']} (it builds without a GPU), or {INSTALL['tensorrt']}; or try "
            "--target emulate:fp16, which needs neither",
        )
    _entry(spec)
    return spec


def code_of(spec: str) -> str:
    """Return the module of a target's class where its import is light; of TensorRT's else."""
    entry = TABLE.get(spec.partition(":")[0], TABLE["tensorrt"])
    made_by = TABLE["tensorrt"].made_by if entry.heavy else entry.made_by
    return f"{__package__}.{made_by.partition(':')[0]}"


def open_target(settings: TargetSettings) -> Target:
    """Return the target of `settings.spec`, ready to run. For worker processes.

    Raises:
        UsageError: the spec or an option of the target is wrong.
        TargetUnavailable: the target cannot be used on this machine; says how to get it.
    """
    spec = resolve(settings.spec)
    made: Target = resolve_name(f"{__package__}.{_entry(spec).made_by}")(replace(settings, spec=spec))
    return made


def knobs_of(target: TargetSettings, inside: Sequence[str] = ()) -> tuple[Knob, ...]:
    """Return all knobs of a target that its settings leave at their default.

    `inside` are decisions that the target itself names on this machine: TensorRT's build routes.
    """
    kind = target.spec.partition(":")[0]
    if kind in ("tensorrt", "tensorrt-rtx"):
        from bisect_trt.targets.tensorrt.knobs import knobs

        return knobs(target, inside)
    if kind == "ort":
        from bisect_trt.targets.ort.knobs import knobs as of_ort

        return of_ort(target)
    return ()


def _entry(spec: str) -> Entry:
    name, colon, argument = spec.partition(":")
    entry = TABLE.get(name)
    if entry is None:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), [AUTO, *TABLE], 1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        usable = [AUTO, *(_usage(each) for each in TABLE if each != "planted")]
        raise UsageError(f"unknown target {spec!r}{meant}", f"targets: {', '.join(usable)}")
    if bool(entry.argument) != bool(argument) or bool(colon) != bool(argument):
        said = f"target {spec!r} is not written {_usage(name)}"
        raise UsageError(said, f"such as --target {entry.trial or name}")
    return entry


def _usage(name: str) -> str:
    argument = TABLE[name].argument
    return f"{name}:{argument}" if argument else name
