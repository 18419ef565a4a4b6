"""Write docs/api.md from the docstrings of what `import bisect_trt` offers."""

from __future__ import annotations

import inspect
import re
import sys
from enum import EnumMeta
from pathlib import Path
from typing import Any

from msgspec import Struct

import bisect_trt
import bisect_trt.api

FUNCTIONS = ("reduce", "reduce_all", "check", "scan", "precision", "profile", "simplify", "verify", "blame")
HEAD = """# In Python

Written by `make docs` from the docstrings; every example is run by a test.
"""


def signature(name: str, thing: Any) -> str:
    """The head of a function or class as it is called, each argument on a line of its own."""
    if isinstance(thing, EnumMeta) or not (inspect.isfunction(thing) or issubclass(thing, Struct)):
        return name
    arguments = []
    for argument in inspect.signature(thing).parameters.values():
        if isinstance(thing, type):  # msgspec's signature has the types themselves, with their modules
            argument = argument.replace(annotation=thing.__annotations__[argument.name])
        text = re.sub(r"<function .*? at 0x\w+>|(\w+Settings|Asking)\(.*\)$|<factory>", "...", str(argument))
        arguments.append(text.replace("'", ""))
    inner = ",\n    ".join(arguments)
    return f"{name}(\n    {inner},\n)" if arguments else f"{name}()"


def section(name: str) -> str:
    """One function or class: its head, and its docstring as it stands in the source."""
    thing = getattr(bisect_trt, name)
    doc = inspect.getdoc(thing) or ""
    if isinstance(thing, EnumMeta):
        doc += "\n\n" + ", ".join(f"`{member.name}`" for member in thing)
    return f"### `{name}`\n\n```\n{signature(name, thing)}\n```\n\n{_marked(doc)}\n"


def _marked(doc: str) -> str:
    """Blocks of arguments and errors as lists; everything else is Markdown already."""
    lines = []
    for line in doc.splitlines():
        head = re.fullmatch(r"(Args|Attributes|Raises|Returns):", line)
        item = re.fullmatch(r"    ([\w*, ]+): (.*)", line)
        if head:
            lines.append(f"**{head[1]}**\n")
        elif item:
            lines.append(f"- `{item[1].replace('**', '')}`: {item[2]}")
        else:
            lines.append(re.sub(r"^    +", "  ", line))
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    classes = [name for name in bisect_trt.__all__ if name not in (*FUNCTIONS, "__version__")]
    settings = [name for name in classes if name.endswith("Settings")]
    errors = [
        name
        for name in classes
        if inspect.isclass(found := getattr(bisect_trt, name)) and issubclass(found, Exception)
    ]
    results = [name for name in classes if name not in (*settings, *errors)]
    groups = {"Functions": FUNCTIONS, "Settings": settings, "Results": results, "Errors": errors}
    found = [HEAD, _marked(inspect.getdoc(bisect_trt.api) or "") + "\n"]
    for title, names in groups.items():
        found += [f"## {title}\n", *(section(name) for name in names)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(found)).rstrip() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
