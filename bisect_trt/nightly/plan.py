"""What a night has to do, and in which order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from os.path import realpath
from pathlib import Path

from msgspec import Struct, to_builtins

from bisect_trt.errors import UsageError
from bisect_trt.nightly import options
from bisect_trt.nightly.config import Config, target_name
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.verdicts import Key, Status
from bisect_trt.settings import Settings


class Item(Struct, frozen=True):
    """One model on one target. `name` is the path relative to the configuration, with slashes."""

    name: str
    target: str
    path: Path
    settings: Settings

    @property
    def digest(self) -> str:
        """Return the digest of the settings: a result is good for equal ones only."""
        data = json.dumps(to_builtins(self.settings, enc_hook=str), sort_keys=True)
        return hashlib.sha256(data.encode()).hexdigest()[:16]

    @property
    def slug(self) -> str:
        """A file name that is unique for model and target, and still says which they are."""
        plain = re.sub(r"[^\w.]", "-", f"{Path(self.name).stem}-{self.target}")
        return f"{plain[:60]}-{hashlib.sha256(f'{self.name}|{self.target}'.encode()).hexdigest()[:8]}"


def find_models(config: Config) -> list[str]:
    """Return the names of the files that the globs match, sorted; the output folder is never looked into.

    Raises:
        UsageError: a glob is absolute or broken, or nothing matches.
    """
    base, out = config.base, (config.base / config.out).resolve()
    found: set[str] = set()
    for pattern in config.models.include:
        try:
            paths = [p for p in base.glob(pattern) if p.is_file() or p.is_symlink()]
        except (ValueError, NotImplementedError) as error:
            raise UsageError(
                f"models.include: {pattern!r} cannot be used: {error}",
                f"patterns are relative to {base}, such as models/**/*.onnx",
            ) from error
        # `realpath` and not `Path.resolve`: a link that leads to itself is a model that cannot be read
        found |= {p.relative_to(base).as_posix() for p in paths if out not in Path(realpath(p)).parents}
    kept = sorted(n for n in found if not any(fnmatch(n, x) for x in config.models.exclude))
    if not kept:
        raise UsageError(
            f"no model matches {', '.join(config.models.include)} in {base}",
            "see models.include and models.exclude in the configuration",
        )
    return kept


def items(config: Config, names: Iterable[str]) -> list[Item]:
    """Return every model on every target, with its settings."""
    found = []
    for name in names:
        path = config.base / name
        own = [entry for entry in config.model if fnmatch(name, entry.match)]
        for target in config.target:
            layers = [options.given(table) for table in (config.defaults, target, *own)]
            settings = options.settings(target.spec, layers, config.base, Path(name))
            found.append(Item(name, target_name(target), path, settings))
    return found


def one_of_each(ordered: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that are to be reduced: the first of each failure and operator; and the others."""
    firsts: dict[tuple[Key | None, str], Row] = {}
    for row in ordered:
        firsts.setdefault((row.key, row.op), row)
    names = {row.name for row in firsts.values()}
    return list(firsts.values()), [row for row in ordered if row.name not in names]


_RANK = {Status.NEW: 0, Status.CHANGED: 0, Status.FLAKY: 1, Status.KNOWN: 2}


def reduce_order(rows: Iterable[Row]) -> list[Row]:
    """New failures before known ones, cheap before dear; of each failure one model first.

    Of 37 models with the same failure the cheapest is reduced first and the other 36 come after the
    first ones of all other failures of their rank: when time runs out, every bug has a reproducer.
    """
    ordered = sorted(rows, key=lambda row: (_RANK.get(row.status, 3), *row.turn))
    seen = set[Key | None]()
    later = {}
    for row in ordered:
        later[row.name] = row.key in seen
        seen.add(row.key)
    return sorted(ordered, key=lambda row: (_RANK.get(row.status, 3), later[row.name], *row.turn))
