"""Workers and verifiers of a rerun: the real ones, with a model and tools that answer from the record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from interlock.agents.authority import Authority
from interlock.agents.checks.finding import undecided
from interlock.agents.checks.registry import evaluate
from interlock.agents.checks.registry import verdict_of as found_as
from interlock.agents.recording import CUT, ModelRecorder, ToolWatcher
from interlock.agents.toolbox import NO_TOOLS, AttemptSuspended
from interlock.agents.verifier import TOO_LATE, judge_result
from interlock.agents.worker import RAN_OUT, execute
from interlock.backends.chat import ToolOffer
from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, CommandCriterion, criterion_label
from interlock.protocol.lineage import child_job
from interlock.protocol.messages import (
    ActionTaken,
    CriterionVerdict,
    Envelope,
    Exchange,
    JobSubmitted,
    Message,
    QuestionAsked,
    TaskAssigned,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.state import Entry
from interlock.runtime._recorded import RecordedModel, RecordedToolbox
from interlock.runtime.verifier_role import VERIFIER_FAILED, verdict_of
from interlock.runtime.worker_role import WORKER_FAILED, recorded_so_far, result_of

Tell = Callable[[Entry, str, str], None]
"""Is given the recorded entry, who asked for what, and what is different there."""


@dataclass(frozen=True, slots=True)
class _Leg:
    """What the record has of an attempt, up to its result or its question."""

    exchanges: tuple[Exchange, ...] = ()
    actions: tuple[ActionTaken, ...] = ()
    seen: tuple[str, ...] = ()
    thinking: Json = None
    """The transcript to go on from; None at the beginning."""


@dataclass(slots=True)
class Agents:
    """The agents of one job."""

    submitted: JobSubmitted
    tell: Tell
    taken: list[tuple[Entry, str]] = field(default_factory=list)
    """The entries that were taken as recorded, and why."""
    answered: int = 0
    """Calls of models that were answered from the record."""
    _assigned: dict[str, TaskAssigned] = field(default_factory=dict)
    _results: dict[str, TaskResult] = field(default_factory=dict)
    _asked: dict[str, QuestionAsked] = field(default_factory=dict)

    def heard(self, message: Message) -> None:
        """Know what the log has now."""
        match message:
            case TaskAssigned():
                self._assigned[message.task] = message
            case TaskResult():
                self._results[message.task] = message
            case QuestionAsked():
                self._asked[message.task] = message
            case _:
                pass

    async def made(self, entry: Entry) -> Message:
        """Return what an agent says now where it said ``entry`` then."""
        message = entry.message
        reason = self._why_not(message)
        if reason:
            self.taken.append((entry, reason))
            return message
        match message:
            case TaskResult() | QuestionAsked():
                return await self._attempt(entry, message)
            case TaskVerdict():
                return await self._judge(entry, message)
            case _:
                return message

    def _why_not(self, message: Message) -> str:
        """Return why what an agent said cannot be made anew; empty where it can, or nobody's agent said it."""
        match message:
            case TaskResult() | QuestionAsked() | TaskVerdict() if self._assignment(message) is None:
                return "it belongs to no assignment of now"
            case TaskResult() if self._is_team(message):
                child = child_job(message.job, message.task, message.attempt)
                return f"it was done as job {child}, which can be run again by itself"
            case TaskResult():
                return _lost_result(message)
            case QuestionAsked():
                kept = message.transcript
                return "" if isinstance(kept, dict) and "exchanges" in kept else NOT_KEPT
            case TaskVerdict():
                return _lost_verdict(message) if message.task in self._results else "there is no result to judge"
            case _:
                return ""

    def _is_team(self, message: TaskResult) -> bool:
        agent = self.submitted.team.agents.get(message.by.partition("@")[0])
        return agent is not None and agent.kind == "team"

    def _assignment(self, message: Envelope) -> TaskAssigned | None:
        assigned = self._assigned.get(message.task)
        return assigned if assigned is not None and assigned.attempt == message.attempt else None

    async def _attempt(self, entry: Entry, recorded: TaskResult | QuestionAsked) -> Message:
        assigned = self._assigned[recorded.task]
        before = _leg_of(self._asked[recorded.task]) if assigned.resumes else _Leg()
        leg = _leg_of(recorded)
        tell = partial(self.tell, entry)
        answers = RecordedModel(leg.exchanges, len(before.exchanges), tell)
        calls = self._toolbox(assigned, recorded, leg, before, tell)
        model, watched = ModelRecorder(answers, before.exchanges), ToolWatcher(calls or NO_TOOLS, before.seen)
        name = assigned.role.partition("@")[0]
        agent = self.submitted.team.agents[name]
        settings = agent.model or self.submitted.team.model
        try:
            outcome = await execute(assigned, agent, model, settings, toolbox=watched, transcript=before.thinking)
        except AttemptSuspended as suspended:
            made: Message = recorded.model_copy(
                update={"transcript": _transcript(recorded, suspended.transcript, model, watched)}
            )
        else:
            taint = recorded.taint if isinstance(recorded, TaskResult) else assigned.taint
            made = result_of(outcome, _envelope(recorded), assigned, model, watched, taint)
        answers.end()
        if calls is not None:
            calls.end()
        self.answered += len(model.exchanges) - len(before.exchanges)
        return made

    def _toolbox(
        self,
        assigned: TaskAssigned,
        recorded: TaskResult | QuestionAsked,
        leg: _Leg,
        before: _Leg,
        tell: Callable[[str, str], None],
    ) -> RecordedToolbox | None:
        if not assigned.grant.tools:
            return None
        authority = Authority(self.submitted, assigned, assigned.role.partition("@")[0])
        offers = [ToolOffer(spec.name, spec.description, dict(spec.parameters)) for spec in authority.granted]
        asks = recorded if isinstance(recorded, QuestionAsked) else None
        return RecordedToolbox(offers, leg.actions, leg.seen, tell, begin=len(before.actions), asks=asks)

    async def _judge(self, entry: Entry, recorded: TaskVerdict) -> TaskVerdict:
        assigned, result = self._assigned[recorded.task], self._results[recorded.task]
        agent = self.submitted.team.agents[recorded.by.partition("@")[0]]
        answers = RecordedModel(recorded.exchanges, 0, partial(self.tell, entry))
        model = ModelRecorder(answers)
        settings = agent.model or self.submitted.team.model
        check = partial(_checked, {one.criterion: one for one in recorded.criteria})
        found = await judge_result(assigned, result, agent, model, settings, check=check)
        answers.end()
        self.answered += len(model.exchanges)
        return verdict_of(found, _envelope(recorded), recorded.by, model)


