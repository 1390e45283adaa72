"""What workers and verifiers share: take a message of the role's queue, do the work, append the answer, acknowledge.

The acknowledgement decides nothing; whether an answer counts is decided by the broker when it is appended. An answer
that is refused was overtaken: the work is dropped and the message acknowledged.
"""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import anyio

from interlock.backends.chat import ChatModel
from interlock.backends.engines import open_chat, resolve_endpoint
from interlock.observability.attributes import HEADER_ORIGIN, HEADER_REPLACES, HEADER_TRACEPARENT, HEADER_TRACESTATE
from interlock.observability.tracing import AgentSpan, Tracing, Work
from interlock.protocol.base import Role, role_of
from interlock.protocol.codec import kind_of
from interlock.protocol.lineage import is_within
from interlock.protocol.messages import Envelope, TaskAssigned, TaskResult
from interlock.protocol.subjects import chain_subjects, log_subject, submitted_subject
from interlock.protocol.team import Agent, ModelSettings
from interlock.runtime.budgets import Budgets
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused, BusError
from interlock.runtime.chain import patiently
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Deliveries, Delivery
from interlock.runtime.poison import MAX_DEATHS, SUSPECT, Deaths, Turnstile
from interlock.runtime.told import Told

__all__ = ["Excuse", "RoleIncomplete", "Serving", "answering"]

_log = logging.getLogger(__name__)

_TOLD = 500
"""Characters of an error's text that are kept in an answer."""

Excuse = Callable[[str, bool], Envelope]
"""Returns what is answered to a message that there is no answer to: why, and whether processes died over it."""

_Work = Callable[[Delivery], Awaitable[None]]


class RoleIncomplete(ValueError):
    """A process was told to serve a role without what that takes."""

    def __init__(self, process: str, missing: str) -> None:
        self.process = process
        self.missing = missing
        super().__init__(f"process {process} is to serve a role and was not given {missing}")


