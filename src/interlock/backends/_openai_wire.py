"""What crosses the wire: the request's body, the answers that are accepted, and what a failed exchange means. Pure."""

import email.utils
import json
import time
from collections.abc import Iterator, Mapping

import aiohttp
import openai
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from interlock.backends.capabilities import SchemaStyle, response_format
from interlock.backends.chat import ChatReply, ChatRequest
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


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0


class _Message(BaseModel):
    content: str | None
    refusal: str | None = None


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
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None:
        body["response_format"] = response_format(style, request.schema_name, request.schema)
    return body


def parse_reply(body: bytes, endpoint: Endpoint, model: str) -> ChatReply:
    """Return the answer in ``body``.

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
    )


def parse_first_model(body: bytes, endpoint: Endpoint) -> str:
    """Return the name of the first model in an answer to ``GET /models``.

    :raises ModelAnswerMalformed: it is no list of models, or an empty one
    """
    try:
        return _ModelList.model_validate_json(body).data[0].id
    except ValidationError as error:
        raise _malformed(error, body, endpoint, None) from None


def error_of_status(error: openai.APIStatusError, endpoint: Endpoint, model: str | None) -> ModelError:
    """Return what an HTTP error status means."""
    status, retry_after = error.status_code, parse_retry_after(error.response.headers, time.time())
    words = _scrubbed(_words(error.body), endpoint)
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
    """Return what a failed exchange without an HTTP status means.

    The transport calls every lost connection a timeout; only the exception below it tells which it was.
    """
    chain = list(_chain(error))
    no_connection = next((link for link in chain if isinstance(link, aiohttp.ConnectionTimeoutError)), None)
    if no_connection is None and any(isinstance(link, TimeoutError) for link in chain):
        return ModelTimedOut(endpoint.url, model, endpoint.timeout)
    reason = no_connection or chain[-1]
    return ModelUnreachable(endpoint.url, model, _scrubbed(str(reason) or type(reason).__name__, endpoint))


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


def _words(body: object) -> str:
    """Return what the body of an error says: the API's message, or the body itself."""
    match body:
        case {"error": {"message": str(message)}} | {"message": str(message)} | {"error": str(message)}:
            return message
        case str():
            return body
        case _:
            return json.dumps(body)


def _scrubbed(text: str, endpoint: Endpoint) -> str:
    """Return ``text`` on one line, shortened and without the key, which some servers repeat in their errors."""
    hidden = text.replace(endpoint.api_key, "***") if endpoint.api_key else text
    line = " ".join(hidden.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
