"""A TensorRT that has exactly the names of a snapshot, and does nothing: an adapter may not ask for more.

An attribute that the real module lacks is an AttributeError here, too, to read and to set.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DATA = Path(__file__).parent / "data" / "trt_api"


def snapshots(flavour: str = "") -> dict[str, dict[str, Any]]:
    """All snapshots, or those of `tensorrt`, `tensorrt-rtx` or `tensorrt-lean`, by file name."""
    found = {file.stem: json.loads(file.read_text()) for file in DATA.glob("*.json")}
    return {k: v for k, v in found.items() if not flavour or k.rpartition("-")[0] == flavour}


class Fake:
    """Stands for the module `trt`; `refused` names nodes that its parser refuses."""

    def __init__(self, snapshot: dict[str, Any], name: str, *, refuses: bool = False) -> None:
        self.__name__ = name
        self.__version__ = snapshot["version"]
        self.classes = snapshot["classes"]
        self.flags: set[object] = set()
        self.refuses = refuses
        self.monitor: Any = None
        for known in snapshot["names"]:
            setattr(self, known, lambda *args, **kwargs: None)
        for kind, members in self.classes.items():
            made = type(
                kind, (), {m: _stub(m) for m in members} | {"__setattr__": _strict, "__init__": _init}
            )
            if "name" in members and "value" in members:  # an enum of pybind11
                for k, member in enumerate(members):
                    setattr(made, member, _Enumerator(k, member))
            if "." not in kind:
                setattr(self, kind, made)
        self.float32, self.float16, self.int32 = "float32", "float16", "int32"
        self._behave()

    def make(self, kind: str, **values: Any) -> Any:
        """An object of a class of the snapshot; every value has to be a member of it."""
        made = object.__new__(getattr(self, kind))
        for name, value in values.items():
            if name in self.classes[kind]:
                object.__setattr__(made, name, value)
        return made

    def _behave(self) -> None:
        tensor = self.make(
            "ITensor", name="x", shape=(-1, 3), is_shape_tensor=False, dtype=SimpleNamespace(name="HALF")
        )
        output = self.make("ITensor", name="y", shape=(-1, 3), dtype=SimpleNamespace(name="FLOAT"))
        layer = self.make("ILayer", num_outputs=1, get_output=lambda k: tensor)
        network = self.make(
            "INetworkDefinition",
            num_inputs=1,
            num_layers=2,
            get_input=lambda k: tensor,
            num_outputs=1,
            get_output=lambda k: output,
            get_layer=lambda k: layer,
            mark_unfused_tensors_as_debug_tensors=lambda: True,
        )
        config = self.make("IBuilderConfig", builder_optimization_level=3)
        for name, value in {
            "set_flag": self.flags.add,
            "clear_flag": self.flags.discard,
            "create_timing_cache": lambda data: self.make("ITimingCache", serialize=lambda: b"timing"),
            "get_timing_cache": lambda: self.make("ITimingCache", serialize=lambda: b"timing"),
        }.items():
            object.__setattr__(config, name, value)

        def build(network: Any, config: Any) -> Any:
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building engine", None, 2)
                assert monitor.step_complete("Building engine", 0)
                monitor.phase_finish("Building engine")
            return self.make("IHostMemory", nbytes=7)

        builder = {
            "create_network": lambda flags: network,
            "create_builder_config": lambda: config,
            "create_optimization_profile": lambda: self.make("IOptimizationProfile"),
            "build_serialized_network": build,
        }
        self.Builder.__new__ = lambda kind, logger: self.make("Builder", **builder)  # type: ignore[attr-defined]
        if "OnnxParser" in self.classes:
            self._behave_as_parser()
        inspector = self.make(
            "EngineInspector", get_engine_information=lambda form: '{"Layers": [{"Name": "l"}]}'
        )
        engine = self.make(
            "ICudaEngine", create_engine_inspector=lambda: inspector, get_tensor_dtype=lambda name: "float32"
        )
        loads = {"deserialize_cuda_engine": lambda plan: engine}
        self.Runtime.__new__ = lambda kind, logger: self.make("Runtime", **loads)  # type: ignore[attr-defined]

    def _behave_as_parser(self) -> None:
        details = {
            "code": lambda: SimpleNamespace(name="UNSUPPORTED_NODE"),
            "desc": lambda: "no such thing",
            "node": lambda: 0,
            "node_name": lambda: "r",
            "node_operator": lambda: "Relu",
            "func": lambda: "f",
            "file": lambda: "a.cpp",
            "line": lambda: 3,
            "local_function_stack": list,
        }
        error = self.make("ParserError", **details)
        parser = {
            "parse": lambda model, path: not self.refuses,
            "num_errors": int(self.refuses),
            "get_error": lambda k: error,
        }
        self.OnnxParser.__new__ = lambda kind, network, logger: self.make("OnnxParser", **parser)  # type: ignore[attr-defined]


def config_of(fake: Fake) -> Any:
    """The configuration that all its builders hand out."""
    return fake.Builder(None).create_builder_config()  # type: ignore[attr-defined]


class _Enumerator(int):
    def __new__(cls, value: int, name: str) -> _Enumerator:
        made = super().__new__(cls, value)
        made.name = name  # type: ignore[attr-defined]
        return made


def _stub(name: str) -> Any:
    return lambda self, *args, **kwargs: None


def _init(self: object, *args: object) -> None:
    return None


def _strict(self: object, name: str, value: object) -> None:
    if not hasattr(type(self), name) and type(self).__mro__[1] is object:
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")
    object.__setattr__(self, name, value)
