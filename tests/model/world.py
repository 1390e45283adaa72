"""A small world of managers, workers, a verifier and a person around one log, made for looking at every state of it.

The log is a set of chains, one for the job and one for each task. A chain is a node of a tree: the node names the whole
history of the chain, so it is also the identity of the message that stands at its end. What matters is small integers,
so that hundreds of thousands of states fit and compare fast; the real ``evolve`` and ``decide`` run once on every view
of the log that any state offers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tests.model.core import REAL, Core

from interlock.protocol.messages import (
    JOB_TASK,
    CriterionVerdict,
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    Envelope,
    Grant,
    JobClosed,
    JobRetried,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.plan import parse_task_id
from interlock.protocol.team import Agent, Limits, Step, Team

__all__ = ["ROOT", "VERIFIER", "WORKER", "Crew", "Fact", "Scenario", "Tree", "World", "step"]

ROOT = 0
"""The node of an empty chain."""

WORKER, VERIFIER = "w@t", "v@t"
"""The roles."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_STRIDE = 1_000  # sequences of one chain are below the next chain's first one


class Fact(NamedTuple):
    """One entry of a chain, reduced to what the search tells apart."""

    kind: str
    attempt: int = 0
    detail: str = ""
    answers: int = 0
    """How many entries the chain had for whoever decided this: the broker compares it with how many there are."""
    by: str = ""
    """The role that it claims to come from; empty: the one whose turn it is."""
    refers: int = 0
    """Which entry of the chain it is about, from 1: the question of an answer, the answer of a resumption."""


class Crew(NamedTuple):
    """How many processes of each kind take part."""

    managers: int = 2
    workers: int = 2
    verifiers: int = 1


@dataclass(frozen=True)
class Scenario:
    """What is searched: a plan, who takes part, and what may go wrong."""

    steps: tuple[Step, ...]
    items: dict[str, int] = field(default_factory=dict)
    """How many items each ``for_each`` step has."""
    parallel: int = 8
    crew: Crew | None = None
    """The processes. None: any number of each. Every assignment and result may then be worked on at any time, again and
    again, and a manager is one step: look at any part of the log and carry out any one command."""
    outputs: tuple[str, ...] = ("new",)
    """What a worker may come to; ``same`` is the output of the attempt before."""
    verdicts: tuple[str, ...] = ("pass", "fail", "uncertain")
    kill: bool = False
    """Whether the job may be killed, at any time; managers hear of it late or not."""
    forgeries: int = 0
    """How many entries of any kind somebody may write out of turn, at the right head."""
    forged: tuple[Fact, ...] = ()
    """What is written out of turn into tasks' chains; empty: anything."""
    forged_plan: tuple[Fact, ...] = ()
    """What is written out of turn into the job's chain; empty: anything."""
    effects: str = ""
    """Whether a worker announces an effect before its result; ``head``: an attempt that is taken up again answers the
    chain's head; ``assignment``: it answers its assignment, as a worker without memory would."""
    intents: int = 2
    """How many effects an attempt may announce."""
    asks: int = 0
    """How many questions an attempt may ask before its result."""
    persons: bool = True
    """Whether somebody may answer them, at any time."""
    expires: bool = True
    """Whether questions have a deadline. It is over at once, and managers notice late or not."""
    records: int = 0
    """How many reports of effects workers may write, at any time and whoever has moved on. Needs ``ordered``."""
    rejects: bool = False
    """Whether the plan may be found to break a principle, before it is accepted or after."""
    makes: tuple[str, ...] = ()
    """What the manager's model may come to: ``plan``, ``bad`` (a plan that is rejected), ``question``, ``answer`` or
    ``refusal``. Empty: the team file has the plan, and it stays so."""
    given: bool = False
    """Whether the first version is in the team file all the same."""
    second: tuple[Step, ...] = ()
    """The steps of the second version of the plan; it ``plans`` no third one."""
    plans: int = 1
    """How many proposals for each version there may be."""
    replans: int = 0
    """How many new versions there may be. Needs ``ordered``."""
    approve: bool = False
    """Whether a person is asked before a plan is followed."""
    retries: int = 0
    """How often an operator may put back what failed or was cancelled, alone or all of it. Needs ``ordered``."""
    cas: bool = True
    """Whether the broker compares ``answers`` with the head of the chain."""
    ordered: bool = False
    """Whether views are beginnings of the one log; otherwise they may know more of one chain and less of another."""
    reduced: bool = True
    """Whether states that differ only in what can have no effect any more are taken as one."""

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps of all versions, each once."""
        return (*self.steps, *(one for one in self.second if one not in self.steps))

    def version(self, number: int) -> tuple[Step, ...]:
        """Return the steps of a version of the plan."""
        return self.second if number > 1 else self.steps

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of all tasks of all versions."""
        return tuple(
            task
            for one in self.all_steps
            for task in (
                [one.step] if one.for_each is None else [f"{one.step}:{index}" for index in range(self.items[one.step])]
            )
        )


