"""The messages that agents exchange: frozen models, one per kind, each carrying its envelope.

Who sent a message is what the broker authenticated, never a field in here. Trace context and the message id for
deduplication ride in the broker's headers.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from interlock.protocol.base import Json, Name, Role, Strict, Usage
from interlock.protocol.criteria import Criterion
from interlock.protocol.items import Priority, StoredItems
from interlock.protocol.permissions import Permissions
from interlock.protocol.principles import Principle
from interlock.protocol.team import Autonomy, Budget, Step, Team
from interlock.protocol.tools import EffectClass, ToolGrant, ToolName, ToolSpec

__all__ = [
    "JOB_TASK",
    "MESSAGE_TYPES",
    "VERSION",
    "ActionTaken",
    "Allowance",
    "Approval",
    "AttemptSummary",
    "Bounds",
    "CriterionVerdict",
    "EffectDone",
    "EffectInDoubt",
    "EffectIntended",
    "Envelope",
    "Exchange",
    "Feedback",
    "Grant",
    "JobClosed",
    "JobRetried",
    "JobStatus",
    "JobSubmitted",
    "Message",
    "PlanAccepted",
    "PlanExpanded",
    "PlanProposed",
    "PlanRejected",
    "QuestionAnswered",
    "QuestionAsked",
    "TaskAssigned",
    "TaskClosed",
    "TaskOutcome",
    "TaskResult",
    "TaskVerdict",
    "Token",
    "Verdict",
]

VERSION: Literal[2] = 2
"""The version of the message schema; it rises when a reader of the previous one would refuse what is written.
``protocol.versions`` says what is new in each."""

JOB_TASK = "_"
"""The task token of a job's own chain."""

JobStatus = Literal["succeeded", "partial", "failed", "killed"]
TaskOutcome = Literal["accepted", "failed", "cancelled"]
Verdict = Literal["pass", "fail", "uncertain"]

Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-]{1,128}$")]
"""One token of a subject."""


class Envelope(Strict):
    """What every message carries."""

    v: Literal[1, 2] = VERSION
    id: Token
    """Unique: the broker drops a second message with the same id."""
    ns: Name
    job: Token
    task: Token = JOB_TASK
    attempt: int = Field(default=0, ge=0)
    """The attempt that this is about, from 1; 0 where there is none."""
    answers: int = Field(default=0, ge=0)
    """Stream sequence of the message that this one answers: the head of the task's chain; 0 starts a chain."""
    at: AwareDatetime
    """When the sender made the message, by the sender's clock."""
    deadline: AwareDatetime | None = None
    """When the job must be over."""
    epoch: int = Field(default=0, ge=0)
    """The kill epoch that the sender acts under."""


class ActionTaken(Strict):
    """One tool call of an attempt."""

    tool: str
    arguments: Json
    outcome: str
    """``done``, ``reused`` (an earlier attempt did it), ``suggested``, ``refused``, ``failed`` or ``in_doubt``, and
    then, after a colon, in words."""
    key: Token | None = None
    """Idempotency key; None for what changes nothing outside."""


class Grant(Strict):
    """What an assignment lets its attempt use."""

    tools: tuple[ToolGrant, ...] = ()
    tokens: int | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)
    seconds: float = Field(gt=0)
    """How long the attempt may take once begun."""
    actions: int = Field(default=50, ge=0)
    """The most tool calls of one attempt."""
    autonomy: Autonomy = "bounded"
    """How much the attempt may do without a person."""
    permissions: Permissions = Permissions()
    """The step's own rules, besides those of its agent, its team and the operator."""


class CriterionVerdict(Strict):
    """Whether one criterion holds, and what shows it."""

    criterion: str
    """The criterion's label."""
    holds: bool | None
    """None: it could not be decided, which is never a pass."""
    evidence: str
    """What was found, in words a person and a model can act on."""
    change: str = ""
    """What to do differently; empty where the criterion holds."""


class Feedback(Strict):
    """Why an earlier attempt was not accepted."""

    attempt: int = Field(ge=1)
    criteria: tuple[CriterionVerdict, ...]
    """Only those that do not hold or could not be decided."""


