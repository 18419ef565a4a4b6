"""The question that every release is asked: our own script, written from a reproducer's files.

A script that came with a stranger's folder is never run. Model, values and report are read as `verify`
reads them; the script is rendered from these, with nothing of ours to import.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import onnx
from msgspec import Struct

from bisect_trt.blaming.installer import Processes
from bisect_trt.blaming.packages import Package, by_its_own_api, plugin_of
from bisect_trt.errors import UsageError
from bisect_trt.machine.environment import quiet_environ
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.outcome import Failure, Stage, Verdict
from bisect_trt.reproducer import files, models, script, seeded
from bisect_trt.reproducer.untrusted import Report
from bisect_trt.results import Reduction
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.ort.ep_libraries import bare
from bisect_trt.targets.ort.provider import parse_spec

_START = 120.0  # seconds for the script to import its libraries
_USUAL = 60.0
_OLDEST_IR = 8  # models of that version are taken by every release that is worth asking
_LOG_LIMIT = 1 << 20
_PROVIDERS = ("CPU", "CUDA", "OpenVINO", "Tensorrt", "NvTensorRTRTX", "DML", "MIGraphX", "QNN", "ROCM")


class Answer(Struct, frozen=True):
    """What one release says: `said` is its last word, `output` all that was printed."""

    verdict: Verdict
    said: str
    seconds: float = 0.0
    output: str = ""


class Question(Struct, frozen=True):
    """A folder with `repro.py` and what it needs.

    Attributes:
        script: the script.
        wanted: the failure that it looks for.
        digest: of all files; equal digests ask the same.
        deadline: seconds that it may take.
    """

    script: Path
    wanted: Failure
    digest: str
    deadline: float

    def ask(self, command: Sequence[str], processes: Processes, repeats: int = 1) -> Answer:
        """Run the script by a command until it shows the failure, `repeats` times at most.

        Exit code 1 is the failure and 0 that it is gone. With anything else nothing can be told: another
        failure, a crash of the interpreter, no answer in time.
        """
        began = time.monotonic()
        answer = self._ask_once(command, processes)
        for _ in range(0 if self.wanted.stage is Stage.PARSE else repeats - 1):
            if answer.verdict is not Verdict.VANISHES:
                break
            answer = self._ask_once(command, processes)
        return Answer(answer.verdict, answer.said, time.monotonic() - began, answer.output)

    def _ask_once(self, command: Sequence[str], processes: Processes) -> Answer:
        environ = quiet_environ()
        try:
            code, said = processes.run(
                command, timeout=self.deadline, env=environ, cwd=self.script.parent
            )
        except OSError as error:
            return Answer(Verdict.UNRESOLVED, f"{command[0]} cannot be started: {error.strerror}")
        said = said.replace(f"{self.script.parent}/", "")  # a folder that is gone soon, of nobody's interest
        if code is None:
            return Answer(Verdict.UNRESOLVED, f"no answer in {self.deadline:.0f} s", output=said)
        verdict = {0: Verdict.VANISHES, 1: Verdict.REPRODUCES}.get(code, Verdict.UNRESOLVED)
        last = _last_word(said)
        if code == 2:
            last = last.replace("it fails:", "it fails otherwise:", 1)
        if code not in (0, 1, 2):
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            last = f"the script ended with {ended}" + (f": {last}" if last else "")
        return Answer(verdict, last, output=said)


def write_question(
    folder: Path, report: Report, spec: str | None, given: TargetSettings, package: Package | None, into: Path
) -> Question:
    """Write `repro.py` for an environment with `package`, its model and values, into an empty folder.

    `folder` and `report` are those that `untrusted.opened` gave; `spec` and `given` are the user's.

    Raises:
        UsageError: the report asks for what is not safe, or no script can ask without us.
    """
    target = report.target(spec, given)
    with temporary_folder() as scratch:
        best = models.read_model(folder, scratch)
        for name in (files.WEIGHTS, seeded.FILE):
            if (best.folder / name).exists():
                shutil.copyfile(best.folder / name, into / name)
        proto = onnx.load_model_from_string(best.model)
        _lower_version(proto)
        (into / files.MODEL).write_bytes(proto.SerializeToString(deterministic=True))
        for side, name in ((best.feeds, files.INPUTS), (best.expected, files.EXPECTED)):
            for k, feeds in enumerate(side):
                files.write_values(feeds, into / files.sample_file(name, k))
        reduction = Reduction(
            model=Path(files.MODEL),
            out=into,
            settings=Settings(target, RunSettings(timeout=report.timeout), report.accuracy),
            target=TargetInfo(_name(target.spec, package), "It", can_run=True),
            reference="",
            wanted=report.wanted,
            best=best,
            original_nodes=len(best.nodes),
            compared_as=report.accuracy,
            log=_log(folder),
        )
        if script.template_for(reduction) == script.NEEDS_US:
            why = f"no script can ask for this failure on {target.spec} without bisect-trt"
            raise UsageError(why, "give a command for each release with --releases-file")
        found = plugin_of(package) if package else None
        text = script.render(reduction, lambda provider: found)
    place = into / files.SCRIPT
    place.write_bytes(text.encode("utf-8", errors="replace"))
    deadline = _START + 2 * (report.timeout or _USUAL)
    return Question(place, report.wanted, _digest(into), deadline)


def _name(spec: str, package: Package | None) -> str:
    """Return the target as its own `info` names it, without asking it: it need not be usable here."""
    if by_its_own_api(package):
        return script.OPENVINO
    if not spec.startswith("ort:"):
        return spec
    asked = parse_spec(spec)[0]
    known = next((name for name in _PROVIDERS if bare(name) == bare(asked)), asked)
    return f"ort:{known.removesuffix('ExecutionProvider')}ExecutionProvider"


def _lower_version(proto: onnx.ModelProto) -> None:
    """Lower the IR version to the least that the operator sets allow: old releases refuse new ones."""
    least = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    proto.ir_version = min(proto.ir_version, max(_OLDEST_IR, least))


def _log(folder: Path) -> str:
    place = folder / files.LOG
    if not place.is_file() or place.is_symlink():
        return ""
    with place.open("rb") as file:
        return file.read(_LOG_LIMIT).decode(errors="replace")


def _digest(folder: Path) -> str:
    h = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        h.update(f"{path.name}\n".encode())
        h.update(hashlib.sha256(path.read_bytes()).digest())
    return h.hexdigest()[:32]


def _last_word(said: str) -> str:
    """Return the script's own last line, else the last one that was printed."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith(("Actual:", "Something else went wrong:"))]
    last = (own or lines or [""])[-1].removeprefix("Actual: ")
    return last[:300]
