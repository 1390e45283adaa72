"""Runs a recorded job again over a broker of its own: manager, workers and verifiers decide anew, answers are recorded.

The entries come in the order of the record, each when its turn has come, and the clock shows what it showed then: so
nothing depends on which process was faster. What came from outside (a person's answers, effects, what an attempt left
behind that died) is taken as it was recorded.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Protocol, cast

from interlock.agents.planning import ModelProposer, manager_of
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.codec import kind_of
from interlock.protocol.machine import evolve, settle
from interlock.protocol.messages import (
    JOB_TASK,
    Envelope,
    JobClosed,
    JobSubmitted,
    Message,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
)
from interlock.protocol.state import Entry, JobState
from interlock.runtime._recorded import Departure, RecordedModel, differences
from interlock.runtime._rerun_agents import NOT_KEPT, Agents
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.carrying import Carrier

_MANAGERS = (PlanAccepted, PlanRejected, PlanExpanded, TaskAssigned, TaskClosed, JobClosed)
"""What a manager decides; its questions, too."""

_ASIDE = {"v", "id", "at", "answers", "deadline", "epoch", "resumes", "expires", "question"}
"""Fields that are times and ids, or follow from them."""

_RECORDING = {"exchanges", "seen"}
"""What is told of call by call."""

_NO_TRACING = Tracing()

_BEHIND = 64
"""How many entries of workers and verifiers a manager may not have seen yet when it decides."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Which message of a job one is, by its kind and what it is about."""

    kind: str
    task: str
    attempt: int
    step: str

    @classmethod
    def of(cls, message: Envelope) -> "_Place":
        return cls(
            kind_of(type(message)),
            message.task,
            message.attempt,
            message.step if isinstance(message, PlanExpanded) else "",
        )

    def __str__(self) -> str:
        about = self.step or ("the job" if self.task == "_" else self.task)
        return f"{about}, attempt {self.attempt}" if self.attempt else about


class _Gate(Protocol):
    """Knows what the record has next."""

    def awaits(self, message: Envelope) -> bool:
        """Say whether it is the turn of a manager's message."""
        ...

    def took(self, seq: int, message: Envelope) -> None:
        """Hear that it entered."""
        ...


class GatedBus(Bus):
    """A bus whose manager may append only what the record has next."""

    gate: _Gate | None = None

    async def append_all(self, messages: Sequence[tuple[Envelope, Mapping[str, str]]]) -> list[int | Exception]:
        """Append those of ``messages`` whose turn it is; the others are refused, and are decided again later."""
        gate = self.gate
        if gate is None:
            return await super().append_all(messages)
        due = [one for one in messages if gate.awaits(one[0])]
        sent = {one[0].id: outcome for one, outcome in zip(due, await super().append_all(due), strict=True)}
        for message, _ in due:
            if isinstance(seq := sent[message.id], int):
                gate.took(seq, message)
        return [sent.get(one.id) or AnswerRefused(one.task, one.answers, 0) for one, _ in messages]


@dataclass(slots=True)
class Rerun:
    """What came of running a job again."""

    made: list[Entry] = field(default_factory=list)
    """The entries that were made anew, in their order."""
    departures: list[Departure] = field(default_factory=list)
    taken: list[Departure] = field(default_factory=list)
    """The entries that could not be made anew and were taken as they are recorded, and why."""
    answered: int = 0
    """Calls of models that were answered from the record."""
    ended: bool = True
    """Whether it came to the end of the record."""


class NotAJob(ValueError):
    """What is to be run again does not begin with the submission of a job."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the record of a job begins with its submission, and this one with {kind}")


class _Stuck(Exception):
    """The rerun cannot go on: the record's next entry is one that is not made now."""


