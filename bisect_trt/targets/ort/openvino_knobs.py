"""What OpenVINO decides about a model on a CPU, as far as its provider lets it be decided otherwise.

They are properties of OpenVINO's CPU plugin, given through `load_config`. Transformations have no switch of
their own but for those below.
"""

from __future__ import annotations

from collections.abc import Mapping

from bisect_trt.targets.knobs import PYTHON, Knob

# Property, value, what it means.
_PROPERTIES = (
    ("INFERENCE_PRECISION_HINT", "f32", "with float32 as the precision of inference"),
    ("EXECUTION_MODE_HINT", "ACCURACY", "in the execution mode ACCURACY"),
    ("SNIPPETS_MODE", "DISABLE", "without snippets (fused subgraphs that are compiled)"),
    ("LP_TRANSFORMS_MODE", "NO", "without low precision transformations"),
    ("CPU_DENORMALS_OPTIMIZATION", "NO", "without denormal numbers as zero"),
    ("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0", "without dynamic quantisation"),
    ("KV_CACHE_PRECISION", "f32", "with a cache of keys and values in float32"),
    ("CPU_RUNTIME_CACHE_CAPACITY", "0", "without a cache of compiled kernels"),
    ("NUM_STREAMS", "1", "with one stream"),
    ("INFERENCE_NUM_THREADS", "1", "with one thread"),
)


def knobs(given: Mapping[str, str]) -> list[Knob]:
    """Return all of them but what `load_config` of the spec names already."""
    told_before = given.get("load_config", "")
    return [_knob(*row) for row in _PROPERTIES if row[0] not in told_before]


def _knob(name: str, value: str, text: str) -> Knob:
    config = f'{{"CPU": {{"{name}": "{value}"}}}}'
    line = f"options.add_provider_for_devices(devices, {{'load_config': '{config}'}})"
    return Knob(name, text, (("openvino", f"{name}={value}"),), paste={PYTHON: line})
