"""The strategy that answers at once."""

from interlock.agents.strategies.form import Form, Schema, Thought
from interlock.protocol.base import Json

__all__ = ["direct"]


def direct(schema: Schema | None) -> Form:
    """Return the form of an answer that is the output and nothing else."""
    if schema is None:
        return Form(None, "", Thought)
    return Form(schema, f"Answer with one JSON object{_fields(schema)} and nothing else.", Thought)


def _fields(schema: Schema) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return ""
    noun = "field" if len(properties) == 1 else "fields"
    return f" with the {noun} {', '.join(_field(name, kind) for name, kind in properties.items())}"


def _field(name: str, kind: Json) -> str:
    type_ = kind.get("type") if isinstance(kind, dict) else None
    return f'"{name}" ({type_})' if isinstance(type_, str) else f'"{name}"'
