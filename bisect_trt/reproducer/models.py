"""`repro.onnx` and its relatives: standalone models, and the values of their inputs and outputs."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import onnx
from onnx import TensorProto

from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.candidate import Candidate, Feeds, Form
from bisect_trt.model.external import tensors
from bisect_trt.model.precision import narrowed
from bisect_trt.model.store import external_info, point_to, raw_size
from bisect_trt.model.weight_values import EMBED_LIMIT
from bisect_trt.outcome import Failure
from bisect_trt.reproducer import files, script, seeded
from bisect_trt.targets.emulate.graph import emulate
from bisect_trt.targets.tensorrt.defaults import spelled_out
from bisect_trt.targets.tensorrt.ignored import is_ignored, without_ignored
from bisect_trt.writing.files import written_aside

_ALIGNMENT = 4096  # so that a reader may map the file


def write_model(candidate: Candidate, out: Path, embed_limit: int = EMBED_LIMIT) -> None:
    """Write `repro.onnx`, standalone, and the values of each sample; each file whole or not at all.

    Weights are embedded, or in `repro.data` when there are more than `embed_limit` bytes of them; large
    seeded ones are in `seeded.bin`, which is not attached.

    Raises:
        OSError: external data of the candidate is missing or too short, or a file cannot be written.
    """
    with written_aside(out, files.MODEL) as folder:
        _write_model(candidate, folder, embed_limit)
        _write_script(folder)
        for side, name in ((candidate.feeds, files.INPUTS), (candidate.expected, files.EXPECTED)):
            for k, feeds in enumerate(side):
                files.write_values(feeds, folder / files.sample_file(name, k))


def write_beside(candidate: Candidate, out: Path, name: str) -> None:
    """Write another model beside `repro.onnx`, standalone but for the seeded weights that both have.

    Raises:
        OSError: external data of the candidate is missing, or a file cannot be written.
    """
    with written_aside(out, name) as folder:
        _write_model(candidate, folder, EMBED_LIMIT, name, skeleton_of(out))


def write_narrow(out: Path, precision: str) -> None:
    """Write `repro-PRECISION.onnx`: `repro.onnx` with casts, for TensorRTs that take types as they stand.

    Raises:
        OSError: a file cannot be read or written.
    """
    with temporary_folder() as scratch:
        made = narrowed((out / files.MODEL).read_bytes(), out, precision, scratch)
        write_beside(Candidate(made.model, made.folder, ()), out, files.narrow_file(precision))


def write_emulated(out: Path, precision: str) -> None:
    """Write `repro-PRECISION.onnx`: `repro.onnx` with every rounding of `emulate:PRECISION` in it.

    Raises:
        OSError: a file cannot be read or written.
    """
    made = emulate(onnx.load_model_from_string((out / files.MODEL).read_bytes()), precision)
    write_beside(Candidate(made.model.SerializeToString(), out, ()), out, files.narrow_file(precision))


def write_twin(out: Path, wanted: Failure) -> None:
    """Write the model beside `repro.onnx` whose engine shows what the parser reads otherwise.

    That is `repro-spelled.onnx`, with the defaults of ONNX that it leaves out, or `repro-without.onnx`,
    without the attribute that is ignored.

    Raises:
        OSError: a file cannot be read or written.
    """
    proto = onnx.load_model_from_string((out / files.MODEL).read_bytes())
    ignored = is_ignored(wanted)
    made = without_ignored(proto, wanted) if ignored else spelled_out(proto)
    write_beside(Candidate(made, out, ()), out, files.narrow_file("without" if ignored else "spelled"))


def write_timing_cache(source: Path, out: Path) -> None:
    """Keep the tactics that were chosen, where TensorRT left any.

    Raises:
        OSError: the file cannot be read or written.
    """
    if source.exists():
        with written_aside(out, files.TIMING) as folder:
            shutil.copyfile(source, folder / files.TIMING)


def read_model(out: Path, scratch: Path) -> Candidate:
    """Return a written bundle as a candidate, read from its own files; values are unpacked into `scratch`.

    Seeded weights are made anew, there too.

    Raises:
        OSError: `repro.onnx` cannot be read.
        UsageError: its seeded weights cannot be made.
    """
    model = (out / files.MODEL).read_bytes()
    proto = onnx.load_model_from_string(model)
    made = seeded.write(proto, scratch / seeded.FILE)
    if made and (out / files.WEIGHTS).exists():
        (scratch / files.WEIGHTS).unlink(missing_ok=True)
        shutil.copyfile(out / files.WEIGHTS, scratch / files.WEIGHTS)
    return Candidate(
        content=model,
        folder=scratch if made else out,
        nodes=tuple(node.name for node in proto.graph.node),
        feeds=seeded.complete(proto, _read_samples(out, files.INPUTS, scratch), scratch),
        expected=_read_samples(out, files.EXPECTED, scratch),
        form=Form.WRITTEN,
    )


def _write_model(
    candidate: Candidate,
    folder: Path,
    embed_limit: int,
    name: str = files.MODEL,
    owner: onnx.ModelProto | None = None,
) -> None:
    """Seeded weights are left out; where `owner` is given, `repro.onnx`, only those that it has as well."""
    proto = onnx.load_model_from_string(candidate.model)
    every = list(tensors(proto))

    def raw(tensor: TensorProto) -> bytes:
        outside = tensor.data_location == TensorProto.EXTERNAL
        return b"".join(_bytes(tensor, candidate.folder)) if outside else tensor.raw_data

    seeded.mark(proto, candidate.feeds)
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
    proto = skeleton_of(folder)
    made = seeded.seeded_inputs(proto)
    rows = [seeded.row(one, files.sample_file(files.INPUTS, one.sample)) for one in made]
    words = seeded.words(proto, rows)
    if words["weights"] or rows:
        text = script.environment().get_template("seeded.py.j2").render(words)
        (folder / seeded.SCRIPT).write_bytes(text.encode())


def skeleton_of(out: Path) -> onnx.ModelProto:
    """Return `repro.onnx` without its external data."""
    return onnx.load_model(str(out / files.MODEL), load_external_data=False)


def _read_samples(out: Path, name: str, scratch: Path) -> tuple[Feeds, ...]:
    samples: list[Feeds] = []
    while (archive := out / files.sample_file(name, len(samples))).exists():
        feeds = {}
        with zipfile.ZipFile(archive) as content:
            for k, entry in enumerate(content.infolist()):
                place = scratch / f"{name}-{len(samples)}-{k}.npy"  # names of tensors are no file names
                with content.open(entry) as source, place.open("wb") as sink:
                    shutil.copyfileobj(source, sink, files.CHUNK)
                feeds[entry.filename.removesuffix(".npy")] = place
        samples.append(feeds)
    return tuple(samples)


def _bytes(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    """Yield the raw data of an external tensor, in chunks."""
    info = external_info(tensor)
    source = folder / info["location"]
    left = int(info.get("length") or raw_size(tensor.data_type, tensor.dims))
    with source.open("rb") as file:
        file.seek(int(info.get("offset", 0)))
        while left:
            chunk = file.read(min(left, files.CHUNK))
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