class AttemptSummary(Strict):
    """What an earlier attempt came to."""

    attempt: int = Field(ge=1)
    output: Json = None
    reason: str = ""


class Exchange(Strict):
    """One request to a model that was answered."""

    request: str
    """SHA-256 over the digests of the parts of what was asked, each in canonical JSON, secrets hidden."""
    parts: tuple[str, ...] = ()
    """How these digests begin: of the settings, the schema, the tools, and each message."""
    reply: Json
    """What the model answered, secrets hidden: content, finish_reason, model, usage and tool_calls; or an error, or
    that the attempt was cut off."""


class Bounds(Strict):
    """What a team lays down for the jobs of the teams within it."""

    team: Name
    agent: Name | None = None
    """Its agent that the job does the work of."""
    permissions: tuple[Permissions, ...] = ()
    """Layers of rules: its own, its agent's, the step's. Each only narrows."""
    principles: tuple[Principle, ...] = ()
    base: str = "/"
    """The absolute folder that relative patterns of these rules count from."""


class Allowance(Strict):
    """What a job, or a step of it, may use up, all jobs below it included: counted before each request to a model."""

    job: Token
    step: Name | None = None
    """None: it is the whole job's."""
    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)


class JobSubmitted(Envelope):
    """A client gives a goal to a team. Starts the job's chain."""

    kind: Literal["job.submitted"] = "job.submitted"
    team: Team
    """The team as it was when the job was submitted; its file sources are read and replaced by their items."""
    goal: str
    inputs: dict[Name, Json] = {}
    budget: Budget = Budget()
    autonomy: Autonomy = "bounded"
    parent: Token | None = None
    """The job that this one is a part of."""
    tools: tuple[ToolSpec, ...] = ()
    """What the team's tools are."""
    base: str = "/"
    """The absolute folder of the team file, which relative patterns of its rules count from."""
    items: dict[Name, StoredItems] = {}
    """By step: the items of a ``for_each`` over files or JSON lines that are too many to stand in the team."""
    stored: dict[Name, StoredItems] = {}
    """By input: values that are lists too long to stand in ``inputs``, where they are left out."""
    priority: Priority = "normal"
    bounds: tuple[Bounds, ...] = ()
    """What the teams around this one lay down for it, outermost first."""
    taint: tuple[str, ...] = ()
    """Where the text from outside comes from that went into its goal and inputs, where a team around this one made them
    out of such text."""
    approve_plan: bool = False
    """Whether a person is asked before a plan that the manager made is followed."""
    allowances: tuple[Allowance, ...] = ()
    """Those of the task that the job does the work of: the jobs and steps around this one pay for what it uses."""


class PlanProposed(Envelope):
    """What the manager's model makes of the goal."""

    kind: Literal["plan.proposed"] = "plan.proposed"
    version: int = Field(ge=1)
    makes: Literal["plan", "answer", "question", "refusal"] = "plan"
    """A plan; the answer itself where no work is needed; something that a person has to say first; or that no agent of
    the team can do it."""
    steps: tuple[Step, ...] = ()
    """With ``plan``."""
    text: str = ""
    """The answer, the question, or what cannot be done and why; with ``plan`` what changed and why, if it is not the
    first."""
    unreadable: str = ""
    """Why what the model wrote is none of these; then nothing else says anything."""
    usage: Usage = Usage()
    exchanges: tuple[Exchange, ...] = ()
    """What the manager asked its model and was answered, in order."""
    spent: str = ""
    """Which budget of the job ran out meanwhile, in words; then it proposes nothing."""


class PlanAccepted(Envelope):
    """The steps that the job follows from here on."""

    kind: Literal["plan.accepted"] = "plan.accepted"
    version: int = Field(ge=1)
    steps: tuple[Step, ...] = Field(min_length=1)
    """With every need written out."""
    result_steps: tuple[Name, ...] = Field(min_length=1)
    """The steps that the job's result is made of."""


class PlanRejected(Envelope):
    """A proposed plan must not run."""

    kind: Literal["plan.rejected"] = "plan.rejected"
    version: int = Field(ge=1)
    reasons: tuple[str, ...] = Field(min_length=1)


