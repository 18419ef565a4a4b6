"""The table of options: a row for each setting that a command line or a configuration can give."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from bisect_trt.errors import UsageError
from bisect_trt.options import kinds as k
from bisect_trt.options.kinds import Kind, Unreadable
from bisect_trt.settings import AccuracySettings, ReportSettings, RunSettings, Settings, TargetSettings

COMMON, VALUES, ACCURACY, SEARCH = "Options", "Input values", "Accuracy", "Search"
BUILDER, MACHINE, REPORT = "Target and builder", "Machine", "Bug report"
PANELS = (COMMON, VALUES, ACCURACY, SEARCH, BUILDER, MACHINE, REPORT)
"""The groups of `--help`, the commonest first; at most a dozen options in each (a test)."""

SECTIONS: dict[str, Any] = {
    "target": TargetSettings(),
    "run": RunSettings(),
    "accuracy": AccuracySettings(),
    "report": ReportSettings(),
}
"""The parts of `Settings`, with their defaults."""


class Option(Struct, frozen=True):
    """One row of the table.

    Attributes:
        field: `SECTION.FIELD` of `Settings`; of an option that one command alone has, just a name.
        flag: as it is written; of a switch that is on by default or has three states, `--on/--off`.
        kind: how its value is read and written.
        help: one line for `--help`.
        panel: one of PANELS.
        also: other words for it, which `--help` does not show, and the words that they stand for.
        by_hand: it starts a program or loads a library: of a stranger's report it is never followed.
    """

    field: str
    flag: str
    kind: Kind
    help: str
    panel: str = COMMON
    also: tuple[tuple[str, tuple[str, ...]], ...] = ()
    by_hand: bool = False

    @property
    def section(self) -> str:
        """`target`, `run`, ...; empty for an option of one command."""
        return self.field.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The field's own name: no two sections have one of the same name (a test)."""
        return self.field.rpartition(".")[2]

    @property
    def default(self) -> Any:
        """The value of a setting that is not given."""
        if self.section:
            return getattr(SECTIONS[self.section], self.key)
        return () if self.kind.many else False if self.kind.switch else None

    def value(self, settings: Settings) -> Any:
        """Return what these settings have."""
        return getattr(getattr(settings, self.section), self.key)

    def read(self, given: Any) -> Any:
        """Return the value of what a command line gives: a text, several, a bool, or None for nothing.

        Raises:
            UsageError: the option does not take it.
        """
        if given is None or given == []:
            return self.default
        if self.kind.switch:
            return given
        try:
            return self.kind.read([str(text) for text in (given if isinstance(given, list) else [given])])
        except Unreadable as error:
            hint = f"write {self.flag} {self.kind.example}" if self.kind.example else ""
            raise UsageError(f"{self.flag} {error}", hint) from error

    def words(self, value: Any) -> list[str]:
        """Return the words of a command line that give this value; none for the default."""
        if value == self.default:
            return []
        if self.kind.switch:
            on, _, off = self.flag.partition("/")
            return [on if value else off]
        found: list[str] = []
        for text in self.kind.texts(value):
            found += [f"{self.flag}={text}"] if text.startswith("-") else [self.flag, text]
        return found


