"""`planted:SPEC`: ONNX Runtime on the CPU with faults planted in it.

A public seam: our own tests of the search use it, and so can whoever wants to see what a reduction
does, or to test a pipeline around it, without a TensorRT at hand.

    SPEC   = FAULT [+ FAULT ...]
    FAULT  = KEY=VALUE [, KEY=VALUE ...]        (`,` `+` `=` `%` in a value: `%2C` `%2B` `%3D` `%25`)

Where a fault shows, exactly one of:

    op=Resize         a node with that operator (nodes inside If, Loop and Scan bodies do not count)
    node=NAME         a node of that name
    pair=OPA>OPB      an OPB node with a directed path inside the candidate from an OPA node
    nodes=A;B;C       all of these nodes, anywhere in the candidate
    fused=TENSOR      TENSOR is made and used inside the candidate and is none of its outputs

How it shows:

    fail=error        a Failure (default); crash: a real SIGSEGV; hang: sleeps for ever;
                      oom: allocates until the worker is killed; mismatch: the culprit's outputs x
                      become x + |x| + 1 (unsigned and bool: ~x); nan: they become NaN; both go on downstream
    stage=build       parse, build (default) or run; not for mismatch and nan
    p=0.3             how likely it shows in a probe (default 1)
    seed=7            makes `p` repeatable within one worker (default: the system's randomness)
    message=TEXT      instead of our own; `{node}` stands for the culprit's name
    hint=yes          the failure names the culprit (default: no)

For the whole target, in any fault or as one of its own:

    cost=0.001        seconds that a probe takes for each node, to imitate a slow builder

Of several faults only those of the earliest stage show, as with a real target.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.normalise import unname_twins
from bisect_trt.model.walk import copied
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.references import ort
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetInfo, TargetResult, announce, fed
from bisect_trt.targets.planted_spec import STAGES, Fault, culprits, parse_spec
from bisect_trt.targets.signature import mask
from bisect_trt.targets.tensorrt.blame import Blame

_STEP = 64 * 2**20  # bytes taken at once by fail=oom
_SPARE = 512 * 2**20  # bytes left to the machine when nothing kills us
_SUFFIX = "/planted"

Showing = tuple[Fault, list[int]]
"""A fault and the indices of its culprits."""


class Planted:
    """ONNX Runtime with planted faults, see `targets.base.Target` and the module's own text."""

    def __init__(self, settings: TargetSettings) -> None:
        """Read the SPEC of `settings.spec`.

        Raises:
            UsageError: the SPEC is wrong.
        """
        self._spec_text = settings.spec.partition(":")[2]
        self._spec = parse_spec(self._spec_text)
        self._random: list[random.Random] = [
            random.SystemRandom() if fault.seed is None else random.Random(fault.seed)
            for fault in self._spec.faults
        ]

    def info(self) -> TargetInfo:
        """Describe the runtime and the faults."""
        title = ort.title()
        return TargetInfo(
            name="planted",
            title=f"planted faults on {title}",
            can_run=True,
            notes=(f"Faults are planted on purpose: {self._spec_text}",),
            versions={"onnxruntime": title.split()[-1]},
        )

    def run(self, candidate: Candidate) -> TargetResult:
        """Show the faults that the candidate has, else run it on each of its samples."""
        model = onnx.load_model_from_string(candidate.model)
        unname_twins(model.graph)
        time.sleep(self._spec.cost * len(model.graph.node))
        showing = [
            (fault, found)
            for fault, dice in zip(self._spec.faults, self._random, strict=True)
            if (found := culprits(fault, model.graph)) and (fault.p >= 1 or dice.random() < fault.p)
        ]
        for stage in map(Stage, STAGES):
            announce(stage)
            failures = [_show(f, found, model) for f, found in showing if f.stage is stage and not _late(f)]
            if failures:
                return TargetResult(failures=tuple(failures), log="\n".join(f.message for f in failures))
        return _run(model, candidate, [(f, found) for f, found in showing if _late(f)])


def _late(fault: Fault) -> bool:
    """Return whether the fault changes outputs and nothing else."""
    return fault.fail in ("mismatch", "nan")


