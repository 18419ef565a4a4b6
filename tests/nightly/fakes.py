"""A runner without processes, and nights made with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bisect_trt.nightly.clock import Clock
from bisect_trt.nightly.config import Config, parse
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.runner import Answer, Cause, Checked, Job, Reduced, Trouble
from bisect_trt.nightly.service import nightly
from bisect_trt.outcome import Failure, Stage, Symptom

Behaviour = Callable[["FakeRunner", str], Checked | Trouble]


def failure(signature: str, symptom: Symptom = Symptom.ERROR) -> Failure:
    return Failure(Stage.BUILD, symptom, signature, f"message of {signature}", ("n",), "Relu")


def fails(*signatures: str, seconds: float = 1.0) -> Behaviour:
    """Fails each time, with these failures."""
    seen = Checked(tuple(map(failure, signatures)), "", 7, "Fake 1.0", "d1", seconds)
    return lambda runner, name: seen


def passes(digest: str = "d1") -> Behaviour:
    return lambda runner, name: Checked((), "", 7, "Fake 1.0", digest, 1.0)


def alternates(*behaviours: Behaviour) -> Behaviour:
    """One after the other, the last one for good."""
    left = list(behaviours)

    def behave(runner: FakeRunner, name: str) -> Checked | Trouble:
        return (left.pop(0) if len(left) > 1 else left[0])(runner, name)

    return behave


def trouble(cause: Cause, reason: str = "because") -> Behaviour:
    return lambda runner, name: Trouble(cause, reason, 0.5)


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start = datetime(2026, 1, 1, 22, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, lambda: self.start + timedelta(seconds=self.seconds))


@dataclass
class FakeRunner:
    """Does what `models` says, by file stem; remembers in what order it was asked."""

    models: dict[str, Behaviour]
    time: FakeClock = field(default_factory=FakeClock)
    asked: list[str] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    repro: Callable[[str], Reduced | Trouble | None] = lambda name: None
    stored: Callable[[str], Checked | Trouble | None] = lambda name: None
    before: Callable[[FakeRunner, str], None] = lambda runner, asked: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    cancelled: threading.Event = field(default_factory=threading.Event)
    closed: bool = False

    def run(self, job: Job) -> Answer:
        with self.lock:
            answer = {"check": self._check, "verify": self._verify, "reduce": self._reduce}[job.kind](job)
            self.time.sleep(0.1 if job.kind == "verify" else answer.seconds)
        return answer

    def _check(self, job: Job) -> Answer:
        self.note("check", job.model.stem, job.limit)
        return self.models[job.model.stem](self, job.model.stem)

    def _verify(self, job: Job) -> Answer:
        name = job.repro.name.removesuffix("-repro")
        self.note("verify", name, job.limit)
        return self.stored(name) or Checked(shows=True)

    def _reduce(self, job: Job) -> Answer:
        name = job.model.stem
        self.note("reduce again" if job.again else "reduce", name, job.limit)
        answer: Answer | None = self.repro(name)
        if answer is None:
            seen = self.models[name](self, name)
            assert isinstance(seen, Checked)
            answer = Trouble(Cause.STEADY, "it does not fail", 1.0)
            if seen.failures:
                answer = Reduced(seen.failures[0], 1, "Relu#1", 3, 3, True, seconds=10.0)
        if isinstance(answer, Reduced):
            job.repro.mkdir(parents=True, exist_ok=True)
            (job.repro / "repro.onnx").write_bytes(b"x" * 1000)
            (job.repro / "ISSUE.md").write_text("hello")
        return answer

    def note(self, job: str, name: str, limit: float) -> None:
        self.asked.append(f"{job} {name}")
        self.limits.append(limit)
        self.before(self, f"{job} {name}")

    def cancel(self) -> None:
        self.cancelled.set()

    def folder(self, slug: str) -> Path | None:
        return None

    def close(self) -> None:
        self.closed = True


class Site:
    """A folder of models, and nights in it."""

    def __init__(self, base: Path, **config: object) -> None:
        self.base = base
        self.data: dict[str, object] = {"models": {"include": ["*.onnx"]}, "out": "runs", **config}
        self.time = FakeClock()
        self.said: list[str] = []

    @property
    def out(self) -> Path:
        return self.base / "runs"

    def config(self) -> Config:
        return parse(self.data, self.base / "nightly.toml")

    def night(self, models: dict[str, Behaviour], **more: object) -> FakeRunner:
        """A night over these models; the files of others vanish. The exit code goes to `code`."""
        for old in self.base.glob("*.onnx"):
            if old.stem not in models:
                old.unlink()
        for name in models:
            (self.base / f"{name}.onnx").touch()
        runner = FakeRunner(models, time=self.time, **more)  # type: ignore[arg-type]
        self.code = nightly(
            self.config(), self.said.append, clock=self.time.clock(), make_runner=lambda folder, logs: runner
        )
        self.time.sleep(86400)
        return runner

    def rows(self) -> dict[str, Row]:
        """Rows of the last night by file stem."""
        history = History(self.out / FILE, read_only=True)
        night = history.last_night()
        assert night is not None
        found = {Path(r.model).stem: r for r in history.rows(night.id)}
        history.close()
        return found

    def statuses(self) -> dict[str, str]:
        return {name: row.status.value for name, row in self.rows().items()}
