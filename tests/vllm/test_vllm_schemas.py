"""Answers of the real vLLM that are bound to schemas."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

from jsonschema import Draft202012Validator

from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest
from interlock.backends.engines import Endpoint, open_chat

_AT_ONCE = 10
_WORD = {"type": "string", "minLength": 1, "maxLength": 30}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


_SCHEMAS = [
    _object(colour={"enum": ["red", "green", "blue"]}, count={"type": "integer", "minimum": 0, "maximum": 99}),
    _object(answer=_WORD, sure={"type": "boolean"}),
    _object(words={"type": "array", "items": _WORD, "minItems": 1, "maxItems": 3}),
    _object(
        place=_object(name=_WORD, far={"type": "boolean"}),
        parts={"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1, "maxItems": 2},
    )
    | {"$defs": {"part": _object(label=_WORD, code={"enum": [1, 2, 3]})}},
    _object(
        c1=_object(evidence=_WORD, holds={"type": "boolean"}, change={"type": "string", "maxLength": 30}),
        note={"anyOf": [_WORD, {"type": "null"}]},
    ),
]
"""As small teams, judges and planners need them: choices, lists, objects in objects, references."""
_QUESTIONS = [f"Tell about a {thing}." for thing in ("dog", "house", "ship", "song", "tree")]


async def test_fifty_bound_answers_are_valid(server: Endpoint) -> None:
    """Of 50 calls, ten at a time, with five schemas, cool and warm, every answer keeps to its schema."""
    room = asyncio.Semaphore(_AT_ONCE)
    asked = [
        (schema, ChatRequest((ChatMessage("user", question),), temperature, 300, schema=schema))
        for schema in _SCHEMAS
        for question in _QUESTIONS
        for temperature in (0.0, 0.9)
    ]
    async with aclosing(open_chat(server)) as chat:

        async def ask(request: ChatRequest) -> ChatReply:
            async with room:
                return await chat.chat(request)

        replies = await asyncio.gather(*(ask(request) for _, request in asked))
    wrong = [reply.text for (schema, _), reply in zip(asked, replies, strict=True) if not _keeps_to(schema, reply.text)]
    assert (len(replies), wrong) == (50, [])


def _keeps_to(schema: dict[str, Any], text: str) -> bool:
    try:
        return Draft202012Validator(schema).is_valid(json.loads(text))
    except ValueError:
        return False
