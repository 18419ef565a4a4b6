"""What lies below all rooms: the version, and what makes a frozen class.

`dataclasses.dataclass` writes six methods of each class as text, which Python compiles in every process: 0.39
ms a class, where 0.03 are enough, and a command has 110 of them. Here the methods are the same functions for
all frozen classes. In all else these are dataclasses: `replace`, `asdict`, `fields` and type checkers take
them for such, and they print, compare and hash alike.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
"""Caches and journals of another version are refused."""

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # so that type checkers know what it is
else:

    def dataclass(cls=None, /, *, frozen=False, repr=True):
        """Do as `dataclasses.dataclass` does."""

        def made(cls):
            return _frozen(cls, repr) if frozen else dataclasses.dataclass(cls, repr=repr)

        return made if cls is None else made(cls)


class _Fields:
    """What the methods have to know of a class.

    Attributes:
        names: of all fields, in order.
        defaults: of those that have one.
        factories: of those whose default is made anew each time.
        compared: gives the values that are compared.
        shown: names of the fields that are printed.
    """

    def __init__(self, fields: tuple[Field[Any], ...]) -> None:
        self.names = tuple(field.name for field in fields)
        self.defaults = {f.name: f.default for f in fields if f.default is not MISSING}
        self.factories = {f.name: f.default_factory for f in fields if f.default_factory is not MISSING}
        compared = [field.name for field in fields if field.compare]
        self.compared = attrgetter(*compared) if compared else lambda value: ()
        self.shown = [field.name for field in fields if field.repr]


def _frozen(cls: type, shows: bool) -> type:
    documented = cls.__doc__
    cls.__doc__ = documented or cls.__name__  # else the standard library works out a signature
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    cls.__doc__ = documented
    kind: Any = cls
    kind._of_value = _Fields(dataclasses.fields(kind))
    kind.__signature__ = _SIGNATURE
    for method in _METHODS if shows else _METHODS[1:]:
        if method.__name__ not in cls.__dict__:
            setattr(cls, method.__name__, method)
    return cls


class _Signature:
    """The signature of a class, worked out when it is asked for."""

    def __get__(self, value: object, cls: Any) -> inspect.Signature:
        parameters = []
        for field in dataclasses.fields(cls):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            if field.default_factory is not MISSING:
                default = _FACTORY
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=field.type))
        return inspect.Signature(parameters, return_annotation=None)


class _Factory:
    def __repr__(self) -> str:
        return "<factory>"


_SIGNATURE, _FACTORY = _Signature(), _Factory()


def __repr__(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._of_value.shown)
    return f"{self.__class__.__qualname__}({shown})"


def __init__(self: Any, *values: Any, **named: Any) -> None:
    known: _Fields = self._of_value
    given = dict(zip(known.names, values, strict=False))
    if len(values) > len(known.names) or not given.keys().isdisjoint(named):
        raise TypeError(f"{self.__class__.__qualname__}: too many values for {', '.join(known.names)}")
    given.update(named)
    if len(given) < len(known.names):
        given = known.defaults | given
        for name, make in known.factories.items():
            if name not in given:
                given[name] = make()
    if given.keys() != set(known.names):
        wrong = ", ".join(sorted(given.keys() ^ set(known.names)))
        raise TypeError(f"{self.__class__.__qualname__}: missing or unknown: {wrong}")
    self.__dict__.update(given)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def __eq__(self: Any, other: Any) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented
    compared = self._of_value.compared
    return bool(compared(self) == compared(other))


def __hash__(self: Any) -> int:
    return hash(self._of_value.compared(self))


def __setattr__(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = (__repr__, __init__, __eq__, __hash__, __setattr__, __delattr__)
