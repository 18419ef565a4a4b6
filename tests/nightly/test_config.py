"""The configuration: what it accepts, how it refuses, and that the example is right."""

from __future__ import annotations

import tomllib
from datetime import time
from pathlib import Path

import pytest
from msgspec.structs import astuple

from bisect_trt.errors import UsageError
from bisect_trt.nightly import config, options, plan
from bisect_trt.nightly.job import job_in, line_of
from bisect_trt.nightly.runner import Job
from bisect_trt.settings import Settings

MODELS = '[models]\ninclude = ["*.onnx"]\n'


def load(folder: Path, text: str) -> config.Config:
    path = folder / "nightly.toml"
    path.write_text(text)
    return config.load(path)


def test_template_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, config.template())
    plain = load(tmp_path, '[models]\ninclude = ["models/**/*.onnx"]\n')
    for name in ("out", "workers", "confirm", "resume_within", "budget", "retention", "models"):
        assert getattr(loaded, name) == getattr(plain, name), name
    assert config.target_name(loaded.target[0]) == config.target_name(plain.target[0]) == "auto"


def test_every_commented_line_of_the_template_is_valid_too(tmp_path: Path) -> None:
    lines = []
    for line in config.template().splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (" = " in bare or bare.startswith("[["))
        lines.append(bare if is_setting and not bare[0].isupper() else line)
    text = "\n".join(lines)
    assert text.count("\n[[model]]") == 2 and "\non_new = " in text
    loaded = load(tmp_path, text)
    assert loaded.budget.until == time(7) and loaded.budget.total == 9 * 3600
    assert loaded.retention.max_size == 20 * 1024**3
    assert len(loaded.model) == 2


def test_template_and_schema_name_the_same_keys() -> None:
    """A key that nobody documents is a key that nobody finds."""
    text = config.template()
    tables: list[tuple[type, tuple[str, ...]]] = [
        (config.Config, ("base", "model", "target", "models", "budget", "retention", "defaults")),
        (config.Models, ()),
        (config.Budget, ()),
        (config.Retention, ()),
    ]
    for table, skipped in tables:
        for name in table.model_fields:  # type: ignore[attr-defined]
            assert name in skipped or f"{name} = " in text, name


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("worker = 2\n" + MODELS, "unknown key worker", "did you mean workers?"),
        (MODELS + "[budgets]\ntotal = 1", "unknown key budgets", "did you mean budget?"),
        (MODELS + "[budget]\nuntill = 1", "unknown key budget.untill", "did you mean until?"),
        (
            MODELS + '[[target]]\nspec = "a"\n[[target]]\nopt_levl = 3',
            "unknown key target[2].opt_levl",
            "opt_level?",
        ),
        (MODELS + '[[model]]\nmatch = "a"\nshape = 1', "unknown key model[1].shape", "did you mean shapes?"),
        (MODELS + "[defaults]\nverbose_log = 'x'", "unknown key defaults.verbose_log", ""),
        (MODELS + "[retention]\nzzz = 1", "unknown key retention.zzz", "known here: history, log_size"),
        ("base = 'x'\n" + MODELS, "unknown key base", ""),
        ("workers = 2", "models is missing", "--init"),
        (MODELS + "[[model]]\nseed = 1", "model[1].match is missing", "--init"),
        ("workers = 0\n" + MODELS, "workers", ""),
        ("workers = 100000\n" + MODELS, "workers: it should be less than or equal to 512", ""),
        (f"confirm = {10**20}\n{MODELS}", "confirm: it should be less than or equal to 100", ""),
        (MODELS + '[budget]\ntotal = "9 hours"', "budget.total: '9 hours' is not a duration: write", ""),
        (MODELS + '[budget]\nuntil = "25:00"', "budget.until: not a time of day", ""),
        (MODELS + '[retention]\nmax_size = "lots"', "retention.max_size: 'lots' is not a size", ""),
        (MODELS + "[budget]\nuntil = 7", "budget.until: not a time of day", ""),
        (MODELS + "[target]\nspec = 'auto'", "target: write it as [[target]]", ""),
        (MODELS + "[[target]]\nspec = 'tensort'", "did you mean 'tensorrt'?", ""),
        ("models = 'x'", "models: write it as a table", ""),
        ("[models]\ninclude = '*.onnx'", "models.include: write it as a list", ""),
        ("on_new = ['x']\n" + MODELS, "on_new: not a text", ""),
        (MODELS + "[defaults]\nreference = 'orrt'", "'orrt' is none of ort, ", ""),
        (MODELS + "[defaults]\njudge = 'x'", "'x' is none of outputs, local", ""),
        (MODELS + "[defaults]\nprecision = 'fp7'", "'fp7' is none of fp16, bf16", ""),
        (MODELS + "[defaults]\nmetric = 'quantile:2'", "is none of max, mean", ""),
        (MODELS + "[defaults]\nstyle = 'x'", "defaults.style: 'x' is none of tensorrt, ", ""),
        (MODELS + "[defaults]\nrtol = nan", "defaults.rtol: 'nan' is not a number of at least 0: write", ""),
        (MODELS + "[defaults]\nrtol = 'x'", "defaults.rtol: 'x' is not a number", ""),
        (MODELS + "[defaults]\natol = {y = -1.0}", "defaults.atol: '-1.0' is not a number of at least 0", ""),
        (MODELS + "[defaults]\nopt_level = 9", "has to be between 0 and 5", ""),
        (MODELS + "[defaults]\nrepeats = 0", "has to be at least 1", ""),
        (MODELS + "[defaults]\ntimeout = 0", "'0' is not a duration", ""),
        (MODELS + "[defaults]\nshapes = {x = 'y'}", "'x:y' is not NAME:DIMS", ""),
        (MODELS + "[defaults]\nshapes = 3", "'3' is not NAME:DIMS", ""),
        (MODELS + '[defaults]\nseed = "many"', "defaults.seed", ""),
        (MODELS + "[[target]]\n[[target]]", "two targets are called 'auto'", ""),
        ("[models\n", "is not TOML", ""),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, where: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text)
    assert where in error.value.message and "nightly.toml" in error.value.message
    assert hint in error.value.hint
    assert "\n" not in error.value.message + error.value.hint


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is a model, not"):
        config.load(tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="UTF-8"):
        config.load(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("\ufeffon_new = ' '\n" + MODELS, encoding="utf-8")
    assert config.load(tmp_path / "x.toml").on_new == ""
    with pytest.raises(UsageError, match="neither"):
        config.for_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('"90s"', 90), ('"45m"', 2700), ('"1h30m"', 5400), ('"1d"', 86400), ('"1h 5s"', 3605), ("0.5", 0.5)],
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(tmp_path, f"{MODELS}[budget]\ntotal = {text}").budget.total == seconds


