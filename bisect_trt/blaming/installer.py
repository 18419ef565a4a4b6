"""How environments are made: by uv where it is, else by venv and pip; from the index of the user's pip.

uv does not read pip's configuration, so it is handed over: index, further indexes, folders of wheels and
certificate. Addresses may hold passwords: they go through the environment, never into a command line, and
out of every message.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from msgspec import Struct, field

from bisect_trt.errors import TargetUnavailable, UsageError

_LONGEST_INSTALL = 1800.0  # seconds for one install: wheels may have gigabytes
_ADDRESS = re.compile(r"\b[a-z+]+://\S+|\b[\w-]+(\.[\w-]+)*\.(org|com|net|io|dev)\b\S*", re.IGNORECASE)
_NO_WHEEL = re.compile(
    r"no (usable |matching )?(wheels|distribution)|no wheels with|from versions: none",
    re.IGNORECASE,
)
_BUILDABLE = re.compile(r"has no usable wheels")  # uv's words where there is a source archive, too
_NO_NETWORK = re.compile(
    r"network|connect|resolve host|name or service|dns|timed? ?out|temporary failure|offline|fetch",
    re.IGNORECASE,
)
# pip's own words when it tried in vain and then says that there is nothing.
_NO_ANSWER = re.compile(r"Retrying \(|NewConnectionError|ConnectTimeout|Could not fetch URL", re.IGNORECASE)
_FULL = re.compile(r"no space left|disk quota", re.IGNORECASE)


INTERRUPTED = "interrupted"
"""What is said of a process that was not run, or not to its end, since a person ended all of them."""


class Processes(Struct):
    """Child processes that have to end when we do."""

    _live: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> tuple[int | None, str]:
        """Exit code (None: it took too long and was ended) and what was printed, at most 1 MiB of it."""
        with self._lock:
            if self._over:
                return None, INTERRUPTED
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
            self._live.add(child)
        try:
            said, _ = child.communicate(timeout=timeout)
            if self._is_over():  # it was ended, which says nothing of it
                return None, INTERRUPTED
            return child.returncode, said[-(1 << 20) :]
        except subprocess.TimeoutExpired:
            _end(child)
            return None, child.communicate()[0][-(1 << 20) :]
        finally:
            _end(child)
            with self._lock:
                self._live.discard(child)

    def _is_over(self) -> bool:
        return self._over

    def end_all(self) -> None:
        """End what runs; nothing starts any more."""
        with self._lock:
            self._over = True
            for child in self._live:
                _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


class Index(Struct, frozen=True):
    """Where packages come from."""

    default: str = ""
    extra: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    none: bool = False
    cert: str = ""

    def for_uv(self) -> dict[str, str]:
        """Return it as variables of uv's environment; what the user has set for uv himself stays."""
        found = {
            "UV_DEFAULT_INDEX": self.default,
            "UV_INDEX": " ".join(self.extra),
            "UV_FIND_LINKS": ",".join(self.links),
            "UV_NO_INDEX": "1" if self.none else "",
            "UV_INDEX_STRATEGY": "unsafe-best-match" if self.extra else "",  # as pip has it
            "SSL_CERT_FILE": self.cert,
        }
        return {key: value for key, value in found.items() if value and key not in os.environ}


def parse_index(said: str) -> Index:
    """Return the index from what `pip config list` says; the environment's word is above that of files."""
    values: dict[str, str] = {}
    for line in said.splitlines():
        key, equals, value = line.partition("=")
        where, _, name = key.strip().rpartition(".")
        if not equals or where not in ("global", "install", ":env:"):
            continue
        with suppress(ValueError, SyntaxError):
            rank = ("global", "install", ":env:").index(where)
            values[f"{rank}{name}"] = str(ast.literal_eval(value.strip()))
    known = {key[1:]: value for key, value in sorted(values.items())}
    return Index(
        default=known.get("index-url", ""),
        extra=tuple(known.get("extra-index-url", "").split()),
        links=tuple(known.get("find-links", "").split()),
        none=known.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        cert=known.get("cert", ""),
    )


