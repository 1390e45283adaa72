"""The verifier's role: every result gets a verdict, which is a pass only where everything was found to hold."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from interlock.agents.recording import ModelRecorder
from interlock.agents.verifier import Judgement, judge_result
from interlock.backends.chat import ChatModel
from interlock.observability.tracing import AgentSpan, Tracing
from interlock.protocol.base import Role
from interlock.protocol.messages import CriterionVerdict, TaskAssigned, TaskResult, TaskVerdict
from interlock.runtime.budgets import metered, spent_of
from interlock.runtime.bus import Bus
from interlock.runtime.chain import patiently
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Delivery
from interlock.runtime.roles import Serving, answering
from interlock.runtime.told import Told

__all__ = ["VERIFIER_FAILED", "serve_verifier", "verdict_of"]

VERIFIER_FAILED = "not decided, the verifier failed: "
"""How the evidence begins of a verdict that stands for a judgement which came to nothing."""


async def serve_verifier(
    config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None], told: Told | None = None
) -> None:
    """Judge results addressed to the configured role until cancelled or told to drain; call ``ready`` once it begins.

    :raises RoleIncomplete: the configuration names no agent or team
    :raises ModelError: it is not known where the judge's model is
    :raises BusError: what no waiting will cure, such as missing permissions
    """
    serving = Serving(config, bus, tracing, told)
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
    meter = serving.budgets.meter(assigned.allowances, serving.settings.timeout)
    recorder = ModelRecorder(metered(model, meter)) if model is not None else None
    found = await judge_result(assigned, result, serving.agent, recorder, serving.settings, serving.tracing)
    verdict = verdict_of(found, answering(result, delivery), serving.role, recorder)
    span.verdict(verdict.verdict, verdict.criteria, verdict.usage)
    return verdict


def verdict_of(found: Judgement, envelope: Mapping[str, Any], by: Role, model: ModelRecorder | None) -> TaskVerdict:
    """Return what the log is told of a judgement; ``model`` is what was asked for it, if anything was."""
    return TaskVerdict(
        **envelope,
        by=by,
        verdict=found.verdict,
        criteria=found.criteria,
        usage=found.usage,
        exchanges=model.exchanges if model is not None else (),
        **spent_of(model),
    )


def _no_verdict(
    serving: Serving, delivery: Delivery, result: TaskResult, span: AgentSpan, reason: str, _: object
) -> TaskVerdict:
    doubt = CriterionVerdict(criterion="verifier", holds=None, evidence=f"{VERIFIER_FAILED}{reason}")
    verdict = TaskVerdict(**answering(result, delivery), by=serving.role, verdict="uncertain", criteria=(doubt,))
    span.verdict(verdict.verdict, verdict.criteria, verdict.usage)
    return verdict
