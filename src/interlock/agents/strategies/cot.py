"""The strategy that writes its reasoning first, then the output, in one call.

The reasoning is a leading property of a schema-bound answer, also where the output is text: engines write properties
in the order of the schema, so even a very small model reasons before it answers and never mixes the two up, which it
does when it must keep to headings in free text. A second call would cost the whole prompt again.
"""

from interlock.agents.strategies.direct import direct
from interlock.agents.strategies.form import Form, Schema, Thought
from interlock.protocol.base import Json

__all__ = ["cot"]

_PLAIN = {"type", "properties", "required", "additionalProperties", "$defs", "$schema", "title", "description"}
"""Keywords that a further property does not disturb."""


def cot(schema: Schema | None) -> Form:
    """Return the form of an answer that begins with its reasoning.

    A schema that a further property could contradict is answered directly, without reasoning.
    """
    if schema is None:
        return _answer_form()
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not schema.keys() <= _PLAIN:
        return direct(schema)
    return _leading_form(schema, properties)


def _answer_form() -> Form:
    def split(answer: Json) -> Thought | None:
        if isinstance(answer, dict) and isinstance(answer.get("answer"), str):
            return Thought(answer["answer"], _text(answer.get("reasoning")))
        return None

    text: Schema = {"type": "string"}
    schema: Schema = {
        "type": "object",
        "properties": {"reasoning": text, "answer": text},
        "required": ["reasoning", "answer"],
        "additionalProperties": False,
    }
    return Form(schema, _hint("reasoning", 'put the answer alone into "answer"'), split)


def _leading_form(schema: Schema, properties: dict[str, Json]) -> Form:
    name = "reasoning"
    while name in properties:
        name += "_"
    required = schema.get("required")
    wider: Schema = {
        **schema,
        "properties": {name: {"type": "string"}, **properties},
        "required": [name, *(required if isinstance(required, list) else [])],
    }

    def split(answer: Json) -> Thought | None:
        if not isinstance(answer, dict):
            return None
        output = {key: value for key, value in answer.items() if key != name}
        return Thought(output, _text(answer.get(name)))

    fields = ", ".join(f'"{field}"' for field in properties)
    return Form(wider, _hint(name, f"fill in {fields}"), split)


def _hint(name: str, then: str) -> str:
    return f'Answer with one JSON object and nothing else: first think step by step, briefly, in "{name}", then {then}.'


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
