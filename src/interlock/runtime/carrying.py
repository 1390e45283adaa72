"""Carries one job on: decides what is next, appends it, folds what the broker took.

Who carries a job owns nothing. It may die at any point, and several may carry the same job: the broker refuses whatever
was decided on an outdated state, and the log then shows what moved on.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TypeAlias

import anyio

from interlock.agents.manager import Planner, Stamp
from interlock.agents.proposer import ProposalOutcome
from interlock.observability.attributes import HEADER_REPLACES, HEADER_ROOT
from interlock.observability.context import job_traceparent, task_traceparent
from interlock.observability.tracing import Tracing
from interlock.protocol.codec import kind_of
from interlock.protocol.commands import Assign, Propose, Written
from interlock.protocol.control import Policy
from interlock.protocol.decide import decide
from interlock.protocol.errors import BodyTooLarge
from interlock.protocol.machine import evolve, fold, settle
from interlock.protocol.messages import JOB_TASK, JobSubmitted, Message, TaskClosed
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import log_subject
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.endings import Endings
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.shelves import Shelves

__all__ = ["Carrier", "new_id", "utc_now"]

_log = logging.getLogger(__name__)

_AT_ONCE = 256
"""The most messages that are sent before the first of them is acknowledged."""


_Sent: TypeAlias = tuple[Written, Message, "int | Exception"]
"""What was sent for a command, and its sequence in the log or why it did not enter."""


def utc_now() -> datetime:
    """Return the time, as messages carry it."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return an id that no other message has."""
    return uuid.uuid4().hex


