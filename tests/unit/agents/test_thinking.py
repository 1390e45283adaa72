from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pytest

from interlock.agents.thinking import think
from interlock.backends.chat import ChatMessage, ChatRequest
from interlock.backends.errors import ModelTimedOut
from interlock.observability.tracing import ChatSpan, ModelCall, Tracing

REQUEST = ChatRequest((ChatMessage("user", "hi"),), temperature=0.5, max_tokens=9, seed=3, headers={"x": "1"})


class Span(ChatSpan):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__(("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""))
        self.told: list[Any] = []

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Remember the messages."""
        self.told.append(list(messages))

    def answered(self, **answer: Any) -> None:
        """Remember the answer."""
        self.told.append(answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.told.append(kind)
        super().__exit__(kind, error, trace)


class Recorder(Tracing):
    """Hands out one span."""

    def __init__(self) -> None:
        self.span = Span()
        self.calls: list[ModelCall] = []

    def chat(self, call: ModelCall) -> ChatSpan:
        """Remember the call."""
        self.calls.append(call)
        return self.span


async def test_a_call_is_a_span(fake_model: Any) -> None:
    """The span knows what was asked and answered, and the engine gets its context with the request's own headers."""
    tracing, model = Recorder(), fake_model("hello")
    reply = await think(model, REQUEST, tracing, "j1")
    call = tracing.calls[0]
    assert (call.model, call.temperature, call.max_tokens, call.seed, call.job) == ("fake", 0.5, 9, 3, "j1")
    assert model.asked[0].headers == {"x": "1", "traceparent": tracing.span.traceparent}
    assert model.asked[0].messages == REQUEST.messages
    assert tracing.span.told == [
        [{"role": "user", "content": "hi"}],
        {
            "usage": reply.usage,
            "finish_reasons": ["stop"],
            "model": "fake-1",
            "response_id": "r1",
            "text": "hello",
            "tool_calls": [],
        },
        None,
    ]


async def test_an_error_ends_the_span_and_goes_on(fake_model: Any) -> None:
    """A model's error passes through the span, which sees it."""
    tracing = Recorder()
    with pytest.raises(ModelTimedOut):
        await think(fake_model(ModelTimedOut("http://model.test/v1", None, 1)), REQUEST, tracing)
    assert tracing.span.told[-1] is ModelTimedOut
