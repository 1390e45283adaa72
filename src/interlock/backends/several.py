"""A chat model behind several servers: each request goes to the least busy one, and on to the next where one fails."""

import os
import time
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
        attempt, broken, began = 1, 0, time.monotonic()
        while True:
            reply, error, more = await self._round(request)
            broken += more
            if reply is not None:
                return counting(reply, broken) if broken else reply
            error.attempts = attempt
            wait = seconds_before_retry(error, attempt, self._retry, time.monotonic() - began)
            if wait is None:
                raise error
            await anyio.sleep(wait)
            attempt += 1

    async def _round(self, request: ChatRequest) -> tuple[ChatReply | None, ModelError, int]:
        """Ask each server at most once; return the answer, or the last error, and how many connections broke.

        :raises ModelError: the request itself is wrong, so that no other server would answer it
        """
        tried: set[int] = set()
        error: ModelError = ModelUnreachable(self._endpoint.url, self.name, "every server was put aside")
        broken = 0
        while (index := self._pool.pick(time.monotonic(), tried)) is not None:
            tried.add(index)
            try:
                return await self._ask(index, request), error, broken
            except (ModelUnreachable, ModelServerFailed, ModelTimedOut, ModelRateLimited) as failure:
                if not _is_of_the_request(failure):
                    self._pool.failed(index, time.monotonic(), _asked(failure))
                broken += isinstance(failure, ModelUnreachable) and failure.connected
                error = failure
        return None, error, broken

    async def _ask(self, index: int, request: ChatRequest) -> ChatReply:
        chat, server = self._chats[index], self._pool.servers[index]
        self._pool.began(index)
        try:
            if server.on_trial:
                await _prove(chat)
                self._pool.answered(index)
            reply = await chat.chat(request)
        except (ModelRefusedRequest, ModelUnauthorised, ModelAnswerMalformed):
            self._pool.answered(index)  # it says that the request is wrong, so it is well itself
            raise
        except BaseException:
            server.on_trial = False  # also where it was cancelled: the next one may try
            raise
        finally:
            self._pool.ended(index)
        self._pool.answered(index)
        return reply

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        for chat in self._chats:
            await chat.aclose()


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
