"""TensorRT's builder tells how far it is, and can be asked to stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from bisect_trt.targets.base import asked_to_stop, report_progress

INTERVAL = 0.2  # seconds between two looks at the wish to stop, and between two reports


class Phases:
    """The phases that are open, outermost first. Called from any thread of the builder.

    Methods are called as those of TensorRT's IProgressMonitor.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._open: dict[str, tuple[int, int]] = {}  # name: steps done, steps in all
        self._lock = threading.Lock()
        self._looked = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Note that a phase begins."""
        with self._lock:
            self._open[phase_name] = (0, num_steps)
            self._look()

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Note that a step was done, and return False to ask the builder to stop."""
        with self._lock:
            if phase_name in self._open:
                self._open[phase_name] = (step + 1, self._open[phase_name][1])
            self._look()
            return not self.stopped

    def phase_finish(self, phase_name: str) -> None:
        """Note that a phase ends."""
        with self._lock:
            self._open.pop(phase_name, None)

    def close(self) -> None:
        """Note that the build is over."""
        report_progress("")

    def text(self) -> str:
        """Return `Building engine 1/6, Optimizing graph 12/30`."""
        return ", ".join(f"{name} {done}/{steps}" for name, (done, steps) in self._open.items())

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked >= INTERVAL:
            self._looked = now
            self.stopped = self.stopped or asked_to_stop()
            report_progress(self.text())


def watch(trt: Any, config: Any) -> Phases:
    """Have a build watched; nothing is told where TensorRT (before 10) has no IProgressMonitor.

    What is returned has to live as long as the build.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return Phases()

    class Monitor(Phases, trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            Phases.__init__(self)

    config.progress_monitor = phases = Monitor()
    return phases
