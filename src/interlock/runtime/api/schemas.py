"""What crosses the wire of the HTTP API, besides reports, questions and events: the bodies of requests and answers."""

from typing import Literal

from pydantic import AwareDatetime, Field

from interlock.protocol.base import Json, Name, Strict
from interlock.protocol.control import Scope
from interlock.protocol.items import Priority
from interlock.protocol.messages import JobStatus
from interlock.protocol.team import Autonomy, Budget, InputType
from interlock.runtime.questions import KnownQuestion

__all__ = [
    "AnswerRequest",
    "Health",
    "JobAccepted",
    "JobPage",
    "JobRequest",
    "JobSummary",
    "KillRequest",
    "OrderReport",
    "QuestionList",
    "Readiness",
    "ReasonRequest",
    "ResumeRequest",
    "TeamAgent",
    "TeamInput",
    "TeamList",
    "TeamSummary",
]

_Reason = Field(default="", max_length=1000)


class JobRequest(Strict):
    """A goal for a team."""

    team: Name
    goal: str = Field(default="", max_length=100_000)
    """Left out: the team's description."""
    inputs: dict[Name, Json] = Field(default_factory=dict[str, Json])
    """Values for the team's inputs. ``files`` takes a list of ``{path, name, text}``, ``jsonl`` a list: the server
    reads no path that a request names."""
    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The job's id; sending the same again gives the same job. Left out: a new one."""
    autonomy: Autonomy | None = None
    """Left out: the team's."""
    budget: Budget | None = None
    """What the job may use up, where the team does not allow less."""
    priority: Priority = "normal"
    approve_plan: bool = False
    """Whether a person is asked before a plan that the manager made is followed."""


class JobAccepted(Strict):
    """A job that is in the log."""

    job_id: str
    team: str


class JobSummary(Strict):
    """One job of a list."""

    job_id: str
    team: str
    goal: str
    """At most its first 500 characters."""
    status: JobStatus | Literal["running"]
    reason: str
    parent: str | None
    """The job that it is a part of."""
    submitted: AwareDatetime
    ended: AwareDatetime | None


class JobPage(Strict):
    """Jobs, newest first."""

    jobs: tuple[JobSummary, ...]
    next: int | None
    """The ``before`` of the page after this one; null: there is none."""


class ReasonRequest(Strict):
    """Why something is killed."""

    reason: str = _Reason


class KillRequest(Strict):
    """What is to be killed."""

    scope: Scope
    reason: str = _Reason


class ResumeRequest(Strict):
    """What is to be resumed."""

    scope: Scope


class OrderReport(Strict):
    """An order that stands from now on."""

    epoch: int
    """A number that only rises."""
    stop: bool
    """True: killed; false: resumed."""
    scope: Scope
    reason: str
    at: AwareDatetime


class QuestionList(Strict):
    """The questions of a job, oldest first."""

    questions: tuple[KnownQuestion, ...]


class AnswerRequest(Strict):
    """What a person says to a question."""

    answer: str = Field(min_length=1, max_length=100_000)
    """One of the question's options, where it has any."""
    note: str = Field(default="", max_length=10_000)
    """For the agent to read."""


class TeamInput(Strict):
    """An input of a team."""

    type: InputType
    description: str
    required: bool


class TeamAgent(Strict):
    """An agent of a team."""

    kind: str
    description: str


class TeamSummary(Strict):
    """A team that was brought up."""

    team: str
    description: str
    inputs: dict[str, TeamInput]
    agents: dict[str, TeamAgent]
    plans: bool
    """Whether its manager plans from the goal."""
    up: bool
    """Whether agents of it are there now; where not, its jobs wait for them."""


class TeamList(Strict):
    """The teams that were brought up, by name."""

    teams: tuple[TeamSummary, ...]


class Health(Strict):
    """The server lives."""

    status: Literal["ok"] = "ok"


class Readiness(Strict):
    """Whether jobs are being worked on."""

    ready: bool
    broker: bool
    """Whether the broker answers."""
    manager: bool
    """Whether a manager is there."""
