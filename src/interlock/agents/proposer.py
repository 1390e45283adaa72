"""The seam between a manager that needs a plan and the model that makes one."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from interlock.protocol.base import Usage
from interlock.protocol.commands import Propose
from interlock.protocol.messages import Exchange
from interlock.protocol.state import JobState
from interlock.protocol.team import Step

__all__ = ["ProposalOutcome", "Proposer"]


@dataclass(frozen=True, slots=True)
class ProposalOutcome:
    """What came of asking the manager's model; the fields are those of ``PlanProposed``, which says what they mean."""

    makes: Literal["plan", "answer", "question", "refusal"] = "plan"
    steps: tuple[Step, ...] = ()
    text: str = ""
    unreadable: str = ""
    usage: Usage = field(default_factory=Usage)
    exchanges: tuple[Exchange, ...] = ()
    spent: str = ""


class Proposer(Protocol):
    """Asks the model of one job's manager. It keeps nothing between two proposals: all is in the state."""

    async def propose(self, state: JobState, command: Propose) -> ProposalOutcome:
        """Return what the model makes of the goal of the job in ``state``.

        What it was told before it finds there: ``state.answers`` are the person's, ``state.steps`` the plan followed
        until now, ``command.reasons`` why the last proposal was rejected, ``command.why`` what came of that plan.
        It is cancelled when the answer is not wanted any more, which must end the call of the model.
        """
        ...
