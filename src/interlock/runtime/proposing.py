"""The one call of a manager's model that a job may have under way, beside the loop that keeps the job going.

It ends at once when its answer is not wanted any more: because the job has moved on, was killed or is out of time.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from interlock.agents.proposer import ProposalOutcome, Proposer
from interlock.backends.errors import ModelError
from interlock.protocol.commands import Propose
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState

__all__ = ["Proposal", "Proposers", "Proposing"]

_log = logging.getLogger(__name__)

Proposers: TypeAlias = Callable[[JobSubmitted], AbstractAsyncContextManager[Proposer]]
"""Opens what asks the model of a job's manager."""


@dataclass(slots=True)
class Proposal:
    """A call of the manager's model, and what came of it once it is over."""

    command: Propose
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    outcome: ProposalOutcome | None = None


class Proposing:
    """Asks the manager's model of one job."""

    def __init__(self, proposers: Proposers | None, done: Callable[[], None]) -> None:
        """Ask through ``proposers``; ``done`` is called when an answer is there to be taken."""
        self._proposers, self._done = proposers, done
        self._under_way: Proposal | None = None

    def want(self, command: Propose | None, state: JobState, group: TaskGroup) -> None:
        """Have the model asked for ``command`` and nothing else; None: for nothing."""
        if self._under_way is not None and self._under_way.command == command:
            return
        self.drop()
        if command is None or state.submitted is None:
            return
        if self._proposers is None:
            _log.error("job %s needs a plan, and nobody here can make one", state.submitted.job)
            return
        self._under_way = proposal = Proposal(command)
        group.start_soon(self._ask, self._proposers, proposal, state, state.submitted)

    def drop(self) -> None:
        """End the call that is under way, if one is, and forget what came of it."""
        if self._under_way is not None:
            self._under_way.scope.cancel()
            self._under_way = None

    def answered(self) -> tuple[Propose, ProposalOutcome] | None:
        """Return the command that was asked for and what came of it, as long as nothing else was wanted."""
        proposal = self._under_way
        return None if proposal is None or proposal.outcome is None else (proposal.command, proposal.outcome)

    async def _ask(self, proposers: Proposers, proposal: Proposal, state: JobState, submitted: JobSubmitted) -> None:
        _log.info("job %s: asking for version %d of its plan", submitted.job, proposal.command.version)
        with proposal.scope:
            try:
                async with proposers(submitted) as proposer:
                    proposal.outcome = await proposer.propose(state, proposal.command)
            except ModelError as error:
                proposal.outcome = ProposalOutcome(unreadable=f"the manager's model gave no answer: {error}")
            self._done()
