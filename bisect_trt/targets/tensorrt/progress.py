"""TensorRT's builder tells how far it is, and can be asked to stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from bisect_trt.targets.base import asked_to_stop, report_progress

INTERVAL = 0.2  # seconds between two looks at the wish to stop, and between two reports


class Phases:
    """The phases that are open, outermost first. Called from any thread of the builder."""

    def __init__(self) -> None:
        self.stopped = False
        self.monitor: Any = None  # TensorRT wants it to live as long as the build
        self._open: dict[str, tuple[int, int]] = {}  # name: steps done, steps in all
        self._lock = threading.Lock()
        self._looked = 0.0

    def start(self, name: str, steps: int) -> None:
        """Note that a phase begins."""
        with self._lock:
            self._open[name] = (0, steps)
            self._look()

    def step(self, name: str, done: int) -> bool:
        """Note that a step was done, and return False to ask the builder to stop."""
        with self._lock:
            if name in self._open:
                self._open[name] = (done + 1, self._open[name][1])
            self._look()
            return not self.stopped

    def finish(self, name: str) -> None:
        """Note that a phase ends."""
        with self._lock:
            self._open.pop(name, None)

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
    """Have a build watched; nothing is told where TensorRT (before 10) has no IProgressMonitor."""
    phases = Phases()
    if not hasattr(trt, "IProgressMonitor"):
        return phases

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    phases.monitor = config.progress_monitor = Monitor()
    return phases
