#!/usr/bin/env bash
# One would guess: a comparison of two runners passes only when something was compared and was equal.
# What happens: Polygraphy's Comparator.compare_accuracy is true when a runner has an output less than
# the other, when it has fewer iterations, when it has none at all, and when the only outputs have
# different names (it pairs them by position). One wrong output more or less decides nothing, since
# it is never looked at. Its warnings go to the log; the result is a plain "passed".
# Versions: polygraphy 0.53.6, numpy 2.4.6; seen 2026-11-29.
# Why it matters for bisecting: a probe that dropped the failing output, or stopped early, is a pass,
# and the search walks off into the wrong half.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile polygraphy==0.53.6 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import numpy as np
import polygraphy
from polygraphy.comparator import Comparator, IterationResult, RunResults
from polygraphy.logger import G_LOGGER

G_LOGGER.module_severity = G_LOGGER.CRITICAL


def passes(first, second):
    runs = RunResults()
    for name, iterations in (("first", first), ("second", second)):
        outputs = [{k: np.array([v], np.float32) for k, v in each.items()} for each in iterations]
        runs.append((name, [IterationResult(each, runner_name=name) for each in outputs]))
    return bool(Comparator.compare_accuracy(runs))


print("polygraphy", polygraphy.__version__)
cases = {
    "y = 1 against y = 2": ([{"y": 1}], [{"y": 2}], False),
    "the second has no output z": ([{"y": 1, "z": 2}], [{"y": 1}], True),
    "the first has no output z": ([{"y": 1}], [{"y": 1, "z": 2}], True),
    "boxes against scores": ([{"boxes": 1}], [{"scores": 1}], True),
    "two iterations against one": ([{"y": 1}, {"y": 9}], [{"y": 1}], True),
    "one iteration against none": ([{"y": 1}], [], True),
    "none against none": ([], [], True),
}
for what, (first, second, expected) in cases.items():
    got = passes(first, second)
    print(f"{what:28} {'passed' if got else 'failed'}")
    assert got is expected, what
PY
echo "as described: nothing compared is passed"
