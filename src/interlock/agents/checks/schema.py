"""Whether a value is valid against a JSON Schema (draft 2020-12), and where it is not.

Nothing is ever fetched: a ``$ref`` to anything but the schema itself is undecided.
Patterns are searched by the ``regex`` package with a time limit, since those of ``re`` cannot be stopped.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from interlock.agents.checks.finding import Finding, failed, held, quoted, undecided
from interlock.agents.checks.patterns import SEARCH_SECONDS, is_found
from interlock.protocol.base import Json, canonical_json

__all__ = ["check_schema"]

_REPORTED = 3


def check_schema(schema: dict[str, Json], value: Json) -> Finding:
    """Return whether ``value`` is valid; undecided where the schema itself is wrong or cannot be applied."""
    try:
        errors = list(islice(_validator(canonical_json(schema)).iter_errors(value), _REPORTED))
    except SchemaError as problem:
        return undecided(f"the schema is no JSON Schema: {quoted(problem.message)} at {problem.json_path}")
    except Unresolvable as problem:
        return undecided(f"the schema refers to {quoted(problem.ref)}, which it does not hold; nothing is fetched")
    except (_Unsafe, regex.error) as problem:
        return undecided(f"the schema cannot be applied: {problem}")
    except TimeoutError:
        return undecided(f"searching for a pattern of the schema took more than {SEARCH_SECONDS:g} s")
    if not errors:
        return held("valid against the schema")
    return failed("; ".join(map(_told, errors)), f"Make it valid: {_told(errors[0])}.")


class _Unsafe(Exception):
    """The schema uses what could not be stopped."""


@lru_cache(maxsize=256)
def _validator(canonical: str) -> Any:
    """Return the validator for a schema in canonical JSON, so that equal schemas are compiled once.

    :raises SchemaError: it is no JSON Schema
    """
    if '"unevaluatedProperties"' in canonical and '"patternProperties"' in canonical:
        raise _Unsafe("unevaluatedProperties together with patternProperties is not supported")
    schema = json.loads(canonical)
    Draft202012Validator.check_schema(schema)
    return _Validator(schema, registry=EMPTY_REGISTRY)


def _told(error: ValidationError) -> str:
    return f"{error.json_path}: {quoted(error.message, 200).strip(chr(34))}"


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not is_found(pattern, instance):
        yield ValidationError(f"{quoted(instance)} does not match the pattern {pattern}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    for name in instance if isinstance(instance, dict) else ():
        for pattern, wanted in patterns.items():
            if is_found(pattern, name):
                yield from validator.descend(instance[name], wanted, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, wanted: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name in instance if isinstance(instance, dict) else ():
        if name in known or any(is_found(pattern, name) for pattern in patterns):
            continue
        if wanted is False:
            yield ValidationError(f"the property {quoted(name)} is not allowed")
        else:
            yield from validator.descend(instance[name], wanted, path=name)


_Validator: Any = extend(  # type: ignore[no-untyped-call]  # the stubs leave it untyped
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)
