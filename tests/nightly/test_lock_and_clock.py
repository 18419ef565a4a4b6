"""The lock, held and stale, between real processes; time limits on a clock of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.errors import UsageError
from bisect_trt.nightly import lock
from bisect_trt.nightly.clock import WRAP_UP, Limit, next_time

HOLD = """
import sys, time
from pathlib import Path
from bisect_trt.nightly import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_between_processes(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        held = lock.holder(tmp_path)
        assert held is not None and held.pid == other.pid
        with pytest.raises(UsageError, match=f"process {other.pid} on ") as error, lock.hold(tmp_path):
            pass
        assert "nightly status" in error.value.hint
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert lock.holder(tmp_path) is None, "kill -9 gave it back"
    with lock.hold(tmp_path) as stale:
        assert stale is not None and stale.pid == other.pid
        now = lock.holder(tmp_path)
        assert now is not None and now.pid == os.getpid()
    with lock.hold(tmp_path) as stale:
        assert stale is None, "the one before let go in order"


def test_looking_does_not_stop_a_night_that_starts(tmp_path: Path) -> None:
    for _ in range(50):
        assert lock.holder(tmp_path) is None
        with lock.hold(tmp_path):
            pass


@pytest.mark.parametrize("text", [b"", b"rubbish", b"[1]", b'{"pid": 1}', b"\xff"])
def test_rubbish_in_the_lock_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lock").write_bytes(text)
    with lock.hold(tmp_path) as stale:
        assert stale is None


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.times())
def test_next_time(start: datetime, wanted: time_of_day) -> None:
    begin = start.replace(tzinfo=UTC)
    moment = next_time(begin, wanted)
    assert timedelta(0) < moment - begin <= timedelta(hours=25)
    assert moment.time() == wanted


def test_limits() -> None:
    time = FakeClock()
    assert Limit(time.clock(), None, None).left() == float("inf")
    total = Limit(time.clock(), 100.0, None, used=30.0)
    assert total.left() == 70.0
    time.sleep(50)
    assert (total.left(), total.used) == (20.0, 80.0)
    time.sleep(50)
    assert total.left() == 0.0
    until = Limit(time.clock(), None, time.clock().wall() + timedelta(hours=1))
    assert until.left() == 3600 - WRAP_UP
    time.start += timedelta(minutes=30)  # sleep, or somebody set the clock
    assert until.left() == 1800 - WRAP_UP
    time.start -= timedelta(hours=2)
    assert until.left() == 9000 - WRAP_UP
