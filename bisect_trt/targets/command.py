"""`command:CMD`: a program of the user decides.

CMD is split as a shell does it, but no shell runs. In each word these are replaced:

    {model}     an ONNX file with its weights inside (beside it when they are above 1.5 GB)
    {inputs}    a `.npz` file with the inputs of one sample
    {outputs}   where the program may write outputs: `.npz`, or JSON as Polygraphy saves it

It runs once for each sample, in a scratch folder that is removed afterwards; words that name files in
the current folder are made absolute first. Exit code 0: the candidate is fine (its outputs are compared
if there are any); 125: cannot tell; anything else: it fails. With `--fail-regex`, only an exit whose log
(stdout, stderr) has a match counts as a failure, and the match is its signature; without, the signature
is the last line on stderr, with names and numbers masked.

The program is in the worker's process group, which is killed as a whole when a probe takes too long; it
asks the kernel to be killed with the worker, too, however that ends. CMD comes from the command line
alone: nothing in a model is ever run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.machine.limits import signal_name
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.inputs.formats import in_order, read_json, read_npz, write_npz
from bisect_trt.model.weight_values import save_whole
from bisect_trt.outcome import Array, Failure, Stage, Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetInfo, TargetResult, announce, as_declared
from bisect_trt.targets.signature import bounded, mask
from bisect_trt.targets.tensorrt.blame import Blame
from bisect_trt.targets.tensorrt.log import trim

CANNOT_TELL = 125  # as `git bisect run` has it
_READ = 4 << 20  # bytes of each stream that are looked at: the last ones
_MOST_OUTPUT = 256 << 20  # bytes of each stream that lie on the disk
_LOOK = 0.05  # seconds between two looks at them
_FILES = {"model": "model.onnx", "inputs": "inputs.npz", "outputs": "outputs.npz"}
_PLACEHOLDER = re.compile(r"\{(model|inputs|outputs)\}")
# PR_SET_PDEATHSIG (1) outlives exec but has to be set in the child, and a preexec_fn is not safe in a
# process with threads. So a small Python stands between; should the worker be gone already, it ends.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(125)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as e:
    with open("not-started", "w") as file:
        file.write(str(e.strerror))
"""


