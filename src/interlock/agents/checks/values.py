"""How a check gets at the part of an output that it looks at."""

from interlock.agents.checks.finding import listed, quoted
from interlock.protocol.base import Json

__all__ = ["FieldMissing", "NotText", "same", "text_at", "type_name", "value_at"]


class FieldMissing(Exception):
    """The output has no such field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem
        """What is there instead."""

    def __str__(self) -> str:
        return f"the output has no field {quoted(self.field)}: {self.problem}"


class NotText(Exception):
    """A check of text met a value that holds none."""

    def __init__(self, field: str | None, found: str) -> None:
        super().__init__(field, found)
        self.field = field
        """None: the whole output."""
        self.found = found
        """The value's JSON type."""

    def __str__(self) -> str:
        what = f"the field {quoted(self.field)}" if self.field else "the output"
        return f"{what} must be text, found {self.found}"


def type_name(value: Json) -> str:
    """Return the JSON type of ``value`` with its article, as in ``an object``."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case dict():
            return "an object"


def value_at(output: Json, field: str | None) -> Json:
    """Return what ``field`` names in ``output``; ``a.b`` goes deeper, ``a.0`` into an array; None is all of it.

    :raises FieldMissing: there is no such field
    """
    value = output
    for name in field.split(".") if field else ():
        value = _member(value, name, field or "")
    return value


def _member(value: Json, name: str, field: str) -> Json:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        raise FieldMissing(field, f"its fields are {listed(value)}" if value else "it has no fields")
    if isinstance(value, list):
        if name.isdecimal() and len(name) < 10 and int(name) < len(value):  # noqa: PLR2004 -- no array is longer
            return value[int(name)]
        raise FieldMissing(field, f"there is an array of {len(value)} where {quoted(name)} should be")
    raise FieldMissing(field, f"there is {type_name(value)} where {quoted(name)} should be")


def text_at(output: Json, field: str | None, *, names: bool = False) -> str:
    """Return the text that ``field`` names in ``output``.

    A field is text, or an array of texts, which are joined as lines. The whole of a structured output is its texts,
    numbers and booleans, one a line; with ``names`` the names of its properties too, so that nothing hides in them.

    :raises FieldMissing: there is no such field
    :raises NotText: the value holds no text
    """
    value = value_at(output, field)
    if isinstance(value, str):
        return value
    lines = _texts(value) if field else _leaves(value, names=names)
    if lines is None:
        raise NotText(field, type_name(value))
    return "\n".join(lines)


def _texts(value: Json) -> list[str] | None:
    if not isinstance(value, list):
        return None
    texts = [item for item in value if isinstance(item, str)]
    return texts if len(texts) == len(value) else None


def _leaves(value: Json, *, names: bool) -> list[str] | None:
    """Return the leaves in order, without recursion, so that no depth of nesting can break it."""
    if value is None:
        return None
    lines: list[str] = []
    pending: list[Json] = [value]
    while pending:
        match pending.pop():
            case dict() as members:
                lines += list(members) if names else []
                pending += reversed(members.values())
            case list() as items:
                pending += reversed(items)
            case None:
                pass
            case bool() as flag:
                lines.append("true" if flag else "false")
            case leaf:
                lines.append(str(leaf))
    return lines


def same(left: Json, right: Json) -> bool:
    """Return whether two JSON values are equal; true is not 1, but 1 is 1.0; texts without surrounding space."""
    if isinstance(left, str) and isinstance(right, str):
        return left.strip() == right.strip()
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left == right
