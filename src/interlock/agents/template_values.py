"""Values inside a template: what they cost, and how they leave it as text or JSON.

What is evaluated runs within one allowance; whatever makes or looks through something takes from it.
"""

import json
import math
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from types import GeneratorType
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Undefined

from interlock.protocol.base import Json

__all__ = [
    "ALLOWANCE",
    "AllowanceExceeded",
    "NotJson",
    "allowance",
    "as_json",
    "as_text",
    "charge",
    "counted",
    "size",
]

ALLOWANCE = 32_000_000
"""What one rendering may use up: a character that it makes or reads counts 1, a value 16, a turn of a loop 32."""

_VALUE = 16

_MAX_DEPTH = 64

_left: ContextVar[list[int]] = ContextVar("interlock_template_allowance")


class AllowanceExceeded(TemplateRuntimeError):
    """A template makes too much text or too many turns."""


class NotJson(TemplateRuntimeError):
    """An expression gives something that is no JSON value, such as a method."""


@contextmanager
def allowance(units: int = ALLOWANCE) -> Iterator[None]:
    """Give what is evaluated inside a fresh allowance of ``units``."""
    token = _left.set([units])
    try:
        yield
    finally:
        _left.reset(token)


def charge(units: int) -> None:
    """Take ``units`` from the allowance.

    :raises AllowanceExceeded: there is not so much left.
    """
    left = _left.get()
    left[0] -= units
    if left[0] < 0:
        raise AllowanceExceeded(f"it makes more than {ALLOWANCE} characters, or as much work in loops")


def as_json(value: Any, depth: int = 0) -> Json:
    """Return a copy of ``value`` made of plain JSON: lazy sequences and tuples become lists.

    :raises NotJson: there is something in it that JSON has no word for.
    :raises AllowanceExceeded: it is too large.
    """
    if isinstance(value, Undefined):
        value = str(value)  # raises, and says which name is absent
    match value:
        case None | bool() | int():
            charge(_VALUE)
            return value
        case str():
            charge(len(value) + _VALUE)
            return str(value)
        case float() if math.isfinite(value):
            return value
        case _ if depth == _MAX_DEPTH:
            raise NotJson(f"it gives a value nested deeper than {_MAX_DEPTH}")
        case Mapping():
            return {_key(key): as_json(one, depth + 1) for key, one in value.items()}
        case list() | tuple() | range() | GeneratorType() | KeysView() | ValuesView() | ItemsView():
            return [as_json(one, depth + 1) for one in counted(value)]
        case _:
            raise NotJson(f"it gives a value that JSON has no word for ({type(value).__name__})")


def as_text(value: Any) -> str:
    """Return how ``value`` stands in a text: a string as it is, everything else as JSON.

    :raises NotJson: as ``as_json``.
    :raises AllowanceExceeded: as ``as_json``.
    """
    if isinstance(value, str):
        charge(len(value))
        return value
    return json.dumps(as_json(value), ensure_ascii=False, allow_nan=False)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise NotJson(f"it gives a mapping with a key that is not text ({key!r})")
    charge(len(key) + _VALUE)
    return key


def size(value: Any) -> int:
    """Return what looking through ``value`` once costs."""
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 1


def counted(values: Iterable[Any]) -> list[Any]:
    """Return ``values`` as a list, each charged for as it comes."""
    counted = []
    for value in values:
        charge(_VALUE)
        counted.append(value)
    return counted