def _show(fault: Fault, found: Sequence[int], model: onnx.ModelProto) -> Failure:
    if fault.fail == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while fault.fail == "hang":
        time.sleep(3600)
    if fault.fail == "oom":
        _take_all_memory()
    first = model.graph.node[found[0]]
    message = fault.text.replace("{node}", first.name)
    return Failure(
        stage=fault.stage,
        symptom=Symptom.OUT_OF_MEMORY if fault.fail == "oom" else Symptom.ERROR,
        # Our own text names the fault: two planted faults are two causes, also when both name nodes.
        signature=mask(message, Blame(model).names) if fault.message else message,
        message=message,
        nodes=tuple(model.graph.node[at].name for at in found) if fault.hint else (),
        op=first.op_type if fault.hint else "",
    )


def _take_all_memory() -> None:
    """Hold more and more memory, until we are killed or the machine has hardly any left."""
    held = []
    while psutil.virtual_memory().available > _SPARE + _STEP:
        held.append(np.ones(_STEP, np.uint8))  # ones: the pages are touched
        time.sleep(0.02)


def _run(model: onnx.ModelProto, candidate: Candidate, late: Sequence[Showing]) -> TargetResult:
    try:
        feeds = fed(candidate)
        changed = _corrupted(model, candidate.folder, late) if late and feeds else model
        outputs = ort.run(changed.SerializeToString(), candidate.folder, feeds)
    except ort.OrtError as e:
        message = str(e)
        failure = Failure(Stage.RUN, Symptom.ERROR, mask(message, Blame(model).names), message)
        return TargetResult(failures=(failure,), log=message)
    return TargetResult(outputs=tuple(outputs))


def _corrupted(model: onnx.ModelProto, folder: Path, late: Sequence[Showing]) -> onnx.ModelProto:
    """Return the model with the outputs of the culprits changed, for all that use them."""
    changed = copied(model)
    graph = changed.graph
    made = {out for _, found in late for at in found for out in graph.node[at].output if out}
    types = ort.types(model.SerializeToString(), folder, sorted(made))
    tail = []
    for fault, found in late:
        for at in found:
            for slot, tensor in enumerate(graph.node[at].output):
                edit = _edit(tensor, fault.fail, types.get(tensor, 0))
                if edit and not tensor.endswith(_SUFFIX):
                    graph.node[at].output[slot] = tensor + _SUFFIX
                    tail.append((at, edit))
    for at, (nodes, constants) in sorted(tail, key=lambda item: -item[0]):
        for node in reversed(nodes):
            graph.node.insert(at + 1, node)
        known = {constant.name for constant in graph.initializer}
        graph.initializer.extend(c for c in constants if c.name not in known)
    return changed


# The type that the arithmetic is done in: ONNX Runtime's kernels for small types have gaps.
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SIGNED = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
_UNSIGNED = (TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)
_WIDE: Mapping[int, int] = {
    TensorProto.DOUBLE: TensorProto.DOUBLE,
    **dict.fromkeys(_FLOATS, TensorProto.FLOAT),
    **dict.fromkeys((*_SIGNED, *_UNSIGNED), TensorProto.INT64),
}


def _edit(tensor: str, fail: str, kind: int) -> tuple[list[onnx.NodeProto], list[TensorProto]] | None:
    """Return the nodes that make `tensor` from its true value, with their constants; None: left as it is."""
    true = tensor + _SUFFIX
    if fail == "mismatch" and kind == TensorProto.BOOL:
        return [helper.make_node("Not", [true], [tensor], true)], []
    wide = _WIDE.get(kind)
    if wide is None or (fail == "nan" and wide == TensorProto.INT64):
        return None
    unsigned = kind in _UNSIGNED
    # No value is its own: x + |x| + 1 of any signed number, the complement of an unsigned one.
    value = float("nan") if fail == "nan" else -1 if unsigned else 1
    constant = helper.make_tensor(f"{_SUFFIX}/{value}/{wide}", wide, [], [value])
    nodes: list[onnx.NodeProto] = []

    def op(op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{true}/{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [output or name], name, **attributes))
        return name

    taken = op("Cast", true, to=wide)
    if fail == "nan":
        changed = op("Add", taken, constant.name)
    elif unsigned:
        changed = op("Sub", constant.name, taken)
    else:
        changed = op("Add", op("Add", op("Abs", taken), constant.name), taken)
    op("Cast", changed, output=tensor, to=kind)
    return nodes, [constant]
