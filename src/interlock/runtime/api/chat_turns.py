"""The turns of a conversation, from the log: an answer goes in, and the job is followed to its next word."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import anyio
from anyio.abc import ObjectSendStream

from interlock.protocol.base import Usage
from interlock.protocol.lineage import is_within
from interlock.protocol.messages import JobClosed, JobSubmitted, QuestionAsked
from interlock.protocol.state import JobState
from interlock.protocol.subjects import job_subjects, sent_by, submitted_subject
from interlock.runtime._background import beside
from interlock.runtime.api.chat_jobs import Mark, read_reply
from interlock.runtime.api.chat_progress import Teller
from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.problems import AnswerUnusable, QuestionOver, QuestionUnknown
from interlock.runtime.api.questions import give_answer
from interlock.runtime.bus import Bus
from interlock.runtime.lean import LeanFold
from interlock.runtime.questions import KnownQuestion
from interlock.runtime.report import QuestionReport, question_report

__all__ = ["Asked", "Ended", "Told", "Turn", "answer_question", "next_turn"]

_FAILURES = 3
"""Tasks whose failure is told at the end."""

_GLANCE = 0.1
"""Seconds between two looks at a job: what comes meanwhile is read in one go."""


@dataclass(frozen=True, slots=True)
class Told:
    """How the job goes."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The job waits for a person."""

    question: QuestionReport
    usage: Usage
    """What it used so far."""
    before: str = ""
    """What is to be said before."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over."""

    closed: JobClosed
    why: tuple[str, ...] = ()
    """What went wrong, of the first few tasks that were not accepted."""


Turn: TypeAlias = Told | Asked | Ended
"""News of a job for who talks with it."""


async def next_turn(context: ApiContext, job: str, *, goes_on: bool = False) -> AsyncGenerator[Turn, None]:
    """Follow a job until it is over or asks a person, which is yielded last; before that, how it goes.

    What jobs within it ask is asked by it. With ``goes_on`` what was before is not told again.

    :raises BusError: the broker does not let these credentials read
    """
    own, entry = _own_turns(context.bus, job, goes_on), await context.bus.last(submitted_subject(context.bus.ns, job))
    began = entry.message if entry else None
    has_teams = isinstance(began, JobSubmitted) and any(one.kind == "team" for one in began.team.agents.values())
    sources = [own, _turns_within(context, job, entry.seq)] if entry and has_teams else [own]
    async with aclosing(_together(sources)) as turns:
        async for turn in turns:
            yield turn
            if not isinstance(turn, Told):
                return


async def _own_turns(bus: Bus, job: str, goes_on: bool) -> AsyncGenerator[Turn, None]:
    lean, teller = LeanFold(), Teller()
    async with bus.follow([job_subjects(bus.ns, job)], pause=_GLANCE) as batches:
        async for batch in batches:
            lean.take_all(batch.entries)
            lines = teller.lines(batch.entries, lean.state, time.monotonic())
            if lines and not goes_on:
                yield Told(tuple(lines))
            if batch.pending == 0:  # before that, what looks open may be over
                goes_on = False
                if (turn := _turn(lean.state)) is not None:
                    yield turn
            lean.forget()


async def _turns_within(context: ApiContext, job: str, after: int) -> AsyncGenerator[Turn, None]:
    """Yield what the jobs within a job ask, as long as it is open; ``after`` is a stream sequence before all of it."""
    async with context.bus.follow([sent_by(context.bus.ns, "asked", "*")], after, pause=_GLANCE) as batches:
        async for batch in batches:
            for entry in batch.entries:
                asked = entry.message
                if asked.job == job or not (isinstance(asked, QuestionAsked) and is_within(asked.job, job)):
                    continue
                known, _ = await context.reports.questions(asked.job)
                _, state = await context.reports.questions(job)
                for one in known:
                    if (one.id, one.status) == (asked.question, "open"):
                        yield Asked(one, state.usage)


async def _together(sources: Sequence[AsyncGenerator[Turn, None]]) -> AsyncGenerator[Turn, None]:
    """Yield what comes from any of ``sources``, none of which ends by itself."""
    failures: list[BaseException] = []
    send, receive = anyio.create_memory_object_stream[Turn]()

    def failed(error: BaseException) -> None:
        failures.append(error)
        send.close()

    async with AsyncExitStack() as stack:
        stack.enter_context(send)
        stack.enter_context(receive)
        for source in sources:
            await stack.enter_async_context(beside(_passed_on(source, send), failed))
        async for turn in receive:
            yield turn
    raise failures[0]


async def _passed_on(source: AsyncGenerator[Turn, None], send: ObjectSendStream[Turn]) -> None:
    async with aclosing(source) as turns:
        async for turn in turns:
            await send.send(turn)


def _turn(state: JobState) -> Asked | Ended | None:
    if state.closed is not None:
        return Ended(state.closed, tuple(islice(_failures(state), _FAILURES)))
    waiting = [(one, state.tasks[one.task].label) for one in _asked_by_tasks(state)]
    if state.question is not None and state.question.answer is None:
        waiting.append((state.question.asked, ""))
    if not waiting:
        return None
    asked, label = min(waiting, key=lambda one: (one[0].at, one[0].question))
    return Asked(question_report(asked, label), state.usage)


def _failures(state: JobState) -> Iterator[str]:
    for task in state.tasks.values():
        if task.outcome == "failed":
            found = (f"{one.criterion}: {one.evidence}" for one in (task.current.objections if task.attempts else ()))
            yield f"{task.id}: {'; '.join(filter(None, [task.reason, *found]))}"


def _asked_by_tasks(state: JobState) -> list[QuestionAsked]:
    questions = (state.tasks[name].question for name in state.asking if name in state.tasks)
    return [one.asked for one in questions if one is not None]


async def answer_question(context: ApiContext, mark: Mark, text: str) -> Asked | str:
    """Answer a question with what the user says; return what is to be told of that, empty if nothing is.

    Where it is no answer to this question, the question is returned once more.

    :raises QuestionUnknown: the job has no such question
    :raises BusError: the broker is out of reach
    """
    question, usage = await _question(context, mark)
    answer, note = read_reply(text, question.options)
    try:
        await give_answer(context, mark.job, question.id, answer, note)
    except AnswerUnusable:
        return Asked(question, usage, "That is none of the answers to this question.")
    except QuestionOver as over:
        question, _ = await _question(context, mark)
        is_same = question.answer == answer and not question.by_default
        return "" if is_same else f"({over.detail}.)"
    return ""


async def _question(context: ApiContext, mark: Mark) -> tuple[KnownQuestion, Usage]:
    known, state = await context.reports.questions(mark.job)
    for one in known:
        if one.id == mark.question:
            return one, state.usage
    raise QuestionUnknown
