"""What crosses the wire: the request's body, the answers that are accepted, and what a failed exchange means. Pure."""

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Self

import aiohttp
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError, model_validator
from pydantic_core import from_json

from interlock.backends._tool_names import api_name, own_name
from interlock.backends.capabilities import SchemaStyle, response_format
from interlock.backends.chat import ChatMessage, ChatReply, ChatRequest, ToolCall, ToolOffer
from interlock.backends.engines import Endpoint
from interlock.backends.errors import (
    ModelAnswerMalformed,
    ModelError,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelServerFailed,
    ModelTimedOut,
    ModelUnauthorised,
    ModelUnreachable,
)
from interlock.protocol.base import Json, Usage

_SHOWN = 300
"""The most characters of a server's words that an error quotes."""
_NO_TOOL_CALLS = re.compile(
    r"tool.choice.{0,20}requires|tool.call.parser|--jinja|(not|n't|no\b.*) support.{0,40}tool|tool.{0,40}not supported",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that they, or the model, or their settings, know no tool calls: vLLM, llama.cpp, Ollama, routers."""


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0


class _Function(BaseModel):
    name: str = ""
    arguments: Json = ""


class _ToolCall(BaseModel):
    id: str | None = None
    function: _Function = _Function()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set & {"content", "tool_calls"}:
            raise ValueError("neither content nor tool_calls")
        return self


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """As much of a chat completion as is used."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Model(BaseModel):
    id: str = Field(min_length=1)


class _ModelList(BaseModel):
    data: list[_Model] = Field(min_length=1)


def request_body(request: ChatRequest, model: str, style: SchemaStyle) -> dict[str, Json]:
    """Return the body of ``POST /chat/completions``."""
    body: dict[str, Json] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None:
        body["response_format"] = response_format(style, request.schema_name, request.schema)
    if request.tools:
        body["tools"] = [_tool(offer) for offer in request.tools]
        body["tool_choice"] = "auto"
    return body


def _message(message: ChatMessage) -> dict[str, Json]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls: list[Json] = [_call(call) for call in message.tool_calls]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _call(call: ToolCall) -> dict[str, Json]:
    function: dict[str, Json] = {"name": api_name(call.name), "arguments": _object_text(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _object_text(arguments: str) -> str:
    """Return the JSON text of an object: servers parse the calls of earlier turns, and fail where it is none."""
    try:
        sound = isinstance(from_json(arguments), dict)
    except ValueError:
        sound = False
    return arguments if sound else json.dumps({"malformed": arguments} if arguments.strip() else {})


def _tool(offer: ToolOffer) -> dict[str, Json]:
    function: dict[str, Json] = {
        "name": api_name(offer.name),
        "description": offer.description,
        "parameters": offer.parameters,
    }
    return {"type": "function", "function": function}


def parse_reply(body: bytes, endpoint: Endpoint, model: str, tools: tuple[ToolOffer, ...] = ()) -> ChatReply:
    """Return the answer in ``body`` to a request that offered ``tools``.

    :raises ModelAnswerMalformed: it is no chat completion
    """
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        raise _malformed(error, body, endpoint, model) from None
    choice, usage = completion.choices[0], completion.usage or _Usage()
    return ChatReply(
        text=choice.message.content or choice.message.refusal or "",
        finish_reason=choice.finish_reason or "",
        model=completion.model or model,
        usage=Usage(calls=1, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens),
        response_id=completion.id or "",
        tool_calls=tuple(_called(call, tools) for call in choice.message.tool_calls or ()),
    )


def counting(reply: ChatReply, broken: int) -> ChatReply:
    """Return ``reply`` with the ``broken`` requests counted that may have been worked on before it was asked for."""
    return replace(reply, usage=reply.usage + Usage(calls=broken))


def _called(call: _ToolCall, tools: tuple[ToolOffer, ...]) -> ToolCall:
    arguments = call.function.arguments
    return ToolCall(
        id=call.id or "",
        name=own_name(call.function.name, (offer.name for offer in tools)),
        arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),  # some servers send the object
    )


def knows_no_tool_calls(refusal: ModelRefusedRequest) -> bool:
    """Return whether a server refused a request because it was one with tools."""
    return bool(_NO_TOOL_CALLS.search(refusal.message))


def parse_first_model(body: bytes, endpoint: Endpoint) -> str:
    """Return the name of the first model in an answer to ``GET /models``.

    :raises ModelAnswerMalformed: it is no list of models, or an empty one
    """
    try:
        return _ModelList.model_validate_json(body).data[0].id
    except ValidationError as error:
        raise _malformed(error, body, endpoint, None) from None


def error_of_status(
    status: int, headers: Mapping[str, str], body: bytes, endpoint: Endpoint, model: str | None
) -> ModelError:
    """Return what an HTTP error status means."""
    retry_after = parse_retry_after(headers, time.time())
    words = _scrubbed(_words(body), endpoint)
    match status:
        case 401 | 403:
            return ModelUnauthorised(endpoint.url, model, status, endpoint.key_env)
        case 408:
            return ModelTimedOut(endpoint.url, model, endpoint.timeout)
        case 429:
            return ModelRateLimited(endpoint.url, model, retry_after, words)
        case _ if status >= 500:  # noqa: PLR2004 -- an HTTP status says more than a name for it
            return ModelServerFailed(endpoint.url, model, status, retry_after, words)
        case _:
            return ModelRefusedRequest(endpoint.url, model, status, words)


def error_of_connection(error: BaseException, endpoint: Endpoint, model: str | None) -> ModelError:
    """Return what a failed exchange without an HTTP status means: only the exceptions below it tell."""
    chain = list(_chain(error))
    no_connection = next((link for link in chain if isinstance(link, aiohttp.ConnectionTimeoutError)), None)
    if no_connection is None and any(isinstance(link, TimeoutError) for link in chain):
        return ModelTimedOut(endpoint.url, model, endpoint.timeout)
    reason = no_connection or chain[-1]
    connected = not any(
        isinstance(link, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) for link in chain
    )
    return ModelUnreachable(endpoint.url, model, _scrubbed(str(reason) or type(reason).__name__, endpoint), connected)


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that ``Retry-After`` (seconds or an HTTP date) asks for; None: absent or not understood.

    :param now: seconds since 1970, to count from when the header is a date
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        date = email.utils.parsedate_tz(value)
        seconds = email.utils.mktime_tz(date) - now if date else float("nan")
    return max(0.0, seconds) if abs(seconds) != float("inf") and seconds == seconds else None  # noqa: PLR0124 -- NaN


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _malformed(error: ValidationError, body: bytes, endpoint: Endpoint, model: str | None) -> ModelAnswerMalformed:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    shown = _scrubbed(body[: _SHOWN * 4].decode(errors="replace"), endpoint)
    return ModelAnswerMalformed(endpoint.url, model, f"{where}: {first['msg']}" if where else first["msg"], shown)


def _words(body: bytes) -> str:
    """Return what the body of an error says: the API's message, or the body itself."""
    text = body.decode(errors="replace")
    try:
        told = from_json(text)
    except ValueError:
        return text
    match told:
        case {"error": {"message": str(message)}} | {"message": str(message)} | {"error": str(message)}:
            return message
        case str():
            return told
        case _:
            return text


def _scrubbed(text: str, endpoint: Endpoint) -> str:
    """Return ``text`` on one line, shortened and without the key, which some servers repeat in their errors."""
    hidden = text.replace(endpoint.api_key, "***") if endpoint.api_key else text
    line = " ".join(hidden.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
