"""The folder that is attached to a bug report, and the zip of it."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import onnx
from onnx import TensorProto

import bisect_trt
from bisect_trt.environment import Environment, describe
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.external import tensors
from bisect_trt.model.precision import narrowed
from bisect_trt.model.store import external_info, point_to, raw_size
from bisect_trt.reproducer import documents, issue, recipes, script, seeded, seeded_inputs, tool_inputs
from bisect_trt.result import Reduction
from bisect_trt.targets.emulated_graph import emulate

MODEL = "repro.onnx"
WEIGHTS = "repro.data"
PASSING = "passing.onnx"
TIMING = "timing.cache"
INPUTS = "inputs.npz"
EXPECTED = "expected.npz"
SCRIPT = "repro.py"
ISSUE = "ISSUE.md"
LOG = "target.log"
REPORT = "report.json"
PAGE = "report.html"
SUMMARY = "report.md"
ACTUAL = "actual.npz"

EMBED_LIMIT = 1_500_000_000
"""Bytes; models with more weights than this keep them in one file beside (protobuf ends at 2 GiB)."""

ATTACHMENT_LIMIT = 25_000_000
"""Bytes of an attachment that GitHub takes."""

_CHUNK = 1 << 24
_ALIGNMENT = 4096  # so that a reader may map the file
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first date: equal content gives equal bytes


def write_model(candidate: Candidate, out: Path, embed_limit: int = EMBED_LIMIT) -> None:
    """Write `repro.onnx`, standalone, and the values of each sample; each file whole or not at all.

    Weights are embedded, or in `repro.data` when there are more than `embed_limit` bytes of them; large
    seeded ones are in `seeded.bin`, which is not attached.

    Raises:
        OSError: external data of the candidate is missing or too short, or a file cannot be written.
    """
    with _draft(out, MODEL) as folder:
        _write_model(candidate, folder, embed_limit)
        _write_script(folder)
        for side, name in ((candidate.feeds, INPUTS), (candidate.expected, EXPECTED)):
            for k, feeds in enumerate(side):
                write_values(feeds, folder / sample_file(name, k))


def write_passing(candidate: Candidate, out: Path, embed_limit: int = EMBED_LIMIT) -> None:
    """Write `passing.onnx`, standalone: a neighbour of the reproducer that the target takes.

    Raises:
        OSError: external data of the candidate is missing, or a file cannot be written.
    """
    with _draft(out, PASSING) as folder:
        _write_model(candidate, folder, embed_limit, PASSING, _skeleton(out))


def write_narrow(out: Path, precision: str) -> None:
    """Write `repro-PRECISION.onnx`: `repro.onnx` with casts, for TensorRTs that take types as they stand.

    Raises:
        OSError: a file cannot be read or written.
    """
    with _draft(out, MODEL) as folder, tempfile.TemporaryDirectory() as scratch:
        made = narrowed((out / MODEL).read_bytes(), out, precision, Path(scratch))
        best = Candidate(made.model, made.folder, ())
        _write_model(best, folder, EMBED_LIMIT, narrow_file(precision), _skeleton(out))


def write_emulated(out: Path, precision: str) -> None:
    """Write `repro-PRECISION.onnx`: `repro.onnx` with every rounding of `emulate:PRECISION` in it.

    Raises:
        OSError: a file cannot be read or written.
    """
    with _draft(out, MODEL) as folder:
        made = emulate(onnx.load_model_from_string((out / MODEL).read_bytes()), precision)
        best = Candidate(made.model.SerializeToString(), out, ())
        _write_model(best, folder, EMBED_LIMIT, narrow_file(precision), _skeleton(out))


def narrow_file(precision: str) -> str:
    """Name of the file of `write_narrow` and `write_emulated`."""
    return f"repro-{precision}.onnx"


def write_timing_cache(source: Path, out: Path) -> None:
    """Keep the tactics that were chosen, where TensorRT left any.

    Raises:
        OSError: the file cannot be read or written.
    """
    if source.exists():
        with _draft(out, TIMING) as folder:
            shutil.copyfile(source, folder / TIMING)


def write_papers(
    reduction: Reduction,
    environment: Environment | None = None,
    pages: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write all that is text, `report.json` last: when it is there, everything is.

    `pages` are further texts by file name. Input values for other tools are written where asked for.

    Raises:
        OSError: a file cannot be written.
    """
    version = bisect_trt.__version__
    document = documents.report(reduction, environment or describe(), version)
    texts = {
        SCRIPT: script.render(reduction, version),
        ISSUE: issue.render(reduction, document, f"{_title(reduction.out)}.zip"),
        LOG: reduction.log.rstrip("\n") + "\n",
        **pages,
        REPORT: json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    with _draft(reduction.out, REPORT) as folder:
        tool_inputs.write(reduction.best, reduction.settings.papers.inputs_for, folder)
        for file, text in texts.items():
            (folder / file).write_bytes(text.encode("utf-8", errors="replace"))


def read_model(out: Path, scratch: Path) -> Candidate:
    """A written bundle as a candidate, read from its own files; values are unpacked into `scratch`.

    Seeded weights are made anew, there too.

    Raises:
        OSError: `repro.onnx` cannot be read.
        UsageError: its seeded weights cannot be made.
    """
    model = (out / MODEL).read_bytes()
    proto = onnx.load_model_from_string(model)
    made = seeded.write(proto, scratch / seeded.FILE)
    if made and (out / WEIGHTS).exists():
        (scratch / WEIGHTS).unlink(missing_ok=True)
        shutil.copyfile(out / WEIGHTS, scratch / WEIGHTS)
    return Candidate(
        content=model,
        folder=scratch if made else out,
        nodes=tuple(node.name for node in proto.graph.node),
        feeds=seeded_inputs.complete(proto, _read_samples(out, INPUTS, scratch), scratch),
        expected=_read_samples(out, EXPECTED, scratch),
        cut="written",
    )


def _write_model(
    candidate: Candidate,
    folder: Path,
    embed_limit: int,
    name: str = MODEL,
    owner: onnx.ModelProto | None = None,
) -> None:
    """Seeded weights are left out; where `owner` is given, `repro.onnx`, only those that it has as well."""
    proto = onnx.load_model_from_string(candidate.model)
    every = list(tensors(proto))

    def raw(tensor: TensorProto) -> bytes:
        outside = tensor.data_location == TensorProto.EXTERNAL
        return b"".join(_bytes(tensor, candidate.folder)) if outside else tensor.raw_data

    seeded_inputs.mark(proto, candidate.feeds)
    if owner is None:
        left = seeded.leave_out(proto, every, raw, folder / seeded.FILE)
    else:
        left = seeded.share(owner, every, raw)
    stored = [tensor for k, tensor in enumerate(every) if k not in left]
    external = [tensor for tensor in stored if tensor.data_location == TensorProto.EXTERNAL]
    size = proto.ByteSize() + sum(raw_size(t.data_type, t.dims) for t in external)
    if size > embed_limit:
        weights = Path(name).with_suffix(".data").name
        with (folder / weights).open("wb") as sink:
            for tensor in external:
                _move(tensor, candidate.folder, sink, weights)
    else:
        for tensor in external:
            tensor.raw_data = raw(tensor)
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    (folder / name).write_bytes(proto.SerializeToString(deterministic=True))


def _write_script(folder: Path) -> None:
    """`seeded.py`, where there is something for it to make."""
    proto = _skeleton(folder)
    rows = [seeded_inputs.row(one, sample_file(INPUTS, one.sample)) for one in seeded_inputs.all_told(proto)]
    words = seeded.words(proto, rows)
    if words["weights"] or rows:
        text = script.environment().get_template("seeded.py.j2").render(words)
        (folder / seeded.SCRIPT).write_bytes(text.encode())


def _skeleton(out: Path) -> onnx.ModelProto:
    """`repro.onnx` without its external data."""
    return onnx.load_model(str(out / MODEL), load_external_data=False)


def _read_samples(out: Path, name: str, scratch: Path) -> tuple[Feeds, ...]:
    samples: list[Feeds] = []
    while (archive := out / sample_file(name, len(samples))).exists():
        feeds = {}
        with zipfile.ZipFile(archive) as content:
            for k, entry in enumerate(content.infolist()):
                place = scratch / f"{name}-{len(samples)}-{k}.npy"  # names of tensors are no file names
                with content.open(entry) as source, place.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                feeds[entry.filename.removesuffix(".npy")] = place
        samples.append(feeds)
    return tuple(samples)


def sample_file(name: str, k: int) -> str:
    """Name of the file of the k-th sample: `inputs.npz`, `inputs-1.npz`, ..."""
    stem, suffix = name.split(".")
    return name if k == 0 else f"{stem}-{k}.{suffix}"


def write_values(feeds: Feeds, path: Path) -> None:
    """Put `.npy` files together as an `.npz`; the same values give the same bytes.

    Types that numpy does not know stay the bits of each element, as in the store.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, source in sorted(feeds.items()):
            _add(archive, f"{name}.npy", source)


def zip_it(out: Path) -> Path:
    """Zip what is to be attached, beside the folder; the same files give the same bytes.

    A file of that name that is no such zip is left alone and another name is taken.
    """
    title = _title(out)
    place = _free(out.parent, title)
    draft = place.with_name(f".{place.name}.writing")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            made = list(seeded_inputs.all_told(_skeleton(out)))
            for source in attachments(out):
                names = {one.name for one in made if sample_file(INPUTS, one.sample) == source.name}
                if names:
                    _add_bytes(archive, f"{title}/{source.name}", seeded_inputs.lighter(source, names))
                else:
                    _add(archive, f"{title}/{source.name}", source)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return place


def too_big(archive: Path) -> str:
    """What to do about an archive that GitHub does not take, as a sentence; empty when it does."""
    size = archive.stat().st_size
    if size <= ATTACHMENT_LIMIT:
        return ""
    with zipfile.ZipFile(archive) as content:
        largest = sorted(content.infolist(), key=lambda entry: -entry.compress_size)[:3]
    big = [entry for entry in largest if entry.compress_size > size / 100]
    told = ", ".join(f"{Path(e.filename).name} {e.compress_size / 1e6:.1f} MB" for e in big)
    limit = f"GitHub takes {ATTACHMENT_LIMIT / 1e6:.0f}"
    return f"{archive.name} has {size / 1e6:.1f} MB, {limit}; what is big: {told}"


def attachments(out: Path) -> list[Path]:
    """Those files of a bundle that are attached, sorted by name."""
    patterns: tuple[str, ...] = ("repro-*.onnx", "repro-*.data", TIMING)  # of TensorRT alone
    patterns += (MODEL, WEIGHTS, "passing.*", "inputs*.npz", "expected*.npz", "actual*.npz", SCRIPT, ISSUE)
    patterns += (LOG, seeded.SCRIPT)
    patterns += (REPORT, PAGE, SUMMARY, "trtexec-*.raw", recipes.JSON)
    return sorted(path for pattern in patterns for path in out.glob(pattern))


@contextmanager
def _draft(out: Path, last: str) -> Iterator[Path]:
    """A folder whose files move to `out` at the end, the file `last` after the others."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as name:
        folder = Path(name)
        yield folder
        for path in sorted(folder.iterdir(), key=lambda p: (p.name == last, p.name)):
            path.replace(out / path.name)


def _bytes(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    """Raw data of an external tensor, in chunks."""
    info = external_info(tensor)
    source = folder / info["location"]
    left = int(info.get("length") or raw_size(tensor.data_type, tensor.dims))
    with source.open("rb") as file:
        file.seek(int(info.get("offset", 0)))
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise OSError(f"{source} ends before the weight {tensor.name!r} does")
            left -= len(chunk)
            yield chunk


def _move(tensor: TensorProto, folder: Path, sink: IO[bytes], weights: str) -> None:
    sink.write(b"\0" * (-sink.tell() % _ALIGNMENT))
    start = sink.tell()
    for chunk in _bytes(tensor, folder):
        sink.write(chunk)
    point_to(tensor, weights, start, sink.tell() - start)


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = archive.compression
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # the same bytes on every system
    return entry


def _add_bytes(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(_entry(archive, name), data)


def _add(archive: zipfile.ZipFile, name: str, source: Path) -> None:
    entry = _entry(archive, name)
    entry.file_size = source.stat().st_size  # so that large files get the 64-bit header
    with source.open("rb") as file, archive.open(entry, "w") as sink:
        shutil.copyfileobj(file, sink, _CHUNK)


def _title(out: Path) -> str:
    name = out.absolute().name
    return name if name.endswith("-repro") else f"{name}-repro"


def _free(folder: Path, title: str) -> Path:
    k = 1
    while True:
        place = folder / (f"{title}.zip" if k == 1 else f"{title}-{k}.zip")
        if not place.exists() or _ours(place, title):
            return place
        k += 1


def _ours(place: Path, title: str) -> bool:
    try:
        with zipfile.ZipFile(place) as archive:
            return f"{title}/{REPORT}" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
