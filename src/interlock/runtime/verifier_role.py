"""The verifier's role: every result gets a verdict, which is a pass only where everything was found to hold."""

from collections.abc import Callable
from functools import partial

from interlock.agents.verifier import judge_result
from interlock.backends.chat import ChatModel
from interlock.observability.tracing import AgentSpan, Tracing
from interlock.protocol.messages import CriterionVerdict, TaskAssigned, TaskResult, TaskVerdict
from interlock.runtime.bus import Bus
from interlock.runtime.chain import patiently
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Delivery
from interlock.runtime.roles import Serving, answering

__all__ = ["serve_verifier"]


async def serve_verifier(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None]) -> None:
    """Judge results addressed to the configured role until cancelled; call ``ready`` once it begins.

    :raises RoleIncomplete: the configuration names no agent or team
    :raises ModelError: it is not known where the judge's model is
    :raises BusError: what no waiting will cure, such as missing permissions
    """
    serving = Serving(config, bus, tracing)
    async with serving.model() as model:

        async def verify(delivery: Delivery) -> None:
            result = delivery.message
            if not isinstance(result, TaskResult) or await serving.overtaken(delivery):
                return
            # The criteria come from the log, never from the worker that is to be judged by them.
            assigned = await patiently(partial(_assignment_of, bus, result))
            if assigned is None:  # the task has been assigned anew since: a verdict would be refused
                return
            with serving.span(delivery, result, assigned.step) as span:
                await serving.respond(
                    delivery,
                    span,
                    partial(_verdict, serving, delivery, assigned, result, model, span),
                    partial(_no_verdict, serving, delivery, result, span),
                )

        await serving.serve("result", verify, ready)


async def _assignment_of(bus: Bus, result: TaskResult) -> TaskAssigned | None:
    """Return the assignment that ``result`` claims to fulfil; None when the task has been assigned anew since."""
    entry = await bus.assignment_of(result)
    assigned = entry.message if entry else None
    return assigned if isinstance(assigned, TaskAssigned) and assigned.attempt == result.attempt else None


async def _verdict(
    serving: Serving,
    delivery: Delivery,
    assigned: TaskAssigned,
    result: TaskResult,
    model: ChatModel | None,
    span: AgentSpan,
) -> TaskVerdict:
    found = await judge_result(assigned, result, serving.agent, model, serving.settings, serving.tracing)
    verdict = TaskVerdict(
        **answering(result, delivery),
        by=serving.role,
        verdict=found.verdict,
        criteria=found.criteria,
        usage=found.usage,
    )
    span.verdict(verdict.verdict, verdict.criteria, verdict.usage)
    return verdict


def _no_verdict(serving: Serving, delivery: Delivery, result: TaskResult, span: AgentSpan, reason: str) -> TaskVerdict:
    doubt = CriterionVerdict(criterion="verifier", holds=None, evidence=f"not decided, the verifier failed: {reason}")
    verdict = TaskVerdict(**answering(result, delivery), by=serving.role, verdict="uncertain", criteria=(doubt,))
    span.verdict(verdict.verdict, verdict.criteria, verdict.usage)
    return verdict
