"""An environment of its own for each release, kept in the user's cache folder.

Nothing of the environment that this tool runs in is touched. An environment that is ready has a file
`ready.json`, written last: what a kill left half made is made anew. Those that were used longest ago go
when all of them take more than a limit.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import asdict

from bisect_trt.blaming.installer import INTERRUPTED, Installer, Processes, why_not
from bisect_trt.blaming.packages import PACKAGES, Package, asked_for, in_order, newest_of_lines
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.environment import quiet_environ
from bisect_trt.writing.files import written_whole

LIMIT = 12 << 30
"""Bytes that all environments may take together."""

LISTED_FOR = 3600.0
"""Seconds after which the index is asked again which releases there are."""

_READY = "ready.json"
_OLD_NUMPY = "numpy<2"
_LONGEST_IMPORT = 120.0


class Environment(Struct, frozen=True):
    """A release that is ready to be asked.

    Attributes:
        python: its interpreter.
        versions: of every package in it.
        broken: why its library cannot be imported; empty when it can.
    """

    python: Path
    versions: dict[str, str] = field(default_factory=dict)
    broken: str = ""


class NotTried(Exception):
    """Why a release has no environment here."""


def cache_folder() -> Path:
    """Say where environments are kept: `bisect-trt/releases` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bisect-trt" / "releases"


def clean(folder: Path) -> int:
    """Remove all environments and what was downloaded for them. Gives the bytes that this frees."""
    size = sum(_sizes(folder).values())
    shutil.rmtree(folder, ignore_errors=True)
    return size


def installed(release: str, spec: str) -> Environment:
    """Make, or find, the environment of one release that `--against PACKAGE==VERSION` names.

    Raises:
        UsageError: the package says nothing of the target `spec`.
        TargetUnavailable: the release cannot be installed or imported here.
    """
    try:
        package = asked_for(release, spec).package
    except UsageError as error:
        raise UsageError(error.message.replace("--releases", "--against"), error.hint) from error
    processes = Processes()
    try:
        found = Environments(processes).get(package, release.partition("==")[2])
    except NotTried as error:
        hint = "bisect-trt doctor says what can be installed here"
        raise TargetUnavailable(f"--against {release}: {error}", hint) from error
    finally:
        processes.end_all()
    if found.broken:
        raise TargetUnavailable(f"--against {release}: {found.broken}", "choose another release")
    return found


