"""What is in a network and in an engine: types of tensors, layers, tactics.

Looking into an engine: the tensors that fusion has left, under the names that the engine gives them.

`mark_unfused_tensors_as_debug_tensors` (late TensorRT 10, TensorRT-RTX) leaves fusion alone, which
`mark_debug` does not; its tensors have a switch of their own on the context. Polygraphy's runner brings the
listener that copies them. Whatever is missing leaves the engine as it would be without.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bisect_trt.outcome import Array, Built
from bisect_trt.targets.tensorrt.tactics import number

_KNOWN = re.compile(r'"(Name|LayerType|TacticName|TacticValue)"\s*:\s*"([^"]*)"')
TIMED_RUNS = 30
TIMED_SECONDS = 1.0
SHOWN_LAYERS = 200  # layers of an engine that are kept with an outcome


def timed(runner: Any, feeds: Mapping[str, Any]) -> float:
    """Return the median seconds of runs with copies of inputs and outputs, in about a second at most."""
    from statistics import median  # 2 ms, for a process that times nothing

    began, seconds = time.monotonic(), list[float]()
    while not seconds or (len(seconds) < TIMED_RUNS and time.monotonic() - began < TIMED_SECONDS):
        runner.infer(feeds, check_inputs=False)
        seconds.append(runner.last_inference_time())
    return median(seconds)


def network_types(network: Any) -> dict[str, int]:
    """Return how many layers of a parsed network have each output type: `{"HALF": 120}`."""
    found: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            output = layer.get_output(0)
            if output is not None:
                found[output.dtype.name] += 1
    return dict(found.most_common())


def network_outputs(network: Any) -> list[tuple[str, str, list[int] | None]]:
    """Return name, type and shape of every output of a parsed network, as plain data; -1 is any size."""
    found: list[tuple[str, str, list[int] | None]] = []
    for index in range(network.num_outputs):
        tensor = network.get_output(index)
        try:
            shape = [int(size) for size in tensor.shape]
        except (ValueError, TypeError, RuntimeError):  # known only after the build, or TensorRT cannot tell
            shape = None
        found.append((tensor.name, tensor.dtype.name, shape))
    return found


def built_words(built: Built) -> str:
    """Say in which types a model was really built; empty when the target does not say."""
    words = []
    if built.cast:
        words.append(_cast_words(**built.cast))
    for what, types in (("network", built.network_types), ("engine", built.engine.get("types"))):
        if types:
            listed = ", ".join(f"{kind} {n}" for kind, n in types.items())
            words.append(f"types of the {what}: {listed} (layers)")
    return f"Built with {'; '.join(words)}." if words else ""


def _cast_words(narrow_nodes: int, float32_nodes: Mapping[str, int], clamped_weights: int) -> str:
    words = [f"{narrow_nodes} nodes cast"]
    if float32_nodes:
        words.append("in float32 " + ", ".join(f"{op} {n}" for op, n in float32_nodes.items()))
    if clamped_weights:
        words.append(f"{clamped_weights} values of weights beyond its range made its largest value")
    return ", ".join(words)


def engine_layers(trt: Any, engine: Any) -> dict[str, Any]:
    """Return layers of an engine with type and tactic, as far as the inspector shows them; for the report.

    Returns:
        `layers`: how many; `shown`: the first `SHOWN_LAYERS`; `types`: of their outputs, with numbers.
    """
    inspector = engine.create_engine_inspector()
    form = trt.LayerInformationFormat.JSON
    try:
        layers = json.loads(inspector.get_engine_information(form)).get("Layers", [])
    except AttributeError:  # nothing
        return {}
    except ValueError:  # 8.6 writes some layers so that nobody can read them, and all that follows with them
        layers = [_by_itself(inspector, form, index) for index in range(engine.num_layers)]
    found = [_layer(layer) for layer in layers]
    types = Counter(kind for known in found for kind in known.get("types", ()))
    return {"layers": len(found), "types": dict(types.most_common()), "shown": found[:SHOWN_LAYERS]}


def _by_itself(inspector: Any, form: Any, index: int) -> Any:
    """Return one layer of the inspector's answer; of an answer that is not JSON what can be read."""
    text = inspector.get_layer_information(index, form)
    try:
        return json.loads(text)
    except ValueError:
        return dict(_KNOWN.findall(text)) or text.strip()


def _layer(data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        return {"name": str(data)}
    outputs = [item for item in data.get("Outputs", ()) if isinstance(item, Mapping)]
    tactic = data.get("TacticName") or data.get("TacticValue") or ""
    return {
        "name": str(data.get("Name", "")),
        "kind": str(data.get("LayerType", "")),
        "tactic": str(tactic),
        "number": _number(data.get("TacticValue")),
        "types": [str(item.get("Datatype") or item.get("Format/Datatype", "")) for item in outputs],
    }


def _number(value: Any) -> str:
    """Return the number of a tactic, as `tactics.number` writes it; empty where a layer has none."""
    try:
        return number(int(str(value), 16))
    except ValueError:
        return ""


def mark(network: Any) -> bool:
    """Ask for the tensors inside, before the build. False: this TensorRT cannot, or does not."""
    ask = getattr(network, "mark_unfused_tensors_as_debug_tensors", None)
    return ask is not None and bool(ask())


def switch_on(context: Any) -> None:
    """Have marked tensors shown; the runner that made the context has set its listener already."""
    if hasattr(context, "unfused_tensors_debug_state"):
        context.unfused_tensors_debug_state = True


def inside(given: Mapping[str, Any], outputs: Iterable[str], precision: str = "") -> dict[str, Array]:
    """Return what a run gave besides the outputs of the model; only what numpy has a type for.

    The narrow twin of a tensor (see `model.precision`) goes by the name of that.
    """
    known = set(outputs)
    twin = f"__{precision}" if precision else ""
    return {
        name.removesuffix(twin): np.array(value)
        for name, value in given.items()
        if name not in known and isinstance(value, np.ndarray)
    }
