"""Text of strangers inside of Markdown: whatever it holds, it stays text."""

from __future__ import annotations

import re


def fence(text: str, language: str = "") -> str:
    """Return a block of code that no line of the text can end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    body = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.strip("\n"))
    return f"{ticks}{language}\n{body or '(empty)'}\n{ticks}"


def code(text: str) -> str:
    """Return the code inside a line, whatever the text holds."""
    flat = flatten(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", flat)), default=0))
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}"


def flatten(text: str) -> str:
    """Make it one line of at most 300 printable characters."""
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return flat if len(flat) <= 300 else f"{flat[:296]} ..."


def prose(text: str) -> str:
    """Make it one line outside of code, in a table too: no HTML, no link, no mention of a person."""
    escaped = re.sub(r"([\\`*_\[\]#|~])", r"\\\1", flatten(text).replace("&", "&amp;").replace("<", "&lt;"))
    return escaped.replace("@", "@\u200b")


def figure(value: object) -> str:
    """Return a number with as many digits as float32 has; anything else as it is."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


FILTERS = {"fence": fence, "code": code, "line": flatten, "prose": prose, "figure": figure}
"""By the names that templates have for them."""
