"""Time: durations by a clock that nobody sets, `--until` by the one on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day

from msgspec import Struct, field

WRAP_UP = 60.0  # seconds before `until` in which jobs are ended and the report is written


class Clock(Struct, frozen=True):
    """The time of day and a count of seconds; tests bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


def next_time(start: datetime, at: time_of_day) -> datetime:
    """Return the first moment after `start` at which clocks on the wall (local time) show `at`."""
    local = start.astimezone()
    days = (local.date() + timedelta(days=k) for k in (0, 1))
    moments = (datetime.combine(day, at).astimezone() for day in days)
    return next(moment for moment in moments if moment > local)


class Limit:
    """What is left of the night; asked again at every step, so that sleep and changed clocks do no harm.

    The budget in seconds is counted by the monotonic clock (which stands still while the machine
    sleeps) and goes on from the seconds that an interrupted run of the same night has used.
    """

    def __init__(self, clock: Clock, total: float | None, until: datetime | None, used: float = 0.0) -> None:
        """Start counting now."""
        self._clock = clock
        self._total = float("inf") if total is None else total
        self._until = until
        self._before = used
        self._start = clock.monotonic()

    @property
    def used(self) -> float:
        """Seconds that this night has worked, interrupted runs included."""
        return self._before + self._clock.monotonic() - self._start

    def left(self) -> float:
        """Return seconds left, never negative; infinity without a limit."""
        left = self._total - self.used
        if self._until is not None:
            left = min(left, (self._until - self._clock.wall()).total_seconds() - WRAP_UP)
        return max(0.0, left)
