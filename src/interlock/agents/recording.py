"""What an attempt asked its model and its tools and was answered, kept so that it can be run again without them.

A recorder stands between an attempt and its model, a watcher between it and its tools; neither changes anything.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from interlock.agents.checks.finding import writable
from interlock.agents.prompts import shortened
from interlock.agents.toolbox import Observation, Toolbox
from interlock.backends.chat import ChatMessage, ChatModel, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.backends.errors import BudgetSpent, ModelError
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.messages import ActionTaken, Exchange

__all__ = ["CUT", "ModelRecorder", "ToolWatcher", "as_it_is", "exchange_of", "request_parts"]

CUT = "cut"
"""The only key of a recorded reply where the attempt was ended while it waited for the model."""

_PART = 8
"""Hexadecimal digits that are kept of the digest of a part of a request."""


def as_it_is(value: Json) -> Json:
    """Return ``value``: what hides nothing."""
    return value


class ModelRecorder:
    """A model whose every answer is kept. One for each attempt."""

    def __init__(
        self, model: ChatModel, before: tuple[Exchange, ...] = (), hide: Callable[[Json], Json] = as_it_is
    ) -> None:
        """Ask ``model`` on behalf of an attempt that has asked ``before`` already.

        :param hide: returns a value without the secrets in it
        """
        self._model, self._hide, self._exchanges = model, hide, list(before)
        self.spent: BudgetSpent | None = None
        """Which budget ran out, so that a request was not sent."""

    @property
    def provider(self) -> str:
        """That of the model."""
        return self._model.provider

    @property
    def name(self) -> str | None:
        """That of the model."""
        return self._model.name

    @property
    def url(self) -> str:
        """That of the model."""
        return self._model.url

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What was asked and answered so far, oldest first."""
        return tuple(self._exchanges)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask the model.

        :raises interlock.backends.errors.ModelError: there is no answer
        """
        try:
            reply = await self._model.chat(request)
        except ModelError as problem:
            self.spent = problem if isinstance(problem, BudgetSpent) else self.spent
            self._keep(request, {"error": _failure(problem)})
            raise
        except BaseException:
            self._keep(request, {CUT: True})
            raise
        self._keep(request, _told(reply))
        return reply

    async def aclose(self) -> None:
        """Close nothing: the model is shared."""

    def _keep(self, request: ChatRequest, reply: dict[str, Json]) -> None:
        self._exchanges.append(exchange_of(request, self._hide(reply), self._hide))


def exchange_of(request: ChatRequest, reply: Json, hide: Callable[[Json], Json] = as_it_is) -> Exchange:
    """Return what is kept of a request and its reply.

    :param hide: returns a value without the secrets in it, before the request's digest is made
    """
    digests = [sha256(_canonical(hide(part))).hexdigest() for part in request_parts(request).values()]
    return Exchange(
        request=sha256("".join(digests).encode()).hexdigest(),
        parts=tuple(digest[:_PART] for digest in digests),
        reply=reply,
    )


def request_parts(request: ChatRequest) -> dict[str, Json]:
    """Return what a request asks, part by part, without the headers, which say nothing to the model."""
    parts: dict[str, Json] = {
        "settings": {"temperature": request.temperature, "max_tokens": request.max_tokens, "seed": request.seed},
        "schema": {"name": request.schema_name, "schema": request.schema} if request.schema is not None else None,
        "tools": [[tool.name, tool.description, tool.parameters] for tool in request.tools],
    }
    for number, message in enumerate(request.messages, 1):
        parts[f"message {number} ({message.role})"] = _message(message)
    return parts


def _message(message: ChatMessage) -> Json:
    calls: list[Json] = [_call(call) for call in message.tool_calls]
    return [message.role, message.content, calls, message.tool_call_id]


def _call(call: ToolCall) -> dict[str, Json]:
    return {"id": writable(call.id), "name": writable(call.name), "arguments": writable(call.arguments)}


def _canonical(part: Json) -> bytes:
    return canonical_json(part).encode("utf-8", "replace")


def _failure(problem: ModelError) -> dict[str, Json]:
    told: dict[str, Json] = {"type": type(problem).__name__, "message": writable(str(problem))}
    return {**told, "of": problem.of} if isinstance(problem, BudgetSpent) else told


def _told(reply: ChatReply) -> dict[str, Json]:
    usage = reply.usage
    told: dict[str, Json] = {
        "content": writable(reply.text),
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "usage": [usage.calls, usage.prompt_tokens, usage.completion_tokens],
    }
    if reply.tool_calls:
        told["tool_calls"] = [_call(call) for call in reply.tool_calls]
    return told


class ToolWatcher:
    """A toolbox of which every answer is kept, as far as a model sees it. One for each attempt."""

    def __init__(self, toolbox: Toolbox, before: tuple[str, ...] = ()) -> None:
        """Call tools on behalf of an attempt that was told ``before`` already."""
        self._toolbox, self._seen = toolbox, list(before)

    @property
    def offers(self) -> tuple[ToolOffer, ...]:
        """Those of the toolbox."""
        return self._toolbox.offers

    @property
    def actions(self) -> tuple[ActionTaken, ...]:
        """Those of the toolbox."""
        return self._toolbox.actions

    @property
    def seen(self) -> tuple[str, ...]:
        """What the model was told of each action, oldest first; of one that was cut off, nothing."""
        return tuple(self._seen)

    async def call(self, call: ToolCall) -> Observation:
        """Do what the model asks for; see :class:`~interlock.agents.toolbox.Toolbox`."""
        observation = await self._toolbox.call(call)
        observation = replace(observation, text=shortened(observation.text))
        self._seen.append(observation.text)
        return observation
