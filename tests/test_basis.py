"""Our frozen classes do all that those of the standard library do."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, field
from functools import cached_property
from typing import Any

import pytest

from bisect_trt._basis import dataclass


@dataclass(frozen=True)
class Ours:
    """A class with one of each kind of field."""

    name: str
    size: int = 3
    parts: tuple[Any, ...] = ()
    known: dict[str, int] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False, repr=False)

    @cached_property
    def twice(self) -> int:
        return 2 * self.size


Theirs: Any = dataclasses.make_dataclass(
    "Value",
    [
        ("name", "str"),
        ("size", "int", 3),
        ("parts", "tuple[Any, ...]", ()),
        ("known", "dict[str, int]", field(default_factory=dict)),
        ("seconds", "float", field(default=0.0, compare=False, repr=False)),
    ],
    frozen=True,
)


def texts(kind: Any) -> list[str]:
    """What values of a class say of themselves."""
    kind = type("Value", (kind,), {}) if kind is Ours else kind
    made = [kind("a"), kind("a", 4, parts=(1,), seconds=2.0), kind(size=1, name="b", known={"x": 1})]
    changed = [dataclasses.replace(one, size=7) for one in made]
    plain = [str(dataclasses.asdict(one)) for one in made]
    return [*map(repr, (*made, *changed)), *plain, str(inspect.signature(kind))]


def test_they_print_and_copy_alike() -> None:
    ours = [text.replace("texts.<locals>.", "") for text in texts(Ours)]
    assert ours == texts(Theirs)


def test_they_compare_and_hash_by_the_fields_that_count() -> None:
    assert Ours("a", seconds=1.0) == Ours("a", seconds=2.0) != Ours("a", 4)
    assert Ours("a") != Theirs("a")
    two = dataclasses.replace(Ours("a"), parts=((1, 2),))

    @dataclass(frozen=True)
    class Key:
        """Fields that can be hashed."""

        name: str
        parts: tuple[Any, ...]

    assert len({Key("a", two.parts), Key("a", two.parts), Key("b", two.parts)}) == 2


def test_a_default_that_is_made_is_made_anew() -> None:
    assert Ours("a").known is not Ours("b").known


def test_what_is_kept_of_a_value_once_it_is_worked_out() -> None:
    one = Ours("a")
    assert one.twice == one.twice == 6


@pytest.mark.parametrize(
    "change",
    [lambda one: setattr(one, "size", 1), lambda one: delattr(one, "size"), lambda one: setattr(one, "x", 1)],
)
def test_nothing_can_be_changed(change: Callable[[Any], None]) -> None:
    with pytest.raises(FrozenInstanceError):
        change(Ours("a"))


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ("a", {"nmae": 1}), ("a", {"name": "b"}), ("abcdef", {})]
)
def test_wrong_fields_are_a_type_error(values: Sequence[Any], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Ours"):
        Ours(*values, **named)


def test_they_travel_to_other_processes() -> None:
    one = Ours("a", known={"x": 1})
    assert pickle.loads(pickle.dumps(one)) == one
