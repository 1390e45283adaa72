"""Answers that come piece by piece, from one server and from several."""

from contextlib import aclosing

import anyio
import pytest
from tests.waiting import eventually

from interlock.backends._openai_stream import Pieces
from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest, StreamingChatModel, ToolOffer
from interlock.backends.engines import Endpoint, open_chat
from interlock.backends.errors import ModelServerFailed, ModelUnauthorised, ModelUnreachable
from interlock.backends.retry import RetrySettings
from interlock.testing import CallTool, Fail, Hang, HangUp, ScriptedServer, otherwise

HELLO = ChatRequest((ChatMessage("user", "Hello"),), temperature=0, max_tokens=50)
QUICK = RetrySettings(attempts=2, first_wait=0.01)
ENDPOINT = Endpoint("http://h/v1")


def model(*urls: str) -> StreamingChatModel:
    return open_chat(Endpoint(urls[0], "m", urls=urls if len(urls) > 1 else ()), QUICK)


async def pieces_of(chat: StreamingChatModel, request: ChatRequest = HELLO) -> list[str | ChatReply]:
    async with aclosing(chat), aclosing(chat.stream(request)) as pieces:
        return [piece async for piece in pieces]


async def test_an_answer_comes_in_pieces_and_then_whole() -> None:
    """The pieces make up the text; the last item is what ``chat`` would have returned, tokens included."""
    async with ScriptedServer("one two three") as server:
        *texts, whole = await pieces_of(model(server.url))
        async with aclosing(model(server.url)) as chat:
            asked = await chat.chat(HELLO)
        assert server.calls[0].body["stream_options"] == {"include_usage": True}
    assert texts == ["one ", "two ", "three"]
    assert isinstance(whole, ChatReply)
    assert (whole.text, whole.finish_reason, whole.usage, whole.model) == (
        asked.text,
        asked.finish_reason,
        asked.usage,
        asked.model,
    )


async def test_what_fails_before_the_first_piece_is_tried_again() -> None:
    """With one server the same, with several the next one; what is no passing failure is told at once."""
    async with ScriptedServer([otherwise(Fail(503), "yes")]) as server:
        assert (await pieces_of(model(server.url)))[0] == "yes"
    async with ScriptedServer(HangUp()) as broken, ScriptedServer("yes") as sound:
        texts = [(await pieces_of(model(broken.url, sound.url)))[0] for _ in range(2)]
    assert texts == ["yes", "yes"]
    async with ScriptedServer("yes", api_key="k") as server:
        with pytest.raises(ModelUnauthorised):
            await pieces_of(model(server.url))


async def test_tools_come_in_one_piece() -> None:
    """Calls are read from a whole answer, in whatever style the engine has."""
    offer = ToolOffer("files.read", "Read.", {"type": "object"})
    request = ChatRequest(HELLO.messages, temperature=0, max_tokens=50, tools=(offer,))
    async with ScriptedServer(CallTool("files.read", {"path": "a"})) as server:
        [whole] = await pieces_of(model(server.url), request)
    assert isinstance(whole, ChatReply)
    assert [call.name for call in whole.tool_calls] == ["files.read"]


@pytest.mark.parametrize("several", [False, True])
async def test_hanging_up_ends_the_request(several: bool) -> None:
    """Who is cancelled while he waits for a piece leaves no connection behind."""
    async with ScriptedServer(Hang()) as server, ScriptedServer(Hang()) as other:
        urls = (server.url, other.url) if several else (server.url,)
        with anyio.move_on_after(0.5):
            await pieces_of(model(*urls))
        await eventually(lambda: len(server.clients_left) + len(other.clients_left) == 1)


def test_events_are_put_together_wherever_they_are_cut() -> None:
    """Bytes come as they like; calls come bit by bit; usage comes last, with no choice."""
    wire = (
        b': a comment\n\ndata: {"id":"x","model":"m","choices":[{"delta":{"role":"assistant","content":""}}]}\r\n\r\n'
        b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"}}]}\n\n'
        b'data: {"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{"}}]}}]}\n\n'
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}\n\n'
        b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    )
    for size in (1, 7, len(wire)):
        pieces = Pieces(ENDPOINT, "m")
        texts = [text for at in range(0, len(wire), size) for text in pieces.take(wire[at : at + size])]
        assert texts == ["hé"]
        assert pieces.whole
        assert (
            pieces.body() == b'{"id": "x", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2}, '
            b'"choices": [{"message": {"content": "h\\u00e9", "tool_calls": [{"id": "c", "function": '
            b'{"name": "f", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]}'
        )


def test_an_error_in_the_middle_is_an_error() -> None:
    """What a server says in place of the next piece is no answer; without an end an answer is not whole."""
    pieces = Pieces(ENDPOINT, "m")
    assert list(pieces.take(b'data: {"choices":[{"delta":{"content":"a"}}]}\n')) == ["a"]
    assert not pieces.whole
    with pytest.raises(ModelServerFailed, match="out of memory"):
        list(pieces.take(b'data: {"error":{"message":"out of memory","code":500}}\n'))


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    """What was yielded before stays yielded, and nothing is asked again."""

    async def half(reader: anyio.abc.SocketStream) -> None:
        async with reader:
            await reader.receive()
            event = b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n'
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            await reader.send(head + event)

    texts: list[str | ChatReply] = []
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, half)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 -- a socket's, not Django's
        async with aclosing(model(f"http://127.0.0.1:{port}/v1")) as chat, aclosing(chat.stream(HELLO)) as pieces:
            texts.append(await anext(pieces))
            with pytest.raises(ModelUnreachable, match="broke off"):
                await anext(pieces)
        group.cancel_scope.cancel()
    assert texts == ["half"]
