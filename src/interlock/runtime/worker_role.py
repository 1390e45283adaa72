"""The worker's role: every assignment gets a result, or a question that it waits with."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from interlock.agents.recording import ModelRecorder, ToolWatcher, as_it_is
from interlock.agents.toolbox import NO_TOOLS, AttemptLost, AttemptSuspended
from interlock.agents.worker import WorkOutcome, execute
from interlock.backends.chat import ChatModel
from interlock.observability.tracing import AgentSpan, Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import (
    Exchange,
    JobSubmitted,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
)
from interlock.protocol.taint import begun, joined
from interlock.runtime.approvals import Answered, Pending
from interlock.runtime.budgets import metered, spent_of
from interlock.runtime.bus import Bus
from interlock.runtime.chain import Chain, patiently, take_over
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Delivery
from interlock.runtime.gateway import Acted, Gateway
from interlock.runtime.holding import HeldModel
from interlock.runtime.roles import RoleIncomplete, Serving
from interlock.runtime.told import Told
from interlock.runtime.workshop import Workshop, open_workshop

__all__ = ["WORKER_FAILED", "ResumptionLost", "recorded_so_far", "result_of", "serve_worker"]

WORKER_FAILED = "the worker failed: "
"""How the reason of a result begins that stands for an attempt which came to nothing that could be told."""

_DEFAULTS = {"approval": "no", "doubt": "unknown"}
_OPTIONS = {"approval": ("yes", "no"), "doubt": ("done", "not_done", "unknown")}


class ResumptionLost(LookupError):
    """An attempt is to go on after an answer, and the log does not have the question any more."""

    def __init__(self, task: str, sequence: int) -> None:
        self.task = task
        self.sequence = sequence
        super().__init__(f"task {task} is to go on after entry {sequence}, which is no answer to a question of it")


async def serve_worker(
    config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None], told: Told | None = None
) -> None:
    """Execute assignments of the configured role until cancelled or told to drain; call ``ready`` once it begins.

    :raises RoleIncomplete: the configuration names no agent, team or model
    :raises ModelError: it is not known where the model is
    :raises BusError: what no waiting will cure, such as missing permissions
    :raises interlock.agents.tools.tool.ToolError: a tool of the agent cannot be had
    """
    serving = Serving(config, bus, tracing, told)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(serving.model())
        if model is None:
            raise RoleIncomplete(config.name, "a model to think with")
        workshop = await stack.enter_async_context(open_workshop(config.tools, bus)) if config.tools else None
        worker = _Worker(serving, model, workshop)
        await serving.serve("assigned", worker.work, ready)


@dataclass(frozen=True, slots=True)
class _Worker:
    serving: Serving
    model: ChatModel
    workshop: Workshop | None

    async def work(self, delivery: Delivery) -> None:
        assignment = delivery.message
        if not isinstance(assignment, TaskAssigned):
            return
        chain: Chain | None = Chain(self.serving.bus, assignment, delivery.seq)
        if delivery.is_again or assignment.grant.tools:
            chain = await patiently(partial(take_over, self.serving.bus, assignment, delivery.seq))
        if chain is None:
            return
        with self.serving.span(delivery, assignment, assignment.step) as span:
            think, excuse = partial(self._answer, delivery, chain, span), partial(self._no_result, chain, span)
            await self.serving.respond(delivery, span, think, excuse)

    async def _answer(self, delivery: Delivery, chain: Chain, span: AgentSpan) -> TaskResult | QuestionAsked | None:
        """Return the result of an attempt, or what it has to ask first; None where it was taken away.

        Then its message is not acknowledged: whoever has it now may still need it, and what an order stopped goes on
        when the order is lifted.
        """
        try:
            if self.workshop is None or not chain.assignment.grant.tools:
                return await self._result(delivery, chain, span, None, None)
            resumed = await _resumed(chain)
            gateway = await self._gateway(self.workshop, chain, resumed)
            return await self._result(delivery, chain, span, gateway, resumed)
        except AttemptLost as lost:
            span.result("lost", lost.reason)
            await delivery.leave()
            return None

    async def _gateway(self, workshop: Workshop, chain: Chain, resumed: Answered | None) -> Gateway:
        assignment = chain.assignment
        submitted = await workshop.job(assignment.job)
        acted = _kept(resumed, "acting")
        begins = Acted(provenance=begun(_said(submitted), assignment.instruction, assignment.taint))
        return Gateway(
            workshop.authority(submitted, assignment, self.serving.agent_name),
            chain,
            begins if acted is None else Acted.model_validate(acted),
            workshop.outside(submitted, assignment, self.serving.agent_name),
            self.serving.tracing,
            resumed,
        )

    async def _result(
        self, delivery: Delivery, chain: Chain, span: AgentSpan, gateway: Gateway | None, resumed: Answered | None
    ) -> TaskResult | QuestionAsked:
        serving, assignment = self.serving, chain.assignment
        hidden = gateway.hidden if gateway else as_it_is
        meter = serving.budgets.meter(assignment.allowances, serving.settings.timeout)
        asked = HeldModel(metered(self.model, meter), chain, delivery)
        model = ModelRecorder(asked, _exchanges(resumed), hidden)
        toolbox = ToolWatcher(gateway or NO_TOOLS, _seen(resumed))
        talk = _kept(resumed, "thinking")
        try:
            outcome = await execute(assignment, serving.agent, model, serving.settings, serving.tracing, toolbox, talk)
        except AttemptSuspended as suspended:
            if gateway is None or self.workshop is None or not isinstance(suspended.question, Pending):
                raise
            limits = (await self.workshop.job(assignment.job)).team.limits
            kept: dict[str, Json] = {
                "thinking": suspended.transcript,
                "acting": gateway.acted.model_dump(mode="json"),
                **recorded_so_far(model, toolbox),
            }
            return _question(chain, suspended.question, hidden(kept), limits.question_seconds)
        labels = gateway.provenance.labels if gateway else assignment.taint
        result = result_of(outcome, chain.envelope(), assignment, model, toolbox, labels, hidden)
        span.result(result.status, result.reason, result.usage)
        return result

    def _no_result(self, chain: Chain, span: AgentSpan, reason: str, poison: bool) -> TaskResult:
        """Return what is said where an attempt has no result; what its tools returned may stand in the reason."""
        granted = {grant.tool for grant in chain.assignment.grant.tools}
        specs = self.workshop.catalogue if self.workshop else ()
        seen = (f"tool {spec.name}" for spec in specs if spec.name in granted and spec.outside)
        result = TaskResult(
            **chain.envelope(),
            by=chain.by,
            role=chain.assignment.verifier,
            status="gave_up",
            reason=f"{WORKER_FAILED}{reason}",
            poison=poison,
            taint=joined(chain.assignment.taint, seen),
        )
        span.result(result.status, result.reason, result.usage)
        return result


def result_of(
    outcome: WorkOutcome,
    envelope: Mapping[str, Any],
    assignment: TaskAssigned,
    model: ModelRecorder,
    toolbox: ToolWatcher,
    taint: Sequence[str] = (),
    hidden: Callable[[Json], Json] = as_it_is,
) -> TaskResult:
    """Return what the log is told of an attempt that came to ``outcome``.

    :param hidden: returns a value without the secrets in it
    """
    return TaskResult(
        **envelope,
        by=assignment.role,
        role=assignment.verifier,
        status=outcome.status,
        output=hidden(outcome.output),
        reason=str(hidden(outcome.reason)),
        actions=outcome.actions,
        usage=outcome.usage,
        reasoning=str(hidden(outcome.reasoning)),
        taint=tuple(taint),
        exchanges=model.exchanges,
        seen=toolbox.seen,
        **spent_of(model),
    )


def recorded_so_far(model: ModelRecorder, toolbox: ToolWatcher) -> dict[str, Json]:
    """Return what an attempt that waits for a person leaves behind of its recording, as parts of its transcript."""
    return {
        "exchanges": [one.model_dump(mode="json", exclude_defaults=True) for one in model.exchanges],
        "seen": list(toolbox.seen),
    }


def _exchanges(resumed: Answered | None) -> tuple[Exchange, ...]:
    kept = _kept(resumed, "exchanges")
    return tuple(Exchange.model_validate(one) for one in kept) if isinstance(kept, list) else ()


def _seen(resumed: Answered | None) -> tuple[str, ...]:
    kept = _kept(resumed, "seen")
    return tuple(map(str, kept)) if isinstance(kept, list) else ()


def _said(submitted: JobSubmitted) -> str:
    """Return the goal where a person wrote it, and not a team around the job's own out of text from outside."""
    return "" if submitted.taint else submitted.goal


