"""Answers to a conversation as they go out: whole or streamed, for as long as the client is there.

A client that closes its connection before it has its answer has hung up, and the last one that does so stops the job.
That this server is told to end is no hanging up: the job goes on in the log.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import anyio
from anyio import to_thread
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from interlock.protocol.control import JobScope
from interlock.protocol.messages import JobClosed
from interlock.protocol.subjects import chain_subjects
from interlock.runtime.api.chat_errors import error_response
from interlock.runtime.api.chat_progress import answer_turn, pieces, question_turn
from interlock.runtime.api.chat_turns import Asked, Ended, Told, Turn, next_turn
from interlock.runtime.api.chat_wire import (
    DONE,
    KEEP_ALIVE,
    ChatError,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    JobNote,
    Reply,
    ReplyUsage,
    completion_id,
    event,
    usage_of,
)
from interlock.runtime.api.context import ApiContext
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.killswitch import command

__all__ = ["Chat", "Held", "PlainAnswer", "Said", "StreamedAnswer", "Unread"]

_log = logging.getLogger(__name__)

_HEADER = "x-interlock-job"

_STOP_SECONDS = 10.0
"""How long it is tried to stop a job whose client has gone."""

_AGAIN = 0.2
"""Seconds between two such tries."""


class Unread(ChatError):
    """The job is there, but what becomes of it cannot be read just now."""

    def __init__(self, job: str) -> None:
        told = f"job {job} goes on, but cannot be read just now: GET /v1/jobs/{job} tells what becomes of it"
        super().__init__(503, told, kind="server_error", code="job_unread", again=False)


class Held:
    """Which jobs clients wait for."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def by_one_more(self, job: str) -> Iterator[None]:
        """Count a client that waits for a job, while the block runs."""
        self._waiting[job] += 1
        try:
            yield
        finally:
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job]

    def by_many(self, job: str) -> int:
        """Return how many clients wait for a job."""
        return self._waiting[job]


@dataclass(frozen=True, slots=True)
class Said:
    """The assistant's turn."""

    text: str
    note: JobNote
    usage: ReplyUsage


@dataclass(frozen=True, slots=True)
class Chat:
    """One request, and the job that it is about."""

    context: ApiContext
    held: Held
    request: ChatRequest
    job: str
    before: str = ""
    """What is to be told before the next turn."""
    goes_on: bool = False
    """Whether it was told before how the job goes."""
    asked: Asked | None = None
    """What is asked once more; None: the log has the next turn."""
    created: int = field(default_factory=lambda: int(time.time()))

    async def turns(self) -> AsyncGenerator[Turn, None]:
        """Yield how the job goes, and last what the assistant's turn is made of.

        :raises Unread: the log cannot be read any more
        """
        if self.asked is not None:
            yield self.asked
            return
        try:
            async with aclosing(next_turn(self.context, self.job, goes_on=self.goes_on)) as turns:
                async for turn in turns:
                    yield turn
        except BusError as error:
            _log.warning("job %s cannot be read: %s", self.job, error)
            raise Unread(self.job) from error

    async def said(self, turn: Asked | Ended) -> Said:
        """Return the assistant's turn.

        :raises JobFailed: the job ended without a result
        :raises AnswerUnfit: its result has not the form that is wanted
        """
        if isinstance(turn, Asked):
            text = question_turn(turn.question, datetime.now(UTC), self.before or turn.before)
            note = JobNote(job=self.job, status="waiting", question=turn.question.id)
            return Said(text, note, usage_of(turn.usage))
        closed = turn.closed
        # in a thread: a schema may have patterns that take long to search
        text = await to_thread.run_sync(answer_turn, closed, self.request.response_format, self.before, turn.why)
        status: Literal["partial", "succeeded"] = "partial" if closed.status == "partial" else "succeeded"
        return Said(text, JobNote(job=self.job, status=status, reason=closed.reason), usage_of(closed.usage))

    def completion(self, said: Said) -> Completion:
        """Return the answer as a whole."""
        return Completion(
            id=completion_id(self.job),
            created=self.created,
            model=self.request.model,
            choices=(Choice(message=Reply(content=said.text)),),
            usage=said.usage,
            interlock=said.note,
        )

    def chunk(self, delta: Delta) -> bytes:
        """Return the event that adds ``delta`` to the answer."""
        return self._event(ChunkChoice(delta=delta))

    def end(self, said: Said) -> Iterator[bytes]:
        """Yield the events that end the answer."""
        yield self._event(ChunkChoice(delta=Delta(), finish_reason="stop"), note=said.note)
        if self.request.wants_usage:
            yield self._event(usage=said.usage)

    def _event(self, *choices: ChunkChoice, note: JobNote | None = None, usage: ReplyUsage | None = None) -> bytes:
        chunk = Chunk(
            id=completion_id(self.job),
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
            interlock=note,
        )
        return chunk.encoded()


