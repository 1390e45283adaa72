"""JSON values as lines: read strictly, written compactly, held to what a message can carry."""

import json

from pydantic import TypeAdapter, ValidationError

from interlock.protocol.base import Json

__all__ = ["MAX_ITEM", "MAX_LISTED", "LineInvalid", "from_line", "to_line"]

MAX_ITEM = 32 * 1024 * 1024
"""The most bytes of one item as JSON."""

MAX_LISTED = 64 * 1024
"""The most bytes of JSON, line ends included, with which a list stands in a message itself, not in the object store."""

_OURS = "Value error, "
"""What pydantic puts before the words of an error of ours."""

_JSON: TypeAdapter[Json] = TypeAdapter(Json)


class LineInvalid(ValueError):
    """A value that no message can carry, or a text that is none; the message says why."""


def from_line(line: bytes) -> Json:
    """Return the JSON value of ``line``, which is UTF-8.

    :raises LineInvalid: it is no JSON, has NaN or Infinity in it, a lone surrogate, or is nested too deeply
    """
    try:
        return _JSON.validate_json(line)
    except ValidationError as error:
        raise LineInvalid(_why_not(line) or _first(error)) from error


def to_line(value: Json) -> bytes:
    """Return ``value`` as one line of JSON, its end included.

    :raises LineInvalid: it is not made of JSON's types, has a number or a text that JSON has not, or is too deep
    """
    try:
        return json.dumps(_JSON.validate_python(value), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except ValidationError as error:
        raise LineInvalid(_first(error)) from error
    except UnicodeEncodeError as error:
        raise LineInvalid("it has a lone surrogate in it") from error
    except RecursionError as error:
        raise LineInvalid("it is nested too deeply") from error


def _why_not(line: bytes) -> str:
    """Return what Python's own parser finds wrong, which says it better; empty where it finds nothing."""
    try:
        value = json.loads(line, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        return "it is nested too deeply"
    except UnicodeEncodeError:
        return "it has a lone surrogate in it"
    except ValueError as error:
        return str(error)
    return ""


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    return f"it {found['msg'].removeprefix(_OURS)}" if found["type"] == "value_error" else found["msg"]


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")
