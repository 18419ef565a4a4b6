"""Worker processes that really crash, hang, exhaust memory, get killed, print rubbish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest
from pytest import MonkeyPatch

import worker_jobs as jobs
from bisect_trt.errors import UsageError
from bisect_trt.machine import limits
from bisect_trt.outcome import Symptom
from bisect_trt.targets.base import STAGE_MARK, readable
from bisect_trt.workers.pool import Pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(1, log_dir=tmp_path / "logs", memory_limit=300 << 20) as pool:
        yield pool


def wait_for(condition: Callable[[], object], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_values_travel_and_the_worker_stays_warm(pool: Pool) -> None:
    value = {"a": b"\x00" * 300_000}
    assert pool.submit(jobs.echo, value, timeout=60).result().value == value
    first = pool.submit(jobs.pid, timeout=60).result()
    assert first.value == pool.submit(jobs.pid, timeout=None).result().value != os.getpid()
    assert first.death is None and first.seconds >= 0


def test_our_errors_travel(pool: Pool) -> None:
    with pytest.raises(UsageError) as caught:
        pool.submit(jobs.usage_error, timeout=60).result()
    assert (caught.value.message, caught.value.hint) == ("no such thing", "look elsewhere")


@pytest.mark.parametrize(
    ("job", "kind", "text"),
    [
        (jobs.bug, ZeroDivisionError, "ours"),
        (jobs.odd_error, RuntimeError, "odd"),
        (jobs.timeout_error, TimeoutError, "mine"),
    ],
)
def test_bugs_travel_and_are_no_deaths(
    pool: Pool, job: Callable[[], None], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        pool.submit(job, timeout=60).result()
    assert pool.submit(jobs.echo, 1, timeout=60).result().value == 1


def test_arguments_that_cannot_travel_are_our_bug(pool: Pool) -> None:
    with pytest.raises((AttributeError, TypeError)):
        pool.submit(jobs.echo, threading.Lock(), timeout=60).result()
    assert pool.submit(jobs.echo, 1, timeout=60).result().value == 1


def test_segfault_is_a_crash_with_its_own_log(pool: Pool) -> None:
    pool.submit(jobs.rubbish, 1, timeout=60).result()
    death = pool.submit(jobs.segfault, "last words", timeout=60).result().death
    assert death is not None and death.symptom is Symptom.CRASH and death.exitcode == -signal.SIGSEGV
    assert death.message == "SIGSEGV (segmentation fault)"
    assert death.log.startswith("last words") and "and from Python" not in death.log
    assert 'File "' in death.log  # our own code in folders of this machine, which is in no report:
    told = readable(f"{STAGE_MARK}build\n{death.log}").splitlines()
    last = "last wordsFatal Python error: Segmentation fault"
    assert [line for line in told if line] == ["-- build --", last]
    assert pool.submit(jobs.echo, 2, timeout=60).result().value == 2


@pytest.mark.parametrize("code", [0, 3])
def test_exit_in_the_middle_of_a_job_is_a_crash(pool: Pool, code: int) -> None:
    death = pool.submit(jobs.die, code, timeout=60).result().death
    assert death is not None and death.symptom is Symptom.CRASH
    assert death.exitcode == code and f"exit code {code}" in death.message


def test_a_hang_ends_at_the_deadline(pool: Pool) -> None:
    pool.submit(jobs.pid, timeout=60).result()
    reply = pool.submit(jobs.hang, timeout=0.5).result()
    assert reply.death is not None and reply.death.symptom is Symptom.HANG
    assert "0.5 s" in reply.death.detail


def test_a_hang_in_native_code_ends_at_the_deadline(pool: Pool, tmp_path: Path) -> None:
    death = pool.submit(jobs.hang_in_native, tmp_path / "pid", timeout=0.5).result().death
    assert death is not None and death.symptom is Symptom.HANG
    assert wait_for(lambda: gone(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("job", [jobs.bomb, jobs.bomb_in_child])
def test_a_memory_bomb_is_killed(pool: Pool, job: Callable[[], None]) -> None:
    death = pool.submit(job, timeout=60).result().death
    assert death is not None and death.symptom is Symptom.OUT_OF_MEMORY
    assert "300 MiB" in death.detail
    assert pool.submit(jobs.echo, 1, timeout=60).result().value == 1


def test_memory_that_earlier_jobs_left_behind_is_not_blamed_on_a_job(pool: Pool) -> None:
    size = 200 << 20
    replies = [pool.submit(jobs.hold, size, timeout=60).result() for _ in range(3)]
    assert [reply.value for reply in replies] == [size] * 3


def test_rubbish_on_stdout_does_not_matter(
    pool: Pool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pool.submit(jobs.rubbish, 7, timeout=60).result().value == 7
    assert capfd.readouterr().out == ""
    assert b"and from Python" in (tmp_path / "logs" / "worker-0.log").read_bytes()


def test_rubbish_on_the_connection_is_a_crash(pool: Pool) -> None:
    death = pool.submit(jobs.rubbish_on_every_descriptor, timeout=60).result().death
    assert death is not None and death.symptom is Symptom.CRASH and "connection" in death.message
    assert pool.submit(jobs.echo, 3, timeout=60).result().value == 3


def test_a_kill_from_outside_is_forgiven_once(pool: Pool, tmp_path: Path) -> None:
    assert pool.submit(jobs.killed_from_outside, tmp_path / "a", 1, timeout=60).result().value == 2
    death = pool.submit(jobs.killed_from_outside, tmp_path / "b", 2, timeout=60).result().death
    assert death is not None and death.symptom is Symptom.OUT_OF_MEMORY and "by the system" in death.message
    assert (tmp_path / "b").read_text() == "xx"


def test_the_server_of_the_workers_may_die(pool: Pool, tmp_path: Path) -> None:
    assert psutil.Process(pool.submit(jobs.pid, timeout=60).result().value).ppid() != os.getpid()
    assert pool.submit(jobs.server_killed, tmp_path / "a", timeout=60).result().value == "again"
    assert pool.submit(jobs.echo, 3, timeout=60).result().value == 3


def test_workers_have_the_environment_of_now(pool: Pool, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THEN", "1")
    assert pool.submit(jobs.environment, timeout=60).result().value["OF_THEN"] == "1"
    monkeypatch.delenv("OF_THEN")
    monkeypatch.setenv("OF_NOW", "2")
    with Pool(1, log_dir=tmp_path) as second:
        seen = second.submit(jobs.environment, timeout=60).result().value
    assert seen["OF_NOW"] == "2" and "OF_THEN" not in seen


def test_a_long_temporary_folder_is_no_trouble(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """The name of a socket in it would be too long."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Pool(1, log_dir=tmp_path) as pool:
        assert pool.submit(jobs.echo, 3, timeout=60).result().value == 3


