import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import openai
import pytest

from interlock.backends.chat import ChatMessage, ChatModel, ChatRequest, ToolCall, ToolOffer
from interlock.backends.engines import Endpoint, open_chat
from interlock.backends.errors import ModelAnswerMalformed, ModelRefusedRequest
from interlock.backends.retry import RetrySettings
from interlock.protocol.base import Json
from interlock.protocol.team import Engine
from interlock.testing import Answer, Call, CallTool, CallTools, Fail, Malformed, Reply, Script, ScriptedServer

ONCE = RetrySettings(attempts=1, first_wait=0.002, longest_wait=0.004, longest_retry_after=0.5)
PATH: dict[str, Json] = {"type": "object", "properties": {"path": {"type": "string"}}}
LONG = "mcp.server." + "very_" * 20 + "long"
OFFERS = (ToolOffer("files.read", "Read a file.", PATH), ToolOffer(LONG, "Long.", PATH))
REFUSAL = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


def ask(*more: ChatMessage, tools: tuple[ToolOffer, ...] = OFFERS) -> ChatRequest:
    return ChatRequest((ChatMessage("user", "go"), *more), temperature=0, max_tokens=50, tools=tools)


@asynccontextmanager
async def served(script: Script, engine: Engine = "openai") -> AsyncIterator[tuple[ScriptedServer, ChatModel]]:
    async with ScriptedServer(script) as server:
        chat = open_chat(Endpoint(url=server.url, name="m", engine=engine, timeout=5), ONCE)
        try:
            yield server, chat
        finally:
            await chat.aclose()


async def test_offers_and_calls_cross_the_wire() -> None:
    """Tools go out as functions with names that the API takes, and calls come back with ours, in their order."""
    script = CallTools(CallTool("files.read", {"path": "ä"}, id="x"), CallTool(LONG), text="Let me see.")
    async with served(script) as (server, chat):
        reply = await chat.chat(ask())
    body = server.calls[0].body
    assert body["tool_choice"] == "auto"
    assert body["tools"][0] == {  # type: ignore[index]
        "type": "function",
        "function": {"name": "files__read", "description": "Read a file.", "parameters": PATH},
    }
    assert server.calls[0].tools[0] == "files.read"
    assert (reply.text, reply.finish_reason) == ("Let me see.", "tool_calls")
    first, second = reply.tool_calls
    assert (first.id, first.name, json.loads(first.arguments)) == ("x", "files.read", {"path": "ä"})
    assert (second.name, second.arguments) == (LONG, "{}")
    assert second.id


async def test_a_plain_request_speaks_of_no_tools() -> None:
    """Without tools the request is what it always was."""
    async with served("ok") as (server, chat):
        reply = await chat.chat(ask(tools=()))
    assert reply.tool_calls == ()
    assert not server.calls[0].body.keys() & {"tools", "tool_choice"}


async def test_the_history_is_told_as_the_api_wants_it() -> None:
    """Earlier calls and results go out by their ids; arguments that were no object become one that says so."""
    calls = (ToolCall("1", "files.read", '{"path": "a"}'), ToolCall("2", "gone.tool", "{bad"), ToolCall("3", "x", ""))
    results = [ChatMessage("tool", f"<{number}>", tool_call_id=str(number)) for number in (1, 2, 3)]
    async with served("ok") as (server, chat):
        await chat.chat(ask(ChatMessage("assistant", "", calls), *results, tools=()))
    _, said, *told = server.calls[0].messages
    assert said["content"] is None
    sent: Any = said["tool_calls"]
    assert [(call["id"], call["type"], call["function"]["name"]) for call in sent] == [
        ("1", "function", "files__read"),
        ("2", "function", "gone__tool"),
        ("3", "function", "x"),
    ]
    assert [json.loads(call["function"]["arguments"]) for call in sent] == [{"path": "a"}, {"malformed": "{bad"}, {}]
    assert told[0] == {"role": "tool", "tool_call_id": "1", "content": "<1>"}
    assert server.calls[0].observations == ("<1>", "<2>", "<3>")


@pytest.mark.parametrize(
    "calls",
    [
        [{"id": None, "function": {"name": "files__read", "arguments": {"path": "a"}}}],
        [{"function": {"name": "files.read", "arguments": '{"path":"a"}'}}],
        [{"id": "1", "type": "function", "index": 0, "function": {"name": "files__read", "arguments": "{"}}],
        [{"id": "1", "function": {"arguments": "{}"}}],
    ],
)
async def test_servers_that_take_liberties_are_understood(calls: list[Any]) -> None:
    """Missing ids, names and contents, arguments as an object or cut off: all are calls, for others to judge."""
    message = {"role": "assistant", "tool_calls": calls}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    async with served(Malformed(body)) as (_, chat):
        (call,) = (await chat.chat(ask())).tool_calls
    assert call.name in {"files.read", ""}


