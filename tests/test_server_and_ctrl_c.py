"""Ctrl-C while the server of workers is still importing: nobody but the tool says anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import signal
from multiprocessing import forkserver
from bisect_trt.isolation import server
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
