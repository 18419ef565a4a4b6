"""OpenVINO by ONNX Runtime's CPU provider: what `profile --against` says, and a script made by hand.

`python bench/by_hand.py OUT MODEL... [--rounds 3] [--seconds 15]` runs both by turns, so that they meet
the same machine, and adds a line to OUT/by_hand.jsonl after each. The last lines have, for each model, the
median over the rounds of either and the ratio of these. The command runs as a user runs it, with a limit
that few ratios exceed, so that it ends when it knows the ratio. The script below is what one would write
without it: two sessions in one process, blocks of runs in turns, the ratio of their medians and of their
fastest runs. It shares nothing with the product, which is not imported here. An open dimension is 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = '{"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}'  # else it computes in bfloat16 where the CPU can
OTHER = f"ort:OpenVINO?load_config={CONFIG}"
BT = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
LIMIT = ("--limit", "99%", "--budget", "90s")
BLOCK, WARM = 0.3, 1.5  # seconds of one side in turn, and before anything counts


def by_hand(model: str, seconds: float) -> dict[str, Any]:
    """Time both sessions in turns for so many seconds each."""
    import onnxruntime as ort
    import onnxruntime_ep_openvino as openvino

    ort.register_execution_provider_library("openvino", openvino.get_library_path())
    [device] = [d for d in ort.get_ep_devices() if d.ep_name == "OpenVINOExecutionProvider"][:1]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([device], {"load_config": CONFIG})
    plain = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    sessions = [plain, ort.InferenceSession(model, options)]
    rng, feeds = np.random.default_rng(0), {}
    for value in plain.get_inputs():
        shape = [dim if isinstance(dim, int) else 1 for dim in value.shape]
        whole = value.type == "tensor(int64)"
        feeds[value.name] = np.ones(shape, np.int64) if whole else rng.standard_normal(shape).astype("f4")
    taken: tuple[list[float], list[float]] = ([], [])
    until = time.perf_counter() + 2 * seconds
    for session in sessions:
        _block(session, feeds, WARM)
    while time.perf_counter() < until:
        for k in (0, 1):
            taken[k].extend(_block(sessions[k], feeds, BLOCK))
    medians, least = [statistics.median(t) for t in taken], [min(t) for t in taken]
    return {
        "runs": [len(t) for t in taken],
        "medians_ms": [round(value * 1e3, 4) for value in medians],
        "least_ms": [round(value * 1e3, 4) for value in least],
        "ratio_of_medians": round(medians[1] / medians[0], 4),
        "ratio_of_least": round(least[1] / least[0], 4),
    }


def _block(session: Any, feeds: Any, seconds: float) -> list[float]:
    found, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        session.run(None, feeds)
        found.append(time.perf_counter() - began)
    return found


def by_the_command(model: str, out: Path) -> dict[str, Any]:
    """What `profile --against` says."""
    words = [*BT, "profile", model, "--target", "ort:CPU", "--against", OTHER, *LIMIT]
    done = subprocess.run(
        [*words, "--out", out, "--force", "--json"], capture_output=True, text=True, check=False
    )
    ratio = (json.loads(done.stdout).get("against") or {}).get("ratio")
    if ratio is None:
        return {"error": done.stdout[-500:]}
    return {
        "rounds": ratio["rounds"],
        "medians_ms": [round(ratio[side] * 1e3, 4) for side in ("first", "second")],
        "least_ms": [round(value * 1e3, 4) for value in ratio["least"]],
        "ratio": round(ratio["ratio"], 4),
        "interval": [round(ratio["low"], 4), round(ratio["high"], 4)],
    }


def main() -> None:
    """See the text of the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--hand", action="store_true", help="the script alone, on one model")
    given = parser.parse_args()
    if given.hand:
        print(json.dumps(by_hand(given.models[0], given.seconds)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for model in given.models:
        ours, theirs = [], []
        for turn in range(given.rounds):
            began = time.monotonic()
            command = by_the_command(model, given.out / "profile")
            words = [
                sys.executable,
                __file__,
                str(given.out),
                model,
                "--hand",
                "--seconds",
                str(given.seconds),
            ]
            text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            hand = json.loads(text.splitlines()[-1])
            seconds = round(time.monotonic() - began, 1)
            _note(given.out, model=Path(model).name, turn=turn, command=command, hand=hand, seconds=seconds)
            ours.append(command.get("ratio", float("nan")))
            theirs.append(hand["ratio_of_medians"])
        middle, plain = statistics.median(ours), statistics.median(theirs)
        apart = round(middle / plain - 1, 4)
        _note(given.out, model=Path(model).name, command=middle, hand=plain, apart=apart)


def _note(out: Path, **row: Any) -> None:
    with (out / "by_hand.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
