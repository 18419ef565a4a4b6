"""One table: any settings survive the command line and a configuration, and `--help` is made of it."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import asdict

import bisect_trt
from bisect_trt.cli.app import app, main
from bisect_trt.errors import UsageError
from bisect_trt.nightly import config
from bisect_trt.nightly import options as toml
from bisect_trt.options import ROWS, Option, arguments, kinds
from bisect_trt.options.make import of_values
from bisect_trt.options.table import PANELS
from bisect_trt.reproducer import command_lines, trackers
from bisect_trt.settings import Settings

HERE = Path(__file__)
words = st.text(
    st.characters(categories=["L", "N"], include_characters="/_.:-[]$'\" "), min_size=1, max_size=12
).filter(lambda name: name == name.strip() and not any(part[:1].isdigit() for part in name.split(":")[1:]))
plain = st.text("abcXYZ019-_./ ", min_size=1, max_size=8).map(str.strip).filter(bool)
files = st.sampled_from(["a b.bin", "-dash", "dir/x"]).map(Path)
numbers = st.floats(0, 1e30, allow_nan=False)
dims = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(tuple)
gpus = st.lists(st.sampled_from("0123"), unique=True, min_size=1, max_size=3).map(tuple)


def named(values: Any, names: Any = words) -> Any:
    """Pairs of name and value, sorted as settings have them."""
    return st.dictionaries(names, values, max_size=3).map(lambda d: tuple(sorted(d.items())))


VALUES: dict[int, Any] = {
    id(kinds.FILE): files,
    id(kinds.FOLDER): files,
    id(kinds.FILES): st.lists(st.just(HERE), max_size=2).map(tuple),
    id(kinds.NAMES): st.lists(words, max_size=2).map(tuple),
    id(kinds.SIZE): st.integers(1, 1 << 60) | st.integers(1, 40).map(lambda n: n << 30),
    id(kinds.TIME): numbers.filter(bool),
    id(kinds.SHAPES): named(dims),
    id(kinds.TOLERANCE): named(numbers, words | st.just("")),
    id(kinds.TOP): named(st.integers(1, 99)),
    id(kinds.RANGE): named(st.tuples(numbers.map(lambda x: -x), numbers)).map(
        lambda pairs: tuple((name, *ends) for name, ends in pairs)
    ),
    id(kinds.LIBRARIES): named(st.just(HERE), words.filter(lambda w: "=" not in w)),
    id(kinds.METRIC): st.sampled_from(["max", "rms", "quantile:0.99"]),
    id(kinds.REFERENCE): st.sampled_from(["ort", "self", "target-at:fp32", "python:a b.py:f"]),
    id(kinds.LISTED): gpus,
    id(kinds.SWITCH): st.booleans(),
}
WORDS: dict[str, Any] = {
    "precision": st.sampled_from(["fp16", "bf16"]),
    "judge": st.just("local"),
    "style": st.sampled_from(sorted(trackers.STYLES)),
    "inputs_for": st.sampled_from([("trtexec",), ("polygraphy", "trtexec")]),
    "opt_level": st.integers(0, 5),
}


def value(row: Option) -> Any:
    """What a row may have."""
    found = WORDS.get(row.key, VALUES.get(id(row.kind)))
    if found is None:
        found = st.integers(1, 99) if isinstance(row.default, int) or row.key == "max_probes" else plain
    return st.just(row.default) | found


@st.composite
def all_settings(draw: st.DrawFn) -> Settings:
    """Any settings whose options do not contradict each other."""
    found = {row.key: draw(value(row)) for row in ROWS}
    profile = found["min_shapes"]
    found["opt_shapes"] = profile
    found["max_shapes"] = tuple((name, tuple(d + 1 for d in shape)) for name, shape in profile)
    found["shapes"] = tuple(pair for pair in found["shapes"] if pair[0] not in dict(profile))
    found["workers"] = len(found["devices"]) or found["workers"]
    found["simplify"] = found["simplify"] or found["anonymise"]
    return of_values(found)


@examples(max_examples=40)
@given(all_settings())
def test_a_pasted_line_gives_the_same_settings(settings: Settings) -> None:
    seen: list[Settings] = []

    def fake(model: Path, settings: Settings, **rest: Any) -> Any:
        seen.append(settings)
        raise UsageError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bisect_trt, "reduce", fake, raising=False)
        assert main(["reduce", "m.onnx", *shlex.split(shlex.join(arguments(settings)))]) == 2
    assert seen == [settings]


@examples(max_examples=40)
@given(all_settings())
def test_a_configuration_gives_the_same_settings(settings: Settings) -> None:
    found = toml.to_toml(settings, Path()).items()
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in found]
    data = tomllib.loads("\n".join(["[models]", 'include = ["*.onnx"]', "[defaults]", *lines]))
    loaded = config.parse(data, Path("nightly.toml"))
    layer = toml.given(loaded.defaults)
    again = toml.settings(settings.target.spec, [layer], Path(), Path("m.onnx"))
    assert again == of_values({row.key: row.value(settings) for row in ROWS if row.key != "verbose_log"})


def test_every_setting_has_one_row() -> None:
    parts = asdict(Settings())
    known = [f"{name}.{field}" for name, part in parts.items() for field in part.__struct_fields__]
    ours = {"target.without_tactics", "target.with_tactics", "target.decisions"}
    assert Counter(row.field for row in ROWS) == Counter(set(known) - ours)
    assert len({row.key for row in ROWS}) == len(ROWS), "two sections must not have a field of one name"
    assert len({row.flag for row in ROWS}) == len(ROWS)


def test_words_that_other_rooms_know_are_those_of_the_table() -> None:
    tools = (command_lines.TRTEXEC, command_lines.POLYGRAPHY)
    for key, known in (("style", trackers.STYLES), ("inputs_for", tools)):
        (row,) = (row for row in ROWS if row.key == key)
        for word in known:
            assert row.read(word)
        with pytest.raises(UsageError, match=f"is none of {', '.join(known)}$"):
            row.read("other")


def test_help_has_panels_of_at_most_a_dozen_the_commonest_first(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        shown = (p for p in command.params if p.param_type_name == "option")
        panels = Counter(getattr(p, "rich_help_panel", None) or PANELS[0] for p in shown)
        assert all(number + (panel == PANELS[0]) <= 12 for panel, number in panels.items()), (name, panels)
    assert main(["reduce", "--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n{panel}:\n") for panel in PANELS]
    assert places == sorted(places) and max(map(len, text.splitlines())) <= 80
    assert "planted" not in text and "ort:PROVIDER" in text and "command:CMD" in text


@pytest.mark.parametrize(
    ("flag", "given", "said"),
    [
        ("--topk", ["5"], "--topk '5' is not NAME:K"),
        ("--rtol", ["y:1", "y:2"], "'y' is given two values"),
        ("--rtol", ["1", "2"], "'2' is a second value"),
        ("--input-range", ["x:2..1"], "'2..1' is not LO..HI"),
        ("--ep-library", ["x"], "is not NAME=PATH"),
        ("--seed", "1.5", "--seed '1.5' is not a whole number"),
        ("--opt-level", "7", "'7' has to be between 0 and 5"),
        ("--workers", "99999", "'99999' has to be between 1 and 512"),
    ],
)
def test_what_an_option_does_not_take_is_said(flag: str, given: Any, said: str) -> None:
    (row,) = (row for row in ROWS if row.flag == flag)
    with pytest.raises(UsageError) as error:
        row.read(given)
    assert said in error.value.message and error.value.hint.startswith(f"write {flag} ")