class Installer:
    """Makes environments and lists releases. `scratch` is a folder of ours for tools and caches."""

    def __init__(
        self, processes: Processes, scratch: Path, *, offline: bool, allow_build: bool, pre: bool
    ) -> None:
        self._processes = processes
        self._scratch = scratch
        self._offline = offline
        self._allow_build = allow_build
        self._pre = pre
        self._uv = find_uv()

    @cached_property
    def index(self) -> Index:
        """Return the index that packages come from, as the user's pip has it."""
        return parse_index(self._processes.run([*self._pip, "config", "list"], timeout=60.0)[1])

    def versions(self, package: str) -> list[str]:
        """Releases of a package for this Python, the newest first; pip leaves out those that were yanked.

        Raises:
            TargetUnavailable: the index has none, or cannot be asked.
        """
        command = [*self._pip, "index", "versions", package, "--retries", "2"]
        command += [] if self._allow_build else ["--only-binary", ":all:"]
        code, said = self._processes.run([*command, *(["--pre"] if self._pre else [])], timeout=120.0)
        match = re.search(r"^\s*Available versions: (.*)$", said, re.MULTILINE)
        if code == 0 and match:
            return [version.strip() for version in match[1].split(",")]
        asked = re.search("no matching distribution", said, re.IGNORECASE) and not _NO_ANSWER.search(said)
        if _NO_NETWORK.search(said) and not asked:
            raise TargetUnavailable(f"the releases of {package} cannot be listed: no index answers", _OFFLINE)
        if re.search("no matching distribution|from versions: none", said, re.IGNORECASE):
            hint = "" if self._allow_build else "--allow-build builds source archives"
            raise TargetUnavailable(f"there is no wheel of {package} for this machine and Python", hint)
        why = without_addresses(_last(said))
        raise TargetUnavailable(f"the releases of {package} cannot be listed: {why}")

    def make(self, place: Path) -> str:
        """Return an empty environment with this Python. Gives why there is none, else nothing."""
        if self._uv:
            command = [self._uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(place)]
        else:
            command = [sys.executable, "-m", "venv", "--without-pip", str(place)]
        code, said = self._processes.run(command, timeout=120.0, env=self._environ())
        return "" if code == 0 else f"no environment can be made: {without_addresses(_last(said))}"

    def install(self, place: Path, requirements: Sequence[str]) -> str:
        """Install into an environment. Gives why that is not possible, else nothing."""
        python = str(place / "bin/python")
        if self._uv:
            command = [self._uv, "pip", "install", "--python", python, "--no-progress"]
            command += ["--offline"] if self._offline else []
            command += ["--prerelease", "allow"] if self._pre else []
        else:
            command = [*self._pip, "--python", python, "install", "--no-input"]
            command += ["--progress-bar", "off"]
            command += ["--no-index"] if self._offline else []
            command += ["--pre"] if self._pre else []
        command += [] if self._allow_build else ["--only-binary", ":all:"]
        whole = [*command, *requirements]
        environ, run = self._environ(), self._processes.run
        code, said = run(whole, timeout=_LONGEST_INSTALL, env=environ, cwd=self._scratch)
        return "" if code == 0 else why_not(said, offline=self._offline, ended=code is None)

    def _environ(self) -> dict[str, str]:
        if not self._uv:
            return dict(os.environ)
        ours = {"UV_CACHE_DIR": str(self._scratch / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
        return {**ours, **os.environ, **self.index.for_uv()}

    @cached_property
    def _pip(self) -> list[str]:
        """pip of this Python; where it has none, one in an environment of ours.

        Raises:
            UsageError: there is none, and none can be made.
        """
        python = Path(sys.executable)
        if importlib.util.find_spec("pip") is None:
            python = self._scratch / "pip" / "bin/python"
            if not python.exists():
                command = [sys.executable, "-m", "venv", str(self._scratch / "pip")]
                made, _ = self._processes.run(command, timeout=120.0)
                if made != 0:
                    hint = "install it: python -m ensurepip"
                    raise UsageError("no pip here to list releases with", hint)
        return [str(python), "-m", "pip", "--disable-pip-version-check"]


_OFFLINE = "--offline tries what was installed before"


def find_uv() -> str:
    """Return the program uv: of the extra `blame`, else on the PATH; empty where there is none."""
    with suppress(ImportError, FileNotFoundError):
        return str(importlib.import_module("uv").find_uv_bin())
    return shutil.which("uv") or ""


def why_not(said: str, *, offline: bool = False, ended: bool = False) -> str:
    """Say why an install failed, in one line."""
    if ended:
        return "its install took too long"
    if _FULL.search(said):
        return "no space left on the disk"
    if _BUILDABLE.search(said):
        return "no wheel of it fits this machine and Python; --allow-build builds its source archive"
    if _NO_WHEEL.search(said):
        return "no wheel of it fits this machine and Python" + (" (or none is cached)" if offline else "")
    if offline:
        return "it is not cached (--offline)"
    if _NO_NETWORK.search(said):
        return "no index answers"
    return f"it cannot be installed: {without_addresses(_last(said))}"


def without_addresses(text: str) -> str:
    """Return a text of an installer without the address of any server, which may hold a password."""
    return _ADDRESS.sub("(address)", text)


def _last(said: str) -> str:
    """Return the last line that says something, lines of errors before others."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "cause", "because"))]
    return (errors or lines or ["it gave no reason"])[-1][:200]
