from typing import Any

import openai
import pytest

from interlock.backends.chat import ChatMessage, ChatRequest, ToolCall, ToolOffer
from interlock.backends.engines import Endpoint, open_chat
from interlock.testing import ScriptedServer

KEY = "sk-0123456789"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
READ = ToolOffer("files.read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})
USER = ChatMessage("user", "what is in “a”? \U0001f600")
TALK = (
    ChatMessage("system", "You are brief."),
    USER,
    ChatMessage("assistant", "", (ToolCall("c1", "files.read", '{"path": "a"}'),)),
    ChatMessage("tool", "no such file", tool_call_id="c1"),
)


def asks(messages: tuple[ChatMessage, ...], **more: Any) -> ChatRequest:
    return ChatRequest(messages=messages, temperature=0.3, max_tokens=50, **more)


@pytest.mark.parametrize(
    "request_",
    [
        asks((USER,)),
        asks((USER,), seed=7),
        asks((USER,), schema=SCHEMA, schema_name="digest"),
        asks((USER,), tools=(READ,)),
        asks(TALK, tools=(READ,)),
    ],
    ids=["plain", "seed", "schema", "tools", "conversation"],
)
async def test_a_request_is_what_the_official_client_sends(request_: ChatRequest) -> None:
    """The official client, given the same as its arguments, sends the same body with the same key to the same path."""
    async with ScriptedServer("ok") as server:
        chat = open_chat(Endpoint(url=server.url, name="m", api_key=KEY, timeout=5))
        await chat.chat(request_)
        await chat.aclose()
        body: Any = server.calls[0].body
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            await client.chat.completions.create(**body)
    ours, theirs = server.seen
    assert ours.call.body == theirs.call.body
    for name in ("Authorization", "Content-Type", "Accept"):
        assert ours.headers[name] == theirs.headers[name]
