"""Whether a document has the shape of a team: what pydantic finds, in plain words and at the right place.

A document with mistakes is mended as far as one can guess what was meant (a misspelt key, a criterion taken out), so
that the checks of meaning can still run over the rest: one reading shows every mistake. What was mended is remembered,
and nothing is said about it twice.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interlock.protocol.base import Json
from interlock.protocol.criteria import (
    CHECK_NAMES,
    CRITERION_KEYS,
    CharactersCheck,
    CommandCriterion,
    ContainsCheck,
    GroundedCheck,
    JsonSchemaCheck,
    JudgeCriterion,
    NoRepetitionCheck,
    OneOfCheck,
    RegexCheck,
    SchemaCriterion,
    WordsCheck,
)
from interlock.protocol.permissions import ArgumentRule, Permissions, RuleSpec
from interlock.protocol.principles import PrincipleSpec
from interlock.protocol.team import (
    Agent,
    Budget,
    CodeTools,
    Files,
    FilesTools,
    Handover,
    Input,
    JsonLines,
    Limits,
    McpServer,
    ModelSettings,
    PinnedTool,
    SecretSource,
    Step,
    Team,
    ToolSources,
    Verify,
    WebTools,
)
from interlock.runtime.team_words import ShapeError, value_at
from interlock.runtime.yaml_positions import Document, Location, Position

__all__ = ["Shape", "read_shape"]

_ROUNDS = 4

_CHECKS: dict[str, type[BaseModel]] = dict(
    zip(
        CHECK_NAMES,
        (
            WordsCheck,
            CharactersCheck,
            RegexCheck,
            OneOfCheck,
            ContainsCheck,
            NoRepetitionCheck,
            GroundedCheck,
            JsonSchemaCheck,
        ),
        strict=True,
    )
)
_CRITERIA: dict[str, type[BaseModel]] = {
    "command": CommandCriterion,
    "judge": JudgeCriterion,
    "schema": SchemaCriterion,
}


@dataclass
class Shape:
    """A document read as a team: the team, as far as there is one, and what is wrong with the document's shape."""

    team: Team | None
    problems: list[tuple[Position, str]] = field(default_factory=list)
    mended: set[Location] = field(default_factory=set)
    """Where the team holds something that the document does not say, or that is known to be wrong."""

    def is_mended(self, *location: str | int) -> bool:
        """Return whether the value at ``location``, or something around it, is not what the document says."""
        return any(location[:length] in self.mended for length in range(len(location) + 1))


def read_shape(document: Document) -> Shape:
    """Return the team that ``document`` describes, as far as it can be made out, and every mistake of its shape."""
    shape = Shape(None, mended=set(document.broken))
    value = copy.deepcopy(document.value)
    reader = _Reader(document, shape)
    for _ in range(_ROUNDS):
        try:
            shape.team = Team.model_validate_json(json.dumps(value), strict=True)
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
            value = reader.note(value, errors)
            if value is None:
                break
        else:
            break
    return shape