NOT_KEPT = "it was recorded before answers were kept"
"""Why what a model's answers led to cannot be made anew."""


def _lost_result(recorded: TaskResult) -> str:
    """Return why an attempt cannot be made anew: its record is not whole."""
    if recorded.poison or recorded.reason.startswith(WORKER_FAILED):
        return "its processes ended over it"
    if recorded.reason.startswith(RAN_OUT) or _cut(recorded.exchanges):
        return "it ran out of time"
    if len(recorded.seen) < len(recorded.actions) or (recorded.usage.calls and not recorded.exchanges):
        return NOT_KEPT
    return ""


def _lost_verdict(recorded: TaskVerdict) -> str:
    told = [one.evidence for one in recorded.criteria]
    if any(one.startswith(VERIFIER_FAILED) for one in told):
        return "its processes ended over it"
    if any(one.startswith(TOO_LATE) for one in told) or _cut(recorded.exchanges):
        return "it ran out of time"
    return NOT_KEPT if recorded.usage.calls and not recorded.exchanges else ""


def _cut(exchanges: Sequence[Exchange]) -> bool:
    return any(isinstance(one.reply, dict) and CUT in one.reply for one in exchanges)


def _leg_of(message: TaskResult | QuestionAsked) -> _Leg:
    if isinstance(message, TaskResult):
        return _Leg(message.exchanges, message.actions, message.seen)
    kept = cast("dict[str, Any]", message.transcript) if isinstance(message.transcript, dict) else {}
    return _Leg(
        tuple(Exchange.model_validate(one) for one in kept.get("exchanges", ())),
        tuple(ActionTaken.model_validate(one) for one in kept.get("acting", {}).get("actions", ())),
        tuple(kept.get("seen", ())),
        kept.get("thinking"),
    )


def _transcript(
    recorded: TaskResult | QuestionAsked, thinking: Json, model: ModelRecorder, toolbox: ToolWatcher
) -> dict[str, Json]:
    """Return what an attempt leaves behind that waits now; how it may act is as it was recorded."""
    kept = recorded.transcript if isinstance(recorded, QuestionAsked) else None
    acting = kept.get("acting") if isinstance(kept, dict) else None
    return {"thinking": thinking, "acting": acting, **recorded_so_far(model, toolbox)}


def _envelope(recorded: Envelope) -> dict[str, Any]:
    return {name: getattr(recorded, name) for name in Envelope.model_fields}


async def _checked(known: Mapping[str, CriterionVerdict], criterion: AnyCriterion, output: Json) -> CriterionVerdict:
    """Return whether a criterion holds; a command is not run again, what it said then stands."""
    if not isinstance(criterion, CommandCriterion):
        return await evaluate(criterion, output)
    label = criterion_label(criterion)
    return known.get(label) or found_as(label, undecided("the record does not tell what the command said"))
