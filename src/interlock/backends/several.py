"""A chat model behind several servers: each request goes to the least busy one, and on to the next where one fails."""

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import anyio

from interlock.backends._openai_wire import counting
from interlock.backends._pool import Pool
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
from interlock.backends.openai_client import OpenAIChat
from interlock.backends.retry import RetrySettings, seconds_before_retry

__all__ = ["SeveralChats"]

_TRIAL_SECONDS = 2.0
"""How long a server that was put aside has to show that it answers."""

_SERVER_IS_AWAY = frozenset({502, 503, 504})
"""HTTP statuses by which a server, or the proxy before it, says that it serves nobody now."""


class SeveralChats:
    """A chat model behind several servers of the same model (a :class:`~interlock.backends.chat.ChatModel`).

    Least busy is counted in this process: each of several processes shares out its own requests. A request that was
    answered is never sent again, not even one that was refused. One whose server broke may have been worked on, so it
    counts as a call in the usage of the answer that came in the end.
    """

    def __init__(self, endpoint: Endpoint, retry: RetrySettings) -> None:
        self._endpoint = endpoint
        self._retry = retry
        once = replace(retry, attempts=1, patience=0.0)
        self._chats = [OpenAIChat(replace(endpoint, url=url, urls=()), once) for url in endpoint.urls]
        self._pool = Pool(len(self._chats), start=os.getpid())

    @property
    def provider(self) -> str:
        """The engine of the endpoint."""
        return self._endpoint.engine

    @property
    def name(self) -> str | None:
        """The model's name; None until a server was asked for it."""
        return next((chat.name for chat in self._chats if chat.name), None)

    @property
    def url(self) -> str:
        """The base URL of the first server, without credentials."""
        return self._endpoint.url

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask one server after the other until one answers; all of them again while that may help.

        :raises ModelError: see :mod:`interlock.backends.errors`; of the server that was asked last
        """
        found: list[ChatReply] = []
        async with aclosing(self._asking(lambda chat: _whole(chat, request))) as replies:
            async for reply in replies:
                found += [reply] if isinstance(reply, ChatReply) else []
        return found[-1]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | ChatReply]:
        """Yield the text of the answer as it comes, then the whole answer; closing the generator hangs up.

        Other servers are asked only as long as nothing was yielded.

        :raises ModelError: as ``chat`` does, and where the answer breaks off
        """
        async with aclosing(self._asking(lambda chat: chat.stream(request))) as pieces:
            async for piece in pieces:
                yield piece

    async def _asking(
        self, ask: Callable[[OpenAIChat], AsyncGenerator[str | ChatReply]]
    ) -> AsyncGenerator[str | ChatReply]:
        """Yield what the first server answers that does; each is asked once, then all again while that may help."""
        attempt, broken, began = 1, 0, time.monotonic()
        while True:
            tried: set[int] = set()
            error: ModelError = ModelUnreachable(self._endpoint.url, self.name, "every server was put aside")
            while (index := self._pool.pick(time.monotonic(), tried)) is not None:
                tried.add(index)
                said = False
                try:
                    async with self._served(index) as chat, aclosing(ask(chat)) as pieces:
                        async for piece in pieces:
                            said = True
                            yield counting(piece, broken) if isinstance(piece, ChatReply) and broken else piece
                except (ModelUnreachable, ModelServerFailed, ModelTimedOut, ModelRateLimited) as failure:
                    broken += self._note(index, failure)
                    if said:
                        raise
                    error = failure
                else:
                    return
            error.attempts = attempt
            wait = seconds_before_retry(error, attempt, self._retry, time.monotonic() - began)
            if wait is None:
                raise error
            await anyio.sleep(wait)
            attempt += 1

    @asynccontextmanager
    async def _served(self, index: int) -> AsyncGenerator[OpenAIChat]:
        """Count a request of a server, and what it tells of it; one on trial has to show first that it answers."""
        chat, server = self._chats[index], self._pool.servers[index]
        self._pool.began(index)
        try:
            if server.on_trial:
                await _prove(chat)
                self._pool.answered(index)
            yield chat
        except (ModelRefusedRequest, ModelUnauthorised, ModelAnswerMalformed):
            self._pool.answered(index)  # it says that the request is wrong, so it is well itself
            raise
        except BaseException:
            server.on_trial = False  # also where it was cancelled: the next one may try
            raise
        else:
            self._pool.answered(index)
        finally:
            self._pool.ended(index)

    def _note(self, index: int, failure: ModelError) -> int:
        """Put a server aside that failed; return how many connections broke: 1 or none."""
        if not _is_of_the_request(failure):
            self._pool.failed(index, time.monotonic(), _asked(failure))
        return int(isinstance(failure, ModelUnreachable) and failure.connected)

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        for chat in self._chats:
            await chat.aclose()


async def _whole(chat: OpenAIChat, request: ChatRequest) -> AsyncGenerator[str | ChatReply]:
    yield await chat.chat(request)


async def _prove(chat: OpenAIChat) -> None:
    """Return once a server has shown that it answers.

    :raises ModelUnreachable: it has not, in its time
    """
    if not await chat.answers(_TRIAL_SECONDS):
        raise ModelUnreachable(chat.url, chat.name, "it does not answer yet")


def _is_of_the_request(failure: ModelError) -> bool:
    """Return whether a failure tells nothing of the server: it stumbled over this one request."""
    return isinstance(failure, ModelServerFailed) and failure.status not in _SERVER_IS_AWAY


def _asked(failure: ModelError) -> float | None:
    """Return the seconds for which a server asked to be left alone."""
    match failure:
        case ModelRateLimited(retry_after=asked) | ModelServerFailed(retry_after=asked):
            return asked
        case _:
            return None
