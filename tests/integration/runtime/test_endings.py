"""The spans of what was ended, although the manager that ended it died before it could send them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from tests.integration.runtime.crew import Ask, crew, ended, give, team_of
from tests.waiting import eventually

from interlock.observability.context import parse_traceparent
from interlock.observability.tracing import JobRecord, TaskRecord, Tracing
from interlock.protocol.control import JobScope
from interlock.protocol.messages import TaskAssigned
from interlock.runtime.bus import Bus
from interlock.runtime.client import watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.killswitch import command

pytestmark = pytest.mark.timeout(60)

_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class _Notes(Tracing):
    """What a manager writes; nothing of it gets lost."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.jobs: list[str] = []

    @property
    def enabled(self) -> bool:
        return True

    def job_root(self, headers: object, job: str) -> str:
        del headers
        context = parse_traceparent(super().job_root(None, job))
        assert context is not None
        return str(context._replace(sampled=True))

    def emit_task(self, root: str, record: TaskRecord) -> None:
        assert parse_traceparent(root)
        self.tasks.append(record.task)

    def emit_job(self, root: str, record: JobRecord) -> None:
        assert parse_traceparent(root)
        self.jobs.append(record.job)


class _Clock:
    def __init__(self) -> None:
        self.now = _NOON

    def __call__(self) -> datetime:
        return self.now

    def a_second_an_item(self, assigned: TaskAssigned) -> str | Ask:
        """Answer all items but the fifth, over which a person is asked: it stays open."""
        number = int(assigned.task.partition(":")[2])
        self.now = _NOON + timedelta(seconds=number)
        return Ask() if number == 5 else assigned.task


@asynccontextmanager
async def _managed(bus: Bus, clock: _Clock, tracing: Tracing) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, tracing, now=clock).run)
        yield
        group.cancel_scope.cancel()


async def _until_asked(bus: Bus) -> None:
    async for progress in watch(bus, "j1"):
        if progress.state.asking:
            return


@pytest.mark.parametrize(("later", "told"), [(29.0, ["s:2", "s:3", "s:4"]), (31.0, [])])
async def test_what_was_ended_last_is_told_by_who_takes_over(bus: Bus, later: float, told: list[str]) -> None:
    """The endings of the last two seconds, each once; none where the job was nobody's for long."""
    clock, notes = _Clock(), _Notes()
    async with crew(bus, clock.a_second_an_item):
        async with _managed(bus, clock, Tracing()):
            await give(bus, team_of({"step": "s", "for_each": list(range(6))}, parallel=1))
            await _until_asked(bus)
        clock.now = _NOON + timedelta(seconds=4 + later)
        async with _managed(bus, clock, notes):
            await command(bus, JobScope(job="j1"), stop=True, reason="enough")
            await ended(bus, "j1")
    assert sorted(notes.tasks) == sorted([*told, "s:5"])
    assert notes.jobs == ["j1"]


@pytest.mark.parametrize(("later", "told"), [(29.0, ["j1"]), (31.0, [])])
async def test_a_job_that_has_just_ended_is_told_by_who_takes_over(bus: Bus, later: float, told: list[str]) -> None:
    """A job that was closed and not told is told with its last tasks, although nobody has to carry it on."""
    clock, notes = _Clock(), _Notes()
    team = team_of({"step": "s", "for_each": [1, 2]})
    async with crew(bus):
        async with _managed(bus, clock, Tracing()):
            await ended(bus, await give(bus, team, "j1"))
        clock.now += timedelta(seconds=later)
        async with _managed(bus, clock, notes):
            await ended(bus, await give(bus, team, "j2"))
            await eventually(lambda: len(notes.jobs) > len(told))
    assert sorted(notes.jobs) == [*told, "j2"]
    assert len(notes.tasks) == 2 * len(notes.jobs)


async def test_nobody_tells_what_he_has_told(bus: Bus) -> None:
    """A manager that stays writes each span once, also where it hears of its own jobs' ends afterwards."""
    clock, notes = _Clock(), _Notes()
    async with crew(bus), _managed(bus, clock, notes):
        for job in ("j1", "j2", "j3"):
            await ended(bus, await give(bus, team_of({"step": "s", "for_each": [1, 2]}), job))
    assert sorted(notes.jobs) == ["j1", "j2", "j3"]
    assert len(notes.tasks) == 6
