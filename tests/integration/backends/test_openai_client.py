import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from interlock.backends.chat import ChatMessage, ChatModel, ChatRequest
from interlock.backends.engines import Endpoint, open_chat
from interlock.backends.errors import (
    BudgetSpent,
    ModelAnswerMalformed,
    ModelError,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelServerFailed,
    ModelTimedOut,
    ModelUnauthorised,
    ModelUnreachable,
)
from interlock.backends.retry import RetrySettings
from interlock.protocol.base import Usage
from interlock.testing import Answer, Fail, Hang, HangUp, Malformed, Script, ScriptedServer, otherwise, when

FAST = RetrySettings(attempts=3, first_wait=0.002, longest_wait=0.004, longest_retry_after=0.5)
KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}


def ask(text: str = "hello", **more: Any) -> ChatRequest:
    messages = (ChatMessage("system", "You are brief."), ChatMessage("user", text))
    return ChatRequest(messages=messages, temperature=0.3, max_tokens=50, **more)


@asynccontextmanager
async def chat_with(url: str, **settings: Any) -> AsyncIterator[ChatModel]:
    endpoint = replace(Endpoint(url=url, name="m", api_key=KEY, timeout=5.0), **settings)
    chat = open_chat(endpoint, FAST)
    try:
        yield chat
    finally:
        await chat.aclose()


async def test_an_answer_comes_back_with_its_usage() -> None:
    """Text, finish reason, model, id and tokens of the answer are those that the server sent."""
    answer = Answer("four words are here", finish_reason="length", prompt_tokens=11, completion_tokens=7)
    async with ScriptedServer(answer) as server, chat_with(server.url) as chat:
        reply = await chat.chat(ask())
    assert (reply.text, reply.finish_reason, reply.model) == ("four words are here", "length", "m")
    assert reply.usage == Usage(calls=1, prompt_tokens=11, completion_tokens=7)
    assert reply.response_id == "scripted-1"


async def test_the_request_says_what_was_asked() -> None:
    """Messages, sampling settings, key and trace headers reach the server, and no seed or schema that nobody gave."""
    async with ScriptedServer("ok") as server, chat_with(server.url) as chat:
        await chat.chat(ask("first", headers={"traceparent": "00-1-2-01"}))
        await chat.chat(ask("second", seed=7))
    first, second = server.seen
    assert first.call.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "first"}],
        "temperature": 0.3,
        "max_tokens": 50,
    }
    assert first.headers["Authorization"] == f"Bearer {KEY}"
    assert first.headers["traceparent"] == "00-1-2-01"
    assert second.call.body["seed"] == 7


async def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a made-up key nor one that was meant for OpenAI reaches a server that needs none."""
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "meant-for-openai")
    async with ScriptedServer("ok") as server, chat_with(server.url, api_key=None) as chat:
        await chat.chat(ask())
    headers = server.seen[0].headers
    assert "Authorization" not in headers
    assert "meant-for-openai" not in str(headers)


@pytest.mark.parametrize("engine", ["openai", "local"])
async def test_a_schema_is_sent_in_the_words_of_the_engine(engine: str) -> None:
    """Each engine is told the schema as it understands it."""
    script = Answer({"summary": "s"})
    async with ScriptedServer(script) as server, chat_with(server.url, engine=engine) as chat:
        reply = await chat.chat(ask(schema=SCHEMA, schema_name="digest"))
    call = server.calls[0]
    assert reply.text == '{"summary": "s"}'
    assert call.schema == SCHEMA
    expected = {
        "openai": {"type": "json_schema", "json_schema": {"name": "digest", "schema": SCHEMA, "strict": True}},
        "local": {"type": "json_object", "schema": SCHEMA},
    }
    assert call.body["response_format"] == expected[engine]


async def test_the_first_listed_model_is_asked_for_once() -> None:
    """Without a name the server's first model is used, and concurrent first calls ask for the list only once."""
    async with ScriptedServer("ok", model="the-one") as server, chat_with(server.url, name=None) as chat:
        assert chat.name is None
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(chat.chat, ask(str(number)))
        assert chat.name == "the-one"
    assert server.model_lists == 1
    assert {call.model for call in server.calls} == {"the-one"}


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_kept_to(status: int) -> None:
    """A server that asks for a pause gets it, and is then asked again."""
    script = [otherwise(Fail(status, retry_after=0.2), "fine")]
    async with ScriptedServer(script) as server, chat_with(server.url) as chat:
        reply = await chat.chat(ask())
    first, second = server.seen
    assert reply.text == "fine"
    assert reply.usage.calls == 1
    assert first.ended is not None
    assert second.began - first.ended >= 0.2


