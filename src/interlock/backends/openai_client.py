"""The client for every engine: the OpenAI API over one pool of aiohttp connections.

It sends bytes and validates the bytes of the answer once, against the little of the API that is used. The official
client would take ten times the CPU time a call and a second to import; tests hold this one against its models.
"""

import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from functools import partial
from ssl import SSLContext
from typing import Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
from yarl import URL

from interlock.backends._described_tools import called, described
from interlock.backends._openai_stream import Pieces
from interlock.backends._openai_wire import (
    counting,
    error_of_connection,
    error_of_status,
    knows_no_tool_calls,
    parse_first_model,
    parse_reply,
    request_body,
)
from interlock.backends._schema_limits import SchemaLimits
from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.chat import ChatReply, ChatRequest
from interlock.backends.engines import Endpoint
from interlock.backends.errors import (
    ModelError,
    ModelRefusedRequest,
    ModelServerFailed,
    ModelTimedOut,
    ModelUnreachable,
)
from interlock.backends.retry import RetrySettings, seconds_before_retry
from interlock.protocol.base import Json

__all__ = ["OpenAIChat"]

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
"""A host that does not even accept a connection is noticed before the whole time of a request is used up."""

_REFUSED = 400
_LONGEST_IDLE = 30.0
"""Seconds for which a connection that nobody uses is kept."""

