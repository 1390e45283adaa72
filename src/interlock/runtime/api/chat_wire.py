"""Requests and answers of the OpenAI API, as far as a team can be a model. Pure.

Requests are read leniently: clients send many fields that mean nothing to a team, and those are ignored. What a team
cannot do (tools of the client's, images, several answers) is refused by name instead.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from interlock.protocol.base import Json, Usage
from interlock.protocol.items import Priority
from interlock.protocol.team import Budget

__all__ = [
    "DONE",
    "KEEP_ALIVE",
    "ChatError",
    "ChatMessage",
    "ChatRequest",
    "Choice",
    "Chunk",
    "ChunkChoice",
    "Completion",
    "Delta",
    "ErrorBody",
    "ErrorDetail",
    "Extra",
    "JobNote",
    "ModelCard",
    "ModelList",
    "NotForTeams",
    "Part",
    "Progress",
    "Reply",
    "ReplyUsage",
    "ResponseFormat",
    "StreamOptions",
    "completion_id",
    "event",
    "refusal",
    "usage_of",
]

DONE = b"data: [DONE]\n\n"
"""The last event of every stream."""

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, so that nobody takes a stream for dead that has no news."""

_ID = "chatcmpl-"

_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
"""What some readers take for the end of a line."""

Progress = Literal["reasoning", "content", "none"]
"""Where a stream tells how the job goes."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ChatError(Exception):
    """What is told to an OpenAI client as an error, in its own shape."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str, param: str | None = None, again: bool = False
    ) -> None:
        self.status = status
        """The HTTP status, where no answer has begun yet."""
        self.kind = kind
        self.code = code
        self.param = param
        self.again = again
        """Whether nothing was begun, so that a client may try again by itself."""
        super().__init__(message)

    @property
    def body(self) -> "ErrorBody":
        """The error as it is sent."""
        return ErrorBody(error=ErrorDetail(message=str(self), type=self.kind, param=self.param, code=self.code))


class NotForTeams(ChatError):
    """The request wants something that a team cannot do, or is no conversation that it could go on with."""

    def __init__(self, param: str, problem: str) -> None:
        super().__init__(400, f"{param}: {problem}", kind="invalid_request_error", code="invalid_request", param=param)


class ErrorDetail(_Written):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    """The field of the request that is wrong."""
    code: str | None = None


class ErrorBody(_Written):
    """The OpenAI API's error."""

    error: ErrorDetail


class Part(_Lenient):
    """A part of a message; only text can be read."""

    type: str
    text: str | None = None


class ChatMessage(_Lenient):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    """Text, or parts of the type ``text``."""
    tool_calls: list[JsonValue] | None = None
    function_call: JsonValue = None


class StreamOptions(_Lenient):
    """How an answer is streamed."""

    include_usage: bool | None = None


class ResponseFormat(_Lenient):
    """What form the answer is to have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, JsonValue] | None = None
    """With the type of the same name: ``{"name": ..., "schema": {...}}``."""


class Extra(BaseModel):
    """What only a team understands; the official client passes it as ``extra_body={"interlock": {...}}``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    inputs: dict[str, Json] = {}
    """The team's inputs, by name."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """The id of the job: the same request sent again with it is the same job. Left out: a new job."""
    budget: Budget | None = None
    """What the job may use up, where the team does not allow less."""
    priority: Priority = "normal"
    approve_plan: bool = False
    """Whether a person is asked before a plan that the team's manager made is followed."""
    progress: Progress = "reasoning"
    """Where a streamed answer tells how the job goes: in ``reasoning_content``, which plain clients do not show, in the
    answer's own text, or nowhere."""


