"""The manager's loop over a real broker, with workers and verifiers that answer at once."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from tests.integration.runtime.crew import crew, ended, give, log_of, team_of
from tests.oracle import account_of

from interlock.observability.tracing import Tracing
from interlock.protocol import codec
from interlock.protocol.messages import TaskAssigned, TaskResult, Verdict
from interlock.runtime import carrying
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, read_job, watch
from interlock.runtime.coordinator import Coordinator

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def managed(bus: Bus, *, now: Callable[[], datetime] | None = None) -> AsyncIterator[Coordinator]:
    """Run a manager while the block runs."""
    coordinator = Coordinator(bus, Tracing(), now=now) if now else Coordinator(bus, Tracing())
    async with anyio.create_task_group() as group:
        group.start_soon(coordinator.run)
        yield coordinator
        group.cancel_scope.cancel()


async def test_a_job_is_forgotten_once_it_is_over(bus: Bus) -> None:
    """Jobs that ended, before this manager came or under it, take no memory, nor does the wait for their deadline."""
    team = team_of({"step": "s", "for_each": [1, 2, 3]}, budget={"seconds": 3600})
    async with crew(bus):
        async with managed(bus):
            assert (await ended(bus, await give(bus, team, "j1"))).closed
        async with managed(bus) as coordinator:
            state = await ended(bus, await give(bus, team, "j2"))
            assert state.closed is not None
            assert state.closed.status == "succeeded"
            while coordinator._kept:
                await anyio.lowlevel.checkpoint()
            waiting = [task.name for task in anyio.get_running_tasks() if "_look_again_at" in (task.name or "")]
            assert waiting == []


async def test_a_deadline_is_kept_by_a_clock_that_runs_slow(bus: Bus) -> None:
    """Where the alarm rings before the clock shows the deadline, it rings again: the job ends, and says why."""
    team = team_of({"step": "s"}, budget={"seconds": 0.3})
    start = datetime.now(UTC)

    def slow() -> datetime:
        return start + (datetime.now(UTC) - start) / 2

    async with managed(bus, now=slow):
        state = await ended(bus, await give(bus, team))
    assert state.closed is not None
    assert state.closed.status == "failed"
    assert "out of time" in state.closed.reason
    assert state.closed.at >= start + timedelta(seconds=0.3)


async def test_many_managers_decide_everything_once(bus: Bus) -> None:
    """Three managers on two jobs with redos: every task is closed once, and no cap is broken."""
    team = team_of({"step": "s", "for_each": list(range(40)), "attempts": 3}, parallel=7)
    async with (
        crew(bus, lambda assigned: f"{assigned.task} {assigned.attempt}", _not_at_first),
        managed(bus),
        managed(bus),
        managed(bus),
    ):
        states = [await ended(bus, await give(bus, team, job)) for job in ("j1", "j2")]
    for state in states:
        assert state.closed is not None
        assert state.closed.status == "succeeded"
        assert state.refused == 0
        mine = [entry for entry in await log_of(bus) if entry.message.job == state.closed.job]
        account = account_of(mine, "s")
        assert len(account.accepted) == len(account.redone) == 40
        assert not account.doubled
        assert account.peak <= 7


def _not_at_first(result: TaskResult) -> Verdict:
    return "pass" if result.attempt > 1 else "fail"


async def test_more_decisions_than_are_sent_at_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop of a job with many open tasks closes them all, in portions."""
    monkeypatch.setattr(carrying, "_AT_ONCE", 16)
    team = team_of({"step": "s", "for_each": list(range(100))}, parallel=50)
    async with managed(bus):
        job = await give(bus, team)
        async for progress in watch(bus, job):
            if progress.state.open == 50:
                break
    state = await read_job(bus, job)
    assert state.submitted is not None
    carrier = carrying.Carrier(bus, Tracing(), state.submitted, None)
    carrier.state = state
    await carrier.advance(killed="enough")
    state = await read_job(bus, job)
    assert state.closed is not None
    assert (state.closed.status, state.closed.reason) == ("killed", "enough")
    assert state.steps["s"].cancelled == 100


async def test_what_is_too_large_to_send_ends_its_task_only(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """An assignment or a report that is more than a body may be is replaced by an end with the reason."""
    team = team_of({"step": "s", "for_each": [1, 3000], "do": "{{ 'x' * item }}"})
    async with crew(bus, lambda _: "y" * 900), managed(bus):
        job = await give(bus, team)
        monkeypatch.setattr(codec, "MAX_BODY", 2500)
        state = await ended(bus, job)
    assert state.tasks["s:0"].outcome == "accepted"
    assert state.tasks["s:1"].outcome == "failed"
    assert "exceeds the limit" in state.tasks["s:1"].reason


async def test_a_result_that_is_too_large_fails_the_job(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose result cannot be told fails with the reason; it does not go on for ever."""
    team = team_of({"step": "s", "for_each": [1, 2, 3]})
    async with crew(bus, lambda a: "y" * 1200 + a.task), managed(bus):
        job = await give(bus, team)
        monkeypatch.setattr(codec, "MAX_BODY", 2500)
        state = await ended(bus, job)
    assert state.closed is not None
    assert state.closed.status == "failed"
    assert state.closed.result is None
    assert "cannot be told" in state.closed.reason


async def test_the_log_goes_on_where_another_manager_stopped(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """A manager that comes later folds the whole log before it decides, and decides nothing again."""
    team = team_of({"step": "s", "for_each": list(range(100))}, {"step": "end", "do": "{{ steps.s.outputs | length }}"})
    async with crew(bus):
        async with managed(bus):
            job = await give(bus, team)
            async for progress in watch(bus, job):
                if progress.state.steps.get("s") and progress.state.steps["s"].accepted >= 90:
                    break
        with caplog.at_level(logging.INFO, "interlock"):
            async with managed(bus):
                state = await ended(bus, job)
    assert not [record for record in caplog.records if "was faster" in record.getMessage()]
    assert state.closed is not None
    assert state.closed.status == "succeeded"
    instructions = [e.message.instruction for e in await log_of(bus) if isinstance(e.message, TaskAssigned)]
    assert instructions == [*["x"] * 100, "100"]


async def test_a_job_that_is_not_there(bus: Bus) -> None:
    """Reading a job that nobody submitted names those that were."""
    await give(bus, team_of({"step": "s"}), "j1")
    with pytest.raises(JobNotFound, match="j1"):
        await read_job(bus, "nope")
