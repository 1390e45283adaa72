from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from interlock.backends.chat import ChatReply, ChatRequest
from interlock.backends.errors import ModelError
from interlock.protocol.base import Usage
from interlock.protocol.messages import Grant, TaskAssigned, TaskResult

USAGE = Usage(calls=1, prompt_tokens=20, completion_tokens=5)


class FakeModel:
    """A chat model that answers what it is told to and remembers what it was asked."""

    provider = "openai"
    name = "fake"
    url = "http://model.test/v1"

    def __init__(self, answer: Callable[[ChatRequest], str] | str | ModelError, finish_reason: str = "stop") -> None:
        self.answer = answer
        self.finish_reason = finish_reason
        self.asked: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer by script."""
        self.asked.append(request)
        if isinstance(self.answer, ModelError):
            raise self.answer
        text = self.answer if isinstance(self.answer, str) else self.answer(request)
        return ChatReply(text, self.finish_reason, "fake-1", USAGE, "r1")

    async def aclose(self) -> None:
        """Nothing is open."""


_ENVELOPE = {"id": "m1", "ns": "test", "job": "j1", "task": "t1", "attempt": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}
_ASSIGNED = {"step": "write", "role": "w@team", "verifier": "v@team", "instruction": "Say hello."}


@pytest.fixture
def assigned() -> Callable[..., TaskAssigned]:
    """Return a function that makes an assignment."""

    def make(**fields: Any) -> TaskAssigned:
        return TaskAssigned.model_validate(_ENVELOPE | _ASSIGNED | {"grant": Grant(seconds=30)} | fields)

    return make


@pytest.fixture
def claimed() -> Callable[..., TaskResult]:
    """Return a function that makes a result."""

    def make(**fields: Any) -> TaskResult:
        return TaskResult.model_validate(_ENVELOPE | {"by": "w@team", "role": "v@team", "status": "done"} | fields)

    return make


@pytest.fixture
def fake_model() -> type[FakeModel]:
    """Return the kind of model that answers by script."""
    return FakeModel