ROWS: tuple[Option, ...] = (
    Option(
        "target.spec",
        "--target",
        k.TARGET,
        "auto, tensorrt, tensorrt-rtx, ort:PROVIDER, emulate:fp16|bf16|tf32|fp8|int8, command:CMD.",
    ),
    Option(
        "run.inputs",
        "--inputs",
        k.FILE,
        "Input values: .npz, .json, a folder of .npy or ONNX test data, FILE.py:FUNCTION; random ones "
        "without it.",
    ),
    Option(
        "target.shapes",
        "--shapes",
        k.SHAPES,
        "Static shapes, such as x:1x3x224x224; repeat it or separate by commas.",
        also=(("--input-shapes", ("--shapes",)),),
    ),
    Option(
        "target.precision",
        "--precision",
        k.word("fp16", "bf16"),
        "TensorRT computes the model's float32 arithmetic in it.",
        also=(("--fp16", ("--precision", "fp16")), ("--bf16", ("--precision", "bf16"))),
    ),
    Option(
        "accuracy.reference",
        "--reference",
        k.REFERENCE,
        "Where truth comes from: ort, python:FILE[:FUNCTION], torchscript:FILE.pt, command:CMD, "
        "outputs:FILE, target-at:fp32, self.",
    ),
    Option("accuracy.rtol", "--rtol", k.TOLERANCE, "Relative tolerance, of one output or all; repeat it."),
    Option("accuracy.atol", "--atol", k.TOLERANCE, "Absolute tolerance, of one output or all; repeat it."),
    Option("run.seed", "--seed", k.count(0), "Of every random choice.", VALUES),
    Option(
        "run.input_ranges", "--input-range", k.RANGE, "Range of random values of an input; repeat it.", VALUES
    ),
    Option(
        "run.save_inputs",
        "--save-inputs",
        k.FILE,
        "Write the input values: .npz, or .json for Polygraphy.",
        VALUES,
    ),
    Option(
        "run.save_outputs",
        "--save-outputs",
        k.FOLDER,
        "Write all outputs of both sides, for each sample.",
        VALUES,
    ),
    Option(
        "accuracy.metric",
        "--metric",
        k.METRIC,
        "What of an output has to be within tolerance: max, mean, rms, cosine or quantile:0.99; snr:30 or "
        "psnr:40 (dB) instead; boxes: rows in any order.",
        ACCURACY,
    ),
    Option("accuracy.ignore", "--ignore", k.NAMES, "Output that is not compared; repeat it.", ACCURACY),
    Option(
        "accuracy.topk",
        "--topk",
        k.TOP,
        "Compare only which K are the best along the last axis; repeat it.",
        ACCURACY,
    ),
    Option(
        "accuracy.judge",
        "--judge",
        k.word("outputs", "local", metavar="WHERE"),
        "outputs: compare the model's outputs whatever part runs on the target; local: the part's own.",
        ACCURACY,
    ),
    Option(
        "accuracy.reference_provider",
        "--reference-provider",
        k.text("PROVIDER"),
        "Execution provider of ONNX Runtime as the reference.",
        ACCURACY,
    ),
    Option(
        "accuracy.custom_ops",
        "--custom-ops",
        k.FILES,
        "Custom operators of ONNX Runtime as the reference; repeat it.",
        ACCURACY,
    ),
    Option(
        "run.record_budget",
        "--record-budget",
        k.SIZE,
        "Recorded tensors held in memory at once, such as 4G; a quarter of it all without.",
        ACCURACY,
    ),
    Option(
        "run.repeats",
        "--repeats",
        k.count(1),
        "Runs that look for the failure, that call it steady, and that prove the result.",
        SEARCH,
    ),
    Option(
        "run.budget",
        "--budget",
        k.TIME,
        "Stop the search after 90s, 20m, 2h; the best so far is verified and written.",
        SEARCH,
    ),
    Option("run.max_probes", "--max-probes", k.count(1), "Stop the search after N probes.", SEARCH),
    Option("run.cache_dir", "--cache-dir", k.FOLDER, "Keep what probes saw for other runs.", SEARCH),
    Option(
        "run.simplify", "--simplify/--no-simplify", k.SWITCH, "Make the reduced model simple, too.", SEARCH
    ),
    Option(
        "run.simplify_budget",
        "--simplify-budget",
        k.TIME,
        "Seconds in the target for that, such as 90s or 5m; as many as the search took without it.",
        SEARCH,
    ),
    Option(
        "target.min_shapes",
        "--min-shapes",
        k.SHAPES,
        "Profile: smallest.",
        BUILDER,
        (("--minShapes", ("--min-shapes",)),),
    ),
    Option(
        "target.opt_shapes",
        "--opt-shapes",
        k.SHAPES,
        "Profile: the one to optimise for (as --max-shapes).",
        BUILDER,
        (("--optShapes", ("--opt-shapes",)),),
    ),
    Option(
        "target.max_shapes",
        "--max-shapes",
        k.SHAPES,
        "Profile: largest.",
        BUILDER,
        (("--maxShapes", ("--max-shapes",)),),
    ),
    Option("target.workspace", "--workspace", k.SIZE, "Builder workspace, such as 2G.", BUILDER),
    Option("target.opt_level", "--opt-level", k.count(0, 5, "0..5"), "Builder optimisation level.", BUILDER),
    Option("target.tf32", "--tf32/--no-tf32", k.SWITCH, "Allow or forbid TF32.", BUILDER),
    Option(
        "target.build_only",
        "--build-only",
        k.SWITCH,
        "Build engines and run none, as without a GPU.",
        BUILDER,
    ),
    Option(
        "target.deep",
        "--deep",
        k.SWITCH,
        "TensorRT-RTX: also find attributes that are ignored, or whose default is not ONNX's (some builds).",
        ACCURACY,
    ),
    Option(
        "target.timing_cache",
        "--timing-cache",
        k.FILE,
        "Tactics as they were measured: read; what it lacks is added, not by verify.",
        BUILDER,
    ),
    Option("target.plugins", "--plugins", k.FILES, "Plugin library; repeat it.", BUILDER, by_hand=True),
    Option(
        "target.ep_libraries",
        "--ep-library",
        k.LIBRARIES,
        "Library of an execution provider for ort:NAME; repeat it.",
        BUILDER,
        by_hand=True,
    ),
    Option(
        "target.fail_regex",
        "--fail-regex",
        k.text("REGEX"),
        "What the log of command:CMD has to show for a failure to count.",
        BUILDER,
        by_hand=True,
    ),
    Option("target.verbose_log", "--verbose-log", k.FILE, "The target's whole log.", BUILDER),
    Option("run.workers", "--workers", k.count(1, 512), "Probes at the same time.", MACHINE),
    Option("run.devices", "--device", k.LISTED, "GPUs to use, such as 0,1: one worker on each.", MACHINE),
    Option(
        "run.cluster",
        "--cluster",
        k.text("ADDRESS"),
        "Run the probes on a Ray cluster: auto or ray://HOST:10001.",
        MACHINE,
    ),
    Option(
        "run.timeout",
        "--timeout",
        k.TIME,
        "Seconds a probe may take; 10 times the first one without it.",
        MACHINE,
    ),
    Option("run.memory_limit", "--memory-limit", k.SIZE, "What a worker may hold, such as 8G.", MACHINE),
    Option(
        "run.anonymise",
        "--anonymise",
        k.SWITCH,
        "Leave no name, text, weight or input value of the model in what is written.",
        REPORT,
        also=(("--anonymize", ("--anonymise",)),),
    ),
    Option(
        "report.style",
        "--style",
        k.word("tensorrt", "tensorrt-rtx", "onnxruntime", "openvino", "plain", metavar="TRACKER"),
        "Form of ISSUE.md: tensorrt, tensorrt-rtx, onnxruntime, openvino, plain; else as the target.",
        REPORT,
    ),
    Option(
        "report.inputs_for",
        "--with",
        k.words("trtexec", "polygraphy", metavar="TOOLS"),
        "Write the inputs for trtexec,polygraphy, too.",
        REPORT,
    ),
)


SEARCHING = (*(row.key for row in ROWS if row.panel in (SEARCH, REPORT)),)
"""Fields that matter to commands which search and write a reproducer, and to no others."""


def only(*keys: str) -> tuple[Option, ...]:
    """Return the rows of these fields."""
    assert set(keys) <= {row.key for row in ROWS}
    return tuple(row for row in ROWS if row.key in keys)


def without(*keys: str) -> tuple[Option, ...]:
    """Return all rows but those of these fields."""
    assert set(keys) <= {row.key for row in ROWS}
    return tuple(row for row in ROWS if row.key not in keys)