async def test_a_pause_that_is_too_long_is_not_waited_for() -> None:
    """Asked for a longer pause than allowed, the client gives up at once and says what was asked for."""
    async with ScriptedServer(Fail(429, retry_after=3600)) as server, chat_with(server.url) as chat:
        with pytest.raises(ModelRateLimited, match="asks to wait 3600 s") as caught:
            await chat.chat(ask())
    assert caught.value.retry_after == 3600
    assert len(server.seen) == 1


async def test_a_server_that_keeps_failing_is_given_up_on() -> None:
    """Attempts are bounded, and the error says how many there were and what the server said."""
    async with ScriptedServer(Fail(500, message="out of memory")) as server, chat_with(server.url) as chat:
        with pytest.raises(ModelServerFailed, match=r"HTTP 500\): out of memory \(tried 3 times\)") as caught:
            await chat.chat(ask())
    assert len(server.seen) == caught.value.attempts == 3


@pytest.mark.parametrize("first", [HangUp(), HangUp(midway=False), Fail(500), Fail(502), Fail(429), Fail(408)])
async def test_what_may_pass_is_tried_again(first: HangUp | Fail) -> None:
    """A broken connection or a passing failure costs one more attempt and nothing else."""
    async with ScriptedServer([otherwise(first, "fine")]) as server, chat_with(server.url) as chat:
        reply = await chat.chat(ask())
    assert reply.text == "fine"
    assert [call.repeat for call in server.calls] == [1, 2]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, ModelRefusedRequest), (404, ModelRefusedRequest), (422, ModelRefusedRequest), (401, ModelUnauthorised)],
)
async def test_a_refusal_is_final(status: int, error: type[ModelError]) -> None:
    """What would be refused again is not sent again."""
    async with ScriptedServer(Fail(status, message="no such thing")) as server, chat_with(server.url) as chat:
        with pytest.raises(error, match=f"HTTP {status}"):
            await chat.chat(ask())
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        "<html>502 from some proxy</html>",
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"error": {"message": "overloaded"}}',
        '{"choices": []}',
        '{"choices": [{}]}',
        '{"choices": [{"message": {"role": "assistant"}}]}',
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}',
        b"\xff\xfe\x00garbage",
    ],
)
async def test_an_answer_of_another_shape_is_malformed(body: str | bytes) -> None:
    """Status 200 with anything but a chat completion is a typed error, not an empty answer and not a crash."""
    async with ScriptedServer(Malformed(body)) as server, chat_with(server.url) as chat:
        with pytest.raises(ModelAnswerMalformed, match="does not answer as the OpenAI API does"):
            await chat.chat(ask())
    assert len(server.seen) == 1


async def test_an_answer_in_no_encoding_of_http_is_typed() -> None:
    """A compressed body that is none, as a broken proxy sends it, is a typed error too."""
    async with (
        raw_server(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope") as url,
        chat_with(url) as chat,
    ):
        with pytest.raises(ModelError):
            await chat.chat(ask())


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02", b"HTTP/1.1 2x0 OK\r\n\r\n"]
)
async def test_what_is_not_http_is_typed(answer: bytes) -> None:
    """A port where something else than HTTP answers is reported as unreachable, with no foreign exception."""
    async with raw_server(answer) as url, chat_with(url) as chat:
        with pytest.raises(ModelUnreachable):
            await chat.chat(ask())


async def test_a_refused_connection_is_unreachable() -> None:
    """Nobody listening is said so, with the address, after the bounded attempts."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        async with chat_with(url) as chat:
            with pytest.raises(ModelUnreachable, match=r"127\.0\.0\.1.*cannot be reached") as caught:
                await chat.chat(ask())
    assert caught.value.attempts == 3


async def test_an_answer_that_does_not_come_times_out() -> None:
    """Each attempt has its own time, and its connection is closed when that is over."""
    async with ScriptedServer(Hang()) as server, chat_with(server.url, timeout=0.1) as chat:
        with pytest.raises(ModelTimedOut, match=r"no answer within 0\.1 s.*tried 3 times"):
            await chat.chat(ask())
        await server.until(lambda it: len(it.clients_left) == 3)


async def test_an_answer_that_trickles_times_out() -> None:
    """The time covers the whole answer, so a server that sends a byte now and then does not hold a call forever."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    began = time.monotonic()
    async with raw_server(answer, drip=0.02) as url, chat_with(url, timeout=0.15) as chat:
        with pytest.raises(ModelTimedOut):
            await chat.chat(ask())
    assert time.monotonic() - began < 2


async def test_cancelling_closes_the_connection() -> None:
    """The server sees the hang-up within 100 ms of the cancellation, so it can stop generating."""
    async with ScriptedServer(Hang()) as server, chat_with(server.url) as chat:
        call = asyncio.create_task(chat.chat(ask()))
        await server.until(lambda it: len(it.seen) == 1)
        call.cancel()
        cancelled = time.monotonic()
        await server.until(lambda it: len(it.clients_left) == 1)
    ended = server.clients_left[0].ended
    assert call.cancelled()
    assert ended is not None
    assert ended - cancelled < 0.1


