"""The server that workers are forked from: where it comes from, and when it ends.

Ctrl-C while the server of workers is still importing: nobody but the tool says anything."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bisect_trt.cli.app import main

SCRIPT = """
import signal
from multiprocessing import forkserver
from bisect_trt.machine import server
process = server.context().Process(target=print)
process.start()
state = open(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read().split()
process.join()
blocked = int(state[state.index("SigBlk:") + 1], 16) >> (signal.SIGINT - 1) & 1
print("server", blocked, "tool", len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""


def test_the_server_starts_with_ctrl_c_blocked_and_the_tool_does_not(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert "server 1 tool 0" in done.stdout, done.stdout + done.stderr


COPIED = """
import os, signal, sys
from multiprocessing import forkserver
from pathlib import Path
from bisect_trt.machine import server
from bisect_trt.workers.pool import Pool
server.from_here()
first = forkserver._forkserver._forkserver_pid
worker = Pool(1, log_dir=Path(sys.argv[1])).submit(os.getpid, timeout=None).result().value
assert forkserver._forkserver._forkserver_pid == first, "another one was started"
assert not {"tensorrt", "tensorrt_rtx", "onnxruntime", "polygraphy"} & set(sys.modules)
print(first, worker, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_is_a_copy_of_the_tool_ends_with_it_and_so_do_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(COPIED)
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    ends = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not any(map(runs, pids))


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_where_there_are_threads_nothing_is_copied(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        "import threading, time\nfrom multiprocessing import forkserver\n"
        "from bisect_trt.machine import server\n"
        "threading.Thread(target=time.sleep, args=(0.5,)).start()\nserver.from_here()\n"
        "print(forkserver._forkserver._forkserver_pid)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["None"], done.stderr


INTERRUPTED_IMPORT = """
import os, signal, sys
from bisect_trt import cli
class Finder:
    def find_spec(self, name, *rest):
        if name == "bisect_trt.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.exit(cli.main())
"""


def test_ctrl_c_in_the_first_moments_is_a_line() -> None:
    """Modules are still being imported: 130 as of every program, and no traceback."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "interrupted before anything was begun\n"


def test_ctrl_c_before_a_command_runs_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = "bisect_trt.cli.app._knowing"
    monkeypatch.setattr(stopped, lambda word: lambda *words, **options: 130)  # what Typer gives then
    assert main(["check", "m.onnx"]) == 130
    assert capsys.readouterr().err == "interrupted before anything was begun\n"