_Answer = TypeVar("_Answer")

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class OpenAIChat:
    """A chat model behind an OpenAI-compatible API (a :class:`~interlock.backends.chat.ChatModel`).

    Connections are kept and shared by all calls; belongs to the event loop of its first call.
    """

    def __init__(self, endpoint: Endpoint, retry: RetrySettings) -> None:
        self._endpoint = endpoint
        self._retry = retry
        self._name = endpoint.name
        self._name_lock = anyio.Lock()
        self._can = CAPABILITIES[endpoint.engine]
        self._tool_style = self._can.tool_style
        self._limits = SchemaLimits()
        self._turn: AbstractAsyncContextManager[object] = _turns(self._can.parallel)
        self._chats, self._models = URL(f"{endpoint.url}/chat/completions"), URL(f"{endpoint.url}/models")
        self._open: aiohttp.ClientSession | None = None

    @property
    def provider(self) -> str:
        """The engine of the endpoint."""
        return self._endpoint.engine

    @property
    def name(self) -> str | None:
        """The model's name; None until the server was asked for it."""
        return self._name

    @property
    def url(self) -> str:
        """The base URL, without credentials."""
        return self._endpoint.url

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask the model and return its answer; failures that may pass are tried again.

        :raises ModelError: see :mod:`interlock.backends.errors`; ``attempts`` says how often it was tried
        """
        model = self._name or await self._first_model()
        if self._tool_style == "native":
            try:
                return await self._ask(request, model)
            except ModelRefusedRequest as refusal:
                if not (request.tools and knows_no_tool_calls(refusal)):
                    raise
                self._tool_style = "described"
                _log.warning("tools are described to the model in words from here on: %s", refusal)
        reply = await self._ask(described(request), model)
        return called(reply) if request.tools else reply

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | ChatReply]:
        """Yield the text of the answer as it comes, then the whole answer; closing the generator hangs up.

        Failures that may pass are tried again as long as nothing was yielded. With tools the text comes in one piece.

        :raises ModelError: as ``chat`` does, and where the answer breaks off
        """
        if request.tools:
            reply = await self.chat(request)
            if reply.text:
                yield reply.text
            yield reply
            return
        model = self._name or await self._first_model()
        request = request if self._tool_style == "native" else described(request)
        attempt, broken, began = 1, 0, time.monotonic()
        while True:
            said = False
            try:
                async with aclosing(self._pieces(request, model)) as pieces:
                    async for piece in pieces:
                        said = True
                        yield counting(piece, broken) if isinstance(piece, ChatReply) and broken else piece
            except ModelError as error:
                error.attempts = attempt
                broken += isinstance(error, ModelUnreachable) and error.connected
                wait = seconds_before_retry(error, attempt, self._retry, time.monotonic() - began)
                if said or wait is None:
                    raise
            else:
                return
            await anyio.sleep(wait)
            attempt += 1

    async def _pieces(self, request: ChatRequest, model: str) -> AsyncGenerator[str | ChatReply]:
        """Send a request once and yield its answer as it comes."""
        body = request_body(self._bindable(request), model, self._can.schema_style)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        size = len(_encoded(body))
        async with self._turn, request.meter.sending(size, request.max_tokens) as fare:
            encoded = _encoded({**body, "max_tokens": fare.max_tokens})
            pieces = Pieces(self._endpoint, model)
            async with aclosing(self._read(encoded, request.headers)) as chunks:
                async for chunk in chunks:
                    for text in pieces.take(chunk):
                        yield text
            if not pieces.whole:
                raise ModelUnreachable(self._endpoint.url, model, "the answer broke off", connected=True)
            reply = parse_reply(pieces.body(), self._endpoint, model)
            fare.used(reply.usage)
        yield reply

    async def _read(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """Send once and yield the body of the answer as it comes."""
        try:
            async with self._session().request("POST", self._chats, data=body, headers=headers) as answer:
                if answer.status >= _REFUSED:
                    found = await answer.read()
                    raise error_of_status(answer.status, answer.headers, found, self._endpoint, self._name)
                async for chunk in answer.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_connection(error, self._endpoint, self._name) from error

    async def _ask(self, request: ChatRequest, model: str) -> ChatReply:
        body = request_body(self._bindable(request), model, self._can.schema_style)
        reply, broken = await self._persistently(partial(self._send, request, body, model))
        return counting(reply, broken) if broken else reply

    async def _send(self, request: ChatRequest, body: dict[str, Json], model: str) -> ChatReply:
        """Send a chat request once, as far as its meter lets it, and return the answer."""
        encoded = _encoded(body)
        async with self._turn, request.meter.sending(len(encoded), request.max_tokens) as fare:
            if fare.max_tokens != request.max_tokens:
                encoded = _encoded({**body, "max_tokens": fare.max_tokens})
            answer = await self._exchange("POST", self._chats, encoded, request.headers)
            reply = parse_reply(answer, self._endpoint, model, request.tools)
            fare.used(reply.usage)
        return reply

    def _bindable(self, request: ChatRequest) -> ChatRequest:
        """Return ``request`` with as much of its schema as the engine can bind an answer to."""
        if request.schema is None or not self._can.schema_limits:
            return request
        return replace(request, schema=self._limits.bindable(request.schema))

    async def answers(self, seconds: float) -> bool:
        """Return whether the server answers anything within ``seconds``; costs no call."""
        with anyio.move_on_after(seconds):
            try:
                await self._list_models()
            except (ModelUnreachable, ModelTimedOut, ModelServerFailed):
                return False
            except ModelError:
                return True  # it does answer, whatever it says
            return True
        return False

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        if self._open is not None:
            await self._open.close()

    async def _first_model(self) -> str:
        """Ask the server for its models, once, and remember the first."""
        async with self._name_lock:
            if self._name is None:
                answer, _ = await self._persistently(self._list_models)
                self._name = parse_first_model(answer, self._endpoint)
            return self._name

    async def _list_models(self) -> bytes:
        async with self._turn:
            return await self._exchange("GET", self._models)

    async def _persistently(self, send: Callable[[], Awaitable[_Answer]]) -> tuple[_Answer, int]:
        """Send until there is an answer or trying again is pointless; return it, and how many connections broke."""
        attempt, broken, began = 1, 0, time.monotonic()
        while True:
            try:
                return await send(), broken
            except ModelError as error:
                error.attempts = attempt
                broken += isinstance(error, ModelUnreachable) and error.connected
                wait = seconds_before_retry(error, attempt, self._retry, time.monotonic() - began)
                if wait is None:
                    raise
            await anyio.sleep(wait)
            attempt += 1

    async def _exchange(
        self, method: str, url: URL, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send once and return the body of the answer."""
        try:
            async with self._session().request(method, url, data=body, headers=headers) as answer:
                found = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_connection(error, self._endpoint, self._name) from error
        if answer.status >= _REFUSED:
            raise error_of_status(answer.status, answer.headers, found, self._endpoint, self._name)
        return found

    def _session(self) -> aiohttp.ClientSession:
        """Return the pool of connections, which is made once there is an event loop."""
        if self._open is None:
            endpoint = self._endpoint
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_LONGEST_IDLE, ssl=_trust(endpoint.url)),
                headers=_headers(endpoint),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(endpoint.url),
                timeout=aiohttp.ClientTimeout(
                    total=endpoint.timeout, sock_connect=min(_CONNECT_SECONDS, endpoint.timeout)
                ),
            )
        return self._open


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "interlock"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for ``url``. aiohttp would look for it, in a thread, at each call."""
    parts, proxies = urlsplit(url), getproxies()
    if proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _trust(url: str) -> SSLContext | Literal[True]:
    """Return what a server's certificate is held against: the system's authorities, or those of ``SSL_CERT_FILE``."""
    if not url.startswith("https:"):
        return True
    from httpx2 import create_ssl_context  # noqa: PLC0415 -- finds them on every system; most engines speak plain HTTP

    return create_ssl_context()


def _encoded(body: dict[str, Json]) -> bytes:
    return _JSON.encode(body).encode()


def _turns(parallel: int | None) -> AbstractAsyncContextManager[object]:
    return nullcontext() if parallel is None else anyio.Semaphore(parallel)