@pytest.mark.parametrize("message", [{}, {"tool_calls": [{"function": []}]}, {"tool_calls": "x", "content": "y"}, []])
async def test_what_is_no_message_is_malformed(message: Json) -> None:
    """An answer that says nothing, or has calls of another shape, is an error with a name."""
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    async with served(Malformed(body)) as (_, chat):
        with pytest.raises(ModelAnswerMalformed):
            await chat.chat(ask())


async def test_an_engine_without_tool_calls_is_served_in_words() -> None:
    """The engine ``local`` gets the tools in its prompt and a form to answer in, and its answer is a call again."""
    script = Answer({"tool": "files.read", "arguments": {"path": "a"}})
    async with served(script, "local") as (server, chat):
        reply = await chat.chat(ask())
    (call,) = server.calls
    assert not call.body.keys() & {"tools", "tool_choice"}
    assert call.schema is not None
    assert "files.read: Read a file." in str(call.messages[0]["content"])
    assert [(made.name, made.arguments) for made in reply.tool_calls] == [("files.read", '{"path":"a"}')]
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


async def test_a_server_that_refuses_tool_calls_is_served_in_words_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first refusal costs one request and one warning; the history of a conversation goes along in words."""

    def answer(call: Call) -> Reply:
        return Fail(400, message=REFUSAL) if call.tools else Answer({"final": True} if call.schema else "plain")

    said = ChatMessage("assistant", "", (ToolCall("1", "files.read", "{}"),))
    with caplog.at_level(logging.WARNING, logger="interlock"):
        async with served(answer) as (server, chat):
            first = await chat.chat(ask(said, ChatMessage("tool", "<1>", tool_call_id="1")))
            second = await chat.chat(ask())
            plain = await chat.chat(ask(tools=()))
    assert (first.text, first.tool_calls, second.text, plain.text) == ("", (), "", "plain")
    assert [bool(call.tools) for call in server.calls] == [True, False, False, False]
    assert [message["role"] for message in server.calls[1].messages] == ["system", "user", "assistant", "user"]
    assert len([record for record in caplog.records if "described to the model in words" in record.message]) == 1


@pytest.mark.parametrize(
    "message",
    [
        REFUSAL,
        "model does not support tools",
        "No endpoints found that support tool use",
        "tools param requires --jinja flag",
    ],
)
async def test_refusals_of_tools_are_known_by_their_words(message: str) -> None:
    """vLLM, Ollama, routers and llama.cpp each say it differently."""

    def answer(call: Call) -> Reply:
        return Fail(400, message=message) if call.tools else Answer({"final": True})

    async with served(answer) as (server, chat):
        await chat.chat(ask())
    assert len(server.calls) == 2


@pytest.mark.parametrize("message", ["Invalid schema for function 'files__read'", "context length exceeded"])
async def test_other_refusals_stay_errors(message: str) -> None:
    """A request that is wrong in another way is not sent again in other words."""
    async with served(Fail(400, message=message)) as (server, chat):
        with pytest.raises(ModelRefusedRequest):
            await chat.chat(ask())
    assert len(server.calls) == 1


async def test_the_official_client_understands_scripted_calls() -> None:
    """Plain and streamed, the calls of the scripted server are those of the API, with the same ids each time."""
    script = CallTools(CallTool("files.read", {"path": "a"}), CallTool("files.list"), text="a moment")
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "go"}]}
    async with (
        ScriptedServer(script) as server,
        openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(**request)
        stream = await client.chat.completions.create(**request, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    message = whole.choices[0].message
    assert (message.content, whole.choices[0].finish_reason) == ("a moment", "tool_calls")
    calls: Any = message.tool_calls
    streamed = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.function.name for call in calls] == ["files__read", "files__list"]
    assert [call.id for call in calls] == [call.id for call in streamed]
    assert [call.function.arguments for call in calls] == [
        call.function.arguments for call in streamed if call.function
    ]
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0


async def test_one_call_alone_is_a_reply(caplog: pytest.LogCaptureFixture) -> None:
    """``CallTool`` stands for a turn with that call; its arguments may be any text."""
    async with served(CallTool("files.read", "{not json")) as (_, chat):
        reply = await chat.chat(replace(ask(), seed=1))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("files.read", "{not json")]
    assert caplog.records == []