class _Reader:
    """Turns the errors of one validation into problems, and mends what they are about."""

    def __init__(self, document: Document, shape: Shape) -> None:
        self._document = document
        self._shape = shape
        self._done: set[Location] = set()

    def note(self, value: Json, errors: list[ErrorDetails]) -> Json:
        """Note every error and return the mended value; None where it is past mending."""
        found = [error for error in map(ShapeError, errors) if not error.is_echo()]
        extra = [error for error in found if error.type == "extra_forbidden"]
        missing = {error.location for error in found if error.type == "missing"}
        mended = True
        for error in extra:
            missing.discard(self._rename(value, error, missing))
        for error in found:
            if error.type == "missing" and error.location not in missing:
                continue
            if error.type != "extra_forbidden":
                self._say(error)
                mended = self._mend(value, error) and mended
        return value if mended else None

    def _say(self, error: ShapeError) -> None:
        at = error.location
        if self._shape.is_mended(*at) or any(broken[: len(at)] == at for broken in self._document.broken):
            return  # what is wrong there has been said
        if error.type == "missing":
            position = self._document.at(error.location[:-1])
        elif error.is_key:
            position = self._document.at_key(error.location)
        else:
            position = self._document.at(error.location)
        self._shape.problems.append((position, error.in_words(self._document.value)))

    def _rename(self, value: Json, error: ShapeError, missing: set[Location]) -> Location:
        """Take an unknown key out; where it is a misspelt known one, read it as that."""
        *around, key = error.location
        owner = value_at(value, tuple(around))
        word, known = str(key), _keys_of(tuple(around), owner)
        left = [name for name in known if name not in owner]
        required = [name for name in known if (*around, name) in missing]
        near = get_close_matches(word, left, n=1, cutoff=0.6) or get_close_matches(word, required, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        self._shape.problems.append((self._document.at_key(error.location), f"unknown key {word!r}: {hint}"))
        content = owner.pop(key)
        meant: Location = (*around, near[0]) if near else ()
        if near:
            owner[near[0]] = content
            self._move(error.location, meant)
        return meant

    def _move(self, source: Location, target: Location) -> None:
        """Let what stands at ``source`` be found at ``target``."""
        document = self._document
        for places in (document.positions, document.keys, document.blocks):
            _copy_places(places, source, target)

    def _mend(self, value: Json, error: ShapeError) -> bool:
        """Put something harmless in the place of a mistake; return whether that was possible."""
        location = _unit(error.location)
        if location in self._done:
            return True
        owner = value_at(value, location[:-1])
        stand_in = None if error.is_key else _stand_in(location, value)
        if not location or not isinstance(owner, (dict, list)):
            return False
        self._shape.mended.add(location)
        self._done.add(location)
        key: Any = location[-1]
        if stand_in is not None:
            owner[key] = stand_in
        elif isinstance(owner, dict) and key in owner and location not in _NEEDED:
            del owner[key]
        else:
            return False
        return bool(owner) or location[:-1] not in _NEEDED


def _copy_places(places: dict[Location, Any], source: Location, target: Location) -> None:
    depth = len(source)
    places |= {(*target, *at[depth:]): place for at, place in places.items() if at[:depth] == source}


_AT_THE_TOP: dict[Location, Json] = {("interlock",): 1, ("team",): "team"}

_NEEDED = {("plan",), ("agents",)}
"""Without these there is nothing to check."""


def _unit(location: Location) -> Location:
    """Return the smallest thing around ``location`` that can be replaced as a whole."""
    match location:
        case ("plan", int(), "verify", "criteria", int(), *_):
            return location[:5]
        case ("plan", int(), "verify", _, *_):
            return location[:4]
        case ("plan", int(), _, *_) | ("agents" | "inputs", _, _) | ("agents", _, "model"):
            return location[:3]
        case ("agents", _, "tools" | "permissions", *_) | ("tools", "mcp", _, *_):
            return location[:3]
        case ("permissions" | "tools" | "secrets", _, *_):
            return location[:2]
        case ("principles", *_):
            return location[:1]
        case _:
            return location


def _stand_in(location: Location, root: Json) -> Json:
    """Return what to put in the place of a required value; None for one that can be left out."""
    match location:
        case ("plan", int(index), *rest):
            step = {"step": f"unnamed-{index + 1}", "agent": _some_agent(root), "do": "?"}
            if rest and rest[0] == "verify":
                return {"judge": "?"} if len(rest) == 3 else None  # noqa: PLR2004  (one criterion)
            if rest == ["for_each"]:
                return []
            return step.get(str(rest[0])) if rest else dict[str, Json](step)
        case ("agents" | "inputs", _):
            return {"kind": "worker"} if location[0] == "agents" else {}
        case ("agents", _, "kind"):
            return "worker"
        case _:
            return _AT_THE_TOP.get(location)


def _some_agent(root: Json) -> str:
    agents = value_at(root, ("agents",))
    return next(iter(agents), "agent") if isinstance(agents, dict) else "agent"


def _keys_of(location: Location, owner: Any) -> list[str]:
    """Return the keys that the mapping at ``location`` may have."""
    return [info.alias or name for name, info in _model_at(location, owner).model_fields.items()]


def _model_at(location: Location, owner: Any) -> type[BaseModel]:
    match location:
        case ("model",) | ("agents", _, "model"):
            return ModelSettings
        case ("agents", _):
            return Agent
        case ("inputs", _):
            return Input
        case ("budget",):
            return Budget
        case ("limits",):
            return Limits
        case ("plan", int(), *rest) if "permissions" not in rest:
            return _step_model_at(rest, owner)
        case _:
            return _safety_model_at(location)


def _safety_model_at(location: Location) -> type[BaseModel]:
    match location:
        case ("tools", *rest):
            return _tools_model_at(rest)
        case ("secrets", _):
            return SecretSource
        case ("agents", _, "tools", _):
            return PinnedTool
        case ("permissions", *rest) | ("agents" | "plan", _, "permissions", *rest):
            return _rules_model_at(rest)
        case ("principles", _, *rest):
            return _rules_model_at([None, None, *rest[1:]]) if rest else PrincipleSpec
        case _:
            return Team


def _tools_model_at(location: list[str | int]) -> type[BaseModel]:
    match location:
        case ["files"]:
            return FilesTools
        case ["web"]:
            return WebTools
        case ["code"]:
            return CodeTools
        case ["mcp", _]:
            return McpServer
        case _:
            return ToolSources


def _rules_model_at(location: Sequence[str | int | None]) -> type[BaseModel]:
    match location:
        case [_, _]:
            return RuleSpec
        case [_, _, "arguments", _]:
            return ArgumentRule
        case _:
            return Permissions


def _step_model_at(location: list[str | int], owner: Any) -> type[BaseModel]:
    match location:
        case ["for_each"]:
            return JsonLines if "jsonl" in owner else Files
        case ["on_failure"]:
            return Handover
        case ["tools", _]:
            return PinnedTool
        case ["verify"]:
            return Verify
        case ["verify", "criteria", _]:
            kind = next(key for key in CRITERION_KEYS if key in owner)
            return _CHECKS[owner["check"]] if kind == "check" else _CRITERIA[kind]
        case _:
            return Step
