"""Questions over a real broker: who waits, who goes on, and what becomes of answers that come late or twice."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from tests.integration.runtime.crew import Ask, crew, give, team_of

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import QuestionAnswered, TaskAssigned
from interlock.protocol.state import Entry, JobState, Phase
from interlock.runtime.bus import Bus
from interlock.runtime.carrying import Carrier
from interlock.runtime.client import history, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.questions import QuestionAlreadyAnswered, QuestionClosed, give_answer

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def managed(bus: Bus) -> AsyncIterator[Coordinator]:
    """Run a manager while the block runs."""
    coordinator = Coordinator(bus, Tracing())
    async with anyio.create_task_group() as group:
        group.start_soon(coordinator.run)
        yield coordinator
        group.cancel_scope.cancel()


async def until(bus: Bus, job: str, holds: Callable[[JobState], bool]) -> JobState:
    """Return the first state of a job in which something holds."""
    async for progress in watch(bus, job):
        if holds(progress.state):
            return progress.state
    raise AssertionError("the job ended before")


def closed(state: JobState) -> bool:
    return state.closed is not None


async def entries_of(bus: Bus, job: str) -> list[Entry]:
    return [entry async for progress in history(bus, job) for entry in progress.entries]


def asking_first(assigned: TaskAssigned) -> Json | Ask:
    """Ask over the first item, then tell after which entry it went on; do the others at once."""
    if assigned.index == 0 and not assigned.resumes:
        return Ask()
    return f"{assigned.task} after {assigned.resumes}"


async def test_a_task_waits_and_its_worker_does_the_others(bus: Bus) -> None:
    """With one message at a time, the worker has done all else before the answer comes; then the same attempt ends."""
    team = team_of({"step": "s", "for_each": [1, 2, 3]})
    async with crew(bus, asking_first, slots=1), managed(bus):
        job = await give(bus, team)
        state = await until(bus, job, lambda now: bool(now.steps) and now.steps["s"].accepted == 2)
        assert state.tasks["s:0"].phase is Phase.ASKED
        answered = await give_answer(bus, "j", "q-s", "YES", "do it")
        assert (answered.status, answered.answer) == ("answered", "yes")
        state = await until(bus, job, closed)
    assert state.closed is not None
    assert (state.closed.status, state.refused) == ("succeeded", 0)
    (answer,) = [one for one in await entries_of(bus, job) if isinstance(one.message, QuestionAnswered)]
    assert isinstance(answer.message, QuestionAnswered)
    assert answer.message.note == "do it"
    task = state.tasks["s:0"]
    assert (len(task.attempts), task.output) == (1, f"s:0 after {answer.seq}")


async def test_nobody_answers_in_time(bus: Bus) -> None:
    """The manager wakes up at the deadline and writes the default, although nothing else happens."""
    expires = datetime.now(UTC) + timedelta(seconds=1)
    team = team_of({"step": "s"}, budget={"seconds": 3600})
    async with crew(bus, lambda assigned: "done" if assigned.resumes else Ask(expires)), managed(bus):
        job = await give(bus, team)
        state = await until(bus, job, closed)
    question = state.tasks["s"].question
    assert question is not None
    assert question.answer is not None
    assert (question.answer.answer, question.answer.by_default) == ("no", True)
    assert expires <= question.answer.at < expires + timedelta(seconds=5)
    assert state.tasks["s"].output == "done"


async def test_a_manager_that_comes_later_keeps_the_deadline(bus: Bus) -> None:
    """The one that saw the question is gone; who reads the log wakes up for it as well."""
    expires = datetime.now(UTC) + timedelta(seconds=1)
    async with crew(bus, lambda assigned: "done" if assigned.resumes else Ask(expires, None)):
        async with managed(bus):
            job = await give(bus, team_of({"step": "s"}))
            await until(bus, job, lambda now: bool(now.asking))
        async with managed(bus):
            state = await until(bus, job, closed)
    question = state.tasks["s"].question
    assert question is not None
    assert question.answer is not None
    assert (question.answer.answer, question.answer.by_default) == ("no", True)


async def test_an_answer_waits_for_whoever_takes_the_job_up(bus: Bus) -> None:
    """Answered while neither manager nor worker runs, the job goes on with both anew."""
    team = team_of({"step": "s", "for_each": [1]})
    async with crew(bus, asking_first), managed(bus):
        job = await give(bus, team)
        await until(bus, job, lambda now: bool(now.asking))
    await give_answer(bus, job, "q-s-0", "no")
    async with crew(bus, asking_first), managed(bus):
        state = await until(bus, job, closed)
    assert state.closed is not None
    assert state.closed.status == "succeeded"
    assert str(state.tasks["s:0"].output).startswith("s:0 after ")


async def test_of_many_answers_one_counts(bus: Bus) -> None:
    """Five people at once: one is heard, and the others are told what counts."""
    async with crew(bus, asking_first), managed(bus):
        job = await give(bus, team_of({"step": "s", "for_each": [1]}))
        await until(bus, job, lambda now: bool(now.asking))
        heard: list[str] = []
        late: list[QuestionAlreadyAnswered] = []

        async def say(answer: str) -> None:
            try:
                heard.append(str((await give_answer(bus, job, "q-s-0", answer)).answer))
            except QuestionAlreadyAnswered as error:
                late.append(error)

        async with anyio.create_task_group() as group:
            for answer in ("yes", "no", "yes", "no", "yes"):
                group.start_soon(say, answer)
        state = await until(bus, job, closed)
    assert len(heard) == 1
    assert {(error.answer, error.by_default) for error in late} == {(heard[0], False)}
    question = state.tasks["s:0"].question
    assert question is not None
    assert question.answer is not None
    assert question.answer.answer == heard[0]
    assert len(late) == 4


async def test_a_killed_job_takes_no_answer(bus: Bus) -> None:
    """Its question is closed, and the log stays as it was."""
    async with crew(bus, asking_first), managed(bus):
        job = await give(bus, team_of({"step": "s", "for_each": [1]}))
        state = await until(bus, job, lambda now: bool(now.asking))
    assert state.submitted is not None
    carrier = Carrier(bus, Tracing(), state.submitted, None)
    carrier.state = state
    await carrier.advance(killed="enough")
    before = await entries_of(bus, job)
    with pytest.raises(QuestionClosed):
        await give_answer(bus, job, "q-s-0", "yes")
    assert await entries_of(bus, job) == before
