"""Say what the features of a commit take today: `python bench/lines.py [COMMIT]`.

The whole package grows with every feature, so its size says nothing of how well it is kept. Here each module
is followed back through renames and copies to the commit (`house.BASE` without one). Modules that lead there
are compared with what they were; all others are new, and stand by room.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from house import BASE, ROOT, code_lines, sources


def git(*arguments: str) -> str:
    """What git answers."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def ancestors(base: str) -> dict[str, str]:
    """Each module of today that comes of one of the base, with that one; paths below the repository."""
    came = {name: name for name in git("ls-tree", "-r", "--name-only", base, "bisect_trt").splitlines()}
    moves = ("--format=", "--name-status", "-M40%", "-C40%")
    log = git("log", "--reverse", *moves, f"{base}..HEAD", "--", "bisect_trt")
    for line in log.splitlines():
        kind, *names = line.split("\t")
        if kind[:1] in ("R", "C") and names[0] in came:
            came[names[1]] = came[names[0]]
        if kind[:1] == "R":
            came.pop(names[0], None)
        if kind[:1] in ("D", "A"):
            came.pop(names[0], None)
    return came


def main() -> int:
    """Print the lines of code then and now of what both have, room by room, and those of what is new."""
    base = sys.argv[1] if len(sys.argv) > 1 else BASE
    came = ancestors(base)
    then, now, new = Counter[str](), Counter[str](), Counter[str]()
    roots: dict[str, str] = {}
    for source in sources().values():
        root = came.get(f"bisect_trt/{source.name}", "")
        (now if root else new)[source.room] += code_lines(source.text)
        if root:
            roots.setdefault(root, source.room)
    for root in git("ls-tree", "-r", "--name-only", base, "bisect_trt").splitlines():
        if root.endswith(".py"):
            then[roots.get(root, "(gone)")] += code_lines(git("show", f"{base}:{root}"))
    print(f"{'room':18}{'then':>8}{'the same today':>16}{'new modules':>14}")
    for room in sorted(then | now | new):
        print(f"{room:18}{then[room]:8,}{now[room]:16,}{new[room]:14,}")
    print(f"{'all':18}{then.total():8,}{now.total():16,}{new.total():14,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
