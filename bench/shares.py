"""Who uses the CPU seconds of a reduction: each process, and each kind of job in the workers.

`python bench/shares.py` writes tables of five cases into docs/performance.md; with names of cases of
`bench/against.py` it only prints theirs. The seconds are those that the kernel counts for a process, all its
threads included.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG = "BISECT_TRT_SHARES"  # environment variable: the file that gets a line for each job
SHOWN = (
    "reduce, 24 nodes",
    "parse-densenet121",
    "accuracy-resnet50",
    "build-densenet121",
    "1.6-GB-of-weights",
)
_calls: list[Callable[..., Any]] = []  # what runs a job without being watched


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Run a job as `workers.reply.call` does, and write down the CPU seconds that it took."""
    began = time.process_time()
    answer = _calls[0](function, args)
    what = function.__qualname__
    for one in args:
        if type(one).__name__ == "Candidate":
            what = f"{what} {one.form.value}" + ("" if len(one.nodes) == 1 else f", {len(one.nodes)} nodes")
    _write(f"worker: {what}", time.process_time() - began)
    return answer


def _write(what: str, seconds: float) -> None:
    with Path(os.environ[LOG]).open("a") as file:
        file.write(json.dumps([what, seconds]) + "\n")


def run(words: list[str]) -> int:
    """Run a command line of ours in this process, and write down what each of its threads used."""
    from bisect_trt.cli import app
    from bisect_trt.workers import reply, slot

    _calls.append(reply.call)
    call.__module__, call.__qualname__ = reply.__name__, "call"  # workers unpickle it by its name
    reply.call = slot.call = call
    thread_run = threading.Thread.run

    def counted(self: threading.Thread) -> None:
        try:
            thread_run(self)
        finally:
            _write("command: other threads", time.thread_time())

    threading.Thread.run = counted  # type: ignore[method-assign]
    imported = time.thread_time()
    code = app.main(words)
    _write("command: starting Python, Typer and the workers' code", imported)
    _write("command: the rest of its imports, and its work", time.thread_time() - imported)
    return code


def table(name: str, folder: Path) -> str:
    """Run a case, and return the table."""
    from against import KEPT, ROOT, cases  # not in the process that is measured
    from tools import timed

    words = cases(KEPT / "models")[name](folder / "out" / "repro")
    (folder / "out").mkdir(parents=True)
    os.environ |= {LOG: str(folder / "shares.jsonl"), "PYTHONPATH": str(ROOT)}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = timed([sys.executable, __file__, "--run", *words], folder)
    used: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for line in (folder / "shares.jsonl").read_text().splitlines():
        what, seconds = json.loads(line)
        used[what] += seconds
        times[what] += 1
    used["processes that start and end, the one that asks onnx, repro.py"] = done.cpu - sum(used.values())
    lines = [f"**{name}**: {done.cpu:.2f} CPU s, {os.getloadavg()[0]:.0f} processes wanted a core", ""]
    lines += ["| who | times | CPU s |", "|---|---:|---:|"]
    lines += [f"| {what} | {times[what] or ''} | {s:.2f} |" for what, s in used.most_common() if s >= 0.005]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        sys.exit(run(sys.argv[2:]))
    tables = []
    for asked in sys.argv[1:] or SHOWN:
        place = Path(tempfile.mkdtemp(prefix="bisect-trt-shares-"))
        tables.append(table(asked, place))
        print(tables[-1], flush=True)
        shutil.rmtree(place)
    if not sys.argv[1:]:
        from tools import put_into

        page = Path(__file__).parents[1] / "docs" / "performance.md"
        put_into(page, "bench/shares.py", "\n\n".join(tables))
