"""Templates of a package, put into Python once for a machine: that of a page takes as long as a small search.

jinja2 writes a template as a Python module and has it compiled. What comes of it is kept where Python keeps
that of modules: in `__pycache__` beside the template, with the checksum of the template in it. Where that
cannot be written, or is not to be (`PYTHONDONTWRITEBYTECODE`), each process compiles anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from bisect_trt.writing.files import written_whole


def environment(package: str, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Return the templates in the folder `templates` of a package.

    What goes into HTML is escaped, and what is not given is an error.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        bytecode_cache=_Beside(),
    )
    made.filters |= filters
    return made


def of_xml(package: str, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Return the same as `environment` with filters for XML: `quoted` for attributes, `escaped` for text."""
    from xml.sax import saxutils  # takes urllib, http and ssl with it, and most pages are no XML

    return environment(package, quoted=saxutils.quoteattr, escaped=saxutils.escape, **filters)


class _Beside(jinja2.BytecodeCache):
    """Keeps what a template was compiled to beside it."""

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Return the file that keeps it; jinja2 compares the checksum of the source that is in it."""
        return cache_from_source(filename) if filename else ""

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what is there, if it is of the same source and version."""
        with suppress(OSError), Path(bucket.key).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep it; another process may do so at the same time."""
        if sys.dont_write_bytecode or not bucket.key:
            return
        place = Path(bucket.key)
        with suppress(OSError):
            place.parent.mkdir(exist_ok=True)
            with written_whole(place) as aside, aside.open("wb") as file:
                bucket.write_bytecode(file)