@pytest.mark.parametrize("text", ['""', '"h"', '"1x"', '"1h30"', '"-1h"', "0", "-1", "true", "[]", "nan"])
def test_no_durations(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"not a duration|not TIME"):
        load(tmp_path, f"{MODELS}[budget]\ntotal = {text}")


def test_layers_of_options(tmp_path: Path) -> None:
    for name in ("models/v/a.onnx", "models/b.onnx", "models/old/c.onnx", "runs/d.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    loaded = load(
        tmp_path,
        """
        [models]
        include = ["**/*.onnx"]
        exclude = ["models/old/*"]
        [defaults]
        seed = 1
        repeats = 7
        memory_limit = "2G"
        plugins = ["lib.so"]
        [[target]]
        name = "fast"
        spec = "tensorrt-rtx"
        opt_level = 0
        timeout = "10m"
        seed = 2
        [[target]]
        spec = "auto"
        [[model]]
        match = "models/v/*"
        inputs = "feeds/{stem}.npz"
        shapes = {y = "2x3", x = [1, 3]}
        seed = 3
        [[model]]
        match = "*a.onnx"
        seed = 4
        """,
    )
    items = {(i.name, i.target): i for i in plan.items(loaded, plan.find_models(loaded))}
    assert sorted(items) == [
        (name, target) for name in ("models/b.onnx", "models/v/a.onnx") for target in ("auto", "fast")
    ], "what the night wrote itself is no model"
    a, b = items["models/v/a.onnx", "fast"].settings, items["models/b.onnx", "fast"].settings
    assert (b.run.seed, items["models/b.onnx", "auto"].settings.run.seed, a.run.seed) == (2, 1, 4)
    assert a.target.shapes == (("x", (1, 3)), ("y", (2, 3))) and b.target.shapes == ()
    assert a.run.inputs == tmp_path / "feeds/a.npz" and b.run.inputs is None
    assert (a.target.opt_level, a.target.spec, a.run.repeats, a.run.memory_limit) == (
        0,
        "tensorrt-rtx",
        7,
        2 << 30,
    )
    assert (a.run.timeout, items["models/b.onnx", "auto"].settings.run.timeout) == (600, None)
    assert a.target.plugins == (tmp_path / "lib.so",)
    assert len({i.slug for i in items.values()}) == 4 and len({i.digest for i in items.values()}) == 4


def test_every_setting_can_be_configured() -> None:
    known = {field for part in astuple(Settings()) for field in part.__struct_fields__}
    ours = {"spec", "verbose_log", "without_tactics", "with_tactics", "decisions"}
    assert known - ours == options.OPTIONS.keys()


def test_tolerances_and_references(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        MODELS
        + """
        [defaults]
        rtol = 1e-3
        atol = {logits = 0.5, boxes = 1}
        ignore = ["mask"]
        reference = "python:truth.py"
        [[model]]
        match = "*b.onnx"
        rtol = {logits = 0.1}
        """,
    )
    first, second = (i.settings.accuracy for i in plan.items(loaded, ["a.onnx", "b.onnx"]))
    assert first.rtol == (("", 1e-3),) and first.atol == (("boxes", 1.0), ("logits", 0.5))
    assert first.ignore == ("mask",) and first.reference == "python:truth.py"
    assert second.rtol == (("logits", 0.1),) and second.atol == first.atol


def test_settings_survive_json() -> None:
    text = '{shapes = {x = [1, 2]}, plugins = ["a", "b"], timeout = 2.5, tf32 = false}'
    layer = tomllib.loads(f"o = {text}")["o"] | {
        "shapes": (("x", (1, 2)),),
        "plugins": (Path("a"), Path("b")),
    }
    made = options.settings("planted:op=X", [layer], Path("/base"), Path("m.onnx"))
    assert made.target.plugins == (Path("/base/a"), Path("/base/b"))
    for one in (made, Settings()):
        job = Job("check", "slug", Path("m.onnx"), one, 1.0)
        assert job_in(line_of(job)) == job


def test_command_line_over_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, MODELS)
    changed = config.with_options(loaded, out=Path("elsewhere"), until="06:30")
    assert changed.out == Path("elsewhere").absolute() and changed.budget.until == time(6, 30)
    assert config.with_options(loaded, out=None, until=None) == loaded
    with pytest.raises(UsageError, match="--until"):
        config.with_options(loaded, out=None, until="late")
