"""What can be demanded of a result: checks (code), commands (run), judges (model) and schemas.

A criterion is plain data: it is written in a team file, travels inside ``task.assigned`` and is evaluated by the
verifier (``interlock.agents``). Strings may hold templates until the manager renders them for a task.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from interlock.protocol.base import Json, Strict

__all__ = [
    "CHECK_NAMES",
    "CRITERION_KEYS",
    "AnyCriterion",
    "CharactersCheck",
    "Check",
    "CommandCriterion",
    "ContainsCheck",
    "Criterion",
    "GroundedCheck",
    "JsonSchemaCheck",
    "JudgeCriterion",
    "NoRepetitionCheck",
    "OneOfCheck",
    "RegexCheck",
    "SchemaCriterion",
    "WordsCheck",
    "criterion_label",
    "map_templates",
    "templates_of",
]


class _Criterion(Strict):
    name: str | None = Field(default=None, min_length=1, max_length=80)
    """How verdicts and reports call this criterion; by default its kind and field."""


class _FieldCriterion(_Criterion):
    field: str | None = None
    """The property of the output to look at (``a.b`` goes deeper); left out: the whole output as text."""


_Counted = TypeVar("_Counted", "WordsCheck", "CharactersCheck")


class WordsCheck(_FieldCriterion):
    """The number of words lies between ``min`` and ``max``, both included."""

    check: Literal["words"]
    min: int = Field(default=0, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> "WordsCheck":
        return _ordered(self)


class CharactersCheck(_FieldCriterion):
    """The number of characters (Unicode code points) lies between ``min`` and ``max``, both included."""

    check: Literal["characters"]
    min: int = Field(default=0, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> "CharactersCheck":
        return _ordered(self)


def _ordered(check: _Counted) -> _Counted:
    if check.max is not None and check.max < check.min:
        raise ValueError(f"max ({check.max}) is below min ({check.min}): nothing can hold")
    if check.max is None and check.min == 0:
        raise ValueError("give min, max or both")
    return check


class RegexCheck(_FieldCriterion):
    """The pattern (the ``regex`` package's syntax, searched, not anchored) is found."""

    check: Literal["regex"]
    pattern: str = Field(min_length=1)


class OneOfCheck(_FieldCriterion):
    """The value equals one of ``values``; strings are compared without surrounding white space."""

    check: Literal["one_of"]
    values: tuple[Json, ...] = Field(min_length=1)


class ContainsCheck(_FieldCriterion):
    """The text holds every string of ``all``, at least one of ``any`` and none of ``none``; case is ignored."""

    check: Literal["contains"]
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> "ContainsCheck":
        if not (self.all or self.any or self.none):
            raise ValueError("give all, any or none")
        return self


class NoRepetitionCheck(_FieldCriterion):
    """No sentence stands twice and no run of ``words`` words occurs more than ``max`` times."""

    check: Literal["no_repetition"]
    words: int = Field(default=4, ge=2, le=50)
    max: int = Field(default=1, ge=1)


class GroundedCheck(_FieldCriterion):
    """The text shares enough of its content words, and all of its numbers, with the source."""

    check: Literal["grounded"]
    source: str
    """The text to be grounded in, usually a template such as ``{{ item.text }}``."""
    share: float = Field(default=0.6, gt=0, le=1)
    """The least share of the text's distinct content words that must stand in the source."""
    numbers: bool = True
    """Whether every number of the text must stand in the source."""


class JsonSchemaCheck(_FieldCriterion):
    """The value is valid against a JSON Schema (draft 2020-12)."""

    check: Literal["json_schema"]
    schema_: dict[str, Json] = Field(alias="schema")


class SchemaCriterion(_Criterion):
    """The whole output is valid against a JSON Schema (draft 2020-12)."""

    schema_: dict[str, Json] = Field(alias="schema")


class CommandCriterion(_Criterion):
    """The command exits 0 with the output as JSON on its standard input."""

    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments; no shell is involved. What begins with ``./`` or ``../`` is relative to the team file."""
    timeout: float = Field(default=30, gt=0, le=3600)
    """Seconds; a command that runs longer is ended and the criterion is uncertain."""


class JudgeCriterion(_Criterion):
    """The verifier's model finds that this sentence is true of the output."""

    judge: str = Field(min_length=1)


Check = Annotated[
    WordsCheck
    | CharactersCheck
    | RegexCheck
    | OneOfCheck
    | ContainsCheck
    | NoRepetitionCheck
    | GroundedCheck
    | JsonSchemaCheck,
    Field(discriminator="check"),
]
"""A criterion that code decides."""

CHECK_NAMES = ("words", "characters", "regex", "one_of", "contains", "no_repetition", "grounded", "json_schema")
"""The values that ``check`` may have."""

CRITERION_KEYS = ("check", "command", "judge", "schema")
"""A criterion has exactly one of these keys, which says what kind it is."""


def _kind(value: Any) -> str | None:
    """Return the one key of ``CRITERION_KEYS`` that tells the kind of a criterion."""
    if isinstance(value, dict):
        return next((key for key in CRITERION_KEYS if key in value), None)
    return _KIND_OF.get(type(value))


Criterion = Annotated[
    Annotated[Check, Tag("check")]
    | Annotated[CommandCriterion, Tag("command")]
    | Annotated[JudgeCriterion, Tag("judge")]
    | Annotated[SchemaCriterion, Tag("schema")],
    Discriminator(_kind),
]
"""One thing that must hold of an output; the key that is present says which kind it is."""

AnyCriterion = (
    WordsCheck
    | CharactersCheck
    | RegexCheck
    | OneOfCheck
    | ContainsCheck
    | NoRepetitionCheck
    | GroundedCheck
    | JsonSchemaCheck
    | CommandCriterion
    | JudgeCriterion
    | SchemaCriterion
)
"""The same union without its discriminators, for annotations of functions."""

_KIND_OF: dict[type[Any], str] = {
    WordsCheck: "check",
    CharactersCheck: "check",
    RegexCheck: "check",
    OneOfCheck: "check",
    ContainsCheck: "check",
    NoRepetitionCheck: "check",
    GroundedCheck: "check",
    JsonSchemaCheck: "check",
    CommandCriterion: "command",
    JudgeCriterion: "judge",
    SchemaCriterion: "schema",
}


def criterion_label(criterion: AnyCriterion) -> str:
    """Return how verdicts call ``criterion``: its name, or its kind and what it looks at."""
    if criterion.name:
        return criterion.name
    match criterion:
        case CommandCriterion():
            return f"command {criterion.command[0]}"
        case JudgeCriterion():
            return f"judge: {criterion.judge}"
        case SchemaCriterion():
            return "schema"
        case _:
            return f"{criterion.check}({criterion.field})" if criterion.field else criterion.check


def map_templates(criterion: AnyCriterion, change: Callable[[str], str]) -> AnyCriterion:
    """Return ``criterion`` with ``change`` applied to every string of it that may hold a template.

    Those are what the value is compared with (``source``, ``values``, ``all``, ``any``, ``none``), a judge's sentence
    and a command's arguments; names, fields, patterns and schemas are taken as they are written.
    """
    fields = {name: getattr(criterion, name) for name in _TEMPLATED if name in type(criterion).model_fields}
    changed = {name: _map_strings(value, change) for name, value in fields.items()}
    return criterion.model_copy(update=changed) if changed != fields else criterion


def templates_of(criterion: AnyCriterion) -> tuple[str, ...]:
    """Return the strings of ``criterion`` that may hold a template, as ``map_templates`` takes them."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    map_templates(criterion, note)
    return tuple(found)


_TEMPLATED = ("source", "values", "all", "any", "none", "judge", "command")


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    return tuple(_map_strings(one, change) for one in value) if isinstance(value, tuple) else value
