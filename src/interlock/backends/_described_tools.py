"""Tools for engines without tool calls: described in the prompt, called by an answer that is bound to a form. Pure.

The answer is one JSON object: ``{"tool": NAME, "arguments": {...}}`` to call a tool, ``{"final": true}`` to call none.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pydantic_core import from_json

from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.protocol.base import Json, canonical_json

_HOW = """\
You can use these tools:
{tools}
Answer with one JSON object and nothing else. To use a tool: {{"tool": "its name", "arguments": {{...}}}}. \
When you need no tool: {{"final": true}}."""

_BROKEN_CALL = re.compile(r'\s*\{\s*"tool"\s*:\s*"([^"\\]*)"')
"""The beginning of a call whose rest is no JSON, most likely because it was cut off."""


def described(request: ChatRequest) -> ChatRequest:
    """Return ``request`` for an engine without tool calls; one that has to do with none stays as it is."""
    messages = request.messages
    if any(message.tool_calls or message.role == "tool" for message in messages):
        messages = tuple(_merged(_told(messages, actions=bool(request.tools))))
    if not request.tools:
        return replace(request, messages=messages)
    tools = "\n".join(_line(offer) for offer in request.tools)
    return replace(
        request,
        messages=_instructed(messages, _HOW.format(tools=tools)),
        schema=_action_schema(() if _repeats(request.messages) else request.tools),
        schema_name="action",
        tools=(),
    )


def called(reply: ChatReply) -> ChatReply:
    """Return the reply to a described request with the call that its text makes; other text stays as it is."""
    match _parsed(reply.text):
        case {"tool": str(name), "arguments": arguments}:
            return _calling(reply, name, canonical_json(arguments), "tool_calls")
        case {"tool": str(name)}:
            return _calling(reply, name, "", "tool_calls")
        case {"final": True}:
            return replace(reply, text="", finish_reason="stop")
        case None if broken := _BROKEN_CALL.match(reply.text):
            return _calling(reply, broken[1], reply.text, reply.finish_reason)
        case _:
            return reply


def _calling(reply: ChatReply, name: str, arguments: str, finish_reason: str) -> ChatReply:
    return replace(reply, text="", finish_reason=finish_reason, tool_calls=(ToolCall("", name, arguments),))


def _parsed(text: str) -> Json:
    """Return the JSON that ``text`` is; None where it is none."""
    try:
        value: Json = from_json(text.strip(), allow_inf_nan=False)
        canonical_json(value)  # a number such as 1e999 becomes infinite while it is parsed
    except (ValueError, RecursionError):
        return None
    return value


def _line(offer: ToolOffer) -> str:
    return f"- {offer.name}: {' '.join(offer.description.split())} Arguments: {canonical_json(_brief(offer))}"


def _brief(offer: ToolOffer) -> Json:
    """Return the parameters as a model has to know them, without what only validators need."""
    properties = offer.parameters.get("properties")
    return properties if isinstance(properties, dict) else offer.parameters


def _repeats(messages: tuple[ChatMessage, ...]) -> bool:
    """Return whether the last two calls were the same and came to the same.

    Small models copy what they are shown, their own last action above all, and would do so for ever.
    """
    actions = [_action(call) for message in messages for call in message.tool_calls][-2:]
    results = [message.content for message in messages if message.role == "tool"][-2:]
    return len(actions) == 2 and len(set(actions)) == len(set(results)) == 1  # noqa: PLR2004 -- two, as it says


def _action_schema(offers: tuple[ToolOffer, ...]) -> dict[str, Json]:
    final: dict[str, Json] = {"final": {"const": True}}
    calls: list[Json] = [
        _closed({"tool": {"const": offer.name}, "arguments": _embeddable(offer.parameters)}) for offer in offers
    ]
    return {"anyOf": [*calls, _closed(final)]}


def _closed(properties: dict[str, Json]) -> dict[str, Json]:
    required: list[Json] = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _embeddable(parameters: dict[str, Json]) -> dict[str, Json]:
    """Return a schema that means the same inside another one: a reference would not, and might be fetched from afar."""
    return {"type": "object"} if '"$ref":' in canonical_json(parameters) else parameters


def _instructed(messages: tuple[ChatMessage, ...], words: str) -> tuple[ChatMessage, ...]:
    if messages and messages[0].role == "system":
        return replace(messages[0], content=f"{messages[0].content}\n\n{words}"), *messages[1:]
    return ChatMessage("system", words), *messages


def _told(messages: tuple[ChatMessage, ...], *, actions: bool) -> Iterator[ChatMessage]:
    """Yield the conversation in plain turns: what calls came to as the user's, and with ``actions`` the calls before.

    Without, nothing shows the form of an action to a model that is asked for something else.
    """
    calls = {call.id: _action(call) for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role == "tool":
            yield ChatMessage("user", f"Result of {calls.get(message.tool_call_id, 'a tool')}:\n{message.content}")
        elif not message.tool_calls:
            yield message
        elif actions:
            said = [message.content, *map(_action, message.tool_calls)]
            yield ChatMessage("assistant", "\n".join(text for text in said if text))


def _action(call: ToolCall) -> str:
    arguments = _parsed(call.arguments)
    return canonical_json({"tool": call.name, "arguments": call.arguments if arguments is None else arguments})


def _merged(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Yield the conversation with neighbours of one role made one: many models take no two in a row."""
    last: ChatMessage | None = None
    for message in messages:
        if last is not None and last.role == message.role:
            last = replace(last, content=f"{last.content}\n\n{message.content}")
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last
