"""What a manager can do next, as plain data. Each command names the head of the chain that it continues."""

from dataclasses import dataclass

from interlock.protocol.base import Json
from interlock.protocol.messages import AttemptSummary, Feedback, JobStatus, TaskOutcome
from interlock.protocol.team import Step

__all__ = [
    "NO",
    "AcceptPlan",
    "AnswerByDefault",
    "Assign",
    "CloseJob",
    "CloseTask",
    "Command",
    "ExpandStep",
    "JudgeProposal",
    "Propose",
    "Written",
]

NO = "no"
"""The answer that a question without a default is given when its time is over."""


@dataclass(frozen=True, slots=True)
class AcceptPlan:
    """Make the team's plan the job's."""

    answers: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the manager's model for a plan, or for a new version of one. It takes long, and is carried out aside."""

    answers: int
    version: int
    """Of the plan that is asked for: one more than that of the plan which the job follows."""
    tries: int = 0
    """How many proposals for this version were rejected."""
    reasons: tuple[str, ...] = ()
    """Why the last of them was rejected; empty: none was."""
    why: str = ""
    """What came of the plan that the job followed until now; empty with the first version."""


@dataclass(frozen=True, slots=True)
class JudgeProposal:
    """Accept or reject what was proposed, or ask a person about it."""

    answers: int
    version: int
    approved: bool = False
    """Whether a person has said yes to it."""


@dataclass(frozen=True, slots=True)
class ExpandStep:
    """Count the items of a ``for_each`` step, or record that it has none because it is blocked."""

    step: str
    answers: int
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Assign:
    """Give one attempt of a task to an agent."""

    task: str
    step: Step
    index: int | None
    attempt: int
    agent: str
    answers: int
    feedback: tuple[Feedback, ...] = ()
    earlier: AttemptSummary | None = None
    replaces: str | None = None
    """Traceparent of the attempt that this one redoes."""
    resumes: int = 0
    """The answer after which the attempt goes on; 0: it begins."""


@dataclass(frozen=True, slots=True)
class CloseTask:
    """End a task's chain."""

    task: str
    attempt: int
    answers: int
    outcome: TaskOutcome
    stands: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloseJob:
    """End the job."""

    answers: int
    status: JobStatus
    reason: str = ""
    answer: Json = None
    """The result where no step has made it: the manager's own answer."""


@dataclass(frozen=True, slots=True)
class AnswerByDefault:
    """Answer a question that nobody answered in time."""

    task: str
    attempt: int
    answers: int
    question: str
    answer: str


Written = AcceptPlan | JudgeProposal | ExpandStep | Assign | AnswerByDefault | CloseTask | CloseJob
"""What becomes a message at once."""

Command = Written | Propose
