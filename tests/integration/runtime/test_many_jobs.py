"""Many jobs beside each other: fair shares, orders, and who takes up what."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from tests.integration.runtime.crew import crew, ended, give, log_of, team_of
from tests.oracle import account_of

from interlock.observability.tracing import Tracing
from interlock.protocol.control import JobScope
from interlock.protocol.errors import NotInVersion
from interlock.protocol.items import Priority
from interlock.protocol.messages import VERSION, JobRetried, TaskAssigned, TaskResult, Verdict
from interlock.protocol.state import JobState
from interlock.protocol.subjects import partition_of
from interlock.runtime import carrying
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.client import read_job, submit
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.killswitch import command
from interlock.runtime.partitions import Partitions
from interlock.runtime.presence import Node, Presence, Served

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def managed(bus: Bus, room: int = 0) -> AsyncIterator[Coordinator]:
    """Run a manager of all jobs, with a machine there that has so many places for workers."""
    presence, now = Presence(bus), datetime.now(UTC)
    worker = Served(role="w@t", kind="worker", processes=1, slots=room)
    verifier = Served(role="v@t", kind="verifier", processes=1, slots=100)
    machine = Node(
        id="m", name="m", host="h", pid=1, version="0", protocol=VERSION, serves=(worker, verifier), began=now, seen=now
    )
    coordinator = Coordinator(bus, Tracing(), rooms=presence.rooms)
    async with presence.announced(machine), anyio.create_task_group() as group:
        group.start_soon(coordinator.run)
        yield coordinator
        group.cancel_scope.cancel()


async def submit_both(bus: Bus, first: Priority, second: Priority, items: int) -> None:
    """Submit a job and, before anything of it is done, another one of the same team."""
    team = team_of({"step": "s", "for_each": list(range(items))})
    await submit(bus, Tracing(), team, "go", {}, "first", priority=first)
    await submit(bus, Tracing(), team, "go", {}, "second", priority=second)


async def test_a_job_of_high_priority_overtakes(bus: Bus) -> None:
    """Of two equal jobs, the one that is submitted later with a high priority is over first, and both are whole."""
    await submit_both(bus, "low", "high", 80)
    async with managed(bus, room=4), crew(bus, slots=4):
        states = [await ended(bus, job) for job in ("first", "second")]
    closed = [state.closed for state in states]
    assert closed[0] is not None
    assert closed[1] is not None
    assert (closed[0].status, closed[1].status) == ("succeeded", "succeeded")
    over = states[1].head
    early = [entry for entry in await log_of(bus) if entry.message.job == "first" and entry.seq < over]
    assert len(account_of(early, "s").accepted) < 40, "both went on alike"


async def test_jobs_of_one_team_share_its_workers(bus: Bus) -> None:
    """Two jobs together have no more tasks open than twice the workers' places, each half, until one is over."""
    await submit_both(bus, "normal", "normal", 60)
    async with managed(bus, room=4), crew(bus, slots=4):
        for job in ("first", "second"):
            await ended(bus, job)
    log = await log_of(bus)
    accounts = [account_of([e for e in log if e.message.job == job], "s") for job in ("first", "second")]
    over = min(max(e.seq for e in log if e.message.job == job) for job in ("first", "second"))
    early = [account_of([e for e in log if e.message.job == job and e.seq <= over], "s") for job in ("first", "second")]
    assert [account.peak for account in early] == [4, 4]
    assert [len(account.accepted) for account in accounts] == [60, 60]


async def test_alone_a_job_is_bound_by_its_own_limit(bus: Bus) -> None:
    """A job that nobody competes with has as many tasks open as its team allows."""
    await give(bus, team_of({"step": "s", "for_each": list(range(60))}, parallel=30))
    async with managed(bus, room=4), crew(bus, slots=4):
        await ended(bus, "j1")
    assert account_of(await log_of(bus), "s").peak == 30


async def test_an_order_ends_a_job_that_a_manager_keeps(bus: Bus) -> None:
    """A job that is killed is closed as killed, with the reason, without anybody's help; another one goes on."""
    async with managed(bus):
        await give(bus, team_of({"step": "s", "for_each": list(range(20))}), "doomed")
        await give(bus, team_of({"step": "s"}), "other")
        await command(bus, JobScope(job="doomed"), stop=True, reason="enough of it")
        with anyio.fail_after(20):
            state = await ended(bus, "doomed")
        async with crew(bus):
            other = await ended(bus, "other")
    assert state.closed is not None
    assert (state.closed.status, other.closed and other.closed.status) == ("killed", "succeeded")
    assert "enough of it" in state.closed.reason


