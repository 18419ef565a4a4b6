"""What `polygraphy debug reduce --check` runs: exit 1 when the model shows the wanted failure, else 0.

    python check.py MODEL rtx MESSAGE [MESSAGE ...]
    python check.py MODEL openvino LIBRARY RTOL

The first parses and builds with TensorRT-RTX and looks for a message, so that another failure does not
count as the wanted one; the second compares OpenVINO with ONNX Runtime on `inputs.npz` beside the model
where names and shapes fit, else on random inputs. Each call adds a line to the file `$BENCH_CHECKS`. As
light as it can be: no Polygraphy, no bisect-trt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def rtx(model: Path, messages: list[str]) -> bool:
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: object, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.lines.append(text)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(model)):
        config = builder.create_builder_config()
        builder.build_serialized_network(network, config)
    log.lines += [parser.get_error(k).desc() for k in range(parser.num_errors)]
    return any(message in line for line in log.lines for message in messages)


def openvino(model: Path, library: str, rtol: float) -> bool:
    import numpy as np
    import onnxruntime as ort

    name = "OpenVINOExecutionProvider"
    ort.register_execution_provider_library(name, library)
    devices = [d for d in ort.get_ep_devices() if d.ep_name == name][:1]
    options = ort.SessionOptions()
    precise = {"load_config": '{"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}'}
    options.add_provider_for_devices(devices, precise)
    plain = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    feeds = {
        i.name: rng.standard_normal([d if isinstance(d, int) else 1 for d in i.shape]).astype(kinds[i.type])
        for i in plain.get_inputs()
    }
    given = model.with_name("inputs.npz")
    if given.exists():  # of the original, or of a reproducer: those that fit
        for name, value in np.load(given).items():
            if name in feeds and feeds[name].shape == value.shape:
                feeds[name] = value
    other = ort.InferenceSession(str(model), options)
    pairs = zip(plain.run(None, feeds), other.run(None, feeds), strict=True)
    return any(a.shape != b.shape or not np.allclose(b, a, rtol, 1e-5) for a, b in pairs)


def main() -> int:
    if place := os.environ.get("BENCH_CHECKS"):
        with Path(place).open("a") as file:
            file.write("1\n")
    model, target, *rest = sys.argv[1:]
    shown = rtx(Path(model), rest) if target == "rtx" else openvino(Path(model), rest[0], float(rest[1]))
    return int(shown)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # plugins of ONNX Runtime do not all survive the end of Python
