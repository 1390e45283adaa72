"""The worker's role: every assignment gets a result."""

from collections.abc import Callable
from functools import partial

from interlock.agents.worker import execute
from interlock.backends.chat import ChatModel
from interlock.observability.tracing import AgentSpan, Tracing
from interlock.protocol.messages import TaskAssigned, TaskResult
from interlock.runtime.bus import Bus
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Delivery
from interlock.runtime.roles import RoleIncomplete, Serving, answering

__all__ = ["serve_worker"]


async def serve_worker(config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None]) -> None:
    """Execute assignments of the configured role until cancelled; call ``ready`` once it begins.

    :raises RoleIncomplete: the configuration names no agent, team or model
    :raises ModelError: it is not known where the model is
    :raises BusError: what no waiting will cure, such as missing permissions
    """
    serving = Serving(config, bus, tracing)
    async with serving.model() as model:
        if model is None:
            raise RoleIncomplete(config.name, "a model to think with")

        async def work(delivery: Delivery) -> None:
            assignment = delivery.message
            if isinstance(assignment, TaskAssigned) and not await serving.overtaken(delivery):
                with serving.span(delivery, assignment, assignment.step) as span:
                    await serving.respond(
                        delivery,
                        span,
                        partial(_result, serving, delivery, assignment, model, span),
                        partial(_no_result, serving, delivery, assignment, span),
                    )

        await serving.serve("assigned", work, ready)


async def _result(
    serving: Serving, delivery: Delivery, assignment: TaskAssigned, model: ChatModel, span: AgentSpan
) -> TaskResult:
    outcome = await execute(assignment, serving.agent, model, serving.settings, serving.tracing)
    result = TaskResult(
        **answering(assignment, delivery),
        by=serving.role,
        role=assignment.verifier,
        status=outcome.status,
        output=outcome.output,
        reason=outcome.reason,
        usage=outcome.usage,
        reasoning=outcome.reasoning,
    )
    span.result(result.status, result.reason, result.usage)
    return result


def _no_result(
    serving: Serving, delivery: Delivery, assignment: TaskAssigned, span: AgentSpan, reason: str
) -> TaskResult:
    result = TaskResult(
        **answering(assignment, delivery),
        by=serving.role,
        role=assignment.verifier,
        status="gave_up",
        reason=f"the worker failed: {reason}",
    )
    span.result(result.status, result.reason, result.usage)
    return result