async def test_a_client_survives_a_cancelled_call() -> None:
    """After a cancellation the same client answers the next call."""
    async with ScriptedServer([when("hang", Hang()), otherwise("fine")]) as server, chat_with(server.url) as chat:
        with anyio.move_on_after(0.05):
            await chat.chat(ask("hang"))
        assert (await chat.chat(ask())).text == "fine"


async def test_cancelling_ends_the_wait_before_an_attempt() -> None:
    """A call that waits to try again is cancelled at once and sends nothing more."""
    async with ScriptedServer(Fail(429, retry_after=0.4)) as server, chat_with(server.url) as chat:
        with anyio.move_on_after(0.1) as scope:
            await chat.chat(ask())
        assert scope.cancelled_caught
    assert len(server.seen) == 1


async def test_one_request_at_a_time_where_the_engine_wants_it() -> None:
    """Calls to the local engine wait for their turn, and the wait is not part of their time."""
    script = Answer("ok", delay=0.06)
    async with ScriptedServer(script) as server, chat_with(server.url, engine="local", timeout=0.5) as chat:
        await asyncio.gather(*(chat.chat(ask(str(number))) for number in range(10)))
    assert server.peak == 1
    assert len(server.seen) == 10


async def test_many_calls_run_at_once() -> None:
    """Calls to other engines do not wait for each other."""
    async with ScriptedServer(Answer("ok", delay=0.3)) as server, chat_with(server.url) as chat:
        await asyncio.gather(*(chat.chat(ask(str(number))) for number in range(40)))
    assert server.peak == 40


@pytest.mark.parametrize(
    "reply", [Fail(401, message=f"wrong key {KEY}"), Malformed(f"<p>{KEY}</p>"), HangUp(), Fail(500)]
)
async def test_the_key_is_never_shown(reply: Script) -> None:
    """No error, nor what it shows as its cause, has the key, even where the server repeats it."""
    async with ScriptedServer(reply) as server, chat_with(server.url) as chat:
        with pytest.raises(ModelError) as caught:
            await chat.chat(ask())
    link: BaseException | None = caught.value
    while link is not None:
        assert KEY not in f"{chat!r} {link!r} {link} {vars(link)}"
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


@asynccontextmanager
async def raw_server(answer: bytes, drip: float | None = None) -> AsyncIterator[str]:
    """Answer every connection with ``answer``, then close it, or send a byte every ``drip`` seconds."""

    async def serve(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the client goes when it has seen enough
            async with stream:
                await stream.receive()
                await stream.send(answer)
                while drip is not None:
                    await anyio.sleep(drip)
                    await stream.send(b" ")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/v1"  # noqa: S610 -- no Django here
        group.cancel_scope.cancel()


class _Metered:
    """A meter that lets so many requests leave, and keeps what it was told of them."""

    def __init__(self, leave: int, max_tokens: int = 50) -> None:
        self.leave, self.max_tokens = leave, max_tokens
        self.asked: list[tuple[int, int]] = []
        self.spent: list[Usage] = []

    @asynccontextmanager
    async def sending(self, size: int, max_tokens: int) -> AsyncIterator["_Metered"]:
        if not self.leave:
            raise BudgetSpent("nothing is left")
        self.leave -= 1
        self.asked.append((size, max_tokens))
        yield self

    def used(self, usage: Usage) -> None:
        self.spent.append(usage)


async def test_a_meter_is_asked_each_time_that_a_request_leaves() -> None:
    """A request that is sent again is paid for again; without leave it is not sent, and that is told at once."""
    script = when("busy", Fail(503), Fail(503), "now"), otherwise("never")
    async with ScriptedServer(list(script)) as server, chat_with(server.url) as chat:
        enough, too_few = _Metered(3), _Metered(1)
        reply = await chat.chat(ask("busy", meter=enough))
        assert (reply.text, len(server.calls), len(enough.asked)) == ("now", 3, 3)
        assert enough.spent == [reply.usage], "only the answer says what it cost"
        assert enough.asked[0][0] >= len("You are brief.busy"), "a prompt has no more tokens than the request has bytes"
        with pytest.raises(BudgetSpent, match=r"^out of budget: nothing is left$"):
            await chat.chat(ask("never", meter=_Metered(0)))
        assert len(server.calls) == 3
    async with ScriptedServer(Fail(503)) as server, chat_with(server.url) as chat:
        with pytest.raises(BudgetSpent):
            await chat.chat(ask(meter=too_few))
        assert len(server.calls) == 1


async def test_a_meter_can_shorten_the_answer() -> None:
    """The most completion tokens that are asked for are those that are paid for."""
    async with ScriptedServer("fine") as server, chat_with(server.url) as chat:
        await chat.chat(ask(meter=_Metered(1, max_tokens=7)))
        assert server.calls[0].body["max_tokens"] == 7