class ChatRequest(_Lenient):
    """A conversation with a team. Fields that are not named here are accepted and ignored."""

    model: str = Field(min_length=1)
    """The team's name."""
    messages: list[ChatMessage] = Field(min_length=1)
    """The last one of the user is the goal; what stands before it is its context."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    """Only 1."""
    tools: list[JsonValue] | None = None
    """Only an empty list: a team has its own."""
    functions: list[JsonValue] | None = None
    """As ``tools``."""
    modalities: list[str] | None = None
    """Only ``text``."""
    response_format: ResponseFormat | None = None
    interlock: Extra | None = None

    @property
    def extra(self) -> Extra:
        """What only a team understands."""
        return self.interlock or Extra()

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ReplyUsage(_Written):
    """The tokens that the job used so far, all its agents together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class JobNote(_Written):
    """What an answer says of its job, besides what the OpenAI API has a field for."""

    job: str
    status: Literal["succeeded", "partial", "waiting"]
    """``waiting``: the answer is a question, and the next message of the user is taken as what was replied."""
    reason: str = ""
    """What is missing from a partial result."""
    question: str = ""
    """The id of the question that the job waits with."""


class Reply(_Written):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(_Written):
    """The only answer there is."""

    index: Literal[0] = 0
    message: Reply
    logprobs: None = None
    finish_reason: Literal["stop"] = "stop"


class Completion(_Written):
    """An answer that is not streamed."""

    id: str
    """``chatcmpl-`` and the id of the job."""
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice]
    usage: ReplyUsage
    interlock: JobNote


class Delta(_Written):
    """What a chunk adds to the assistant's turn; what is left out adds nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    """How the job goes."""


class ChunkChoice(_Written):
    """The only answer there is."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop"] | None = None


class Chunk(_Written):
    """One event of an answer that is streamed."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: ReplyUsage | None = None
    interlock: JobNote | None = None
    """With the last chunk that has a choice."""

    def encoded(self) -> bytes:
        """Return the chunk as a server-sent event."""
        body = self.model_dump(mode="json", exclude_none=True)
        for choice, one in zip(body["choices"], self.choices, strict=True):
            choice["finish_reason"] = one.finish_reason  # clients look for it in every chunk
        return event(body)


class ModelCard(_Written):
    """A team, as a model."""

    id: str
    """The team's name."""
    object: Literal["model"] = "model"
    created: int
    """When the team was last brought up, in seconds since 1970."""
    owned_by: Literal["interlock"] = "interlock"
    description: str = ""


class ModelList(_Written):
    """The teams that a key may use."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


def completion_id(job: str) -> str:
    """Return the id of the answer that a job gives."""
    return f"{_ID}{job}"


def event(body: JsonValue) -> bytes:
    """Return ``body`` as a server-sent event."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text.translate(_LINE_ENDS)}\n\n".encode()


def usage_of(usage: Usage) -> ReplyUsage:
    """Return what a job used in the API's words."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return ReplyUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def refusal(request: ChatRequest) -> NotForTeams | None:
    """Return why a team cannot answer ``request``; None if it can."""
    return next(_refusals(request), None)


def _refusals(request: ChatRequest) -> Iterator[NotForTeams]:
    if request.n not in {None, 1}:
        yield NotForTeams("n", "a team gives one answer; leave it out or say 1")
    if request.tools:
        yield NotForTeams("tools", "a team has its own tools and takes none from the client; leave them out")
    if request.functions:
        yield NotForTeams("functions", "a team has its own tools and takes none from the client; leave them out")
    if set(request.modalities or ()) - {"text"}:
        yield NotForTeams("modalities", "a team answers in text only")
    yield from _message_refusals(request.messages)


def _message_refusals(messages: Iterable[ChatMessage]) -> Iterator[NotForTeams]:
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        if message.role in {"tool", "function"} or message.tool_calls or message.function_call:
            yield NotForTeams(at, "a team has its own tools: a conversation with it has no tool calls and no results")
        for part in message.content if isinstance(message.content, list) else ():
            if part.type != "text" or part.text is None:
                yield NotForTeams(f"{at}.content", f"a part of the type {part.type[:40]!r} cannot be read; only text")
