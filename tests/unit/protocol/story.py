"""A job told entry by entry: messages for the commands of ``decide``, and answers of workers and verifiers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from interlock.protocol.base import Json, Usage
from interlock.protocol.commands import (
    AcceptPlan,
    AnswerByDefault,
    Assign,
    CloseJob,
    CloseTask,
    Command,
    ExpandStep,
    JudgeProposal,
    Propose,
)
from interlock.protocol.decide import decide
from interlock.protocol.machine import evolve
from interlock.protocol.messages import (
    CriterionVerdict,
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    Envelope,
    Grant,
    JobClosed,
    JobRetried,
    JobSubmitted,
    Message,
    PlanAccepted,
    PlanExpanded,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskResult,
    TaskVerdict,
    Verdict,
)
from interlock.protocol.state import Entry, JobState, TaskState
from interlock.protocol.team import Agent, Budget, Handover, Limits, Step, Team

__all__ = ["NOW", "Story", "message_of", "step", "team_of"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def step(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    items: bool = False,
    attempts: int = 3,
    handover: Handover | None = None,
    budget: Budget | None = None,
) -> Step:
    """Return a step done by the agent ``w``."""
    return Step(
        step=name,
        agent="w",
        do="x",
        needs=needs,
        for_each="{{ inputs.items }}" if items else None,
        attempts=attempts,
        on_failure=handover or "fail",
        budget=budget or Budget(),
    )


def team_of(steps: Iterable[Step], *, parallel: int = 8) -> Team:
    """Return a team with two workers and a verifier."""
    agents = {"w": Agent(kind="worker"), "w2": Agent(kind="worker"), "v": Agent(kind="verifier")}
    return Team(interlock=1, team="t", agents=agents, plan=tuple(steps), limits=Limits(parallel=parallel))


def message_of(team: Team, command: Command, items: Mapping[str, int], identity: str) -> Envelope:
    """Return the message that carries ``command`` out, with nothing in it that the machine does not look at."""
    common: dict[str, Any] = {"id": identity, "ns": "n", "job": "j", "at": NOW, "answers": command.answers}
    match command:
        case AcceptPlan():
            needed = {need for one in team.plan for need in one.needs}
            ends = tuple(one.step for one in team.plan if one.step not in needed)
            return PlanAccepted(**common, version=1, steps=team.plan, result_steps=ends)
        case ExpandStep():
            count = 0 if command.blocked else items[command.step]
            return PlanExpanded(**common, step=command.step, items=count, reason=command.blocked)
        case Assign():
            return TaskAssigned(
                **common,
                task=command.task,
                attempt=command.attempt,
                step=command.step.step,
                index=command.index,
                role=f"{command.agent}@t",
                verifier="v@t",
                instruction="x",
                grant=Grant(seconds=1),
                feedback=command.feedback,
                earlier=command.earlier,
                resumes=command.resumes,
            )
        case AnswerByDefault():
            return QuestionAnswered(
                **common,
                task=command.task,
                attempt=command.attempt,
                question=command.question,
                answer=command.answer,
                by_default=True,
            )
        case CloseTask():
            return TaskClosed(
                **common,
                task=command.task,
                attempt=command.attempt,
                outcome=command.outcome,
                stands=command.stands,
                reason=command.reason,
            )
        case CloseJob():
            return JobClosed(**common, status=command.status, reason=command.reason)
        case Propose() | JudgeProposal():
            raise AssertionError("these stories have a plan")


@dataclass
class Story:
    """One job and its log so far."""

    steps: tuple[Step, ...]
    items: dict[str, int] = field(default_factory=dict)
    parallel: int = 8
    budget: Budget = field(default_factory=Budget)
    deadline: datetime | None = None
    now: datetime = NOW
    killed: str | None = None
    log: list[Entry] = field(default_factory=list)
    state: JobState = field(default_factory=JobState)

    def __post_init__(self) -> None:
        team = team_of(self.steps, parallel=self.parallel)
        self.team = team
        submitted = JobSubmitted(
            id="m0", ns="n", job="j", at=NOW, team=team, goal="g", budget=self.budget, deadline=self.deadline
        )
        self.tell(submitted)

    def tell(self, message: Envelope, origin: str | None = None) -> None:
        """Append ``message`` to the log and to the state."""
        entry = Entry(len(self.log) + 1, cast("Message", message), origin)
        self.log.append(entry)
        self.state = evolve(self.state, entry)

    def decide(self) -> tuple[Command, ...]:
        """Return what a manager would do now."""
        return decide(self.state, self.now, killed=self.killed)

    def carry_out(self, *commands: Command) -> None:
        """Append the messages of ``commands``."""
        for command in commands:
            self.tell(message_of(self.team, command, self.items, f"m{len(self.log)}"))

    def go_on(self) -> "Story":
        """Decide and carry out until others have to move."""
        while commands := self.decide():
            self.carry_out(*commands)
        return self

    def result(self, task: str, output: Json = None, *, usage: Usage | None = None, **fields: Any) -> None:
        """Let the worker of the current attempt answer; by default each attempt with another output."""
        number = self.state.tasks[task].current.number
        message = TaskResult(
            **{
                **self._next_of(task),
                "role": "v@t",
                "output": f"output {number}" if output is None else output,
                "usage": usage or Usage(),
                "status": "done",
                **fields,
            }
        )
        self.tell(message, origin=f"span-{task}-{number}")

    def ask(self, task: str, question: str = "q", **fields: Any) -> None:
        """Let the worker of the current attempt ask a person."""
        told = {"question": question, "text": "May it?", "options": ("yes", "no"), "default": "no"}
        self.tell(QuestionAsked(**{**self._next_of(task), **told, **fields}))

    def answer(self, task: str, answer: str = "yes", question: str = "q", **fields: Any) -> None:
        """Let a person answer what the task waits with."""
        common = self._next_of(task)
        del common["by"]
        self.tell(QuestionAnswered(**{**common, "question": question, "answer": answer, **fields}))

    def intend(self, task: str, key: str = "k", **fields: Any) -> None:
        """Let the worker of the current attempt announce an effect."""
        effect = {"key": key, "tool": "web.post", "arguments_digest": "d", "effect": "once"}
        self.tell(EffectIntended(**{**self._next_of(task), **effect, **fields}))

    def record(self, task: str, status: str = "done", key: str = "k", **fields: Any) -> None:
        """Let the worker of the current attempt tell what came of an effect: ``done``, ``failed`` or ``in_doubt``."""
        common = {**self._next_of(task), "key": key, **fields}
        if status == "in_doubt":
            self.tell(EffectInDoubt(**{"reason": "lost", **common}))
        else:
            self.tell(EffectDone(**{"outcome": "sent", "failed": status == "failed", **common}))

    def verdict(self, task: str, verdict: Verdict, evidence: str | None = None, **fields: Any) -> None:
        """Let the verifier judge the current attempt; by default each attempt meets another objection."""
        number = self.state.tasks[task].current.number
        holds = {"pass": True, "fail": False, "uncertain": None}[verdict]
        found = CriterionVerdict(criterion="words", holds=holds, evidence=evidence or f"evidence {number}")
        told = {"by": "v@t", "verdict": verdict, "criteria": (found,), **fields}
        self.tell(TaskVerdict.model_validate({**self._next_of(task), **told}))

    def _next_of(self, task: str) -> dict[str, Any]:
        """Return the envelope of the next message that the worker of a task's current attempt would send."""
        current = self.state.tasks[task]
        return {
            "id": f"m{len(self.log)}",
            "ns": "n",
            "job": "j",
            "at": NOW,
            "task": task,
            "attempt": current.current.number,
            "answers": current.head,
            "by": current.current.role,
        }

    def retry(self, *tasks: str, **fields: Any) -> None:
        """Let an operator put tasks back."""
        common = {"id": f"m{len(self.log)}", "ns": "n", "job": "j", "at": self.now, "answers": self.state.head}
        self.tell(JobRetried.model_validate({**common, "tasks": tasks, **fields}))

    def attempt(self, task: str, verdict: Verdict = "pass", output: Json = None, evidence: str | None = None) -> None:
        """Let one attempt be made and judged, and the manager answer it."""
        self.result(task, output)
        self.verdict(task, verdict, evidence)
        self.go_on()

    def task(self, name: str) -> TaskState:
        """Return a task's state."""
        return self.state.tasks[name]

    def assigned(self, task: str) -> TaskAssigned:
        """Return the newest assignment of a task."""
        return next(
            one.message
            for one in reversed(self.log)
            if isinstance(one.message, TaskAssigned) and one.message.task == task
        )
