"""Names of the files of a reproducer, and archives of values."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from bisect_trt.model.candidate import Feeds
from bisect_trt.settings import TIMING as TIMING
from bisect_trt.writing.files import remove_drafts

MODEL = "repro.onnx"
WEIGHTS = "repro.data"
PASSING = "passing.onnx"
INPUTS = "inputs.npz"
EXPECTED = "expected.npz"
ACTUAL = "actual.npz"
SCRIPT = "repro.py"
ISSUE = "ISSUE.md"
NOTE = "NOTE.md"
LOG = "target.log"
REPORT = "report.json"
PAGE = "report.html"
SUMMARY = "report.md"

ATTACHED = [MODEL, WEIGHTS, SCRIPT, ISSUE, NOTE, LOG, REPORT, PAGE, SUMMARY, TIMING, "repro-*.onnx"]
ATTACHED += ["repro-*.data", "passing.*", "inputs*.npz", "expected*.npz", "actual*.npz", "trtexec-*.raw"]

_OF_A_RESULT = ["repro*.onnx", "*.data", PASSING, TIMING, "inputs*.npz", "expected*.npz", ACTUAL, "seeded.*"]

CHUNK = 1 << 24
"""Bytes that are copied at once."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first date: equal content gives equal bytes


def narrow_file(precision: str) -> str:
    """Return the name of `repro.onnx` with the casts or roundings of a precision."""
    return f"repro-{precision}.onnx"


def sample_file(name: str, k: int) -> str:
    """Return the name of the file of the k-th sample: `inputs.npz`, `inputs-1.npz`, ..."""
    stem, suffix = name.split(".")
    return name if k == 0 else f"{stem}-{k}.{suffix}"


def remove_result(out: Path) -> None:
    """Remove what an earlier, larger result left, or a run that was killed while it wrote."""
    remove_drafts(out)
    for pattern in _OF_A_RESULT:
        for path in out.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_values(feeds: Feeds, path: Path) -> None:
    """Put `.npy` files together as an `.npz`; the same values give the same bytes.

    Types that numpy does not know stay the bits of each element, as in the store.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, source in sorted(feeds.items()):
            add_to(archive, f"{name}.npy", source)


def entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return an entry of an archive that is the same on every system at any time."""
    made = zipfile.ZipInfo(name, _EPOCH)
    made.compress_type = archive.compression
    made.external_attr = 0o644 << 16
    made.create_system = 3
    return made


def add_to(archive: zipfile.ZipFile, name: str, source: Path) -> None:
    """Put a file into an archive, see `entry`."""
    made = entry(archive, name)
    made.file_size = source.stat().st_size  # so that large files get the 64-bit header
    with source.open("rb") as file, archive.open(made, "w") as sink:
        shutil.copyfileobj(file, sink, CHUNK)