def step(
    name: str, *, needs: tuple[str, ...] = (), for_each: bool = False, attempts: int = 3, replan: bool = False
) -> Step:
    """Return a step of a plan for a scenario."""
    items, after = (0,) if for_each else None, "replan" if replan else "fail"
    fields = {"step": name, "agent": "w", "do": "x", "needs": needs, "attempts": attempts}
    return Step.model_validate({**fields, "for_each": items, "on_failure": after})


class Tree:
    """All chains seen so far: each node is one entry after its parent."""

    def __init__(self) -> None:
        self.parent = [ROOT]
        self.fact = [Fact("")]
        self.depth = [0]
        self._children: dict[tuple[int, Fact], int] = {}

    def grow(self, node: int, fact: Fact) -> int:
        """Return the node of ``fact`` after ``node``."""
        key = (node, fact)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = len(self.parent)
            self.parent.append(node)
            self.fact.append(fact)
            self.depth.append(self.depth[node] + 1)
        return child

    def path(self, node: int) -> list[int]:
        """Return the nodes from the chain's first entry to ``node``."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self.parent[node]
        return nodes[::-1]

    def facts(self, node: int) -> list[Fact]:
        """Return the entries of a chain."""
        return [self.fact[one] for one in self.path(node)]


Heads = tuple[int, ...]
"""The end of each chain: the job's first, then the tasks'."""

Command = tuple[int, Fact]
"""A chain and what to append to it."""


class World:
    """Folds views of the log and asks the real ``decide`` what a manager would do with each, remembering both."""

    def __init__(self, scenario: Scenario, core: Core = REAL) -> None:
        self.scenario = scenario
        self.core = core
        self.tree = Tree()
        self.chains = (JOB_TASK, *scenario.tasks)
        """Then, one for each task, what is recorded about its effects; nothing is compared there."""
        self.past_tasks = len(self.chains)
        if scenario.records:
            self.chains += scenario.tasks
        self.index = {name: position for position, name in enumerate(self.chains[: self.past_tasks])}
        self.team = Team(
            interlock=1,
            team="t",
            agents={"w": Agent(kind="worker"), "v": Agent(kind="verifier")},
            plan=scenario.steps if scenario.given or not scenario.makes else (),
            limits=Limits(parallel=scenario.parallel, plans=scenario.plans, replans=scenario.replans),
        )
        self._folds: dict[Heads, Any] = {(ROOT,) * len(self.chains): core.machine.JobState()}
        self._logs: dict[tuple[tuple[int, int], ...], Any] = {(): core.machine.JobState()}
        self._entries: dict[tuple[int, int], Any] = {}
        self._decisions: dict[tuple[int, bool], tuple[Command, ...]] = {}
        self._kept: list[Any] = []  # states whose ids are keys of _decisions

    def start(self) -> Heads:
        """Return the heads of a log that holds a submitted job."""
        return (self.tree.grow(ROOT, Fact("submitted")), *(ROOT for _ in self.chains[1:]))

    def state(self, view: Heads) -> Any:
        """Return the real state after the entries of ``view``: the job's chain, the tasks' chains, the job's end."""
        known = self._folds.get(view)
        if known is None:
            chain = self._last_chain(view)
            before = (*view[:chain], self.tree.parent[view[chain]], *view[chain + 1 :])
            known = self._folds[view] = self.core.evolve(self.state(before), self.entry(chain, view[chain]))
        return known

    def _last_chain(self, view: Heads) -> int:
        if self.tree.fact[view[0]].kind == "ended":
            return 0
        return next((chain for chain in range(len(view) - 1, 0, -1) if view[chain] != ROOT), 0)

    def state_of_log(self, log: tuple[tuple[int, int], ...]) -> Any:
        """Return the real state after a log in its order: pairs of a chain and a node."""
        known = self._logs.get(log)
        if known is None:
            known = self._logs[log] = self.core.evolve(self.state_of_log(log[:-1]), self.entry(*log[-1]))
        return known

    def decide(self, state: Any, *, killed: bool = False) -> tuple[Command, ...]:
        """Return what the real ``decide`` says in ``state``, as entries to append."""
        key = (id(state), killed)
        known = self._decisions.get(key)
        if known is None:
            self._kept.append(state)
            commands = self.core.decide.decide(state, NOW, killed="stop" if killed else None)
            known = self._decisions[key] = tuple(made for one in commands for made in self._commands(state, one))
        return known

    def _commands(self, state: Any, command: Any) -> Iterator[Command]:
        """Yield the entries that may come of a command: a model may come to one thing or another."""
        match type(command).__name__:
            case "Propose":
                yield from ((0, Fact("proposed", command.version, made, command.answers)) for made in self._makes())
            case "JudgeProposal":
                yield 0, self._judged(state, command)
            case _:
                yield self._command(command)

    def _makes(self) -> tuple[str, ...]:
        return self.scenario.makes or ("plan",)

    def _judged(self, state: Any, command: Any) -> Fact:
        """Return what a manager says of a proposal, whose text here is what the model came to."""
        version, answers, made = command.version, command.answers, state.proposed.text
        wanted = "" if command.approved else self.core.planning.change_requested(state)
        spoken = made == "question" and len(state.answers) >= self.scenario.plans
        if wanted or spoken or made in {"bad", "answer"}:
            return Fact("rejected", version, "proposal", answers)
        if made == "question":
            return Fact("asked", version, "input", answers)
        if self.scenario.approve and not command.approved:
            return Fact("asked", version, "plan", answers)
        return Fact("planned", version if version > 1 else 0, answers=answers)

    def _command(self, command: Any) -> Command:
        chain = self.index[command.task] if hasattr(command, "task") else 0
        answers = command.answers - chain * _STRIDE if command.answers else 0
        match type(command).__name__:
            case "AcceptPlan":
                fact = Fact("planned", answers=answers)
            case "ExpandStep":
                items = "blocked" if command.blocked else self.scenario.items[command.step]
                fact = Fact("expanded", detail=f"{command.step}={items}", answers=answers)
            case "Assign":
                resumes = command.resumes - chain * _STRIDE if command.resumes else 0
                fact = Fact("assigned", command.attempt, command.agent, answers, refers=resumes)
            case "AnswerByDefault":
                fact = _answer(command, "default", answers)
            case "CloseTask":
                fact = Fact("closed", command.stands or 0, command.outcome, answers)
            case _:
                fact = Fact("ended", detail=command.status, answers=answers)
        return chain, fact

    def replies(self, state: Any) -> Iterator[Command]:
        """Yield what a person who sees ``state`` may answer."""
        if state.question is not None and state.question.answer is None and state.closed is None:
            asked = state.question.asked
            said = ("yes", "no", "otherwise") if asked.about == "plan" else ("yes",)
            yield from ((0, _answer(asked, answer, state.head)) for answer in said)
        for name in sorted(state.asking):
            task, chain = state.tasks[name], self.index[name]
            yield chain, _answer(task.question.asked, "yes", task.head - chain * _STRIDE)

    def entry(self, chain: int, node: int) -> Any:
        """Return the real entry of the log for the end of a chain."""
        known = self._entries.get((chain, node))
        if known is None:
            fact = self.tree.fact[node]
            start = self.start_of(chain)
            answers = start + fact.answers if fact.answers else 0
            message = _message(self, chain, fact, {"answers": answers, "task": self.chains[chain]})
            known = self.core.machine.Entry(chain * _STRIDE + self.tree.depth[node], message)
            self._entries[chain, node] = known
        return known

    def start_of(self, chain: int) -> int:
        """Return what the sequences of a chain count from; reports of effects name entries of their task's chain."""
        return self.index[self.chains[chain]] * _STRIDE


