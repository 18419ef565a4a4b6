"""The releases as a picture: a strip of boxes from the oldest to the newest."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bisect_trt.blaming import words
from bisect_trt.blaming.releases import Releases

_BOX, _GAP, _LEFT, _TOP, _HEIGHT = 26, 4, 16, 46, 34
_LETTER = 6.4  # of a font of 11 px
_COLOURS = {
    "bad": ("#c62828", "it fails"),
    "good": ("#2e7d32", "it is gone"),
    "likely bad": ("#ef9a9a", "not tried, between two that fail"),
    "likely good": ("#a5d6a7", "not tried, between two without it"),
    "dark": ("#9e9e9e", "nothing can be told"),
    "not tried": ("#eeeeee", "not tried"),
}


def svg(found: Releases) -> str:
    """Return a picture that stands by itself: colour, title and version of every release."""
    marks = words.marks(found)
    longest = max(len(name) for name, _ in marks) * _LETTER
    used = [kind for kind in _COLOURS if any(kind == mark for _, mark in marks)]
    title = f"{found.package}: {words.answer(found)}"
    legend = sum(len(_COLOURS[kind][1]) * _LETTER + 34 for kind in used)
    width = 2 * _LEFT + max(len(marks) * (_BOX + _GAP) + longest, legend, len(title) * _LETTER * 1.15)
    below = _TOP + _HEIGHT + longest * 0.8 + 34
    body = [f'<text x="{_LEFT}" y="24" font-size="13" font-weight="bold">{escape(title)}</text>']
    body += [_box(k, name, kind) for k, (name, kind) in enumerate(marks)]
    body += _legend(used, below)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{below + 24:.0f}"'
    style = 'font-family="sans-serif" font-size="11"'
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f'{head} role="img" aria-label="{escape(title)}" {style}>', back, *body, "</svg>", ""])


def _box(k: int, name: str, kind: str) -> str:
    x = _LEFT + k * (_BOX + _GAP)
    colour, word = _COLOURS[kind]
    below = _TOP + _HEIGHT + 12
    return (
        f'<g><title>{escape(name)}: {word}</title><rect x="{x}" y="{_TOP}" width="{_BOX}" height="{_HEIGHT}" '
        f'rx="3" fill="{colour}" stroke="#616161"/><text x="{x + 8}" y="{below}" '
        f'transform="rotate(50 {x + 8} {below})">{escape(name)}</text></g>'
    )


def _legend(kinds: Sequence[str], y: float) -> list[str]:
    x, found = float(_LEFT), []
    for kind in kinds:
        colour, word = _COLOURS[kind]
        shape = f'x="{x:.0f}" y="{y:.0f}" width="12" height="12" rx="2"'
        found.append(f'<rect {shape} fill="{colour}" stroke="#616161"/>')
        found.append(f'<text x="{x + 18:.0f}" y="{y + 10:.0f}">{word}</text>')
        x += len(word) * _LETTER + 34
    return found