class PlanExpanded(Envelope):
    """How many tasks a ``for_each`` step has, or that a step cannot run at all. In the job's chain."""

    kind: Literal["plan.expanded"] = "plan.expanded"
    step: Name
    items: int = Field(ge=0)
    reason: str = ""
    """Why the step has no tasks, where that is not simply an empty list."""
    stored: StoredItems | None = None
    """The items themselves, where they were worked out from a template and are too many to be worked out again."""


class TaskAssigned(Envelope):
    """One attempt is given to the workers of a role."""

    kind: Literal["task.assigned"] = "task.assigned"
    step: Name
    index: int | None = Field(default=None, ge=0)
    """Position of the task's item in its ``for_each`` list, from 0; None for a step without one."""
    label: str = Field(default="", max_length=200)
    """What people call the item, such as its path; empty where it has no name."""
    role: Role
    """Whose workers this is for."""
    verifier: Role
    """Who will check the result."""
    goal: str = ""
    instruction: str
    output_schema: dict[str, Json] | None = None
    """JSON Schema of the output; None: text."""
    criteria: tuple[Criterion, ...] = ()
    grant: Grant
    feedback: tuple[Feedback, ...] = ()
    """Oldest first."""
    earlier: AttemptSummary | None = None
    """The attempt before this one."""
    inputs: dict[Name, Json] = {}
    """Only for an agent that is a team: what it is given for its inputs."""
    taint: tuple[str, ...] = ()
    """Where the text from outside comes from that stands in this message; empty: there is none."""
    resumes: int = Field(default=0, ge=0)
    """Stream sequence of the answer after which the attempt goes on where it waited; 0: it begins."""
    allowances: tuple[Allowance, ...] = ()
    """Whatever pays for the requests of this attempt and of its judge, the job's own included; empty: nothing is
    counted."""


class TaskResult(Envelope):
    """A worker's claim."""

    kind: Literal["task.result"] = "task.result"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    role: Role
    """Whose verifiers this is for."""
    status: Literal["done", "gave_up", "needs_input"]
    output: Json = None
    reason: str = ""
    """Why the worker gave up or what it needs."""
    actions: tuple[ActionTaken, ...] = ()
    usage: Usage = Usage()
    reasoning: str = ""
    """A short summary of how the worker came to its output."""
    taint: tuple[str, ...] = ()
    """Where the text from outside comes from that the worker had before it; it may be in the output."""
    poison: bool = False
    """Process after process died over the task, alone with it: it is not tried again."""
    exchanges: tuple[Exchange, ...] = ()
    """What the worker asked its model and was answered, in order, so that the job can be run again without one."""
    seen: tuple[str, ...] = ()
    """What the model was told of each of the actions, as far as it saw it; it has no entry for one that was cut off."""
    spent: str = ""
    """Which budget of the job ran out meanwhile, in words; then nobody in the job can ask a model any more."""
    spent_of: Literal["job", "step"] = "job"
    """Whose budget that was; where it is only the task's step, the others go on."""


class TaskVerdict(Envelope):
    """What a verifier says of a result. It judges the attempt that it names and no other."""

    kind: Literal["task.verdict"] = "task.verdict"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    verdict: Verdict
    criteria: tuple[CriterionVerdict, ...] = ()
    usage: Usage = Usage()
    exchanges: tuple[Exchange, ...] = ()
    """What the verifier asked its model and was answered, in order."""
    spent: str = ""
    """As in a result."""
    spent_of: Literal["job", "step"] = "job"
    """As in a result."""


class TaskClosed(Envelope):
    """The end of a task's chain."""

    kind: Literal["task.closed"] = "task.closed"
    outcome: TaskOutcome
    stands: int | None = Field(default=None, ge=1)
    """The attempt whose output is the task's; only with ``accepted``."""
    reason: str = ""


