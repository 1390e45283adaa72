"""The model that a job's manager plans with: opened when a plan is wanted, closed when it is there.

What asking a model takes is imported then, and in a thread: a manager that never plans never pays for it, and one that
does keeps its other jobs going meanwhile.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module

import anyio
import anyio.to_thread

from interlock.agents.proposer import ProposalOutcome, Proposer
from interlock.observability.attributes import HEADER_ROOT
from interlock.observability.context import job_traceparent
from interlock.observability.tracing import Tracing, Work
from interlock.protocol.budgets import allowances_of
from interlock.protocol.commands import Propose
from interlock.protocol.messages import JOB_TASK, JobSubmitted
from interlock.protocol.planning import manager_role
from interlock.protocol.state import JobState
from interlock.runtime.budgets import Budgets
from interlock.runtime.bus import Bus
from interlock.runtime.proposing import Proposers

__all__ = ["proposers_of"]

_CLOSING = 1.0
"""Seconds that the connections to the model have to be closed."""


def proposers_of(bus: Bus, tracing: Tracing) -> Proposers:
    """Return what asks the models of managers; where those are, the team and the environment say.

    Opening one raises ``interlock.backends.errors.ModelError`` where it is not known where the model is.
    """
    budgets = Budgets(bus.counters)

    def proposers(submitted: JobSubmitted) -> AbstractAsyncContextManager[Proposer]:
        return _opened(submitted, budgets, tracing)

    return proposers


@asynccontextmanager
async def _opened(submitted: JobSubmitted, budgets: Budgets, tracing: Tracing) -> AsyncIterator[Proposer]:
    await anyio.to_thread.run_sync(_import, abandon_on_cancel=True)
    from interlock.agents.planning import ModelProposer, manager_of  # noqa: PLC0415 -- few managers plan
    from interlock.backends.engines import open_chat, resolve_endpoint  # noqa: PLC0415 -- as above

    _, settings = manager_of(submitted.team)
    model = open_chat(resolve_endpoint(settings))
    meter = budgets.meter(allowances_of(submitted), settings.timeout)
    try:
        yield _Traced(ModelProposer(model, settings, tracing, meter), tracing)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING):
            await model.aclose()


def _import() -> None:
    for name in ("interlock.agents.planning", "interlock.backends.openai_client"):
        import_module(name)


@dataclass(frozen=True, slots=True)
class _Traced:
    """A proposer whose work is a span of the job's trace."""

    proposer: Proposer
    tracing: Tracing

    async def propose(self, state: JobState, command: Propose) -> ProposalOutcome:
        submitted = state.submitted
        if submitted is None:
            return await self.proposer.propose(state, command)
        agent, _, team = manager_role(submitted.team).partition("@")
        work = Work(agent=agent, kind="manager", team=team, job=submitted.job, task=JOB_TASK, attempt=command.tries + 1)
        root = self.tracing.job_root({HEADER_ROOT: state.origin} if state.origin else None, submitted.job)
        with self.tracing.invoke_agent(work, parent=job_traceparent(root, submitted.job)) as span:
            outcome = await self.proposer.propose(state, command)
            span.result("unreadable" if outcome.unreadable else outcome.makes, outcome.unreadable, outcome.usage)
        return outcome
