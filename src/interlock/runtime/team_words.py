"""What pydantic finds wrong with a team, in plain words: what was expected, what stands there, what was meant."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from interlock.agents.spelling import did_you_mean
from interlock.protocol.base import Json
from interlock.protocol.criteria import CHECK_NAMES, CRITERION_KEYS
from interlock.runtime.yaml_positions import Location

__all__ = ["ShapeError", "value_at"]


class ShapeError:
    """One error of pydantic, at a location of the document."""

    def __init__(self, details: ErrorDetails) -> None:
        self.location = _location(details)
        self.type: str = details["type"]
        self.is_key = _is_key(details)
        self._input: Any = details["input"]
        self._message: str = details["msg"]
        self._context: dict[str, Any] = details.get("ctx", {})

    def is_echo(self) -> bool:
        """Return whether this only says that a list is short of the elements that other errors took out."""
        return self.type == "too_short" and len(self._input) > 0

    def in_words(self, root: Json) -> str:
        """Return what is wrong and what would be right."""
        what = f"{self.location[-1]!r}: " if self.location and isinstance(self.location[-1], str) else ""
        if self.type == "missing":
            return f"{self.location[-1]!r} is missing{_owner_name(self.location[:-1], root)}"
        if self.type == "union_tag_not_found":
            return self._no_criterion()
        if self.type == "union_tag_invalid":
            word = str(self._context["tag"])
            return f"there is no check {word!r}" + (did_you_mean(word, CHECK_NAMES) or f"; checks: {_or(CHECK_NAMES)}")
        if self.type == "literal_error":
            return what + self._no_choice()
        if self.type == "string_pattern_mismatch":
            if "tools" in self.location or self.location[-1:] == ("tool",):
                return f"{self._input!r} is no name of a tool: expected something like files.read"
            return f"{self._input!r} is no name: use a to z, 0 to 9, _ and -, a letter first, at most 63"
        if self.type == "value_error":
            return str(self._context["error"])
        return what + self._expected()

    def _no_criterion(self) -> str:
        known = f"a criterion has one of the keys {_or(CRITERION_KEYS)}"
        if not isinstance(self._input, dict):
            return f"expected a mapping (key: value), got {_got(self._input)}; {known}"
        near = next((hint for key in self._input if (hint := did_you_mean(str(key), CRITERION_KEYS))), "")
        return known + near

    def _no_choice(self) -> str:
        if self.location == ("interlock",):
            return f"this version reads team files of version 1, got {_got(self._input)}"
        expected = self._context["expected"].replace("'", "")
        if self.location[-1] == "on_failure":
            expected = "fail, or {agent: NAME, attempts: NUMBER}"
        hint = did_you_mean(self._input, expected.replace(" or ", ", ").split(", ")) if _is_text(self._input) else ""
        return f"expected {expected}, got {_got(self._input)}{hint}"

    def _expected(self) -> str:
        """Return ``expected this, got that``, or pydantic's words for a kind of error that is new to us."""
        bounds = self._context
        expected = {
            "string_type": "text",
            "string_too_short": "text that is not empty",
            "int_type": "a whole number",
            "int_from_float": "a whole number",
            "float_type": "a number",
            "bool_type": "true or false",
            "dict_type": "a mapping (key: value)",
            "model_type": "a mapping (key: value)",
            "model_attributes_type": "a mapping (key: value)",
            "tuple_type": "a list",
            "too_short": "at least one entry",
            "greater_than_equal": f"at least {_bound(bounds, 'ge')}",
            "greater_than": f"more than {_bound(bounds, 'gt')}",
            "less_than_equal": f"at most {_bound(bounds, 'le')}",
            "less_than": f"less than {_bound(bounds, 'lt')}",
            "string_too_long": f"at most {_bound(bounds, 'max_length')} characters",
        }.get(self.type)
        return f"expected {expected}, got {_got(self._input)}" if expected else self._message


def _bound(context: dict[str, Any], key: str) -> str:
    value = context.get(key)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _got(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {str(value)[:40]}"
        case str():
            return repr(value if len(value) <= 40 else f"{value[:40]}...")  # noqa: PLR2004  (enough to find it)
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return "a list" if value else "an empty list"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


def _owner_name(location: Location, root: Json) -> str:
    """Return `` in step 'x'`` and the like, so that a missing key is found without counting lines."""
    match location:
        case ():
            return " in the team"
        case ("agents", str(name), *_):
            return f" in agent {name!r}"
        case ("plan", int(index), *rest):
            step = value_at(root, ("plan", index, "step"))
            inside = "a criterion of " if "criteria" in rest else ""
            return f" in {inside}step {step!r}" if isinstance(step, str) else f" in {inside}step number {index + 1}"
        case _:
            return f" in {location[-1]!r}"


def _location(details: ErrorDetails) -> Location:
    """Return where in the document an error is: pydantic's ``loc`` without the names of union members."""
    rest = list(details["loc"][:-1] if _is_key(details) else details["loc"])
    out: list[str | int] = []
    while rest:
        out.append(rest.pop(0))
        if _is_union(out) and rest and rest.pop(0) == "check" and rest:
            rest.pop(0)  # which check it is
    return tuple(out)


def _is_key(details: ErrorDetails) -> bool:
    """Return whether an error is about the key of a mapping."""
    return details["loc"][-1:] == ("[key]",) and details["type"] != "extra_forbidden"


def _is_union(location: list[str | int]) -> bool:
    """Return whether the value at ``location`` is one of several kinds, so that pydantic names the kind next."""
    match location:
        case ["plan", int(), "verify", "criteria", int()]:
            return True
        case ["plan", int(), "for_each" | "on_failure"] | ["plan", int(), "output", str()]:
            return True
        case ["plan", int(), "for_each", "files"]:
            return True
        case ["agents" | "plan", _, "tools", int()] | ["principles", int()] | ["principles", int(), _]:
            return True
        case ["permissions", _, int()] | ["agents" | "plan", _, "permissions", _, int()]:
            return True
        case _:
            return False


def value_at(value: Any, location: Location) -> Any:
    """Return what stands at ``location``, or None."""
    for key in location:
        match value, key:
            case dict(), _ if key in value:
                value = value[key]
            case list(), int() if key < len(value):
                value = value[key]
            case _:
                return None
    return value