class Environments:
    """Makes environments, or finds them made.

    Raises:
        UsageError: the cache folder cannot be used.
    """

    def __init__(
        self,
        processes: Processes,
        *,
        folder: Path | None = None,
        limit: int = LIMIT,
        offline: bool = False,
        allow_build: bool = False,
        pre: bool = False,
    ) -> None:
        self._folder = (folder or cache_folder()).absolute()
        self._processes = processes
        self._limit = limit
        self._offline = offline
        self._build = allow_build
        self._pre = pre
        self._made = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "set XDG_CACHE_HOME to a folder that can be written"
            raise UsageError(f"{self._folder} cannot be made: {error.strerror}", hint) from error
        self._installer = Installer(
            processes, self._folder, offline=offline, allow_build=allow_build, pre=pre
        )
        self._used: set[str] = set()

    def versions(self, package: Package) -> list[str]:
        """Return releases of a package, the oldest first; offline those that were listed or installed before.

        Raises:
            TargetUnavailable: there are none, or the index does not answer.
        """
        name = package.name if self._build else package.listed
        known = self._folder / f"{name}-{_key([str(self._installer.index), str(self._pre)])}.versions.json"
        fresh = known.exists() and time.time() - known.stat().st_mtime < LISTED_FOR
        if self._offline or fresh:
            listed = json.loads(known.read_text()) if known.exists() else []
            if not listed:
                why = f"no release of {package.name} was listed before"
                raise TargetUnavailable(why, "leave out --offline")
            return in_order(listed)
        found = in_order(self._installer.versions(name))
        with written_whole(known) as aside:
            aside.write_text(json.dumps(found))
        return found

    def get(self, package: Package, version: str, more: Sequence[str] = ()) -> Environment:
        """Return the environment of a release, made if need be. `more` are further requirements.

        Raises:
            NotTried: it cannot be made here.
        """
        requirements = [*package.requirements(version, build=self._build), *more]
        name = f"{package.name}-{version}-{_key(requirements)}"
        place = self._folder / name
        self._used.add(name)
        try:
            with _locked(self._folder / f"{name}.lock"):
                found = _ready(place)
                if found is None:
                    self._make(place, package, requirements)
                    found = _ready(place)
        except OSError as error:
            raise NotTried(why_not(error.strerror or str(error))) from error
        if found is None:
            raise NotTried("its environment cannot be read")
        return found

    def trim(self) -> None:
        """Remove what was used longest ago, until no more than the limit is left."""
        if not self._made:
            return
        ready = sorted(self._folder.glob(f"*/{_READY}"), key=lambda path: path.stat().st_mtime)
        old = [path.parent for path in ready if path.parent.name not in self._used]
        while sum(_sizes(self._folder).values()) > self._limit:
            if old:
                shutil.rmtree(old.pop(0), ignore_errors=True)
            elif (self._folder / "uv").exists():
                shutil.rmtree(self._folder / "uv", ignore_errors=True)
            else:
                return

    def _make(self, place: Path, package: Package, requirements: list[str]) -> None:
        self._made = True
        shutil.rmtree(place, ignore_errors=True)
        try:
            why = self._installer.make(place) or self._installer.install(place, requirements)
            if why:
                raise NotTried(why)
            if package.alias:
                _alias(place, package)
            broken = self._import(place, package)
            # Wheels of before numpy 2 do not say that they cannot be used with it.
            if broken and not self._installer.install(place, [*requirements, _OLD_NUMPY]):
                broken = self._import(place, package)
            if broken and package.partner:
                broken = self._with_partner(place, package, requirements, broken)
            made = Environment(place / "bin/python", _versions(place), broken)
            with written_whole(place / _READY) as aside:
                aside.write_text(json.dumps({**asdict(made), "python": ""}))
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def _with_partner(self, place: Path, package: Package, requirements: list[str], broken: str) -> str:
        """Older releases of what has to stand beside it, line by line, until one goes with it."""
        partner = package.partner
        there = _versions(place).get(partner, "")
        with suppress(TargetUnavailable):
            for version in newest_of_lines(self.versions(PACKAGES[partner])):
                if in_order([version, there])[-1] == version:
                    continue  # no older than the one that was tried
                if self._installer.install(place, [*requirements, f"{partner}=={version}"]):
                    break  # what is older is not offered any more for this Python
                if not self._import(place, package):
                    return ""
        self._installer.install(place, [*requirements, f"{partner}=={there}"])
        return broken

    def _import(self, place: Path, package: Package) -> str:
        """Say why its library cannot be imported; empty when it can."""
        # As in the scripts: an error that a library prints, and goes on from, counts.
        strict = "import os, sys; sys.excepthook = lambda k, e, t: (print(repr(e), flush=True), os._exit(2))"
        script = f"{strict}\nimport numpy, {package.module}\n{package.trial}"
        command = [str(place / "bin/python"), "-I", "-c", script]
        code, said = self._processes.run(command, timeout=_LONGEST_IMPORT, env=quiet_environ())
        if code == 0:
            return ""
        if code is None and said == INTERRUPTED:  # nothing is noted of an environment that was not asked
            raise InterruptedError(errno.EINTR, INTERRUPTED)
        ended = "it hangs" if code is None else f"it ends with {code}"
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1][:200] if lines and code is not None and code > 0 else ended
        return f"{package.module} cannot be imported: {last}"


def _ready(place: Path) -> Environment | None:
    try:
        data = json.loads((place / _READY).read_text())
        (place / _READY).touch()  # used now
        return Environment(place / "bin/python", dict(data["versions"]), str(data["broken"]))
    except (OSError, ValueError, KeyError):
        return None


def _alias(place: Path, package: Package) -> None:
    """Write a module under the name that scripts know: all that the package of that name has inside."""
    module = _site(place) / package.alias
    module.mkdir(exist_ok=True)
    text = f"from {package.module} import *\nfrom {package.module} import __version__\n"
    (module / "__init__.py").write_text(text)


def _site(place: Path) -> Path:
    return place / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def _versions(place: Path) -> dict[str, str]:
    names = (path.name for path in _site(place).glob("*.dist-info"))
    found = (re.fullmatch(r"(.+?)-([^-]+)\.dist-info", name) for name in names)
    return dict(sorted((match[1].replace("_", "-"), match[2]) for match in found if match))


def _key(requirements: Sequence[str]) -> str:
    parts = [*requirements, sys.version.split()[0], sys.platform]
    return sha256("\n".join(parts).encode()).hexdigest()[:10]


def _sizes(folder: Path) -> dict[int, int]:
    """Return bytes by file: uv links the same file into several environments, which takes no space."""
    found: dict[int, int] = {}
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                stat = Path(top, name).lstat()
                found[stat.st_ino] = stat.st_blocks * 512
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an environment, so that no other process makes it meanwhile."""
    with path.open("w") as file:
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
