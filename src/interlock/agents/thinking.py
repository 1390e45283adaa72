"""The one place where agents ask a model, and so the one place where such calls are traced."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import anyio

from interlock.backends.chat import ChatMessage, ChatModel, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.observability.tracing import ModelCall, Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.messages import TaskAssigned
from interlock.protocol.team import ModelSettings

__all__ = ["NO_TRACING", "GrantUsedUp", "Thinking", "seed_of", "temperature_of", "think"]

NO_TRACING = Tracing()
"""Records nothing."""

_SEED_BITS = 31
"""Engines take seeds that fit into a signed 32-bit number."""
_HOTTER = 0.2
"""How much each further attempt adds to the temperature."""
_HOTTEST = 1.0
"""Where that ends, unless the settings ask for more."""


class GrantUsedUp(Exception):
    """The grant of an attempt allows no further call of a model."""


class Thinking:
    """The model calls of one attempt: all of them together keep to its grant."""

    def __init__(
        self,
        assignment: TaskAssigned,
        model: ChatModel,
        settings: ModelSettings,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._assignment, self._model, self._settings, self._tracing = assignment, model, settings, tracing
        self._began = anyio.current_time()
        self._before = 0.0
        self.usage = Usage()
        """Of all calls so far."""
        self.last = Usage()
        """Of the last call."""
        self.max_tokens = settings.max_tokens
        """How many completion tokens the last answer could have."""

    def go_on_from(self, usage: Usage, last: Usage, seconds: float) -> None:
        """Count what was used before, in another process."""
        self.usage, self.last, self._before = usage, last, seconds

    @property
    def seconds(self) -> float:
        """How long the attempt has worked so far."""
        return self._before + anyio.current_time() - self._began

    @property
    def seconds_left(self) -> float:
        """How long it may go on."""
        return max(0.0, self._assignment.grant.seconds - self.seconds)

    @property
    def one_call_left(self) -> bool:
        """Whether the grant does not allow another call and then one more, which will read all that this one read."""
        grant = self._assignment.grant
        if grant.calls is not None and grant.calls - self.usage.calls <= 1:
            return True
        return grant.tokens is not None and grant.tokens - _tokens(self.usage) < 2 * _tokens(self.last)

    async def ask(
        self,
        messages: tuple[ChatMessage, ...],
        tools: tuple[ToolOffer, ...] = (),
        schema: dict[str, Json] | None = None,
    ) -> ChatReply:
        """Return the model's answer.

        :raises GrantUsedUp: no further call is allowed
        :raises interlock.backends.errors.ModelError: there is no answer
        """
        assignment = self._assignment
        self.max_tokens = min(self._settings.max_tokens, self._tokens_left())
        request = ChatRequest(
            messages=messages,
            temperature=temperature_of(self._settings.temperature, assignment.attempt),
            max_tokens=self.max_tokens,
            schema=schema,
            tools=tools,
            seed=seed_of(assignment.job, assignment.task, assignment.attempt),
        )
        reply = await think(self._model, request, self._tracing, assignment.job)
        self.usage, self.last = self.usage + reply.usage, reply.usage
        return reply

    def _tokens_left(self) -> int:
        """Return how many tokens the next call may still use.

        :raises GrantUsedUp: none, or there may be no next call
        """
        grant = self._assignment.grant
        if grant.calls == 0 or grant.tokens == 0:
            raise GrantUsedUp("the grant allows no call of a model")
        if grant.calls is not None and self.usage.calls >= grant.calls:
            raise GrantUsedUp(f"used up its {grant.calls} calls of a model")
        if grant.tokens is None:
            return self._settings.max_tokens
        if _tokens(self.usage) >= grant.tokens:
            raise GrantUsedUp(f"used up its {grant.tokens} tokens")
        return grant.tokens - _tokens(self.usage)


async def think(model: ChatModel, request: ChatRequest, tracing: Tracing = NO_TRACING, job: str = "") -> ChatReply:
    """Return the model's answer; the call is a span below the one that is open here, and the engine is told so.

    :raises interlock.backends.errors.ModelError: there is no answer
    """
    call = ModelCall(
        model=model.name or "",
        provider=model.provider,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        seed=request.seed,
        url=model.url,
        job=job,
    )
    with tracing.chat(call) as span:
        span.asked([_told(message) for message in request.messages])
        reply = await model.chat(replace(request, headers={**request.headers, **span.headers}))
        span.answered(
            usage=reply.usage,
            finish_reasons=[reply.finish_reason],
            model=reply.model,
            response_id=reply.response_id,
            text=reply.text,
            tool_calls=[_told_call(tool_call) for tool_call in reply.tool_calls],
        )
    return reply


def seed_of(*parts: str | int) -> int:
    """Return a seed that depends on ``parts`` only: the same attempt samples the same, another one differently."""
    digest = sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4]) >> (32 - _SEED_BITS)


def temperature_of(base: float, attempt: int) -> float:
    """Return the temperature of ``attempt`` (from 1): it rises, so that a redo does not say the same again."""
    return max(base, min(_HOTTEST, round(base + _HOTTER * max(attempt - 1, 0), 3)))


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def _told(message: ChatMessage) -> Mapping[str, Any]:
    """Return a message as a span keeps it."""
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        told["tool_calls"] = [_told_call(call) for call in message.tool_calls]
    if message.role == "tool":
        told["tool_call_id"] = message.tool_call_id
    return told


def _told_call(call: ToolCall) -> Mapping[str, str]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}