class Carrier:
    """Carries a job that was submitted. ``state`` is what is known of it."""

    def __init__(
        self,
        bus: Bus,
        tracing: Tracing,
        submitted: JobSubmitted,
        origin: str | None,
        *,
        now: Callable[[], datetime] = utc_now,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._bus = bus
        self._tracing = tracing
        self._now = now
        self._new_id = new_id
        self._planner = Planner(submitted)
        self._shelves = Shelves(bus)
        self._root = tracing.job_root({HEADER_ROOT: origin} if origin else None, submitted.job)
        self._endings = Endings(tracing, self._root, now)
        self._own: set[int] = set()
        """Sequences that were appended and folded here and are still to come out of the log."""
        self._policy_epoch = 0
        """The policy that the plan was held against."""
        self.state = JobState()
        self.wanted: Propose | None = None
        """What the manager's model is to be asked for now, as ``advance`` found: that is not done here."""

    def take(self, entries: Iterable[Entry]) -> None:
        """Fold what came out of the log, except what was folded when it was appended here.

        Accepted items leave the state at once: whatever is made of them is read from the log again.
        """
        for entry in entries:
            if entry.seq in self._own:
                self._own.discard(entry.seq)
            else:
                self.state = evolve(self.state, entry)
                self._endings.found(entry, self.state)
                self._settle(entry)

    def caught_up(self) -> None:
        """Take the job up: all that the log had is folded."""
        self._endings.taken_up()

    async def heed(self, policy: Policy, epoch: int) -> None:
        """Hold the plan against a policy that is new to it, and reject the plan where it does not stand.

        :raises BusError: the broker is away
        """
        if epoch == self._policy_epoch:
            return
        self._planner.policy = policy
        objections = self._planner.objections(self.state) if self.state.version and self.state.rejected is None else ()
        if objections:
            try:
                await self._append(self._planner.rejection(self.state, objections, self._stamp()))
            except AnswerRefused as refusal:
                _log.info("the job has moved on, its plan is looked at again: %s", refusal)
                return
        self._policy_epoch = epoch

    async def advance(self, *, killed: str | None = None, window: int | None = None) -> None:
        """Decide and append until nothing is left to decide, or others have moved the job on.

        ``killed`` and ``window`` are as in ``protocol.decide.decide``.

        :raises BusError: the broker is away (one of ``BROKER_AWAY``); what it took until then stands
        """
        while commands := self._decide(killed, window):
            took = 0
            for begin in range(0, len(commands), _AT_ONCE):
                with anyio.CancelScope(shield=True):  # who is told to end still writes the spans of what it has closed
                    took += await self._carry_out(commands[begin : begin + _AT_ONCE])
            if not took:
                return

    async def tell(self, command: Propose, outcome: ProposalOutcome) -> bool:
        """Append what came of asking the manager's model and return whether that was taken: the job may have moved on.

        :raises BusError: the broker is away (one of ``BROKER_AWAY``), and it is to be told again
        """
        try:
            await self._append(self._planner.proposal(command, outcome, self._stamp()))
        except BodyTooLarge as error:
            short = ProposalOutcome(unreadable=f"what the model proposes is too long: {error}", usage=outcome.usage)
            return await self.tell(command, short)
        except AnswerRefused as refusal:
            _log.info("the job has moved on without this proposal: %s", refusal)
            return False
        return True

    def _decide(self, killed: str | None, window: int | None) -> list[Written]:
        commands = decide(self.state, self._now(), killed=killed, window=window)
        self.wanted = next((one for one in commands if isinstance(one, Propose)), None)
        return [one for one in commands if not isinstance(one, Propose)]

    async def _carry_out(self, commands: Sequence[Written]) -> int:
        """Append a message for each command, as one, and fold those that the broker took; return how many."""
        sent = [(command, await self._message(command)) for command in commands]
        outcomes = await self._send(sent)
        large = [(command, str(error)) for command, _, error in outcomes if isinstance(error, BodyTooLarge)]
        if large:
            excuses = [(one, self._planner.excuse(self.state, one, self._stamp(), why)) for one, why in large]
            outcomes = [one for one in outcomes if not isinstance(one[2], BodyTooLarge)] + await self._send(excuses)
        taken = [Entry(outcome, message) for _, message, outcome in outcomes if isinstance(outcome, int)]
        self._fold(sorted(taken, key=lambda entry: entry.seq))
        _raise_what_stops([outcome for _, _, outcome in outcomes if isinstance(outcome, Exception)], some=bool(taken))
        return len(taken)

    async def _message(self, command: Written) -> Message:
        shelf = await self._shelves.fill(self._planner, self.state, command)
        return self._planner.message(self.state, command, self._stamp(), shelf)

    async def _send(self, messages: Sequence[tuple[Written, Message]]) -> list[_Sent]:
        """Append ``messages`` and return what came of each: its sequence, or the error."""
        with ExitStack() as stack:
            sending = [(message, self._headers(command, message, stack)) for command, message in messages]
            outcomes = await self._bus.append_all(sending)
        return [(command, message, outcome) for (command, message), outcome in zip(messages, outcomes, strict=True)]

    def _headers(self, command: Written | None, message: Message, stack: ExitStack) -> dict[str, str]:
        """Open the span of sending ``message`` until the stack is left; return the headers that it goes with."""
        parent = (
            job_traceparent(self._root, message.job)
            if message.task == JOB_TASK
            else task_traceparent(self._root, message.job, message.task)
        )
        kind, subject = kind_of(type(message)), log_subject(message)
        headers = stack.enter_context(self._tracing.publish(kind, subject, parent, message_id=message.id))
        if isinstance(command, Assign) and command.replaces:
            headers[HEADER_REPLACES] = command.replaces
        return headers

    async def _append(self, message: Message) -> None:
        """Append a message that nothing in ``decide`` asks for, and fold it."""
        with ExitStack() as stack:
            headers = self._headers(None, message, stack)
            self._fold([Entry(await self._bus.append(message, headers=headers), message)])

    def _fold(self, taken: Sequence[Entry]) -> None:
        self._own.update(entry.seq for entry in taken)
        self.state = fold(taken, self.state)
        for entry in taken:
            self._endings.made(entry, self.state)
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        if isinstance(entry.message, TaskClosed):
            self._shelves.settles(self.state, entry.message.task)
            self.state = settle(self.state, entry.message.task)

    def _stamp(self) -> Stamp:
        return Stamp(self._new_id(), self._now())


def _raise_what_stops(errors: Iterable[Exception], *, some: bool) -> None:
    """Raise what no other look at the job cures, and that the broker is away unless ``some`` messages entered."""
    away: list[Exception] = []
    for error in errors:
        if isinstance(error, AnswerRefused):
            _log.info("another manager was faster: %s", error)
        elif isinstance(error, BROKER_AWAY):
            away.append(error)
        else:
            raise error
    if away and not some:
        raise away[0]
