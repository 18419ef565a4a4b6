"""TensorRT's builder tells how far it is, and can be asked to stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from bisect_trt.targets.base import asked_to_stop, report_progress

INTERVAL = 0.2  # seconds between two looks at the wish to stop, and between two reports


class Phases:
    """The phases that are open, outermost first. Whoever changes or reads them holds the lock."""

    def __init__(self) -> None:
        self.stopped = False
        self.monitor: Any = None  # TensorRT wants it to live as long as the build
        self.open: dict[str, tuple[int, int]] = {}  # name: steps done, steps in all
        self.lock = threading.Lock()
        self._looked = 0.0

    def close(self) -> None:
        """Note that the build is over."""
        report_progress("")

    def text(self) -> str:
        """Return `Building engine 1/6, Optimizing graph 12/30`."""
        return ", ".join(f"{name} {done}/{steps}" for name, (done, steps) in self.open.items())

    def look(self) -> None:
        """Tell how far the build is, and whether it is to stop, unless that was done a moment ago."""
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
        """Called from any thread of the builder."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with phases.lock:
                phases.open[phase_name] = (0, num_steps)
                phases.look()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with phases.lock:
                if phase_name in phases.open:
                    phases.open[phase_name] = (step + 1, phases.open[phase_name][1])
                phases.look()
                return not phases.stopped

        def phase_finish(self, phase_name: str) -> None:
            with phases.lock:
                phases.open.pop(phase_name, None)

    phases.monitor = config.progress_monitor = Monitor()
    return phases
