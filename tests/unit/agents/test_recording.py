"""What is kept of an attempt's calls: enough to answer them again, no secrets, and nothing changed on the way."""

import json
from collections.abc import Sequence

import anyio
import pytest

from interlock.agents.prompts import observed, shortened
from interlock.agents.recording import ModelRecorder, ToolWatcher, exchange_of, request_parts
from interlock.agents.toolbox import NO_TOOLS, Observation
from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.backends.errors import ModelError
from interlock.protocol.base import Json, Usage
from interlock.protocol.messages import ActionTaken

REPLY = ChatReply(
    text="the word is sesame",
    finish_reason="tool_calls",
    model="m-1",
    usage=Usage(calls=1, prompt_tokens=10, completion_tokens=3),
    response_id="r",
    tool_calls=(ToolCall("c1", "files.read", '{"path":"sesame.txt"}'),),
)


class Model:
    """Answers, or fails, as it is told."""

    provider, name, url = "openai", "m", "http://model.test/v1"

    def __init__(self, *replies: ChatReply | Exception) -> None:
        self.replies = list(replies)

    async def chat(self, request: ChatRequest) -> ChatReply:  # noqa: ARG002 -- the protocol asks for it
        """Give the next reply; wait for ever where there is none."""
        if not self.replies:
            await anyio.sleep_forever()
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Nothing is open."""


def request(*messages: str, **more: object) -> ChatRequest:
    """Return a request that says ``messages``."""
    asked = tuple(ChatMessage("user", text) for text in messages)
    return ChatRequest(messages=asked, temperature=0.0, max_tokens=9, **more)  # type: ignore[arg-type]


def hide(value: Json) -> Json:
    """Return ``value`` without the secret word."""
    hidden: Json = json.loads(json.dumps(value).replace("sesame", "***"))
    return hidden


async def test_answers_are_kept_and_passed_on_unchanged() -> None:
    """The caller gets what the model said; what is kept has content, calls, usage and finish reason."""
    recorder = ModelRecorder(Model(REPLY))
    assert await recorder.chat(request("hello")) is REPLY
    (kept,) = recorder.exchanges
    assert kept.reply == {
        "content": "the word is sesame",
        "finish_reason": "tool_calls",
        "model": "m-1",
        "usage": [1, 10, 3],
        "tool_calls": [{"id": "c1", "name": "files.read", "arguments": '{"path":"sesame.txt"}'}],
    }


async def test_secrets_are_in_neither_answers_nor_digests() -> None:
    """The digest is that of the request without its secrets, which is all that a rerun can make again."""
    recorder = ModelRecorder(Model(REPLY), hide=hide)
    await recorder.chat(request("open sesame"))
    (kept,) = recorder.exchanges
    assert "sesame" not in kept.model_dump_json()
    assert kept.request == exchange_of(request("open ***"), None).request != exchange_of(request("open"), None).request


async def test_failures_and_cuts_are_answers_too() -> None:
    """A model's error is kept with its words, and so is that an attempt ended before there was an answer."""
    recorder = ModelRecorder(Model(ModelError("nobody home")))
    with pytest.raises(ModelError, match="nobody home"):
        await recorder.chat(request("hello"))
    with anyio.move_on_after(0.01):
        await recorder.chat(request("hello", seed=1))
    assert [one.reply for one in recorder.exchanges] == [
        {"error": {"type": "ModelError", "message": "nobody home"}},
        {"cut": True},
    ]


async def test_an_attempt_goes_on_with_what_it_asked_before() -> None:
    """What was kept before the attempt waited for a person stands first."""
    before = exchange_of(request("before"), None)
    recorder = ModelRecorder(Model(REPLY), (before,))
    await recorder.chat(request("after"))
    assert recorder.exchanges == (before, exchange_of(request("after"), recorder.exchanges[1].reply))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (request("a", "b"), set()),
        (request("a", "b", headers={"traceparent": "00"}), set()),
        (request("a", "c"), {"message 2 (user)"}),
        (request("a", "b", seed=1), {"settings"}),
        (request("a", "b", schema={"type": "object"}), {"schema"}),
        (request("a", "b", tools=(ToolOffer("t", "", {}),)), {"tools"}),
        (request("a", "b\ud800"), {"message 2 (user)"}),
    ],
    ids=["same", "headers", "message", "seed", "schema", "tools", "surrogate"],
)
def test_digests_tell_which_part_is_another(other: ChatRequest, parts: set[str]) -> None:
    """Each part of a request has a digest of its own, and all of them are in the request's."""
    one, two = exchange_of(request("a", "b"), None), exchange_of(other, None)
    names = list(request_parts(other))
    assert {name for name, was, now in zip(names, one.parts, two.parts, strict=True) if was != now} == parts
    assert (one.request == two.request) is not bool(parts)


class _Tools:
    offers: tuple[ToolOffer, ...] = ()
    actions: tuple[ActionTaken, ...] = ()

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)

    async def call(self, call: ToolCall) -> Observation:
        return Observation(self._texts.pop(0), failed=call.name == "bad")


async def test_what_the_model_saw_of_a_call_is_kept() -> None:
    """As much as it saw, so that showing it again gives the same words."""
    long = "x" * 20_000
    watched = ToolWatcher(_Tools(["short", long]), ("before",))
    first = await watched.call(ToolCall("1", "bad", "{}"))
    second = await watched.call(ToolCall("2", "good", "{}"))
    assert (first.text, first.failed, second.failed) == ("short", True, False)
    assert watched.seen == ("before", "short", shortened(long))
    assert len(watched.seen[2]) <= 8000
    assert observed(watched.seen[2]) == observed(long) == observed(second.text)
    assert ToolWatcher(NO_TOOLS).seen == ()
