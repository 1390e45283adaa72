"""As much of a JSON Schema as vLLM can bind an answer to. Pure.

vLLM compiles a schema with xgrammar, where that cannot with llguidance, and refuses the request where neither can (HTTP
400). What is left out here is what makes them refuse, so the answer is bound to the rest; whoever asked validates it
against the whole schema as always. Found out by asking both compilers, as vLLM 0.32 comes with them; docs/engines.md
has the list for people.
"""

import json
import logging
import re

from interlock.protocol.base import Json

_log = logging.getLogger(__name__)

_UNBOUND = frozenset(
    {
        "$dynamicRef",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
"""Keywords that neither compiler takes, or one takes only alone."""

_FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})
"""Formats that both compilers know."""

_NAMED = ("$defs", "definitions", "properties", "patternProperties")
"""Keywords with schemas by name."""
_ONE = ("additionalProperties", "items")
"""Keywords with a schema, a list of schemas or a truth value."""
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")

_BEYOND_GRAMMARS = re.compile(r"\(\?([=!<>]|P=)|\\[1-9bBkAZz]")
"""Parts of regular expressions that no grammar can express: looking around, going back, borders of words and texts."""

_KEPT = 64
"""How many schemas are remembered: a job has a few."""


class SchemaLimits:
    """Cuts schemas, each once, and says once of each what is left out."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Json]] = {}

    def bindable(self, schema: dict[str, Json]) -> dict[str, Json]:
        """Return ``schema`` without what makes vLLM refuse it; itself where there is nothing of the kind."""
        key = json.dumps(schema)  # in its own order, in which properties are generated
        if (known := self._known.get(key)) is not None:
            return known
        left_out: list[str] = []
        cut = _cut(schema, "", left_out)
        if left_out:
            _log.warning("answers are checked for, but not bound to: %s", ", ".join(sorted(set(left_out))))
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = found = schema if cut == schema else cut
        return found


def _cut(schema: dict[str, Json], at: str, left_out: list[str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in schema.items():
        if _is_unbound(key, value, schema):
            left_out.append(f"{at}{key}")
        elif key == "oneOf" and "anyOf" not in schema:  # one compiler takes it for that anyway, the other refuses it
            found["anyOf"] = _inner(key, value, f"{at}{key}.", left_out)
        else:
            found[key] = _inner(key, value, f"{at}{key}.", left_out)
    if "patternProperties" in schema and "patternProperties" not in found:
        found.pop("additionalProperties", None)  # it would forbid what the patterns allow
    return found


def _is_unbound(key: str, value: Json, schema: dict[str, Json]) -> bool:
    match key, value:
        case "patternProperties", dict():
            return len(value) != 1 or bool(schema.get("properties")) or any(map(_BEYOND_GRAMMARS.search, value))
        case "format", str():
            return value not in _FORMATS
        case "pattern", str():
            return bool(_BEYOND_GRAMMARS.search(value))
        case "$ref", str():
            return not value.startswith("#")
        case "additionalItems", _:
            return True
        case _:
            return key in _UNBOUND


def _inner(key: str, value: Json, at: str, left_out: list[str]) -> Json:
    match value:
        case dict() if key in _NAMED:
            return {name: _schema(inner, f"{at}{name}.", left_out) for name, inner in value.items()}
        case dict() if key in _ONE:
            return _cut(value, at, left_out)
        case list() if key in _LISTED or key in _ONE:
            return [_schema(inner, f"{at}{number}.", left_out) for number, inner in enumerate(value)]
        case _:
            return value


def _schema(value: Json, at: str, left_out: list[str]) -> Json:
    return _cut(value, at, left_out) if isinstance(value, dict) else value