class _Answer(Response, ABC):
    """Sends an answer while it listens whether the client is still there."""

    def __init__(self, chat: Chat) -> None:
        super().__init__()
        self._chat = chat
        self._has_left = False
        self._is_due = False
        """Whether the job has come to its turn's end, so that nothing is left to be stopped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; once the client hangs up, stop the job."""
        job, held = self._chat.job, self._chat.held
        with held.by_one_more(job):
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, receive, group.cancel_scope)
                await self._answer(send)
                group.cancel_scope.cancel()
        if self._has_left and not self._is_due and not held.by_many(job) and not scope["app"].state.is_ending:
            await _stop(self._chat.context.bus, job)

    async def _listen(self, receive: Receive, answering: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        answering.cancel()

    @abstractmethod
    async def _answer(self, send: Send) -> None:
        """Send the answer."""

    async def _spoken(self) -> AsyncGenerator[Told | Said, None]:
        """Yield how the job goes, and last the assistant's turn.

        :raises ChatError: there is none
        """
        async with aclosing(self._chat.turns()) as turns:
            async for turn in turns:
                if isinstance(turn, Told):
                    yield turn
                else:
                    self._is_due = True
                    yield await self._chat.said(turn)


class PlainAnswer(_Answer):
    """An answer that goes out once it is whole."""

    async def _answer(self, send: Send) -> None:
        headers = {_HEADER: self._chat.job}
        try:
            completion = self._chat.completion(await self._last())
            response: Response = JSONResponse(completion.model_dump(mode="json"), headers=headers)
        except ChatError as error:
            response = error_response(error, headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": bytes(response.body)})

    async def _last(self) -> Said:
        async with aclosing(self._spoken()) as spoken:
            async for one in spoken:
                if isinstance(one, Said):
                    return one
        raise Unread(self._chat.job)


class StreamedAnswer(_Answer):
    """An answer as server-sent events: how the job goes, then the assistant's turn."""

    media_type = "text/event-stream"

    async def _answer(self, send: Send) -> None:
        headers = {_HEADER: self._chat.job, "cache-control": "no-cache", "x-accel-buffering": "no"}
        raw = Response(headers=headers, media_type=self.media_type).raw_headers
        kept = [(name, value) for name, value in raw if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_alive, send)
            try:
                async with aclosing(self._events()) as events:
                    async for one in events:
                        await send({"type": "http.response.body", "body": one, "more_body": True})
            except ChatError as error:
                told = event(error.body.model_dump())
                await send({"type": "http.response.body", "body": told, "more_body": True})
            group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": DONE})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await anyio.sleep(self._chat.context.settings.heartbeat)
            await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of the answer.

        :raises ChatError: there is none
        """
        chat = self._chat
        where, has_told = chat.request.extra.progress, False
        yield chat.chunk(Delta(role="assistant", content=""))
        async with aclosing(self._spoken()) as spoken:
            async for one in spoken:
                if isinstance(one, Told):
                    text = "".join(f"{line}\n" for line in one.lines)
                    has_told = where == "content"
                    if where != "none":
                        yield chat.chunk(Delta(content=text) if has_told else Delta(reasoning_content=text))
                    continue
                for piece in pieces("\n" * has_told + one.text):
                    yield chat.chunk(Delta(content=piece))
                for last in chat.end(one):
                    yield last


async def _stop(bus: Bus, job: str) -> None:
    """Order that a job stops, unless it is over."""
    with anyio.move_on_after(_STOP_SECONDS, shield=True):
        while True:
            try:
                last = await bus.last(chain_subjects(bus.ns, job))
                if last is None or not isinstance(last.message, JobClosed):
                    await command(bus, JobScope(job=job), stop=True, reason="the client hung up")
                    return
            except BusError as error:
                _log.warning("job %s, whose client hung up, cannot be stopped: %s", job, error)
                await anyio.sleep(_AGAIN)
            else:
                return
