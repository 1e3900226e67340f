"""Arguments of the public functions checked against their type hints, so that a wrong one is named in one line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from avsc_e2e.errors import AvscError

F = TypeVar("F", bound=Callable)

SAID: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    os.PathLike: "a path",
    type(None): "None",
    Callable: "a function",
    Iterable: "a list",
    Sequence: "a list",
    Mapping: "a mapping",
    tuple: "a tuple",
}
"""What to give for a type, in words."""


def checked(function: F) -> F:
    """The same function, which first raises AvscError for an argument whose type is not that of its hint."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            arguments = signature.bind(*given, **named).arguments
        except TypeError:  # an unknown or a missing argument, for which the call has Python's own words
            arguments = {}
        check(arguments, _hints(function))
        return function(*given, **named)

    return call  # type: ignore[return-value]


def checked_fields(value: Any, prefix: str = "") -> None:
    """Raises AvscError for a field of a dataclass whose type is not that of its hint. `prefix`: what stands before the
    name of the field, such as "--data."."""
    names = [field.name for field in dataclasses.fields(value)]
    check({name: getattr(value, name) for name in names}, _hints(type(value)), prefix)


def check(values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = "") -> None:
    """Raises AvscError for a value whose type is not that of the hint of its name."""
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            flag = prefix + (name.replace("_", "-") if prefix else name)
            raise AvscError(f"{flag} {shortly(value)}: give {said(hints[name])}")


def shortly(value: Any) -> str:
    """A value as Python writes it, on one line."""
    return " ".join(f"{value!r:.100}".split())


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a hint. Values in a tuple of one type and in a mapping are looked at, those
    in other containers are not."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if hint is bool:
        return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is None:
        return value is None
    if origin is tuple and inner[-1:] == (...,):
        return isinstance(value, (tuple, list)) and all(fits(one, inner[0]) for one in value)
    if origin is Callable:
        return callable(value)
    kind = origin or hint
    if isinstance(value, (str, bytes)) and kind in (Sequence, Iterable, tuple):
        return False  # nobody means its characters
    if kind is Sequence:
        return hasattr(value, "__getitem__") and hasattr(value, "__len__")  # arrays and columns of tables too
    if kind is Mapping and isinstance(value, Mapping) and inner:
        return all(fits(key, inner[0]) and fits(one, inner[1]) for key, one in value.items())
    return isinstance(value, kind) if isinstance(kind, type) else True


def said(hint: Any) -> str:
    """What to give, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        words = [said(one) for one in inner]
        words = [word for word in words if not (word == "a text" and "a path" in words)]
        return " or ".join(dict.fromkeys(words))
    if origin is tuple and inner[-1:] == (...,):
        return f"a tuple, of which each is {said(inner[0])}"
    kind = origin or hint
    name = getattr(kind, "__name__", str(kind))
    return SAID.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


@functools.cache
def _hints(owner: Callable) -> dict[str, Any]:
    """The hints of a function or dataclass, but for those that name what is imported for type checkers alone."""
    found = {}
    for kind in reversed(owner.__mro__) if isinstance(owner, type) else [owner]:
        names = vars(sys.modules[kind.__module__])
        for name, hint in inspect.get_annotations(kind).items():
            try:
                found[name] = eval(hint, names) if isinstance(hint, str) else hint
            except NameError:
                found.pop(name, None)
    return found