def _answer(asked: Any, answer: str, answers: int) -> Fact:
    return Fact("answered", asked.attempt, answer, answers, refers=int(asked.question))


def _message(world: World, chain: int, fact: Fact, envelope: dict[str, Any]) -> Envelope:
    """Return the real message of ``fact``; nothing is validated, since a search makes many."""
    fields: dict[str, Any] = {**envelope, "attempt": fact.attempt}
    if chain == 0:
        return _message_of_job(world, fact, fields)
    match fact.kind:
        case "assigned":
            name, index = parse_task_id(world.chains[chain])
            resumes = world.start_of(chain) + fact.refers if fact.refers else 0
            parts = {"role": f"{fact.detail}@t", "verifier": VERIFIER, "grant": Grant.model_construct(seconds=1.0)}
            return _make(TaskAssigned, fields, step=name, index=index, resumes=resumes, **parts)
        case "verdict":
            holds = {"pass": True, "fail": False, "uncertain": None}[fact.detail]
            found = CriterionVerdict.model_construct(criterion="c", holds=holds, evidence=str(fact.attempt), change="")
            return _make(TaskVerdict, fields, by=fact.by or VERIFIER, verdict=fact.detail, criteria=(found,))
        case "answered":
            return _make(QuestionAnswered, fields, question=str(fact.refers), answer=fact.detail)
        case "closed":
            return _make(TaskClosed, fields, outcome=fact.detail, stands=fact.attempt or None)
        case _:
            return _message_of_worker(world, chain, fact, {**fields, "by": fact.by or WORKER})


