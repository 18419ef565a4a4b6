"""`ort:PROVIDER[?OPTION=VALUE&...]`: any execution provider of ONNX Runtime, built in or a plugin.

The CPU provider may not step in (`session.disable_cpu_ep_fallback`): what PROVIDER does not take is a
failure of stage build, one for each operator. Graph optimisations stay as ONNX Runtime has them by
default, since that is what people run. PROVIDER is written as ONNX Runtime writes it or without
`ExecutionProvider`, in any case. In options, `%XX` stands for a character (`%26` for `&`).

A plugin's device is chosen by `device_type` (`cpu`, `gpu`, `npu`) and `device_id` (0 is the first of
that type); by default it is the first that ONNX Runtime lists. Built-in providers get these two as
they are. Plugins may ignore options that they do not know without a word.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import onnx

from bisect_trt.errors import BisectError, TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import is_onnx
from bisect_trt.model.load import read_without_weights
from bisect_trt.outcome import Failure, Stage
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.base import TargetInfo, TargetResult, announce, fed
from bisect_trt.targets.narrow import Narrower, Source
from bisect_trt.targets.ort import ep_libraries
from bisect_trt.targets.ort.messages import essence, failures, refusal, session_of
from bisect_trt.targets.ort.timed import OrtTimed

_CPU = "CPUExecutionProvider"
_RECORD, _SPIN = "session.record_ep_graph_assignment_info", "session.intra_op.allow_spinning"
_NO_FALLBACK, _REFUSED = "session.disable_cpu_ep_fallback", "fallback to CPU EP has been explicitly disabled"
_TRIAL = '<ir_version: 8, opset_import: ["": 13]> trial (float[1] x) => (float[1] y) { y = Relu(x) }'
_TRIED: set[tuple[object, ...]] = set()  # names and options of providers that load in this process
_ON_NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Return the provider and options of `ort:PROVIDER[?OPTION=VALUE&...]`.

    Raises:
        UsageError: no provider, or an option without `=`.
    """
    provider, _, query = spec.partition(":")[2].partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    if not provider or any(not equals or not key for key, equals, _ in pairs):
        raise UsageError(f"target {spec!r} is not written 'ort:PROVIDER[?OPTION=VALUE&...]'")
    return provider, {unquote(key): unquote(value) for key, _, value in pairs}


