"""The timing cache: what builders have measured of their tactics, one file for all workers of a run.

A builder that finds a layer in the cache takes the tactic that was the fastest then and measures nothing, so
the same cache gives the same tactics. Builds that measure anew may choose otherwise each time: of three
processes two took a MatMul with TF32 and one took another (TensorRT 8.6 on an H200). So whoever measures
first decides, for all later probes and for the written files.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.settings import TIMING
from bisect_trt.targets.tensorrt import api
from bisect_trt.targets.tensorrt.log import Log
from bisect_trt.writing.files import written_whole

OTHER = "The timing cache is not used: it is of another TensorRT or GPU, or TensorRT cannot read it back."
"""What the log of a build says where a cache that came with a reproducer does not fit here."""


_UNUSED = "timing cache will not be used"
"""Seen with 8.6.0 where a file holds a graph that Myelin fused: it cannot be read back."""

_held: dict[Path, Any] = {}
"""The cache of the last build of this process by its file. What cannot be read back is good here all the
same: without it each probe of a model that Myelin fuses takes 2.3 s in place of 0.4 (8.6.0 on an H200)."""


def use(trt: Any, config: Any, file: Path, log: Log, *, strange: bool) -> None:
    """Have a build start with what the file holds; one that does not exist is empty.

    `strange`: the cache may have been made elsewhere, so one that does not fit is left out with a line.

    Raises:
        UsageError: the file cannot be read, or does not fit here and is not `strange`.
    """
    data = _read(file)
    if not data:
        _held.pop(file, None)  # whoever removed the file wants everything measured anew
    before = len(log.records)
    cache = _made(config, data)
    refused = any("timing cache" in r.message and "eserialize" in r.message for r in log.records[before:])
    unused = any(_UNUSED in r.message for r in log.records[before:])
    if unused and (strange or file.name == TIMING):  # one that we made: the build measures anew
        if file in _held:
            _set(config, _held[file])
        if strange:  # no other process can read it
            log.add("WARNING", OTHER)
        return
    fits = cache is not None and not refused and _set(config, cache)
    if data and not fits:
        if not strange:
            raise UsageError(
                f"--timing-cache {file}: no timing cache of this TensorRT and GPU",
                "Name another file; it is made when it does not exist.",
            )
        log.add("WARNING", OTHER)
        _set(config, _made(config, b""))
        return
    if hasattr(trt.BuilderFlag, "EDITABLE_TIMING_CACHE") and not api.is_rtx(trt):
        # The builder takes the tactic that the cache names, and does not measure again.
        config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)


def keep(config: Any, file: Path) -> None:
    """Add to the file what a build measured; what it holds by then stays as it is.

    Other workers and a kill at any moment see a whole file.

    Raises:
        UsageError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        own = config.get_timing_cache()
    if own is None:
        return
    _held[file] = own
    with _locked(file.parent):
        known = _read(file)
        cache = _made(config, known) if known else None
        if cache is None or not cache.combine(own, False):
            cache = own
        data = cache.serialize()
        if data is None or bytes(data) == known:
            return
        try:
            with written_whole(file) as aside:
                aside.write_bytes(bytes(data))
        except OSError as e:
            raise UsageError(
                f"--timing-cache {file}: {e.strerror}", "Name a file in a writable folder."
            ) from e


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes() if file.exists() else b""
    except OSError as e:
        raise UsageError(f"--timing-cache {file}: {e.strerror}", "Name a readable file.") from e


def _made(config: Any, data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a no-op in TensorRT-RTX, see its notes
        return config.create_timing_cache(data)


def _set(config: Any, cache: Any) -> bool:
    """Return whether the configuration takes a cache; TensorRT-RTX says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return config.set_timing_cache(cache, False) is not False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others from adding to a file of this folder meanwhile; the lock leaves nothing behind."""
    handle = None
    with suppress(OSError):  # where folders cannot be locked, what others measured may be lost
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
