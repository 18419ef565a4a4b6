"""Many spoiled files, one after the other, each told by its seed: `python -m fuzz.soak` in tests/.

Every model goes through load and normalise; where it is taken, on through `check` on a target in a warm
worker. Spoiled inputs, reports, configurations and journals take turns. Prints what was seen as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bisect_trt.errors import BisectError
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.workers.pool import Pool
from fuzz import spoiled

OURS = 70  # exit code of a bug of ours
SLOW = 30.0  # seconds after which the tool's own part counts as a hang
DEADLINE = 10.0  # of a probe, in seconds
TARGETS = ("ort:CPU", "tensorrt-rtx")
OTHER = (spoiled.inputs, spoiled.report, spoiled.configuration, spoiled.journal)


@dataclass
class Seen:
    """What came of it: counts by kind of answer, seeds of what is a fault, the slowest file in seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def told(self) -> dict[str, Any]:
        """Give it as plain data, with the peak memory of this process and of its largest child in bytes."""
        own, children = (
            resource.getrusage(who).ru_maxrss << 10
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        peaks = {"peak": own, "largest_child": children, "slowest": round(self.slowest, 2)}
        return {**dict(sorted(self.counts.items())), "faults": self.faults, **peaks}


def soak(seeds: Iterable[int], folder: Path, *, targets: tuple[str, ...] = TARGETS) -> Seen:
    """Try a spoiled file for each seed; all of them are written into `folder`."""
    seen = Seen()
    spoiled.begin(folder)
    with Pool(1, log_dir=folder.parent / "logs") as pool:
        for seed in seeds:
            if seed % 5 == 0:
                work = OTHER[seed // 5 % len(OTHER)]
                _look(seen, f"{work.__name__} {seed}", lambda work=work, seed=seed: work(folder, seed))
                continue
            taken = _look(seen, f"model {seed}", lambda seed=seed: spoiled.prepared(folder, seed))
            if taken and targets:
                spec = targets[seed % len(targets)]
                _look(seen, f"{spec} {seed}", lambda spec=spec: _checked(folder, spec, pool))
    return seen


def _checked(folder: Path, spec: str, pool: Pool) -> str:
    """What `check` says; what the target does to its worker is an answer."""
    settings = Settings(TargetSettings(spec), RunSettings(timeout=DEADLINE))
    outcome = check(folder / spoiled.MODEL, settings, warm=pool).outcome
    if outcome.failures:
        return outcome.failures[0].symptom.value
    return "unclear" if outcome.unresolved else "fine"


def _look(seen: Seen, name: str, work: Callable[[], str | None]) -> bool:
    """Whether it was taken. An exception of another kind than ours is a fault, as is what takes long."""
    began, what = time.monotonic(), name.split()[0]
    try:
        seen.counts[f"{what}: {work() or 'taken'}"] += 1
        taken = True
    except BisectError as error:
        taken = False
        seen.counts[f"{what}: exit {error.exit_code}"] += 1
        if error.exit_code == OURS or not error.message:
            seen.faults.append(f"{name}: {error}")
    except Exception as error:
        taken = False
        seen.counts[f"{what}: exception"] += 1
        seen.faults.append(f"{name}: {type(error).__name__}: {error}"[:300])
    seconds = time.monotonic() - began
    seen.slowest = max(seen.slowest, seconds)
    if seconds > SLOW:
        seen.faults.append(f"{name}: {seconds:.0f} s")
    return taken


def strays(above: Path, allowed: set[str]) -> list[str]:
    """What lies beside the folder that is meant."""
    return sorted(place.name for place in above.iterdir() if place.name not in allowed)


def main() -> int:
    """Run it; 1 where something was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--no-targets", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "here"
        folder.mkdir()
        seeds = range(given.first, given.first + given.count)
        seen = soak(seeds, folder, targets=() if given.no_targets else TARGETS)
        seen.faults += [f"outside: {name}" for name in strays(Path(above), {"here", "logs"})]
    print(json.dumps(seen.told()))
    return int(bool(seen.faults))


if __name__ == "__main__":
    sys.exit(main())
