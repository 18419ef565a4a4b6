"""`command:CMD`: a program in an environment of its own gives the outputs. Runs in worker processes only.

CMD is split as a shell does it, but no shell runs. `{model}` is the ONNX file, `{inputs}` a file with the
inputs of one sample, `{outputs}` where its outputs are to be written: `.npz`, or JSON where the word ends in
`.json` (`{inputs}.json`: as Polygraphy writes it; plain lists are taken back, too).
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.inputs.formats import in_order, read_samples, write_samples
from bisect_trt.outcome import Array

_SHOWN_CHARACTERS = 500  # characters of what the program said last


def run(
    command: str, model: Path, samples: Sequence[Mapping[str, Array]], outputs: Sequence[str]
) -> list[dict[str, Array]]:
    """Run the program once for each sample, in the current folder.

    Raises:
        UsageError: it cannot be started, fails, or writes no outputs that can be read.
    """
    found = []
    for sample in samples:
        with temporary_folder() as scratch:
            found.append(_run(command, model, sample, outputs, scratch))
    return found


def _run(
    command: str, model: Path, sample: Mapping[str, Array], outputs: Sequence[str], scratch: Path
) -> dict[str, Array]:
    option = f"--reference command:{command}"
    given = scratch / ("inputs.json" if "{inputs}.json" in command else "inputs.npz")
    answer = scratch / ("outputs.json" if "{outputs}.json" in command else "outputs.npz")
    values = {
        "{inputs}.json": str(given), "{outputs}.json": str(answer),
        "{inputs}": str(given), "{outputs}": str(answer), "{model}": str(model.absolute()),
    }  # fmt: skip
    write_samples(given, [sample])
    words = [_filled(word, values) for word in shlex.split(command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"{option} cannot be started: {error.strerror or error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-_SHOWN_CHARACTERS:]
        if done.returncode < 0:
            why = f"{option} is ended by signal {-done.returncode}{f': {said}' if said else ''}"
            raise TargetUnavailable(f"nothing can be said: {why}", "run it by itself to see why")
        raise UsageError(f"{option} ends with exit code {done.returncode}: {said or 'it says nothing'}")
    [one] = read_samples(answer, outputs)[:1] or [{}]
    return in_order(one, outputs)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word
