"""One model behind several servers."""

from contextlib import aclosing

import anyio
import pytest

from interlock.backends.chat import ChatMessage, ChatModel, ChatRequest
from interlock.backends.engines import Endpoint, knock, open_chat
from interlock.backends.errors import ModelRefusedRequest, ModelServerFailed, ModelUnreachable
from interlock.backends.retry import RetrySettings
from interlock.testing import Answer, Fail, HangUp, ScriptedServer

QUICK = RetrySettings(attempts=2, first_wait=0.01)
NOBODY = "http://127.0.0.1:9/v1"


def ask(text: str = "hello") -> ChatRequest:
    return ChatRequest((ChatMessage("user", text),), temperature=0, max_tokens=5)


def chat_of(*urls: str) -> ChatModel:
    return open_chat(Endpoint(urls[0], "m", engine="vllm", urls=urls), QUICK)


async def test_requests_are_shared_out() -> None:
    """Ten that are open at once are five for each of two servers."""
    slow = Answer("yes", delay=0.2)
    async with (
        ScriptedServer(slow) as one,
        ScriptedServer(slow) as other,
        aclosing(chat_of(one.url, other.url)) as chat,
    ):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(chat.chat, ask())
        assert (one.peak, other.peak) == (5, 5)


async def test_what_a_server_broke_is_answered_by_the_next_one_and_counted() -> None:
    """A connection that broke in the middle may have cost a call; one that was refused did not."""
    async with ScriptedServer(HangUp()) as broken, ScriptedServer("yes") as sound:
        async with aclosing(chat_of(broken.url, sound.url)) as chat:
            replies = [await chat.chat(ask()) for _ in range(4)]
        async with aclosing(chat_of(NOBODY, sound.url)) as chat:
            refused = await chat.chat(ask())
    assert [reply.text for reply in replies] == ["yes"] * 4
    assert len(broken.seen) == sum(reply.usage.calls - 1 for reply in replies) >= 1
    assert refused.usage.calls == 1


async def test_a_server_that_is_back_is_used_again() -> None:
    """It has to show that it answers before anything is sent there."""
    async with ScriptedServer("yes") as sound:
        async with ScriptedServer("yes") as first:
            port = int(first.url.split(":")[2].removesuffix("/v1"))
        async with aclosing(chat_of(first.url, sound.url)) as chat:
            for _ in range(3):
                await chat.chat(ask())
            async with ScriptedServer("yes", port=port) as again:
                with anyio.fail_after(30):
                    while not again.seen:
                        await chat.chat(ask())
                assert again.model_lists == 1


async def test_what_is_wrong_with_the_request_is_told_at_once() -> None:
    """No other server is asked what one refused."""
    async with ScriptedServer(Fail(400)) as one, ScriptedServer(Fail(400)) as other:
        async with aclosing(chat_of(one.url, other.url)) as chat:
            with pytest.raises(ModelRefusedRequest):
                await chat.chat(ask())
        assert len(one.seen) + len(other.seen) == 1


async def test_where_all_fail_the_last_failure_is_told() -> None:
    """All are asked, as often as a single one would be."""
    async with ScriptedServer(Fail(500)) as one, ScriptedServer(Fail(503)) as other:
        async with aclosing(chat_of(one.url, other.url)) as chat:
            with pytest.raises(ModelServerFailed, match="tried 2 times"):
                await chat.chat(ask())
        assert len(one.seen) == 2
        assert 1 <= len(other.seen) <= 2, "it was put aside in between"


async def test_one_that_listens_is_enough_to_begin() -> None:
    """What is away at the beginning may come; where none is there, that is said."""
    async with ScriptedServer("yes") as sound:
        knock(Endpoint(NOBODY, urls=(NOBODY, sound.url)))
    with pytest.raises(ModelUnreachable):
        knock(Endpoint(NOBODY, urls=(NOBODY, "http://127.0.0.1:10/v1")))
