"""The one way to talk to a model: a request of plain data, a reply of plain data, and the protocol between them."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from interlock.protocol.base import Json, Usage

__all__ = [
    "FREE",
    "ChatMessage",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "ChatRole",
    "Fare",
    "Meter",
    "StreamingChatModel",
    "ToolCall",
    "ToolOffer",
]

ChatRole = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool that a model may call."""

    name: str
    """Ours, such as ``files.read``: names that an engine does not take are translated on their way, there and back."""
    description: str
    """What it does and when to use it, in words for the model."""
    parameters: dict[str, Json]
    """JSON Schema of its arguments, which are an object."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model wants a tool to be called. Nothing of it is to be trusted: not the name, not the arguments."""

    id: str
    """What the answer has to name; as the server gave it, so it may be empty or come twice."""
    name: str
    """The tool's name as it was offered; whatever the model wrote, where it was not."""
    arguments: str
    """As the model wrote them: JSON text of an object, if all is well."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: ChatRole
    """``tool`` is what came of a call."""
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Only with the role ``assistant``: the calls that the model asked for in this turn; each is then answered by a
    message with the role ``tool``."""
    tool_call_id: str = ""
    """Only with the role ``tool``: the call that this answers."""


class Fare(Protocol):
    """What was reserved for sending one request one time."""

    @property
    def max_tokens(self) -> int:
        """The most completion tokens that it allows, which may be fewer than were asked for."""
        ...

    def used(self, usage: Usage) -> None:
        """Say what the answer cost; without that all that was reserved stays counted: the engine may have worked."""
        ...


class Meter(Protocol):
    """Counts what requests cost before they leave."""

    def sending(self, size: int, max_tokens: int) -> AbstractAsyncContextManager[Fare]:
        """Reserve what sending a request costs at most, and settle it when the block is left.

        To be entered each time that a request is about to be sent, also where the same is sent again.

        :param size: of the request, bytes: a text has no more tokens than bytes
        :param max_tokens: the most completion tokens that are asked for
        :raises interlock.backends.errors.BudgetSpent: it must not be sent
        """
        ...


@dataclass(frozen=True, slots=True)
class _NothingReserved:
    max_tokens: int

    def used(self, usage: Usage) -> None:
        """Nobody wants to know."""


class _Free:
    @asynccontextmanager
    async def sending(self, size: int, max_tokens: int) -> AsyncIterator[Fare]:  # noqa: ARG002 -- the protocol's
        yield _NothingReserved(max_tokens)


FREE: Meter = _Free()
"""Counts nothing and lets everything pass."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked."""

    messages: tuple[ChatMessage, ...]
    """The conversation so far, oldest first."""
    temperature: float
    """From 0 (the likeliest words) to 2."""
    max_tokens: int
    """The most completion tokens of the answer; one that needs more ends with the finish reason ``length``."""
    schema: dict[str, Json] | None = None
    """JSON Schema that the answer must follow, as JSON text; None: free text. Engines bind the generation to it as far
    as they can, so an answer is still to be parsed and validated."""
    schema_name: str = "answer"
    """What the schema is called in the request: letters, digits, ``_`` and ``-``, at most 64."""
    tools: tuple[ToolOffer, ...] = ()
    """What the model may call. Give no schema with tools: an engine that is bound to one makes no calls."""
    seed: int | None = None
    """Makes sampling repeatable where the engine supports it; None: the engine chooses."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent along with the request: ``traceparent``, so that the engine's own spans join the caller's trace."""
    meter: Meter = field(default=FREE, compare=False, repr=False)
    """Asked each time before the request leaves."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a model answered."""

    text: str
    """The answer; may be empty."""
    finish_reason: str
    """Why the model stopped, in the words of its API: ``stop``, ``tool_calls``, ``length``, ``content_filter``..."""
    model: str
    """The model that answered, as its server names it."""
    usage: Usage
    """One call and its tokens; the tokens are 0 where the server does not count them."""
    response_id: str
    """The server's id of the answer; empty where it gives none."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that the model asks for, in its order; the text beside them may be empty."""


class ChatModel(Protocol):
    """A model that can be asked; open one per process and endpoint, and share it between agents."""

    @property
    def provider(self) -> str:
        """The kind of engine behind it, for traces: ``openai`` or ``local``."""
        ...

    @property
    def name(self) -> str | None:
        """The model's name as its server knows it; None as long as the server has not been asked for it."""
        ...

    @property
    def url(self) -> str:
        """The base URL of the API, without credentials."""
        ...

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask the model and return its answer.

        Cancelling the call closes its connection, so that the engine stops generating.

        :raises interlock.backends.errors.ModelError: there is no answer, and trying again did not help
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; the model cannot be used afterwards."""
        ...


class StreamingChatModel(ChatModel, Protocol):
    """A model that also answers piece by piece; those of ``engines.open_chat`` do."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[str | ChatReply]:
        """Yield the text of the answer as it comes, then the whole answer.

        Closing the generator, or cancelling who waits for it, closes the connection. Close it with
        ``contextlib.aclosing``.

        :raises interlock.backends.errors.ModelError: there is no answer, or it broke off
        """
        ...