class Approval(Strict):
    """A call that waits for a person's yes."""

    tool: ToolName
    arguments: Json
    """Exactly what the tool would get, secrets hidden."""
    digest: str
    """SHA-256 of the canonical arguments: the yes is for these and no others."""
    effect: EffectClass
    rule: str = ""
    """Which rule asks; empty where the effect class, the autonomy or the taint does."""
    policy: int = Field(default=0, ge=0)
    """The policy's epoch; a yes given under an older policy counts no more."""


class QuestionAsked(Envelope):
    """An agent asks a person. In the task's chain: the task waits, and no worker is held meanwhile."""

    kind: Literal["question.asked"] = "question.asked"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    question: Token
    text: str
    """What is to be decided, and why it is asked."""
    about: Literal["approval", "doubt", "input", "plan"] = "input"
    """A call that needs a yes; an effect of which nobody knows whether it took place; a plan that needs a yes, in the
    job's own chain; or anything else."""
    options: tuple[str, ...] = ()
    """Empty: free text."""
    default: str | None = None
    """What counts as the answer when ``expires`` has passed."""
    expires: AwareDatetime | None = None
    """None: it waits as long as the job does."""
    approval: Approval | None = None
    """With ``approval`` and ``doubt``: the call that this is about."""
    key: Token | None = None
    """With ``doubt``: the idempotency key of the effect."""
    transcript: Json = None
    """What the worker needs to go on later, whichever process it is."""


class QuestionAnswered(Envelope):
    """A person's answer, or the default after the deadline."""

    kind: Literal["question.answered"] = "question.answered"
    question: Token
    answer: str
    by_default: bool = False
    note: str = ""
    """What the person adds, for the agent to read."""


class EffectIntended(Envelope):
    """A change outside is about to be made. In the task's chain, so that a stale attempt cannot start one."""

    kind: Literal["effect.intended"] = "effect.intended"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    key: Token
    """Idempotency key: the same for the same call of the same task, whichever attempt makes it."""
    tool: ToolName
    arguments_digest: str
    """SHA-256 of the canonical arguments."""
    effect: EffectClass
    place: str = ""
    """SHA-256 of the canonical arguments that say where the effect goes; empty where the tool does not say."""


class EffectDone(Envelope):
    """What a change outside came to. Outside the chain: what happened is always recorded."""

    kind: Literal["effect.done"] = "effect.done"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    key: Token
    outcome: Json
    """What the tool returned, secrets hidden; later attempts are given it instead of doing it again."""
    failed: bool = False
    """The tool said that it did nothing: it may be tried again."""


class EffectInDoubt(Envelope):
    """It is not known whether a change outside was made. Outside the chain."""

    kind: Literal["effect.in_doubt"] = "effect.in_doubt"
    by: Role
    """Who sends it; the last part of the subject, which the broker holds senders to."""
    key: Token
    reason: str


class JobClosed(Envelope):
    """The end of a job."""

    kind: Literal["job.closed"] = "job.closed"
    status: JobStatus
    result: Json = None
    reason: str = ""
    usage: Usage = Usage()


class JobRetried(Envelope):
    """An operator puts tasks back that failed or were cancelled. In the job's chain; a job that was over goes on."""

    kind: Literal["job.retried"] = "job.retried"
    tasks: tuple[Token, ...] = Field(min_length=1)
    """Which of them; what needs their steps is made again too."""
    reason: str = ""
    """Why it is worth another try, such as what was repaired."""


Message = Annotated[
    JobSubmitted
    | PlanProposed
    | PlanAccepted
    | PlanRejected
    | PlanExpanded
    | TaskAssigned
    | TaskResult
    | TaskVerdict
    | TaskClosed
    | QuestionAsked
    | QuestionAnswered
    | EffectIntended
    | EffectDone
    | EffectInDoubt
    | JobClosed
    | JobRetried,
    Field(discriminator="kind"),
]
"""Any message of the log."""

MESSAGE_TYPES: tuple[type[Envelope], ...] = (
    JobSubmitted,
    PlanProposed,
    PlanAccepted,
    PlanRejected,
    PlanExpanded,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
    TaskClosed,
    QuestionAsked,
    QuestionAnswered,
    EffectIntended,
    EffectDone,
    EffectInDoubt,
    JobClosed,
    JobRetried,
)
