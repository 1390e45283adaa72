"""The loops of workers and verifiers: take a message of the role's queue, do the work, append the answer, acknowledge.

The acknowledgement decides nothing; whether an answer counts is decided by the broker when it is appended. An answer
that is refused was overtaken: the work is dropped and the message acknowledged.
"""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import anyio

from interlock.agents.verifier import judge_result
from interlock.agents.worker import execute
from interlock.backends.chat import ChatModel
from interlock.backends.engines import open_chat, resolve_endpoint
from interlock.observability.attributes import HEADER_ORIGIN, HEADER_REPLACES, HEADER_TRACEPARENT, HEADER_TRACESTATE
from interlock.observability.tracing import AgentSpan, Tracing, Work
from interlock.protocol.base import role_of
from interlock.protocol.codec import kind_of
from interlock.protocol.messages import (
    CriterionVerdict,
    Envelope,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.subjects import chain_subjects, log_subject
from interlock.protocol.team import Agent, ModelSettings
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.config import ProcessConfig
from interlock.runtime.coordinator import BROKER_AWAY
from interlock.runtime.deliveries import Delivery

__all__ = ["MAX_DELIVERIES", "serve_verifier", "serve_worker"]

_log = logging.getLogger(__name__)

MAX_DELIVERIES = 4
"""How often one message is worked on, when those who had it died, before it is answered as failed."""

_RECONNECT = 0.2
"""Seconds between two attempts to append an answer while the broker is away."""

Answer = Callable[[Delivery], Awaitable[None]]


class Serving:
    """What the loops of one process share."""

    def __init__(self, config: ProcessConfig, bus: Bus, tracing: Tracing) -> None:
        if config.agent is None or config.agent_name is None or config.team is None:
            raise ValueError(f"process {config.name} serves a role, so its agent and team must be given")
        self.bus = bus
        self.tracing = tracing
        self.agent: Agent = config.agent
        self.agent_name = config.agent_name
        self.team = config.team
        self.settings = config.model or ModelSettings()
        self.has_model = config.model is not None
        self.slots = config.slots
        self.job = config.job

    @property
    def role(self) -> str:
        """The queue that this process serves."""
        return role_of(self.agent_name, self.team)

    @asynccontextmanager
    async def model(self) -> AsyncIterator[ChatModel | None]:
        """Open the agent's model for as long as the block runs."""
        if not self.has_model:
            yield None
            return
        model = open_chat(resolve_endpoint(self.settings))
        try:
            yield model
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await model.aclose()

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

    async def answer(self, message: Envelope, span: AgentSpan) -> None:
        """Append ``message``, however long the broker is away; drop it where the task has moved on."""
        kind, subject = kind_of(type(message)), log_subject(message)
        with self.tracing.publish(kind, subject, message_id=message.id) as headers:
            if span.traceparent is not None:
                headers[HEADER_ORIGIN] = span.traceparent
            while True:
                try:
                    await self.bus.append(message, headers=headers)
                except AnswerRefused as refusal:
                    _log.info("the answer came too late: %s", refusal)
                except BROKER_AWAY as error:
                    _log.warning("%s waits with its answer for %s: %s", self.agent_name, message.task, error)
                    await anyio.sleep(_RECONNECT)
                    continue
                return


async def serve_worker(config: ProcessConfig, bus: Bus, tracing: Tracing) -> None:
    """Execute assignments of the configured role until cancelled."""
    serving = Serving(config, bus, tracing)
    async with serving.model() as model:
        if model is None:
            raise ValueError(f"worker {config.name} has no model to think with")

        async def work(delivery: Delivery) -> None:
            assignment = delivery.message
            if isinstance(assignment, TaskAssigned):
                with serving.span(delivery, assignment, assignment.step) as span:
                    await serving.answer(await _result(serving, delivery, assignment, model, span), span)

        await _serve(serving, "assigned", work)


async def serve_verifier(config: ProcessConfig, bus: Bus, tracing: Tracing) -> None:
    """Judge results addressed to the configured role until cancelled."""
    serving = Serving(config, bus, tracing)
    async with serving.model() as model:

        async def verify(delivery: Delivery) -> None:
            result = delivery.message
            if not isinstance(result, TaskResult):
                return
            # The criteria come from the log, never from the worker that is to be judged by them.
            assigned = await _assignment_of(bus, result)
            if assigned is None:
                _log.info("the result of %s attempt %s was overtaken", result.task, result.attempt)
                return
            with serving.span(delivery, result, assigned.step) as span:
                await serving.answer(await _verdict(serving, delivery, assigned, model, span), span)

        await _serve(serving, "result", verify)


async def _serve(serving: Serving, kind: Literal["assigned", "result"], work: Answer) -> None:
    queue = serving.bus.pull(kind, serving.role, serving.slots, job=serving.job)
    async with queue as deliveries, anyio.create_task_group() as group:
        async for delivery in deliveries:
            group.start_soon(_work_and_acknowledge, serving.bus, delivery, work)


async def _work_and_acknowledge(bus: Bus, delivery: Delivery, work: Answer) -> None:
    async with delivery.keep_alive():
        if not await _overtaken(bus, delivery):
            await work(delivery)
    await delivery.ack()


async def _overtaken(bus: Bus, delivery: Delivery) -> bool:
    """Whether somebody answered a message before he died over it, so that working on it again would be for nothing."""
    if delivery.deliveries == 1:
        return False
    message = delivery.message
    head = await bus.last(chain_subjects(message.ns, message.job, message.task))
    return head is not None and head.seq != delivery.seq


async def _result(
    serving: Serving, delivery: Delivery, assignment: TaskAssigned, model: ChatModel, span: AgentSpan
) -> TaskResult:
    common = _envelope(assignment, delivery)
    if delivery.deliveries > MAX_DELIVERIES:
        reason = f"given up after {MAX_DELIVERIES} workers died over it"
        result = TaskResult(**common, role=assignment.verifier, status="gave_up", reason=reason)
    else:
        outcome = await execute(assignment, serving.agent, model, serving.settings, serving.tracing)
        result = TaskResult(
            **common,
            role=assignment.verifier,
            status=outcome.status,
            output=outcome.output,
            reason=outcome.reason,
            usage=outcome.usage,
            reasoning=outcome.reasoning,
        )
    span.result(result.status, result.reason, result.usage)
    return result


async def _verdict(
    serving: Serving, delivery: Delivery, assigned: TaskAssigned, model: ChatModel | None, span: AgentSpan
) -> TaskVerdict:
    result = delivery.message
    if not isinstance(result, TaskResult):
        raise TypeError(f"a verifier judges results, not {type(result).__name__}")
    common = _envelope(result, delivery)
    if delivery.deliveries > MAX_DELIVERIES:
        evidence = f"not decided: {MAX_DELIVERIES} verifiers died over it"
        doubt = CriterionVerdict(criterion="verifier", holds=None, evidence=evidence)
        verdict = TaskVerdict(**common, verdict="uncertain", criteria=(doubt,))
    else:
        judgement = await judge_result(assigned, result, serving.agent, model, serving.settings, serving.tracing)
        verdict = TaskVerdict(**common, verdict=judgement.verdict, criteria=judgement.criteria, usage=judgement.usage)
    span.verdict(verdict.verdict, verdict.criteria, verdict.usage)
    return verdict


async def _assignment_of(bus: Bus, result: TaskResult) -> TaskAssigned | None:
    """Return the assignment that ``result`` claims to fulfil; None when the task has been assigned anew since."""
    entry = await bus.assignment_of(result)
    assigned = entry.message if entry else None
    return assigned if isinstance(assigned, TaskAssigned) and assigned.attempt == result.attempt else None


def _envelope(message: TaskAssigned | TaskResult, delivery: Delivery) -> dict[str, Any]:
    """Return the envelope of the answer to ``message``."""
    return {
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
