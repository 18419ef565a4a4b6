"""Models that are called otherwise than in the night before: their history goes on.

`nightly models/` calls a model by its path below that folder, a configuration by its path below its own; a
model may also have been moved. It is the same when one path ends with the other, or when its content is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bisect_trt.nightly.history import History


def moved(history: History, night: int, names: Sequence[str], base: Path) -> Iterator[tuple[str, str]]:
    """Old and new name of each such model; where more than one could be meant, none is."""
    before = history.last_night(night)
    known = {row.model: row.digest for row in history.rows(before.id)} if before else {}
    gone = {old for old in known if old not in names and not (base / old).exists()}
    new = [name for name in names if name not in known]
    found = _pairs(gone, new, lambda old, name: name.endswith(f"/{old}") or old.endswith(f"/{name}"))
    yield from found
    gone -= {old for old, _ in found}
    new = [name for name in new if name not in {name for _, name in found}]
    contents = {name: digest(base / name) for name in new} if gone else {}
    yield from _pairs(gone, new, lambda old, name: bool(known[old]) and known[old] == contents[name])


def _pairs(gone: set[str], new: Sequence[str], same: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    pairs = [(old, name) for old in sorted(gone) for name in new if same(old, name)]
    olds, names = Counter(old for old, _ in pairs), Counter(name for _, name in pairs)
    return [(old, name) for old, name in pairs if olds[old] == names[name] == 1]


def digest(model: Path) -> str:
    """Return the digest of the file's content; empty when it cannot be read."""
    try:
        with model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:
        return ""  # `check` says what is wrong