class Rerunner:
    """Runs the job of ``record`` again over ``bus``, a log that has nothing of it."""

    def __init__(self, bus: GatedBus, record: Sequence[Entry]) -> None:
        submitted = record[0].message
        if not isinstance(submitted, JobSubmitted):
            raise NotAJob(type(submitted).__name__)
        self._bus, self._record = bus, record
        self._clock: datetime = submitted.at
        self._carrier = Carrier(bus, _NO_TRACING, submitted, record[0].origin, now=lambda: self._clock)
        self._agents = Agents(submitted, self._tell)
        self._seqs: dict[int, int] = {0: 0}
        """The sequences of now, by those of then."""
        self._questions: dict[str, str] = {}
        """The ids of the manager's questions of now, by those of then."""
        self._run: dict[_Place, deque[Entry]] = {}
        """What the manager may append now: the entries up to the next one that is not a manager's."""
        self._seen: deque[tuple[JobState, int]] = deque(maxlen=_BEHIND)
        """The manager's state before each entry that came to it last, and how many entries had been made then."""
        self._turned_away: Envelope | None = None
        """The first message of the manager that it may not, since it last decided."""
        self.rerun = Rerun()
        bus.gate = self

    async def run(self) -> Rerun:
        """Run the job up to where the record ends, or to where nothing of it can follow.

        :raises BusError: the broker went away
        """
        try:
            for managers, group in groupby(self._record, _by_manager):
                entries = list(group)
                if managers:
                    await self._manage(entries)
                else:
                    for entry in entries:
                        await self._follow(entry)
        except _Stuck:
            self.rerun.ended = False
        taken = self._agents.taken
        self.rerun.taken = [Departure(entry.seq, str(_Place.of(entry.message)), why) for entry, why in taken]
        self.rerun.answered = self._agents.answered
        return self.rerun

    def awaits(self, message: Envelope) -> bool:
        """Say whether it is the turn of a manager's message."""
        due = bool(self._run.get(_Place.of(message)))
        if not due and self._turned_away is None:
            self._turned_away = message
        return due

    def took(self, seq: int, message: Envelope) -> None:
        """Hear that a manager's message entered."""
        recorded = self._run[_Place.of(message)].popleft()
        if isinstance(message, QuestionAsked) and isinstance(recorded.message, QuestionAsked):
            self._questions[recorded.message.question] = message.question
        self._note(recorded, seq, cast("Message", message))
        pending = self._pending()
        self._clock = pending[0].message.at if pending else self._clock

    async def _follow(self, entry: Entry) -> None:
        """Make an entry that is not the manager's anew, or take it as it is recorded."""
        was = entry.message
        made = await (self._proposed(entry, was) if isinstance(was, PlanProposed) else self._agents.made(entry))
        same: dict[str, Any] = {"id": was.id, "at": was.at, "answers": self._seqs.get(was.answers, 0)}
        if isinstance(was, QuestionAnswered):
            same["question"] = self._questions.get(was.question, was.question)
        if isinstance(was, QuestionAsked):
            same |= {"question": was.question, "expires": was.expires}
        stamped = made.model_copy(update=same)
        seq = await self._bus.append(stamped)
        self._seen.append((self._carrier.state, len(self.rerun.made)))
        self._note(entry, seq, stamped)
        self._carrier.take([Entry(seq, stamped, entry.origin)])

    async def _proposed(self, entry: Entry, was: PlanProposed) -> Message:
        """Return what the manager's model proposes now where it proposed ``was`` then, with the answers of then."""
        self._clock = was.at
        await self._carrier.advance()
        wanted, submitted = self._carrier.wanted, self._carrier.state.submitted
        if wanted is None or submitted is None or not was.exchanges:
            self._agents.taken.append((entry, "the manager asks for no plan now" if wanted is None else NOT_KEPT))
            return was
        answers = RecordedModel(was.exchanges, 0, partial(self._tell, entry))
        proposer = ModelProposer(answers, manager_of(submitted.team)[1])
        outcome = await proposer.propose(self._carrier.state, wanted)
        answers.end()
        self._agents.answered += len(outcome.exchanges)
        told = {one.name: getattr(outcome, one.name) for one in fields(outcome)}
        return was.model_copy(update={**told, "version": wanted.version})

    def _note(self, recorded: Entry, seq: int, made: Message) -> None:
        """Remember an entry that the log has now, and tell how it is not the recorded one."""
        self._seqs[recorded.seq] = seq
        self.rerun.made.append(Entry(seq, made, recorded.origin))
        self._agents.heard(made)
        for path, what in differences(_essence(recorded.message), _essence(made)):
            self._tell(recorded, made.kind, f"{path} {what}")

    def _tell(self, recorded: Entry, asked: str, what: str) -> None:
        place = f"{_Place.of(recorded.message)}, {asked}"
        self.rerun.departures.append(Departure(recorded.seq, place, what))

    async def _manage(self, entries: Sequence[Entry]) -> None:
        """Let the manager append what ``entries`` are, in any order.

        :raises _Stuck: it decides something else
        """
        self._run = defaultdict(deque)
        for entry in entries:
            self._run[_Place.of(entry.message)].append(entry)
        while pending := self._pending():
            self._clock = pending[0].message.at
            self._turned_away = None
            await self._carrier.advance()
            if len(self._pending()) == len(pending) and (reason := _stop(pending, self._record)):
                await self._carrier.advance(killed=reason)
            if len(self._pending()) == len(pending):
                await self._decide_behind()
            if len(self._pending()) == len(pending):
                await self._go_on_without(pending[0])

    async def _decide_behind(self) -> None:
        """Let the manager decide as if it had not seen what the log had last: then, results and decisions may cross."""
        due, turned_away = len(self._pending()), self._turned_away
        for before, made in reversed(self._seen):
            self._carrier.state = before
            await self._carrier.advance()
            self._carrier.state = _gone_on(before, self.rerun.made[made:])
            if len(self._pending()) < due:
                return
        self._turned_away = turned_away

    async def _go_on_without(self, entry: Entry) -> None:
        """Take an entry as recorded that the manager does not make by itself: an operator's rejection of the plan.

        :raises _Stuck: it is something else
        """
        if isinstance(entry.message, PlanRejected):
            self._run[_Place.of(entry.message)].popleft()
            await self._follow(entry)
            return
        instead = self._turned_away
        what = f"{kind_of(type(instead))} of {_Place.of(instead)}" if instead is not None else "nothing"
        self._tell(entry, entry.message.kind, f"the manager does {what} instead; the rerun ends here")
        raise _Stuck

    def _pending(self) -> list[Entry]:
        return sorted((one for some in self._run.values() for one in some), key=lambda entry: entry.seq)