class Command:
    """A program as a target, see `targets.base.Target` and the module's own text."""

    def __init__(self, settings: TargetSettings) -> None:
        """Split the command of `settings.spec`.

        Raises:
            UsageError: it cannot be split, the program is missing, an unknown placeholder, a bad regex.
        """
        self._text = settings.spec.partition(":")[2]
        try:
            self._words = shlex.split(self._text)
        except ValueError as e:
            raise UsageError(f"target {settings.spec!r}: {e}", "Quote as for a shell.") from e
        if not self._words:
            raise UsageError("target 'command:' names no program", "Write 'command:PROGRAM {model} ...'.")
        if not self._has("model"):
            raise UsageError(
                f"target {settings.spec!r} has no {{model}}",
                "Write 'command:PROGRAM {model} ...'; {inputs} and {outputs} are there, too.",
            )
        program = shutil.which(self._words[0])
        if program is None:
            raise UsageError(
                f"target {settings.spec!r}: there is no program {self._words[0]!r}",
                "Give a program on PATH or a path to one that can be executed.",
            )
        self._words = [str(Path(program).absolute()), *map(_absolute, self._words[1:])]
        try:
            self._fail_regex = re.compile(settings.fail_regex) if settings.fail_regex else None
        except re.error as e:
            raise UsageError(f"--fail-regex {settings.fail_regex!r}: {e}") from e

    def info(self) -> TargetInfo:
        """Describe the program; outputs can be compared when the command has `{outputs}`."""
        compares = self._has("outputs")
        notes = () if compares else ("The command has no {outputs}: only how it exits counts.",)
        return TargetInfo(
            name=f"command:{self._text}", title=f"command {self._text}", can_run=compares, notes=notes
        )

    def run(self, candidate: Candidate) -> TargetResult:
        """Run the program on each sample; on the first alone when it takes no inputs.

        Raises:
            UsageError: the program cannot be started.
        """
        announce(Stage.RUN)
        model = onnx.load_model_from_string(candidate.model)
        outputs: list[Mapping[str, Array]] = []
        logs: list[str] = []
        with tempfile.TemporaryDirectory(prefix="bisect-trt-") as name:
            scratch = Path(name)
            for feeds in self._samples(candidate, model):
                file, given, made = (scratch / name for name in _FILES.values())
                if not file.exists():  # at first, and when the program took it away
                    scratch.mkdir(exist_ok=True)
                    save_whole(onnx.load_model_from_string(candidate.model), candidate.folder, file)
                write_npz(given, feeds)
                made.unlink(missing_ok=True)
                code, out, err = self._execute(scratch)
                log = trim([*out.splitlines(), *err.splitlines()])
                logs.append(log)
                if code != 0:
                    return self._result(code, out, err, candidate, "\n".join(logs))
                try:
                    if made.exists() and made.stat().st_size > 0:
                        outputs.append(read_outputs(made, model.graph.output))
                except ValueError as e:
                    why = f"what the command wrote to {{outputs}} cannot be used: {e}"
                    return TargetResult(unresolved=why, log="\n".join(logs))
        complete = outputs and len(outputs) == len(logs)
        return TargetResult(outputs=tuple(outputs) if complete else None, log=trim(logs))

    def _has(self, placeholder: str) -> bool:
        return any(f"{{{placeholder}}}" in word for word in self._words)

    def _samples(self, candidate: Candidate, model: onnx.ModelProto) -> Iterable[Mapping[str, Array]]:
        several = candidate.feeds if self._has("inputs") else candidate.feeds[:1]
        for sample in several or ({},):
            yield from as_declared(model.graph, candidate.folder, [sample])

    def _execute(self, scratch: Path) -> tuple[int, str, str]:
        """Return the exit code (negative: the signal that killed it) and the ends of stdout and stderr."""
        words = [_PLACEHOLDER.sub(lambda m: str(scratch / _FILES[m[1]]), word) for word in self._words]
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        with (
            (scratch / "stdout").open("a+b") as out,
            (scratch / "stderr").open("a+b") as err,
            _bounded(out, err),
        ):
            for stream in (out, err):
                stream.truncate(0)  # of the sample before
            process = subprocess.run(
                [*launcher, *words],
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                check=False,
            )
            said = _tail(out), _tail(err)  # the program may have removed the files
        if (scratch / "not-started").exists():
            why = (scratch / "not-started").read_text()
            raise UsageError(f"{words[0]} cannot be started: {why}", "Is it a program for this machine?")
        return process.returncode, *said

    def _result(self, code: int, out: str, err: str, candidate: Candidate, log: str) -> TargetResult:
        if code == CANNOT_TELL:
            return TargetResult(unresolved=f"the command cannot tell (exit code {CANNOT_TELL})", log=log)
        how = f"exit code {code}" if code > 0 else signal_name(-code)
        lines = [line.strip() for line in (err.splitlines() or out.splitlines()) if line.strip()]
        message = bounded(lines[-1]) if lines else how
        blame = Blame(onnx.load_model_from_string(candidate.model))
        signature = mask(message, blame.names) if lines else how  # masked, all codes would be one
        if self._fail_regex is not None:
            match = self._fail_regex.search(err) or self._fail_regex.search(out)
            if match is None:
                return TargetResult(unresolved=f"the command fails ({how}) but not by --fail-regex", log=log)
            message = signature = bounded(match.group())
        elif code < 0:
            message, signature = f"{how}: {message}" if lines else how, how
        nodes = blame.nodes_in(message)
        failure = Failure(
            stage=Stage.RUN,
            symptom=Symptom.ERROR if code > 0 else Symptom.CRASH,
            signature=signature,
            message=message,
            nodes=nodes,
            op=blame.op(nodes[0]) if nodes else "",
        )
        return TargetResult(failures=(failure,), log=log)


def read_outputs(path: Path, declared: Sequence[onnx.ValueInfoProto]) -> dict[str, Array]:
    """Return the model's outputs that are in a `.npz`, or in JSON as Polygraphy saves it (`--save-outputs`).

    Outputs without names (`numpy.savez(path, a, b)`) count in the order of the model. Of several samples in
    JSON the last one is taken. Bits of types that numpy does not know become these types.

    Raises:
        ValueError: it is neither, or an output of the model is not in it.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        given = read_npz(path) if zipped else read_json(path)[-1]
    except (UsageError, OSError) as e:
        raise ValueError(f"it is neither npz nor JSON as Polygraphy writes it: {e}") from e
    names = [value.name for value in declared]
    given = in_order(given, names)
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"it holds {', '.join(given) or 'nothing'}, but not {', '.join(missing)}")
    return {value.name: _typed(given[value.name], value) for value in declared}


def _typed(array: Array, value: onnx.ValueInfoProto) -> Array:
    elem_type = value.type.tensor_type.elem_type
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return array
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    if dtype.isbuiltin != 1 and array.dtype == np.dtype(f"u{dtype.itemsize}"):
        return array.view(dtype)
    return array


def _absolute(word: str) -> str:
    """Return a word that names a file of the current folder, for a program that runs elsewhere."""
    path = Path(word)
    with suppress(OSError, ValueError):  # a word need not be a path at all
        if path.is_file() or ("/" in word and path.is_dir()):
            return str(path.absolute())
    return word


@contextmanager
def _bounded(*files: BinaryIO) -> Iterator[None]:
    """Begin files anew that became too large: a program that never stops to print must not fill the disk."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK):
            for file in files:
                if os.fstat(file.fileno()).st_size > _MOST_OUTPUT:
                    os.ftruncate(file.fileno(), 0)  # it is appended to: the next line is its first

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _tail(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _READ))
    return file.read().decode(errors="replace")
