"""`emulate:fp16|bf16|tf32|fp8|int8|typed`: what a precision would do to a model, before one owns the GPU.

The model is rewritten (`graph`) and runs in ONNX Runtime on the CPU with optimisations off.

fp16, bf16   every input, weight and value is rounded to nearest, ties to even; beyond 65504 (FP16) it is
             Inf, and subnormals are kept. The arithmetic between stays FP32: a matrix product or a
             convolution accumulates in FP32, as tensor cores do, and is rounded once, at its output.
tf32         what enters a matrix product or a convolution is rounded to 10 bits of significand; nothing else.
int8, fp8    every tensor is scaled so that its own largest magnitude is 127, or 448 (E4M3), rounded and
             scaled back: symmetric, one scale a tensor, as good as a calibration can get (weights often
             have a scale a channel in TensorRT, which is better). Values beyond saturate, which only
             Inf can; NaN stays NaN so that it is seen.
typed        what the model itself declares as FP16 or BF16 is rounded, which ONNX Runtime's CPU provider
             leaves out between nodes; all else stays FP32. For models that hold their casts already.

An operator is a unit: what TensorRT rounds inside a Softmax or a fused attention is not seen; nor are
fusions, which round less often than this emulation.
"""

from __future__ import annotations

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.lenient import read_as_the_reference
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.normalise import unname_twins
from bisect_trt.outcome import Stage
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetInfo, TargetResult, announce, as_declared
from bisect_trt.targets.emulate import graph
from bisect_trt.targets.emulate.rounding import FORMATS, TYPED
from bisect_trt.targets.roles import with_casts

_SHOWN_NODES = 20


class Emulate:
    """A precision as a target, see `targets.base.Target` and the module's own text."""

    def __init__(self, settings: TargetSettings) -> None:
        """Read the precision of `settings.spec`.

        Raises:
            UsageError: there is no such precision.
        """
        self._precision = settings.spec.partition(":")[2].lower()
        if self._precision not in FORMATS:
            raise UsageError(
                f"target {settings.spec!r}: no precision {self._precision!r}",
                f"Write emulate:{'|'.join(FORMATS)}.",
            )

    def info(self) -> TargetInfo:
        """Describe the precision and ONNX Runtime."""
        from bisect_trt.references import ort

        where = "what enters a matrix product or convolution" if self._precision == "tf32" else "every tensor"
        by = " by a scale of its own" if FORMATS[self._precision].largest else ""
        note = f"An emulation: {where} is rounded to {self._precision.upper()}{by}, arithmetic is FP32."
        title = f"{self._precision.upper()} emulated on {ort.title()}"
        if self._precision == TYPED:
            note = "An emulation: tensors that are FP16 or BF16 in the model are rounded, arithmetic is FP32."
            title = f"The model's own types emulated on {ort.title()}"
        return TargetInfo(
            name=f"emulate:{self._precision}",
            title=title,
            can_run=True,
            notes=(note,),
            versions={"onnxruntime": ort.title().split()[-1]},
        )

    def run(self, candidate: Candidate) -> TargetResult:
        """Run the rewritten candidate on each of its samples.

        There are no failures: what ONNX Runtime cannot run is unresolved.

        Raises:
            UsageError: the candidate's opset is too old.
        """
        from bisect_trt.references import ort

        announce(Stage.BUILD)
        precision = self._precision
        if candidate.keep is None:
            model = read_without_weights(candidate.content)
            read_as_the_reference(model)
        else:  # what is lowered gets its type, and that is emulated
            model, precision = with_casts(candidate.model, candidate.folder, precision, candidate.keep), TYPED
        unname_twins(model.graph)  # those that are emulated may take equal names
        samples = as_declared(model.graph, candidate.folder, candidate.feeds)
        emulation = graph.emulate(
            model, precision, lambda names: ort.types(candidate.model, candidate.folder, names)
        )
        facts: dict[str, object] = {"rounded": emulation.rounded}
        if emulation.unknown:
            facts["not_rounded"] = emulation.unknown[:_SHOWN_NODES]
        announce(Stage.RUN)
        feeds = [{emulation.inputs[k]: value for k, value in sample.items()} for sample in samples]
        try:
            outputs = ort.run(emulation.model.SerializeToString(), candidate.folder, feeds)
        except ort.OrtError as e:
            why = f"ONNX Runtime cannot run the emulation: {e}"
            return TargetResult(unresolved=why, log=str(e), facts=facts)
        return TargetResult(outputs=tuple(outputs), facts=facts)