def _kept(resumed: Answered | None, part: str) -> Json:
    """Return a part of what the attempt left behind with its question, such as its thinking; None where it begins."""
    kept = resumed.asked.transcript if resumed else None
    return kept.get(part) if isinstance(kept, dict) else None


def _question(chain: Chain, pending: Pending, transcript: Json, seconds: float) -> QuestionAsked:
    """Return the question that the attempt waits with: any process can go on from it."""
    envelope: dict[str, Any] = chain.envelope()
    return QuestionAsked(
        **envelope,
        by=chain.by,
        question=f"q-{envelope['id'][:8]}",
        text=pending.text,
        about=pending.about,
        options=_OPTIONS[pending.about],
        default=_DEFAULTS[pending.about],
        expires=datetime.now(UTC) + timedelta(seconds=seconds),
        approval=pending.approval,
        key=pending.key,
        transcript=transcript,
    )


async def _resumed(chain: Chain) -> Answered | None:
    """Return the question and the answer after which an attempt goes on; None for one that begins.

    :raises ResumptionLost: the log does not have them
    """
    assignment = chain.assignment
    if not assignment.resumes:
        return None
    answer = (await patiently(partial(chain.bus.get, assignment.resumes))).message
    if isinstance(answer, QuestionAnswered) and answer.task == assignment.task:
        asked = (await patiently(partial(chain.bus.get, answer.answers))).message
        if isinstance(asked, QuestionAsked) and asked.question == answer.question:
            return Answered(asked, answer)
    raise ResumptionLost(assignment.task, assignment.resumes)
