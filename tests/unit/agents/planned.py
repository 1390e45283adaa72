"""A job whose team file has no plan, or one that may be made anew: what its manager's model comes to is told here."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.unit.agents.managed import Managed
from tests.unit.protocol.story import NOW

from interlock.agents.manager import Planner, Stamp
from interlock.agents.proposer import ProposalOutcome
from interlock.protocol.commands import Command, Propose
from interlock.protocol.messages import (
    Envelope,
    JobSubmitted,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
)
from interlock.protocol.team import Step, Team

__all__ = ["Planned", "plan_step", "planned"]

_Kind = TypeVar("_Kind", bound=Envelope)

_AGENTS = {
    "w": {"kind": "worker"},
    "v": {"kind": "verifier"},
    "boss": {"kind": "manager"},
}


def plan_step(name: str, do: str = "x", **more: Any) -> Step:
    """Return a step as the model proposes it."""
    return Step.model_validate(
        {
            "step": name,
            "agent": "w",
            "do": do,
            "attempts": 1,
            "verify": {"by": "v", "criteria": [{"check": "words", "max": 9}]},
            **more,
        }
    )


@dataclass
class Planned(Managed):
    """Such a job. ``wanted`` is what the model is to be asked for now."""

    limits: dict[str, int] = field(default_factory=dict)
    approve: bool = False
    wanted: Propose | None = None

    def __post_init__(self) -> None:
        self.team = Team.model_validate(
            {
                "interlock": 1,
                "team": "t",
                "agents": _AGENTS,
                "inputs": {"list": {"type": "array"}, "lines": {"type": "string"}} if self.inputs else {},
                "plan": list(self.plan),
                "limits": {"parallel": 8, **self.limits},
            }
        )
        submitted = JobSubmitted(
            id="m0",
            ns="n",
            job="j",
            at=NOW,
            team=self.team,
            goal="g",
            inputs=self.inputs,
            budget=self.budget,
            deadline=self.deadline,
            approve_plan=self.approve,
        )
        self.planner = Planner(submitted)
        self.tell(submitted)

    def decide(self) -> tuple[Command, ...]:
        """Return what a manager would do now besides asking its model."""
        commands = super().decide()
        self.wanted = next((one for one in commands if isinstance(one, Propose)), None)
        return tuple(one for one in commands if not isinstance(one, Propose))

    def propose(self, *steps: Step, **outcome: Any) -> None:
        """Let the model come to a plan of ``steps``, or to what ``outcome`` says, and the manager go on from there."""
        self.tell(self.proposal(*steps, **outcome))
        self.go_on()

    def proposal(self, *steps: Step, **outcome: Any) -> PlanProposed:
        """Return the message of that."""
        assert self.wanted is not None, "nothing is to be proposed"
        stamp = Stamp(f"m{len(self.log)}", self.now)
        return self.planner.proposal(self.wanted, ProposalOutcome(steps=steps, **outcome), stamp)

    def reply(self, answer: str, note: str = "", *, question: str | None = None) -> None:
        """Let a person answer what the manager asks."""
        asked = self.asked_now.question if question is None else question
        common: dict[str, Any] = {"id": f"m{len(self.log)}", "ns": "n", "job": "j", "at": self.now}
        self.tell(QuestionAnswered(**common, answers=self.state.head, question=asked, answer=answer, note=note))
        self.go_on()

    @property
    def asked_now(self) -> QuestionAsked:
        """The question that the job waits with."""
        assert self.state.question is not None, "nothing is asked"
        return self.state.question.asked

    @property
    def rejected(self) -> list[tuple[str, ...]]:
        """The reasons of all rejections in the log."""
        return [one.message.reasons for one in self.log if isinstance(one.message, PlanRejected)]

    def last(self, kind: type[_Kind]) -> _Kind:
        """Return the newest message of a kind."""
        return next(one.message for one in reversed(self.log) if isinstance(one.message, kind))


def planned(**more: Any) -> Planned:
    """Return such a job, driven as far as its manager can."""
    story = Planned((), **more)
    story.go_on()
    return story
