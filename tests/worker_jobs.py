"""Jobs that tests send to worker processes; light, so that workers start fast."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bisect_trt.errors import UsageError

seen: list[int] = []


def echo(value: object) -> object:
    return value


def pid() -> int:
    return os.getpid()


def warm_up(file: Path, seconds: float = 0.0, code: int = 0) -> None:
    """What a process does before its first job: a line in `file`, and it may end there."""
    time.sleep(seconds)
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if code:
        os._exit(code)


def count() -> int:
    seen.append(1)
    return len(seen)


def usage_error() -> None:
    raise UsageError("no such thing", "look elsewhere")


def bug() -> None:
    raise ZeroDivisionError("ours")


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def odd_error() -> None:
    raise Odd(1, 2)


def timeout_error() -> None:
    raise TimeoutError("mine")


def segfault(text: str = "") -> None:
    os.write(1, text.encode())
    ctypes.string_at(0)


def die(code: int) -> None:
    os._exit(code)


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def hang() -> None:
    time.sleep(600)


def hang_in_native(marker: Path) -> None:
    """Hold the GIL in C for ten minutes: no Python code, no signal handler runs any more."""
    marker.write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


def bomb(step: int = 16 << 20) -> None:
    held = []
    while True:
        held.append(b"x" * step)
        time.sleep(0.005)


def hold(size: int) -> int:
    """Keep `size` bytes for ever, as a leaking library does."""
    seen.append(bytearray(os.urandom(1)) * size)  # type: ignore[arg-type]
    time.sleep(0.3)
    return size


def bomb_in_child() -> None:
    code = "import time\nh=[]\nwhile True: h.append(b'x'*(16<<20)); time.sleep(0.005)"
    subprocess.run([sys.executable, "-c", code], check=False)


def rubbish(value: int) -> int:
    os.write(1, b"\xff\x00garbage" * 1000)
    os.write(2, b"\x80\x04more" * 1000)
    print("and from Python", flush=True)
    return value


def rubbish_on_every_descriptor() -> None:
    for fd in range(3, 64):
        try:
            os.write(fd, b"\x00\x00\x00\x08rubbish!")
        except OSError:
            continue


def killed_from_outside(marker: Path, times: int) -> int:
    """Ends by SIGKILL the first `times` times that it runs."""
    runs = len(marker.read_text()) if marker.exists() else 0
    marker.write_text("x" * (runs + 1))
    if runs < times:
        kill_self(signal.SIGKILL)
    return runs + 1


def server_killed(marker: Path) -> str:
    """The first time the server that forked this process is killed."""
    if marker.exists():
        return "again"
    marker.touch()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return ""


def temporary_folder_and_segfault() -> None:
    os.write(1, tempfile.mkdtemp().encode())
    segfault()


def start_child_and_hang(marker: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    marker.write_text(str(child.pid))
    time.sleep(600)


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)


def environment() -> dict[str, str]:
    return dict(os.environ)


def native_abort(model: object, **options: object) -> object:
    """In the place of a tool of onnx: ends its process as an assertion in C++ does."""
    os.abort()


def native_sleep(model: object, **options: object) -> object:
    """In the place of a tool of onnx: never answers."""
    time.sleep(600)
    return model
