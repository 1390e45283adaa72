"""How much of a JSON Schema vLLM is asked to bind an answer to."""

import logging
from typing import Any

import pytest

from interlock.backends._schema_limits import SchemaLimits
from interlock.protocol.base import Json


@pytest.mark.parametrize(
    ("schema", "left"),
    [
        ({"type": "array", "uniqueItems": True, "minItems": 2}, {"type": "array", "minItems": 2}),
        ({"type": "array", "contains": {"const": 1}, "minContains": 1}, {"type": "array"}),
        ({"type": "string", "format": "email", "maxLength": 5}, {"type": "string", "format": "email", "maxLength": 5}),
        ({"type": "string", "format": "colour"}, {"type": "string"}),
        ({"type": "string", "pattern": "^[a-z]+$"}, {"type": "string", "pattern": "^[a-z]+$"}),
        ({"type": "string", "pattern": r"^(?=a)\w+"}, {"type": "string"}),
        ({"type": "string", "pattern": r"(a)\1"}, {"type": "string"}),
        ({"allOf": [{"not": {"const": 1}}, {"type": "integer"}]}, {"allOf": [{}, {"type": "integer"}]}),
        ({"if": {}, "then": {}, "else": {}, "type": "object"}, {"type": "object"}),
        (
            {"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": False},
            {"properties": {"a": {}}},
        ),
        ({"patternProperties": {"^x": {"type": "array"}}}, {"patternProperties": {"^x": {"type": "array"}}}),
        ({"type": "string", "pattern": r"\Aa\Z"}, {"type": "string"}),
        ({"oneOf": [{"type": "object"}, {"not": {}}]}, {"anyOf": [{"type": "object"}, {}]}),
        ({"$ref": "https://example.org/s.json"}, {}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}),
    ],
)
def test_what_would_be_refused_is_left_out(schema: dict[str, Json], left: dict[str, Json]) -> None:
    """What no grammar takes is left out wherever it stands, and nothing else."""
    assert SchemaLimits().bindable(schema) == left


def test_names_of_properties_are_no_keywords() -> None:
    """A property may be called as a keyword is; a schema that fits is not even copied."""
    schema: dict[str, Json] = {"type": "object", "properties": {"contains": {"type": "string"}, "not": {}}}
    schema |= {"required": ["contains"], "enum": [{"not": 1}], "additionalProperties": False}
    assert SchemaLimits().bindable(schema) is schema


def test_properties_keep_their_order() -> None:
    """Engines write properties in the schema's order, so schemas that differ in it alone are different."""
    limits = SchemaLimits()
    for names in (["a", "b"], ["b", "a"]):
        schema: dict[str, Json] = {"properties": {name: {"type": "string"} for name in names}, "not": {}}
        assert list(limits.bindable(schema)["properties"]) == names  # type: ignore[arg-type]


def test_what_is_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A person learns which demands are checked only, once a schema."""
    limits = SchemaLimits()
    schema: dict[str, Any] = {"properties": {"list": {"type": "array", "uniqueItems": True}}, "not": {"required": []}}
    with caplog.at_level(logging.WARNING):
        assert limits.bindable(schema) is limits.bindable(schema)
    assert [record.getMessage() for record in caplog.records] == [
        "answers are checked for, but not bound to: not, properties.list.uniqueItems"
    ]
