"""How a run closes its job when the agents are gone."""

import anyio
import pytest
from tests.integration.runtime.crew import give, team_of
from tests.killable_broker import KillableBroker

from interlock.observability.tracing import Tracing
from interlock.protocol.messages import TaskResult
from interlock.protocol.state import JobState
from interlock.runtime import closing
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, read_job, watch
from interlock.runtime.closing import JobLeftOpen, close_killed
from interlock.runtime.coordinator import Coordinator

pytestmark = pytest.mark.timeout(60)


async def begun(bus: Bus) -> str:
    """Submit a job of two tasks and let a manager begin it and die."""
    job = await give(bus, team_of({"step": "s", "for_each": [1, 2]}))
    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing()).run)
        async for progress in watch(bus, job):
            if progress.state.open == 2:
                group.cancel_scope.cancel()
                break
    return job


async def test_what_comes_in_late_does_not_leave_the_job_open(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last result that enters after the state was read refuses the decision; the job is closed all the same."""
    job, looks = await begun(bus), 0

    async def read_and_be_overtaken(bus: Bus, job: str) -> JobState:
        nonlocal looks
        state, looks = await read_job(bus, job), looks + 1
        if looks == 1:
            await bus.append(_late(state))
        return state

    monkeypatch.setattr(closing, "read_job", read_and_be_overtaken)
    state = await close_killed(bus, Tracing(), job, "enough")
    assert state.closed is not None
    assert (state.closed.status, state.closed.reason) == ("killed", "enough")
    assert looks == 2
    assert (await read_job(bus, job)).refused == 0


def _late(state: JobState) -> TaskResult:
    task = state.tasks["s:0"]
    assert state.submitted is not None
    return TaskResult(
        id="late",
        ns=state.submitted.ns,
        job=state.submitted.job,
        at=state.submitted.at,
        task=task.id,
        attempt=1,
        answers=task.head,
        by="w@t",
        role="v@t",
        status="done",
        output="late",
    )


async def test_closing_waits_for_a_broker_that_comes_back(killable_broker: KillableBroker, ns: str) -> None:
    """With the broker away, the job is closed once it is back."""
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        job = await begun(bus)
        await killable_broker.kill()
        async with anyio.create_task_group() as group:
            group.start_soon(close_killed, bus, Tracing(), job, "enough")
            await killable_broker.restart()
        state = await read_job(bus, job)
    assert state.closed is not None
    assert state.closed.status == "killed"


async def test_closing_gives_up_in_the_end(
    killable_broker: KillableBroker, ns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the broker gone for good, it is said that the job is left open."""
    monkeypatch.setattr(closing, "_CLOSING", 0.5)
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        job = await begun(bus)
        await killable_broker.kill()
        with pytest.raises(JobLeftOpen, match=rf"{job} \(enough\)"):
            await close_killed(bus, Tracing(), job, "enough")


async def test_a_job_that_is_over_stays_as_it_is(bus: Bus) -> None:
    """Closing a second time changes nothing, and what was never submitted is not there."""
    job = await begun(bus)
    first = await close_killed(bus, Tracing(), job, "enough")
    second = await close_killed(bus, Tracing(), job, "again")
    assert first.closed == second.closed
    with pytest.raises(JobNotFound):
        await close_killed(bus, Tracing(), "nope", "enough")
