"""The zip of a reproducer: what is attached to a bug report."""

from __future__ import annotations

import zipfile
from itertools import chain, count
from pathlib import Path

from msgspec.structs import replace

from bisect_trt.model.seeded_values import DESCRIBED_FROM
from bisect_trt.outcome import Stage
from bisect_trt.reproducer import command_lines, files, seeded
from bisect_trt.reproducer.models import skeleton_of
from bisect_trt.results import Reduction
from bisect_trt.writing.files import written_whole
from bisect_trt.writing.text import short_name

ATTACHMENT_LIMIT = 25_000_000
"""Bytes of an attachment that GitHub takes."""


def zipped(reduction: Reduction) -> Reduction:
    """Write the zip that is to be attached; a note says where it is too big for that."""
    archive = zip_it(reduction.out, reduction.wanted.stage)
    return replace(reduction, archive=archive, notes=(*reduction.notes, *filter(None, [too_big(archive)])))


def zip_it(out: Path, stage: Stage) -> Path:
    """Zip what is to be attached, beside the folder; the same files give the same bytes.

    A file of that name that is no such zip is left alone and another name is taken. What fails at this stage
    and is never run needs no large expected outputs: the reference gives them again.
    """
    title = folder_name(out)
    place = _free(out.parent, title)
    made, outputs = list(seeded.seeded_inputs(skeleton_of(out))), out.glob("expected*.npz")
    never_run = stage in (Stage.PARSE, Stage.BUILD)
    needless = {path for path in outputs if never_run and path.stat().st_size > DESCRIBED_FROM}
    with (
        written_whole(place) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
    ):
        for source in (source for source in attachments(out) if source not in needless):
            inside = f"{title}/{source.name}"
            names = {one.name for one in made if files.sample_file(files.INPUTS, one.sample) == source.name}
            if names:
                archive.writestr(files.entry(archive, inside), seeded.lighter(source, names))
            else:
                files.add_to(archive, inside, source)
    return place


def too_big(archive: Path) -> str:
    """Return what to do about an archive that GitHub does not take, as a sentence; empty when it does."""
    size = archive.stat().st_size
    if size <= ATTACHMENT_LIMIT:
        return ""
    with zipfile.ZipFile(archive) as content:
        largest = sorted(content.infolist(), key=lambda found: -found.compress_size)[:3]
    big = [found for found in largest if found.compress_size > size / 100]
    text = ", ".join(f"{Path(e.filename).name} {e.compress_size / 1e6:.1f} MB" for e in big)
    limit = f"GitHub takes {ATTACHMENT_LIMIT / 1e6:.0f}"
    return f"{archive.name} has {size / 1e6:.1f} MB, {limit}; what is big: {text}"


def attachments(out: Path) -> list[Path]:
    """Return those files of a bundle that are attached, sorted by name."""
    patterns = (*files.ATTACHED, seeded.SCRIPT, command_lines.JSON)
    return sorted(path for pattern in patterns for path in out.glob(pattern))


def folder_name(out: Path) -> str:
    """Return the name of the folder inside of the zip, and of the zip but for its suffix."""
    name = short_name(out.absolute().name)
    return name if name.endswith("-repro") else f"{name}-repro"


def remove_zip(out: Path) -> None:
    """Remove the zip that an earlier run made of this folder: what takes its place is another result."""
    title = folder_name(out)
    place = out.absolute().parent / f"{title}.zip"
    if _ours(place, title):
        place.unlink()


def _free(folder: Path, title: str) -> Path:
    names = chain([title], (f"{title}-{k}" for k in count(2)))
    places = (folder / f"{name}.zip" for name in names)
    return next(place for place in places if not place.exists() or _ours(place, title))


def _ours(place: Path, title: str) -> bool:
    try:
        with zipfile.ZipFile(place) as archive:
            return f"{title}/{files.REPORT}" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