def _gone_on(state: JobState, entries: Iterable[Entry]) -> JobState:
    """Return the state after ``entries``, as who carries a job keeps it."""
    for entry in entries:
        state = evolve(state, entry)
        if isinstance(entry.message, TaskClosed):
            state = settle(state, entry.message.task)
    return state


def _by_manager(entry: Entry) -> bool:
    message = entry.message
    asks = isinstance(message, QuestionAsked) and message.task == JOB_TASK
    return asks or isinstance(message, _MANAGERS)


def _stop(pending: Sequence[Entry], record: Sequence[Entry]) -> str | None:
    """Return the reason of the kill that the record has next, if it has one."""
    later = (entry.message for entry in record if entry.seq >= pending[0].seq)
    closed = next((message for message in later if isinstance(message, JobClosed)), None)
    if closed is None or closed.status != "killed":
        return None
    ended = (entry.message for entry in pending if isinstance(entry.message, TaskClosed))
    return next((one.reason for one in ended if one.outcome == "cancelled"), closed.reason)


def _essence(message: Envelope) -> dict[str, Json]:
    """Return what a message says, times, ids and the record of calls aside."""
    said: dict[str, Json] = message.model_dump(mode="json", exclude=_ASIDE | _RECORDING, exclude_defaults=True)
    transcript = said.get("transcript")
    if isinstance(transcript, dict):
        said["transcript"] = {key: value for key, value in transcript.items() if key == "acting"}
    return said