class Serving:
    """What one process that serves a role does, whatever the role."""

    def __init__(self, config: ProcessConfig, bus: Bus, tracing: Tracing, told: Told | None = None) -> None:
        if config.agent is None or config.agent_name is None or config.team is None:
            raise RoleIncomplete(config.name, "its agent and team")
        self.bus = bus
        self.tracing = tracing
        self.agent: Agent = config.agent
        self.agent_name = config.agent_name
        self.team = config.team
        self.role: Role = role_of(config.agent_name, config.team)
        """Whose queue is served, and who signs the answers."""
        self.settings = config.model or ModelSettings()
        self._config = config
        self._told = told or Told()
        self.budgets = Budgets(bus.counters)
        self._turnstile = Turnstile()
        self._deaths = Deaths(bus.state, self.role)
        self._in_hand: dict[int, anyio.Event] = {}
        """By sequence: the messages that are worked on, and what is set once that is over."""

    @asynccontextmanager
    async def model(self) -> AsyncIterator[ChatModel | None]:
        """Open the agent's model, if it has one, for as long as the block runs.

        :raises ModelError: it is not known where the model is
        """
        if self._config.model is None:
            yield None
            return
        model = open_chat(resolve_endpoint(self.settings))
        try:
            yield model
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await model.aclose()

    async def serve(self, kind: Literal["assigned", "result"], work: _Work, ready: Callable[[], None]) -> None:
        """Have ``work`` done for every message of the role's queue until cancelled; call ``ready`` once it begins.

        Told to drain it takes nothing more, and returns when all that it had in hand is done.

        :raises BusError: what no waiting will cure, such as missing permissions
        """
        config = self._config
        since = await self._beginning() if config.tree else None
        queue = self.bus.pull(kind, self.role, config.slots, job=config.job, since=since, ack_wait=config.patience)
        async with queue as deliveries, anyio.create_task_group() as group:
            ready()
            group.start_soon(self._drain_when_told, deliveries)
            async for delivery in deliveries:
                if config.tree and config.job and not is_within(delivery.message.job, config.job):
                    await delivery.ack()  # the queue is this tree's own
                    continue
                group.start_soon(self._work_and_acknowledge, delivery, work)

    async def _beginning(self) -> int:
        """Return where the job begins whose tree is worked on: what is older belongs to others."""
        first = await patiently(partial(self.bus.last, submitted_subject(self.bus.ns, self._config.job or "")))
        return first.seq if first else 1

    async def _drain_when_told(self, deliveries: Deliveries) -> None:
        await self._told.draining.wait()
        await deliveries.drain()

    async def respond(
        self,
        delivery: Delivery,
        span: AgentSpan,
        think: Callable[[], Awaitable[Envelope | None]],
        excuse: Excuse,
    ) -> None:
        """Append what ``think`` answers, or else an ``excuse`` with the reason why there is no answer.

        ``think`` returns None where the message is not this process's to answer any more.

        A message over which this process fails is answered too, so that it takes nothing else down with it; one over
        which process after process died is not tried again.
        """
        if not self._is_suspect(delivery):
            await self._think(delivery, span, think, excuse)
            return
        deaths = await self._deaths.over(delivery.seq)
        if deaths >= MAX_DEATHS:
            reason = f"{deaths} processes ended over it while they had nothing else in hand"
            await self._append(delivery, excuse(reason, True), span)
            return
        async with self._deaths.counted(delivery.seq, deaths):
            await self._think(delivery, span, think, excuse)

    async def _think(
        self,
        delivery: Delivery,
        span: AgentSpan,
        think: Callable[[], Awaitable[Envelope | None]],
        excuse: Excuse,
    ) -> None:
        try:
            answer = await think()
            if answer is not None:
                await self._append(delivery, answer, span)
        except BusError:
            raise
        except Exception as error:  # noqa: BLE001 -- it becomes the answer
            _log.warning("%s failed over %s: %s", self.agent_name, delivery.message.task, error)
            _log.debug("where it failed", exc_info=error)
            await self._append(delivery, excuse(f"{type(error).__name__}: {str(error)[:_TOLD]}", False), span)

    def span(self, delivery: Delivery, message: TaskAssigned | TaskResult, step: str) -> AgentSpan:
        """Open the span of this agent working on ``message``."""
        work = Work(
            agent=self.agent_name,
            kind=self.agent.kind,
            team=self.team,
            job=message.job,
            task=message.task,
            attempt=message.attempt,
            step=step,
            subject=log_subject(message),
            message_id=message.id,
        )
        headers = delivery.headers
        return self.tracing.invoke_agent(
            work,
            parent=headers.get(HEADER_TRACEPARENT),
            replaces=headers.get(HEADER_REPLACES),
            tracestate=headers.get(HEADER_TRACESTATE, ""),
        )

    async def _append(self, delivery: Delivery, message: Envelope, span: AgentSpan) -> None:
        """Append ``message``, however long the broker is away; drop it where the task has moved on.

        Then who moved it may still be at work on the same delivery: an acknowledgement would take it from him, and
        should he die nobody would get it any more.
        """
        with self.tracing.publish(kind_of(type(message)), log_subject(message), message_id=message.id) as headers:
            if span.traceparent is not None:
                headers[HEADER_ORIGIN] = span.traceparent
            try:
                await patiently(partial(self.bus.append, message, headers=headers))
            except AnswerRefused as refusal:
                _log.info("the answer came too late: %s", refusal)
                await delivery.leave()

    async def _work_and_acknowledge(self, delivery: Delivery, work: _Work) -> None:
        if delivery.seq in self._in_hand:
            await self._wait_for_the_first(delivery)
            return
        with self._told.work(delivery.message.job) as scope, self._has_in_hand(delivery.seq):
            if not scope.cancel_called:  # a call of a model could be sent before the cancellation is noticed
                async with delivery.keep_alive(), self._turnstile.enter(alone=self._is_suspect(delivery)):
                    await work(delivery)
                await delivery.ack()
                return
        await self._put_aside(delivery)  # its job was killed

    @contextmanager
    def _has_in_hand(self, seq: int) -> Iterator[None]:
        over = self._in_hand[seq] = anyio.Event()
        try:
            yield
        finally:
            del self._in_hand[seq]
            over.set()

    async def _wait_for_the_first(self, delivery: Delivery) -> None:
        """Keep a message that is worked on here already: a broker that was killed may forget whom it gave it to."""
        async with delivery.keep_alive():
            await self._in_hand[delivery.seq].wait()
        await self._put_aside(delivery)

    async def _put_aside(self, delivery: Delivery) -> None:
        """Say nothing of a message until it is seen that something in the log answers it, such as the job's end."""
        if await self.overtaken(delivery):
            await delivery.ack()
        else:
            await delivery.leave()

    def _is_suspect(self, delivery: Delivery) -> bool:
        """Whether so many who had the message ended that it has to be worked on alone; nobody dies of waiting."""
        return delivery.deliveries >= SUSPECT and self.agent.kind != "team"

    async def overtaken(self, delivery: Delivery) -> bool:
        """Return whether somebody answered a message before he died over it, so that working on it is for nothing."""
        if not delivery.is_again:
            return False
        message = delivery.message
        chain = chain_subjects(message.ns, message.job, message.task)
        head = await patiently(partial(self.bus.last, chain))
        return head is not None and head.seq != delivery.seq


def answering(message: TaskAssigned | TaskResult, delivery: Delivery) -> dict[str, Any]:
    """Return the envelope of an answer to ``message``."""
    return {
        "v": message.v,  # whoever is to read it may know no later one
        "id": uuid.uuid4().hex,
        "ns": message.ns,
        "job": message.job,
        "task": message.task,
        "attempt": message.attempt,
        "answers": delivery.seq,
        "at": datetime.now(UTC),
        "deadline": message.deadline,
        "epoch": message.epoch,
    }
