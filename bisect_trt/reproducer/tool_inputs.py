"""Input values in the formats of other tools: raw files for trtexec, JSON for Polygraphy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bisect_trt.errors import UsageError
from bisect_trt.inputs.formats import write_samples
from bisect_trt.model.candidate import Candidate
from bisect_trt.reproducer.recipes import JSON, POLYGRAPHY, RAW_EXPECTED, RAW_INPUT, TRTEXEC

TOOLS = (TRTEXEC, POLYGRAPHY)


def parse(text: str) -> tuple[str, ...]:
    """`trtexec,polygraphy` as names of tools, each once.

    Raises:
        UsageError: a tool is not known.
    """
    found = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    for word in found:
        if word not in TOOLS:
            raise UsageError(f"--with {word}: no inputs are written for it", f"Known: {', '.join(TOOLS)}.")
    return found


def write(candidate: Candidate, tools: tuple[str, ...], folder: Path) -> None:
    """Write what the tools need; trtexec gets the first sample only, in the order of the names.

    Types that numpy does not know stay the bits of each element, as in the archives.
    """
    if TRTEXEC in tools:
        for pattern, samples in ((RAW_INPUT, candidate.feeds), (RAW_EXPECTED, candidate.expected)):
            for k, (_, path) in enumerate(sorted(samples[0].items()) if samples else ()):
                np.load(path, mmap_mode="r", allow_pickle=False).tofile(folder / pattern.format(k))
    if POLYGRAPHY in tools and candidate.feeds:
        loaded = [
            {name: np.load(path, allow_pickle=False) for name, path in sorted(sample.items())}
            for sample in candidate.feeds
        ]
        write_samples(folder / JSON, loaded)
