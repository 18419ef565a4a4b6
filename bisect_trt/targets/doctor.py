"""`doctor`: what can be used on this machine, and for what cannot: why, and how to get it."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from bisect_trt._version import __version__
from bisect_trt.errors import BisectError
from bisect_trt.machine.environment import ABSENT, Environment, describe, version
from bisect_trt.machine.process import Answer, EndedError, WorkerProcess
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.registry import TABLE, open_target

T = TypeVar("T")

_SECONDS = 120.0  # for libraries of gigabytes on a cold, slow disk
_ENDING = 5.0  # seconds that a process may take to end
_TARGETS, _PROVIDERS, _LIBRARIES, _MACHINE = "Targets", "ONNX Runtime providers", "Libraries", "Machine"
_KNOWN = ("onnx", "onnxruntime", "numpy", "onnx-graphsurgeon", "polygraphy", "networkx")
_NEEDS_GPU = "builds work without one; running engines needs an NVIDIA GPU and its driver"


class Row(Struct, frozen=True):
    """One finding. `usable` is None for what is neither good nor bad; `hint` says how to get it."""

    group: str
    name: str
    usable: bool | None
    detail: str
    hint: str = ""


def diagnose() -> list[Row]:
    """Look at targets, providers, libraries and the machine; takes seconds, never raises.

    Heavy libraries are loaded in other processes: one that crashes or hangs is a finding as well.
    """
    return [*_targets(), *_providers(), *_libraries(), *_machine(describe())]


def _targets() -> list[Row]:
    found = apart(tried_targets)
    if isinstance(found, str):
        hint = "reinstall the library that was tried last"
        return [Row(_TARGETS, "all", False, f"trying them {found}", hint)]
    return found


def tried_targets() -> list[Row]:
    """Try every target for real. Imports heavy libraries: call it in a worker or a subprocess."""
    rows = []
    for name, entry in TABLE.items():
        if name == "planted":  # for tests of the search
            continue
        try:
            info = open_target(TargetSettings(spec=entry.trial or name)).info()
        except BisectError as e:
            how = e.hint if entry.installed() and e.hint else entry.how_to_get
            rows.append(Row(_TARGETS, name, False, e.message, how))
        else:
            # A command that was tried is our own: what counts is that yours can be given.
            title = f"{entry.title}: --target '{name}:PROGRAM {{model}}'" if name == "command" else info.title
            rows.append(Row(_TARGETS, name, True, " ".join((title, *(() if entry.argument else info.notes)))))
    return rows


def _providers() -> list[Row]:
    found = apart(_available_providers)
    if isinstance(found, str):
        hint = "pip install --force-reinstall onnxruntime"
        return [Row(_PROVIDERS, "onnxruntime", False, f"asking it {found}", hint)]
    return [Row(_PROVIDERS, name, True, "") for name in found]


def _available_providers() -> list[str]:
    from bisect_trt.references import ort as reference  # the one module that imports onnxruntime

    return list(reference.ort.get_available_providers())  # type: ignore[attr-defined]


def _libraries() -> list[Row]:
    rows = [Row(_LIBRARIES, "bisect-trt", None, __version__)]
    for name in _KNOWN:
        found = version(name)
        usable, hint = (False, f"pip install {name}") if found == ABSENT else (None, "")
        rows.append(Row(_LIBRARIES, name, usable, found, hint))
    return rows


def _machine(machine: Environment) -> list[Row]:
    gpu = machine.gpu != ABSENT
    return [
        Row(_MACHINE, "GPU", gpu, machine.gpu, "" if gpu else _NEEDS_GPU),
        Row(_MACHINE, "driver", None, machine.driver),
        Row(_MACHINE, "CUDA", None, machine.cuda),
        Row(_MACHINE, "system", None, f"{machine.system}, {machine.container}"),
        Row(_MACHINE, "Python", None, machine.python),
    ]


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    """Run a job, in the process; whatever it raises is reported, as this is a diagnosis."""
    try:
        return True, pickle.dumps(function(*arguments)), 0.0
    except Exception as error:
        return False, pickle.dumps(f"failed: {type(error).__name__}: {error}"), 0.0


def _nothing() -> None:
    """Prepare nothing: the process is to be as any other one."""


def apart(function: Callable[[], T], seconds: float = _SECONDS) -> T | str:
    """Return the answer of a function that was called in a fresh process, or what became of that process."""
    worker = WorkerProcess(multiprocessing.get_context("spawn"), _call, _nothing, ())
    try:
        answer = worker.do((function, ()), seconds)
    except TimeoutError:
        return f"took more than {seconds:g} s"
    except EndedError:
        return f"ended the process (exit code {worker.exit_code(_ENDING)})"
    except Exception as error:  # it cannot be sent there
        return f"failed: {type(error).__name__}: {error}"
    finally:
        worker.end()
    found: T | str = pickle.loads(answer[1])  # from a process of ours
    return found
