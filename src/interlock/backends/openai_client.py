"""The client for every engine: the official ``openai`` client over aiohttp. Importing this module takes about a second.

The client sends and authenticates. Whether to try again is decided here, and the answer's bytes are validated once,
against the little of the API that is used; the client's own models would take as much CPU time again.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeAlias

import aiohttp
import anyio
import httpx2
import openai
import tenacity

from interlock.backends._described_tools import called, described
from interlock.backends._openai_wire import (
    error_of_connection,
    error_of_status,
    knows_no_tool_calls,
    parse_first_model,
    parse_reply,
    request_body,
)
from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.chat import ChatReply, ChatRequest
from interlock.backends.engines import Endpoint
from interlock.backends.errors import ModelError, ModelRefusedRequest
from interlock.backends.retry import RetrySettings, seconds_before_retry

__all__ = ["OpenAIChat"]

_log = logging.getLogger(__name__)
_Send: TypeAlias = Callable[[], Awaitable[httpx2.Response]]

_CONNECT_SECONDS = 10.0
"""A host that does not even accept a connection is noticed before the whole time of a request is used up."""


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
        self._turn: AbstractAsyncContextManager[object] = _turns(self._can.parallel)
        self._authorization = f"Bearer {endpoint.api_key}" if endpoint.api_key else openai.Omit()
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, endpoint.timeout)),
            http_client=openai.DefaultAioHttpClient(),
        )
        # The client reads these from OPENAI_* variables, which may be meant for another server than this one.
        self._client.organization = self._client.project = None

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

    async def _ask(self, request: ChatRequest, model: str) -> ChatReply:
        body = request_body(request, model, self._can.schema_style)
        options: openai.RequestOptions = {"headers": {**request.headers, "Authorization": self._authorization}}
        answer = await self._persistently(
            lambda: self._client.post("/chat/completions", cast_to=httpx2.Response, body=body, options=options)
        )
        return parse_reply(answer, self._endpoint, model, request.tools)

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        await self._client.close()

    async def _first_model(self) -> str:
        """Ask the server for its models, once, and remember the first."""
        options: openai.RequestOptions = {"headers": {"Authorization": self._authorization}}
        async with self._name_lock:
            if self._name is None:
                answer = await self._persistently(
                    lambda: self._client.get("/models", cast_to=httpx2.Response, options=options)
                )
                self._name = parse_first_model(answer, self._endpoint)
            return self._name

    async def _persistently(self, send: _Send) -> bytes:
        """Send until there is an answer or trying again is pointless."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, ModelError)),
            stop=lambda state: self._wait(state) is None,
            wait=lambda state: self._wait(state) or 0,
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            return await attempts(self._exchange, send)
        except ModelError as error:
            error.attempts = attempts.statistics["attempt_number"]
            raise

    def _wait(self, state: tenacity.RetryCallState) -> float | None:
        """Return the seconds before another attempt, None for no other."""
        error = state.outcome.exception() if state.outcome else None
        return seconds_before_retry(error, state.attempt_number, self._retry) if isinstance(error, ModelError) else None

    async def _exchange(self, send: _Send) -> bytes:
        """Send once and return the body of the answer."""
        async with self._turn:
            try:
                with anyio.fail_after(self._endpoint.timeout):
                    return (await send()).content
            except openai.APIStatusError as error:
                # Not shown as the cause: it quotes the server, which may have repeated the key.
                raise error_of_status(error, self._endpoint, self._name) from None
            except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
                raise error_of_connection(error, self._endpoint, self._name) from error


def _turns(parallel: int | None) -> AbstractAsyncContextManager[object]:
    return nullcontext() if parallel is None else anyio.Semaphore(parallel)
