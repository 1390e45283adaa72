"""Which values fit the type of an input: as a default in a team file, as text, and frozen into a job."""

import json
from typing import Any

from interlock.protocol.base import Json
from interlock.protocol.team import Input, InputType

__all__ = ["default_problem", "expected", "fits", "fits_frozen", "shown"]

_EXPECTED: dict[InputType, str] = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "a JSON object",
    "array": "a JSON array",
    "files": "a glob, or a list of globs",
    "jsonl": "the path of a file with one JSON value a line",
}


_PYTHON: dict[InputType, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
    "files": (str, list),
    "jsonl": str,
}

_FROZEN: dict[InputType, str] = {"files": "a list of {path, name, text}", "jsonl": "a list"}


def expected(kind: InputType, *, frozen: bool = False) -> str:
    """Return what a value of a type is, in words; ``frozen``: within a job."""
    return _FROZEN.get(kind, _EXPECTED[kind]) if frozen else _EXPECTED[kind]


def fits(kind: InputType, value: Json) -> bool:
    """Return whether a default, or a value that stands in a team file, is of a type."""
    if isinstance(value, bool) and kind != "boolean":
        return False
    if kind == "files" and isinstance(value, list):
        return bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, _PYTHON[kind])


def fits_frozen(kind: InputType, value: Json) -> bool:
    """Return whether a value is what an input of a type is within a job, where files are their text."""
    if kind == "jsonl":
        return isinstance(value, list)
    if kind == "files":
        return isinstance(value, list) and all(
            isinstance(one, dict) and one.keys() == {"path", "name", "text"} and all(map(_is_text, one.values()))
            for one in value
        )
    return fits(kind, value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def shown(value: Json) -> str:
    """Return a value as short JSON, to name it in a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."  # noqa: PLR2004  (enough to recognise it)


def default_problem(spec: Input) -> str:
    """Return what is wrong with the default of an input; empty if it fits the input's type."""
    if fits(spec.type, spec.default):
        return ""
    return f"expected {expected(spec.type)}, got {shown(spec.default)}"