def _message_of_job(world: World, fact: Fact, fields: dict[str, Any]) -> Envelope:
    match fact.kind:
        case "submitted":
            return _make(JobSubmitted, fields, team=world.team, goal="g", approve_plan=world.scenario.approve)
        case "planned":
            steps = world.scenario.version(fact.attempt)
            steps = steps[1:] or (step("other"),) if fact.detail == "other" else steps
            needed = {need for one in steps for need in one.needs}
            ends = tuple(one.step for one in steps if one.step not in needed)
            return _make(PlanAccepted, fields, version=fact.attempt or 1, steps=steps, result_steps=ends)
        case "rejected":
            return _make(PlanRejected, fields, version=fact.attempt or 1, reasons=("it breaks a principle",))
        case "proposed":
            made = fact.detail if fact.detail != "bad" else "plan"
            steps = world.scenario.version(fact.attempt) if made == "plan" else ()
            return _make(PlanProposed, fields, version=fact.attempt, makes=made, steps=steps, text=fact.detail)
        case "asked":
            expires = NOW if world.scenario.expires else None
            question = {"question": str(fact.answers + 1), "text": "", "about": fact.detail, "expires": expires}
            return _make(QuestionAsked, fields, by=fact.by or "manager@t", **question)
        case "answered":
            return _make(QuestionAnswered, fields, question=str(fact.refers), answer=fact.detail)
        case "expanded":
            name, _, items = fact.detail.partition("=")
            blocked = items == "blocked"
            return _make(
                PlanExpanded, fields, step=name, items=0 if blocked else int(items), reason=items if blocked else ""
            )
        case "retried":
            return _make(JobRetried, fields, tasks=tuple(fact.detail.split(",")))
        case _:
            return _make(JobClosed, fields, status=fact.detail)


def _message_of_worker(world: World, chain: int, fact: Fact, fields: dict[str, Any]) -> Envelope:
    key = fact.detail or world.chains[chain]
    match fact.kind:
        case "intended":
            return _make(EffectIntended, fields, key=key, tool="x.y", effect="once")
        case "done" | "failed":
            return _make(EffectDone, fields, key=key, outcome="", failed=fact.kind == "failed")
        case "doubt":
            return _make(EffectInDoubt, fields, key=key, reason="lost")
        case "asked":
            expires = NOW if world.scenario.expires else None
            return _make(QuestionAsked, fields, question=str(fact.answers + 1), text="", expires=expires)
        case _:
            output = fact.attempt if fact.detail == "new" else 1
            return _make(TaskResult, fields, role=VERIFIER, status="done", output=output)


def _make(model: type[Envelope], envelope: dict[str, Any], **fields: Any) -> Envelope:
    defaults = {name: known.get_default() for name, known in model.model_fields.items() if not known.is_required()}
    return model.model_construct(**{**defaults, "id": "x", "ns": "n", "job": "j", "at": NOW, **envelope, **fields})
