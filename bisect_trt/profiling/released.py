"""A side of another release: its library lives in an environment of its own, and `measure.py` runs there.

Both sides of such a comparison are measured by the same script, so that nothing but the release differs.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.machine.environment import quiet_environ
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.profiling import hand_over
from bisect_trt.profiling.meter import DEADLINE, WARM, WARMING
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.timed import FailedError, Layers


class Scripted(Struct):
    """A side that `measure.py` runs with some interpreter; see `meter.Timer`."""

    target: TargetSettings
    info: TargetInfo
    logs: Path
    python: Path | None = None
    _number: int = 0
    _warm: bool = False
    _process: subprocess.Popen[str] | None = None

    def open(self, candidate: Candidate) -> None:
        """Write the model and start the script on it. Raises FailedError."""
        self.close()
        self._number, self._warm = self._number + 1, False
        place = self.logs / str(self._number)
        side = hand_over.Handed(self.target, self.info, self.python)
        hand_over.write(candidate, (side,), 0.0, place)
        words = [str(self.python or sys.executable), str(place / hand_over.SCRIPT), "--serve", "0"]
        with (place / "log.txt").open("w") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=quiet_environ(),
                start_new_session=True,
            )
        self._answer()

    def measure(self, feeds: Feeds, seconds: float) -> list[float]:
        """Return the seconds of each run, on the inputs that lie beside the model. Raises FailedError."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):  # what it said last tells why
            print(seconds, file=self._process.stdin, flush=True)
        found: list[float] = json.loads(self._answer())
        return found

    def warm_up(self, feeds: Feeds) -> None:
        """Run for a while after `open`. Raises FailedError."""
        for _ in range(0 if self._warm else WARMING):
            self.measure(feeds, WARM)
        self._warm = True

    def layers(self, feeds: Feeds, runs: int) -> Layers | None:
        """Return None: a script has no profiler."""
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _answer(self) -> str:
        process = self._process
        assert process is not None and process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
        line = process.stdout.readline() if ready else ""
        if line:
            return line
        process.kill()
        process.wait()
        log = self.logs / str(self._number) / "log.txt"
        lines = [text for text in log.read_text(errors="replace").splitlines() if text.strip()]
        raise FailedError(lines[-1].removeprefix("cannot tell: ") if lines else "its process ended")


class Installed(Protocol):
    """A release that is installed: its interpreter, and the versions of all packages beside it."""

    @property
    def python(self) -> Path:
        """Where its interpreter is."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """Version of each package."""
        ...


@contextmanager
def released(
    text: str, found: Installed, target: TargetSettings, info: TargetInfo, logs: Path
) -> Iterator[tuple[Scripted, Scripted]]:
    """Open both sides of a comparison with `PACKAGE==VERSION`: what is installed here, and that release."""
    package, _, version = text.partition("==")
    runtime = info.versions.get("onnxruntime", "")
    title = info.title.replace(runtime, version) if runtime else f"{package} {version}"
    other = replace(info, title=title, versions={**info.versions, **found.versions})
    sides = (
        Scripted(target, info, logs / "here"),
        Scripted(target, other, logs / "release", found.python),
    )
    try:
        yield sides
    finally:
        for side in sides:
            side.close()