async def test_two_managers_share_the_jobs(bus: Bus) -> None:
    """Managers that lease partitions carry disjoint jobs, all of them; when one goes, the other takes over its jobs."""
    jobs = [f"j{number}" for number in range(24)]
    first, second = Coordinator(bus, Tracing()), Coordinator(bus, Tracing())
    states: list[JobState] = []
    async with anyio.create_task_group() as group:
        leaving = anyio.CancelScope()

        async def leased(manager: Coordinator, name: str, scope: anyio.CancelScope) -> None:
            with scope:
                await manager.run_leased(Partitions(bus, name, seconds=2).run, lambda: None)

        group.start_soon(leased, first, "one", leaving)
        group.start_soon(leased, second, "two", anyio.CancelScope())
        for job in jobs:
            await give(bus, team_of({"step": "s", "for_each": [1, 2]}), job)
        with anyio.fail_after(30):
            while not (first._kept and second._kept and first._kept.keys() | second._kept.keys() == set(jobs)):
                await anyio.lowlevel.checkpoint()
        assert not first._kept.keys() & second._kept.keys()
        assert {partition_of(job) for job in second._kept}.isdisjoint(partition_of(job) for job in first._kept)
        leaving.cancel()
        async with crew(bus):
            states = [await ended(bus, job) for job in jobs]
        group.cancel_scope.cancel()
    assert all(state.closed and state.closed.status == "succeeded" and state.refused == 0 for state in states)


async def test_a_job_that_its_keeper_fails_over_holds_up_no_other(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of our own in one job is logged, the job is taken up again, and the others end meanwhile."""
    carry, failed = carrying.Carrier.advance, anyio.Event()

    async def advance(self: Any, **options: Any) -> None:
        if self.state.submitted.job == "cursed" and not failed.is_set():
            failed.set()
            raise ZeroDivisionError("a mistake")
        await carry(self, **options)

    monkeypatch.setattr(carrying.Carrier, "advance", advance)
    async with crew(bus), managed(bus):
        await give(bus, team_of({"step": "s"}), "cursed")
        await failed.wait()
        await give(bus, team_of({"step": "s"}), "other")
        states = [await ended(bus, job) for job in ("other", "cursed")]
    assert all(state.closed and state.closed.status == "succeeded" for state in states)


async def test_a_job_that_is_put_back_is_taken_up_again(bus: Bus) -> None:
    """A closed job whose failed task is put back goes on under the same manager, and under one that comes later."""
    tries: dict[str, int] = {}

    def once_broken(assigned: TaskAssigned) -> str:
        tries[assigned.task] = tries.get(assigned.task, 0) + 1
        return f"{assigned.task} {tries[assigned.task]}"

    def judge(result: TaskResult) -> Verdict:
        return "fail" if result.output in {"s:1 1", "s:1 2"} else "pass"

    async with crew(bus, once_broken, judge):
        async with managed(bus):
            await give(bus, team_of({"step": "s", "for_each": [1, 2, 3], "attempts": 1}))
            before = await ended(bus, "j1")
            assert before.closed is not None
            assert before.closed.status == "partial"
            await put_back(bus, before)
            while (again := await read_job(bus, "j1")).closed is None or again.head <= before.head + 1:
                await anyio.lowlevel.checkpoint()
        assert again.tasks["s:1"].outcome == "failed"
        await put_back(bus, again)
        async with managed(bus):
            while (last := await read_job(bus, "j1")).closed is None or last.head <= again.head + 1:
                await anyio.lowlevel.checkpoint()
    assert last.closed is not None
    assert last.closed.status == "succeeded"
    assert last.closed.result == ["s:0 1", "s:1 3", "s:2 1"]
    assert tries == {"s:0": 1, "s:1": 3, "s:2": 1}


async def put_back(bus: Bus, state: JobState) -> None:
    """Put the task s:1 of a closed job back."""
    await bus.append(
        JobRetried(id=uuid.uuid4().hex, ns=bus.ns, job="j1", at=datetime.now(UTC), answers=state.head, tasks=("s:1",))
    )


async def test_tasks_ahead_are_assigned_beyond_the_limit(bus: Bus) -> None:
    """As many tasks as the limit says are under way, and those ahead wait already, no more."""
    await give(bus, team_of({"step": "s", "for_each": list(range(40))}, limits={"parallel": 8, "ahead": 2}))
    async with managed(bus), crew(bus, slots=4):
        await ended(bus, "j1")
    assert account_of(await log_of(bus), "s").peak == 10


async def test_a_team_with_tasks_ahead_is_for_no_older_version(broker: BrokerAddress, ns: str) -> None:
    """Machines of version 1 could not read its limits, so the job is refused while they are there."""
    team = team_of({"step": "s"}, limits={"parallel": 8, "ahead": 2})
    async with Bus.connect(broker, ns, "old", settings=BusSettings(newest=1)) as old:
        with pytest.raises(NotInVersion, match=r"limits\.ahead"):
            await give(old, team)
        await give(old, team_of({"step": "s"}))