class OrtProvider:
    """An execution provider as a target, see `targets.base.Target`."""

    def __init__(self, settings: TargetSettings) -> None:
        """Find the provider and load its library; unless it runs on the CPU it is tried on one node.

        Raises:
            UsageError: unknown provider or device, wrong option, wrong `--ep-library`.
            TargetUnavailable: the provider's package is missing, or it does not work here.
        """
        self._named, self._options = parse_spec(settings.spec)
        try:
            self._ort: Any = importlib.import_module("onnxruntime")
        except ImportError as e:
            raise TargetUnavailable(
                f"ONNX Runtime cannot be used: {e}", "Install it with: pip install onnxruntime"
            ) from e
        self._settings = settings
        self._library: tuple[str, Path] | None = None
        self._plugin = True
        self._narrower = Narrower(settings.precision)
        decisions = (d for d in settings.decisions if d[0] in ("provider", "openvino"))
        self._own = (settings.spec, settings.ep_libraries, *decisions)  # what loading it hangs on
        self.name = self._find()
        self._device, kind = "", "CPU" if self.name == _CPU else ""
        if self._plugin:
            chosen = self._devices()[0]
            kind = chosen.device.type.name
            self._device = f"{kind} ({chosen.ep_metadata.get('FULL_DEVICE_NAME') or chosen.device.vendor})"
        if kind != "CPU":  # an error of a card may stay in the process, and would be the trial's as well
            self._require_loads()

    def info(self) -> TargetInfo:
        """Describe the provider, its device and ONNX Runtime. Raises UsageError, TargetUnavailable."""
        self._require_loads()
        runtime = str(self._ort.__version__)
        versions = {"onnxruntime": runtime}
        if self._plugin:
            versions[self.name] = str(self._devices()[0].ep_metadata.get("version", "unknown"))
        card = gpu.find_gpu() if self.name in _ON_NVIDIA else None
        device = self._device or (card.name if card else "")
        notes = [f"Options: {self._options}."] if self._options else []
        if self._settings.precision:
            notes.append(f"--precision {self._settings.precision}: the model gets casts to it.")
            if self.name == _CPU:
                notes.append("The CPU provider computes much of it in float32; emulate: rounds every tensor.")
        return TargetInfo(
            name=f"ort:{self.name}",
            title=f"ONNX Runtime {runtime}, {self.name}{f' on {device}' if device else ''}",
            can_run=True,
            notes=tuple(notes),
            versions=versions | dict(card.versions() if card else {}),
        )

    def run(self, candidate: Candidate) -> TargetResult:
        """Build the candidate on the provider alone and run it on each of its samples.

        Raises:
            UsageError: `--precision` for a model that does not compute in float32, or a wrong option.
            TargetUnavailable: the provider does not work here.
        """
        from bisect_trt.references.ort import given_by, lacks, tensors

        source, feeds = self._narrower.source(candidate), fed(candidate)
        if lacking := [why for sample in feeds for value in sample.values() if (why := lacks(value))]:
            return TargetResult(unresolved=f"an {lacking[0]}", facts=source.facts)
        announce(Stage.BUILD)
        try:
            session = self._session(source, self.name != _CPU)
        except BisectError:
            raise
        except Exception as e:  # ONNX Runtime's exceptions have no common base but this
            return self._not_built(source, str(e))
        announce(Stage.RUN)
        try:  # what is no tensor (a sequence, an optional) is left out
            outputs = tuple(tensors(given_by(session, sample)) for sample in feeds)
            return TargetResult(outputs=outputs, facts=source.facts)
        except Exception as e:  # as above
            failed = self._failures(candidate, Stage.RUN, str(e))
            return TargetResult(failures=failed, log=str(e), facts=source.facts)

    def timed(self, candidate: Candidate, graph: bool = False) -> OrtTimed:
        """Build the candidate as it is deployed. Raises FailedError, UsageError."""
        make = partial(self._session, self._narrower.source(candidate), self.name != _CPU)
        return OrtTimed(make, candidate, on_gpu=self.name in _ON_NVIDIA, graph=graph)

    def _failures(self, candidate: Candidate, stage: Stage, message: str) -> tuple[Failure, ...]:
        gpu.heed(message)
        return failures(candidate, stage, message)

    # Finding the provider

    def _find(self) -> str:
        """Return the provider's own name; its library is registered."""
        for name, path in self._settings.ep_libraries:
            ep_libraries.register(self._ort, name, path, given=True)
            for ep_name in [d.ep_name for d in self._ort.get_ep_devices() if _made_by(d, path)]:
                if ep_libraries.bare(self._named) in (ep_libraries.bare(name), ep_libraries.bare(ep_name)):
                    self._library = (name, path)
                    return str(ep_name)
            if ep_libraries.bare(self._named) == ep_libraries.bare(name):
                raise self._no_device(str(path))
        # Plugins that are registered already are among the available providers, too.
        listed = self._match([d.ep_name for d in self._all_devices() if d.ep_name != _CPU])
        built_in = self._match(self._ort.get_available_providers())
        self._plugin = bool(listed) or not built_in
        return listed or built_in or self._find_packaged()

    def _find_packaged(self) -> str:
        package = ep_libraries.find_package(self._named.partition(".")[0])
        if package is None:
            raise self._unknown()
        module = importlib.import_module(package.module)
        names = module.get_ep_names() if hasattr(module, "get_ep_names") else []
        name = str(names[0]) if names else self._named  # under which the package wants to be registered
        self._library = (name, ep_libraries.library_of(package))
        ep_libraries.register(self._ort, *self._library, given=False)
        listed = self._match([d.ep_name for d in self._all_devices()])
        if not listed:
            raise self._no_device(package.distribution)
        return listed

    def _match(self, names: Sequence[str]) -> str:
        return next((n for n in names if ep_libraries.bare(n) == ep_libraries.bare(self._named)), "")

    def _all_devices(self) -> Sequence[Any]:
        return self._ort.get_ep_devices() if hasattr(self._ort, "get_ep_devices") else ()

    def _unknown(self) -> UsageError | TargetUnavailable:
        package = ep_libraries.PACKAGES.get(ep_libraries.bare(self._named))
        if package:
            return TargetUnavailable(
                f"{self._named}: this ONNX Runtime does not have it, and no package with it is installed",
                f"Install it with: pip install {package}",
            )
        there = [*self._ort.get_available_providers(), *(p.provider for p in ep_libraries.packages())]
        there += [name for name, _ in self._settings.ep_libraries]
        return UsageError(
            f"unknown execution provider {self._named!r}",
            f"Available: {', '.join(dict.fromkeys(there))}. Give a plugin by --ep-library NAME=PATH.",
        )

    def _no_device(self, library: str) -> TargetUnavailable:
        seen = dict.fromkeys(f"{d.device.type.name} {d.device.vendor}" for d in self._all_devices())
        hint = "It needs other hardware or a driver."
        if "openvino" in library.lower():
            hint = "It takes Intel devices only; onnxruntime-openvino has the provider built in, for any CPU."
        return TargetUnavailable(
            f"{library} offers no device for {self._named} here (there is: {', '.join(seen)})", hint
        )

    def _devices(self) -> list[Any]:
        """Return the plugin's devices, the chosen one first. Never kept: another instance may unload them."""
        if self._library is not None:
            given = self._library in self._settings.ep_libraries
            ep_libraries.register(self._ort, *self._library, given=given)
        mine = [d for d in self._all_devices() if d.ep_name == self.name]
        kind, index = self._options.get("device_type", ""), self._options.get("device_id", "0")
        fitting = [d for d in mine if kind.upper() in ("", d.device.type.name)]
        if not index.isdecimal() or int(index) >= len(fitting):
            there = ", ".join(d.device.type.name.lower() for d in mine)
            raise UsageError(
                f"{self.name} has no device {kind or 'of any type'} number {index}", f"Its devices: {there}."
            )
        return fitting[int(index) :]

    # Sessions

    def _session(self, source: Source, strict: bool, record: bool = False, tune: Any = None) -> Any:
        """Return a session; where it is none of this provider, a trial tells whose fault that is."""
        try:
            made = self._made(source, strict, record, tune)
        except Exception:  # ONNX Runtime's exceptions have no common base but this
            self._require_loads()
            raise
        if self.name in made.get_providers():
            _TRIED.add(self._own)
        self._require_loads()
        return made

    def _made(self, source: Source, strict: bool, record: bool = False, tune: Any = None) -> Any:
        from bisect_trt.references.ort import FOLDER_KEY, custom_ops

        options = self._ort.SessionOptions()
        options.log_severity_level = 3  # errors; they go to the worker's log
        options.add_session_config_entry(_SPIN, "0")  # threads that wait burn what others need
        if tune is not None:
            tune(options)
        options.add_session_config_entry(FOLDER_KEY, str(source.folder.absolute()))
        for library in custom_ops():
            options.register_custom_ops_library(str(library.absolute()))
        if strict:
            options.add_session_config_entry(_NO_FALLBACK, "1")
        more = self._decide(options)
        if record:
            options.add_session_config_entry(_RECORD, "1")
        if not self._plugin:
            providers = [(self.name, self._own_options())]
            more |= {"providers": providers, "enable_fallback": 0}
            return session_of(self._ort, source, options, **more)
        rest = {k: v for k, v in self._own_options().items() if k not in ("device_type", "device_id")}
        options.add_provider_for_devices(self._devices()[:1], rest)
        return session_of(self._ort, source, options, **more)

    def _decide(self, options: Any) -> dict[str, Any]:
        """Decide otherwise what `targets.ort.knobs` says, and return further arguments of a session."""
        disabled = []
        for key, value in self._settings.decisions:
            name, _, given = value.partition("=")
            if key == "optimizer":
                disabled.append(value)
            elif key == "config":
                options.add_session_config_entry(name, given)
            elif key == "option":
                setattr(options, name, int(given) if given.isdecimal() else given == "True")
            elif key == "level":
                options.graph_optimization_level = getattr(self._ort.GraphOptimizationLevel, value)
        return {"disabled_optimizers": disabled} if disabled else {}

    def _own_options(self) -> dict[str, str]:
        """Return the options of the provider, with those that are to be decided otherwise."""
        found = dict(self._options)
        properties: dict[str, Any] = json.loads(found.get("load_config") or "{}")
        for key, value in self._settings.decisions:
            name, _, given = value.partition("=")
            if key == "provider":
                found[name] = given
            elif key == "openvino":
                properties.setdefault("CPU", {})[name] = given
                found["load_config"] = json.dumps(properties)
        return found

    def _require_loads(self) -> None:
        """Try the provider on one node unless it has run here. Raises UsageError, TargetUnavailable."""
        if self._own not in _TRIED:
            self._try_out()
            _TRIED.add(self._own)

    def _try_out(self) -> None:
        """Try a provider: one that does not load leaves its nodes to the CPU, with a line in the log."""
        model = onnx.parser.parse_model(_TRIAL)
        try:
            trial = Candidate(model.SerializeToString(), Path(), ())
            loaded = self._made(Source(trial, trial.model, trial.folder), strict=False).get_providers()
        except UsageError:
            raise
        except Exception as e:  # ONNX Runtime's exceptions have no common base but this
            why = essence(str(e))
            if self._options:
                options, self._options = self._options, {}
                self._try_out()  # raises when the options are not to blame
                raise UsageError(f"{self.name} does not take the options {options}: {why}") from e
            raise TargetUnavailable(f"{self.name} cannot be used here: {why}") from e
        if self.name not in loaded:
            raise TargetUnavailable(
                f"{self.name} does not load here", "A library or a driver that it needs is missing."
            )

    def _not_built(self, source: Source, message: str) -> TargetResult:
        refused = self._not_taken(source) if _REFUSED in message else {}
        if not refused:
            failed = self._failures(source.candidate, Stage.BUILD, message)
            return TargetResult(failures=failed, log=message, facts=source.facts)
        found = tuple(refusal(f"{self.name} does not take {op}", op, nodes) for op, nodes in refused.items())
        facts = source.facts | {"not_taken": {op: len(nodes) for op, nodes in refused.items()}}
        return TargetResult(failures=found, log=message, facts=facts)

    def _not_taken(self, source: Source) -> dict[str, list[str]]:
        """Return operators that go to other providers, with the candidate's nodes; {} when ORT does not say.

        Those of bodies come last: they follow their node.
        """
        try:
            session = self._session(source, strict=False, record=True)
            parts = session.get_provider_graph_assignment_info()
        except Exception:  # ONNX Runtime before 1.24, or it fails on the way: the message has to do
            return {}
        known = {node.name for node in read_without_weights(source.candidate.content).graph.node}
        refused: dict[str, list[str]] = {}
        for part in parts:
            for node in part.get_nodes() if part.ep_name != self.name else ():
                op = node.op_type if is_onnx(node.domain) else f"{node.domain}.{node.op_type}"
                names = refused.setdefault(op, [])
                if node.name in known:
                    names.append(node.name)
        return dict(sorted(refused.items(), key=lambda item: (not item[1], item[0])))


def _made_by(device: Any, library: Path) -> bool:
    return Path(device.ep_metadata.get("library_path", "")).resolve() == library.resolve()