def test_temporary_files_go_with_their_worker(pool: Pool) -> None:
    death = pool.submit(jobs.temporary_folder_and_segfault, timeout=60).result().death
    assert death is not None
    folder = Path(death.log.split("Fatal")[0])
    assert folder.name.startswith("tmp") and not folder.exists()


def test_sigterm_ends_a_worker_whatever_it_does(pool: Pool) -> None:
    handlers = pool.submit(jobs.handlers, timeout=60).result().value
    assert handlers == (signal.SIG_DFL, signal.SIG_IGN)


def test_a_worker_killed_while_idle_is_replaced(pool: Pool) -> None:
    pid = pool.submit(jobs.pid, timeout=60).result().value
    os.kill(pid, signal.SIGKILL)
    assert pool.submit(jobs.pid, timeout=60).result().value != pid


def test_several_run_at_once_and_idle_slots_stay_cold(tmp_path: Path) -> None:
    with Pool(3, log_dir=tmp_path) as pool:
        pids = {pool.submit(jobs.pid, timeout=60).result().value for _ in range(5)}
        assert len(pids) == 1
        hung = pool.submit(jobs.hang, timeout=60)
        assert pool.submit(jobs.echo, 5, timeout=60).result().value == 5
        hung.cancel()
        with pytest.raises(CancelledError):
            hung.result()
        share = str(max(1, (os.cpu_count() or 1) // 3))
        environment = pool.submit(jobs.environment, timeout=60).result().value
        assert environment["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", share)


def test_each_process_becomes_warm_once_and_no_deadline_counts_that(tmp_path: Path) -> None:
    file = tmp_path / "warm"
    with Pool(1, log_dir=tmp_path, warm=(jobs.warm_up, (file, 1.5))) as pool:
        first = pool.submit(jobs.pid, timeout=1).result()
        assert first.death is None and file.read_text() == f"{first.value}\n"
        assert pool.prepared() >= 1.5
        assert pool.submit(jobs.die, 3, timeout=60).result().death is not None
        second = pool.submit(jobs.pid, timeout=1).result().value
    assert file.read_text() == f"{first.value}\n{second}\n"


def test_all_processes_of_a_warm_pool_start_at_once(tmp_path: Path) -> None:
    file = tmp_path / "warm"
    with Pool(2, log_dir=tmp_path, warm=(jobs.warm_up, (file,))):
        assert wait_for(lambda: file.exists() and len(set(file.read_text().split())) == 2, 60)


def test_what_ends_a_process_that_becomes_warm_does_not_end_the_job(tmp_path: Path) -> None:
    file = tmp_path / "warm"
    with Pool(1, log_dir=tmp_path, warm=(jobs.warm_up, (file, 0.0, 9))) as pool:
        assert pool.submit(jobs.echo, 4, timeout=60).result().value == 4
    assert len(file.read_text().split()) == 1


def test_a_cancelled_task_that_waits_never_runs(pool: Pool, tmp_path: Path) -> None:
    first = pool.submit(jobs.hang, timeout=60)
    second = pool.submit(jobs.killed_from_outside, tmp_path / "ran", 0, timeout=60)
    second.cancel()
    first.cancel()
    for task in (first, second):
        with pytest.raises(CancelledError):
            task.result()
    assert pool.submit(jobs.echo, 1, timeout=60).result().value == 1
    assert not (tmp_path / "ran").exists()


def test_close_with_kill_ends_native_code_and_children(tmp_path: Path) -> None:
    pool = Pool(2, log_dir=tmp_path / "logs")
    native = pool.submit(jobs.hang_in_native, tmp_path / "native", timeout=None)
    pool.submit(jobs.start_child_and_hang, tmp_path / "child", timeout=None)
    assert wait_for(lambda: (tmp_path / "native").exists() and (tmp_path / "child").exists())
    time.sleep(0.1)
    pool.close(kill=True)
    with pytest.raises(CancelledError):
        native.result()
    for name in ("native", "child"):
        pid = int((tmp_path / name).read_text())
        assert wait_for(lambda pid=pid: gone(pid), 5), name


def test_close_without_kill_waits_for_what_runs(tmp_path: Path) -> None:
    pool = Pool(1, log_dir=tmp_path)
    task = pool.submit(jobs.hold, 1000, timeout=60)
    assert wait_for(lambda: task.future.running())
    pool.close()
    assert task.result().value == 1000
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(jobs.pid, timeout=1)


PARENT = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import worker_jobs as jobs
from bisect_trt.workers.pool import Pool

if __name__ == "__main__":
    folder = Path({folder!r})
    pool = Pool(2, log_dir=folder / "logs")
    pool.submit(jobs.start_child_and_hang, folder / "child", timeout=None)
    task = pool.submit(jobs.hang_in_native, folder / "native", timeout=None)
    {wait}
"""


def parent(folder: Path, wait: str) -> subprocess.Popen[bytes]:
    """Start a tool of its own whose two workers hang; give it when both do."""
    script = folder / "tool.py"
    path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    script.write_text(PARENT.format(path=path, folder=str(folder), wait=wait))
    tool = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    files = [folder / name for name in ("native", "child")]
    assert wait_for(lambda: all(file.exists() and file.read_text() for file in files))  # there, and written
    return tool


def workers_of(folder: Path) -> list[int]:
    return [int(p.read_text()) for p in (folder / "logs").glob("worker-*.pid")]


def test_kill_9_of_the_tool_leaves_no_worker(tmp_path: Path) -> None:
    tool = parent(tmp_path, "task.result()")
    pids = workers_of(tmp_path)
    assert len(pids) == 2 and not any(gone(pid) for pid in pids)
    servers = {psutil.Process(pid).ppid() for pid in pids}
    assert tool.pid not in servers
    tool.kill()
    tool.wait()  # not communicate: a worker that is left would keep the pipes open
    assert wait_for(lambda: all(gone(pid) for pid in (*pids, *servers)), 5)
    psutil.Process(int((tmp_path / "child").read_text())).kill()  # a worker's child is not ours to end


def test_ctrl_c_leaves_no_worker_and_no_noise(tmp_path: Path) -> None:
    tool = parent(
        tmp_path,
        """
    try:
        with pool:
            task.result()
    except KeyboardInterrupt:
        print("interrupted")
""",
    )
    pids = [*workers_of(tmp_path), int((tmp_path / "child").read_text())]
    os.killpg(tool.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = tool.communicate(timeout=20)
    assert (out, err, tool.returncode) == (b"interrupted\n", b"", 0)
    assert wait_for(lambda: all(gone(pid) for pid in pids), 5)


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}\n"
        "from pathlib import Path\nimport worker_jobs\nfrom bisect_trt.workers.pool import Pool\n"
        f"with Pool(1, log_dir=Path({str(tmp_path)!r})) as pool:\n"
        "    print('pid', pool.submit(worker_jobs.pid, timeout=60).result().value)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=90, check=False)
    assert done.stdout.startswith(b"pid ") and len(done.stdout.splitlines()) == 1, done


def test_tasks_that_nobody_waits_for_end_with_the_interpreter(tmp_path: Path) -> None:
    tool = parent(
        tmp_path,
        """
    import time
    for _ in range(20):
        pool.submit(jobs.hang, timeout=None)
    while not ((folder / "native").exists() and (folder / "child").exists()):
        time.sleep(0.05)
    time.sleep(0.3)
""",
    )
    pids = [*workers_of(tmp_path), int((tmp_path / "child").read_text())]
    assert tool.communicate(timeout=20) == (b"", b"") and tool.returncode == 0
    assert wait_for(lambda: all(gone(pid) for pid in pids), 5)


def test_words_for_exit_codes() -> None:
    assert limits.describe_exit(-11) == "SIGSEGV (segmentation fault)"
    assert limits.describe_exit(-8) == "SIGFPE (arithmetic error)"
    assert limits.describe_exit(-signal.SIGRTMIN - 1) == f"signal {signal.SIGRTMIN + 1}"
    assert limits.describe_exit(-6) == "SIGABRT (aborted)"
    assert limits.describe_exit(5) == "exit code 5"
    assert limits.describe_exit(-64).startswith("SIG")
    assert limits.describe_exit(-200) == "signal 200"
    assert limits.default_limit(4) == pytest.approx(limits.total_memory() * 0.2, rel=1e-6)


def test_children_are_looked_for_where_the_kernel_names_some() -> None:
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(waits) as child:
        assert limits.may_have_children(os.getpid())
        assert not limits.may_have_children(child.pid) or not Path("/proc/self/task").exists()
        child.kill()
    assert limits.may_have_children(child.pid)  # it is gone, and nothing can be said
