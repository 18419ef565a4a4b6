"""One child process of a night, see `job` for what it does."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import ValidationError

from bisect_trt.machine import limits
from bisect_trt.nightly.job import answer_in, line_of
from bisect_trt.nightly.runner import Answer, Cause, Job, Trouble

# The child finds modules where we do, and never in the folder that it works in.
_START = "import sys; sys.path[:] = sys.argv[4:]; from bisect_trt.nightly.job import main; main()"
_LINE = 300  # characters of its last words
_END = 10.0  # seconds for a process to go that has closed its end


class Child:
    """One process that does one job."""

    def __init__(self, folder: Path, base: Path, threads: int) -> None:
        """Start it in the folder `base`; it waits for its request."""
        self.folder = folder
        self.served = 0  # models that it has checked
        folder.mkdir(parents=True)
        # Its temporary files die with the folder, however the child ends.
        scratch = folder / "tmp"
        scratch.mkdir()
        environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
        arguments = map(str, (folder, os.getpid(), threads, *(Path(p).absolute() for p in sys.path)))
        command = [sys.executable, "-P", "-c", _START, *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=base,
            start_new_session=True,
        )

    def ask(self, job: Job) -> None:
        """Hand over the job."""
        assert self.process.stdin is not None
        self.served += 1
        with suppress(OSError):
            os.truncate(self.folder / "log", 0)  # it appends: what is there is of another model
        with suppress(BrokenPipeError):  # it is dead already: the answer will be missing
            self.process.stdin.write(line_of(job))
            self.process.stdin.flush()

    def held(self) -> int:
        """Return the bytes that the child itself holds; its workers have a limit of their own."""
        with suppress(psutil.Error):
            return limits.held_bytes(psutil.Process(self.process.pid))
        return 0

    def end(self) -> None:
        """Kill the child and all below it, take its exit code and remove its folder."""
        below: list[psutil.Process] = []
        with suppress(psutil.Error):
            below = psutil.Process(self.process.pid).children(recursive=True)
        if self.process.poll() is None:
            limits.kill_group(self.process.pid)
        for process in below:
            if process.is_running():  # and is no other one with its number
                limits.kill_group(process.pid)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, seconds: float) -> bytes | None:
        """Return what it says within so many seconds: nothing yet (None), or its end (empty)."""
        assert self.process.stdout is not None
        stdout = self.process.stdout.fileno()
        ready, _, _ = select.select([stdout], [], [], seconds)
        return os.read(stdout, 1 << 16) if ready else None

    def answer(self, text: bytes) -> Answer:
        """Return what it said, or how it ended without saying anything."""
        try:
            return answer_in(text)
        except (ValueError, ValidationError):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END)
            code = limits.describe_exit(self.process.poll())
            return Trouble(Cause.DIED, f"its process ended without an answer: {code}{self._last_words()}")

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = (self.folder / "log").read_text(errors="replace").split("\n")
            return next((f"; last said: {line[:_LINE]}" for line in reversed(lines) if line.strip()), "")
        return ""
