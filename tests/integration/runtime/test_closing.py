"""How a run closes its job when the agents are gone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.integration.runtime.crew import give, team_of
from tests.killable_broker import KillableBroker
from tests.waiting import eventually

from interlock.observability.tracing import Tracing
from interlock.protocol.control import AllScope, Order
from interlock.protocol.messages import JobRetried, JobSubmitted, TaskResult
from interlock.protocol.state import JobState
from interlock.runtime import closing, killing
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus
from interlock.runtime.carrying import Carrier
from interlock.runtime.client import JobNotFound, read_job, watch
from interlock.runtime.closing import JobLeftOpen, close_killed
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.killswitch import command, describe_order
from interlock.runtime.place import NAMESPACE, Place

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
    advance = Carrier.advance

    async def be_overtaken(self: Carrier, **options: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await bus.append(_late(self.state))
        await advance(self, **options)

    monkeypatch.setattr(Carrier, "advance", be_overtaken)
    state = await close_killed(bus, Tracing(), job, "enough")
    assert state.closed is not None
    assert (state.closed.status, state.closed.reason) == ("killed", "enough")
    assert looks > 1
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
    monkeypatch.setattr(closing, "_STALLED", 0.5)
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


async def test_an_order_stands_before_anything_else_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there is to read, an order to kill is written first."""
    looked: list[bool] = []

    async def look(bus: Bus, _order: Order) -> dict[str, JobSubmitted]:
        looked.append(bool(await bus.orders.standing()))
        return {}

    monkeypatch.setattr(killing, "open_jobs", look)
    await killing.kill(Place(tmp_path / "state"), AllScope(), "enough")
    assert looked == [True]


async def test_a_kill_ends_although_the_broker_goes_with_those_who_ran_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the broker along while an order is carried out makes nobody wait for it: the job is closed."""
    state, read = tmp_path / "state", killing.open_jobs
    submitted, gone = anyio.Event(), anyio.Event()
    ended: list[JobState] = []
    monkeypatch.setattr(killing, "_AWAY", 0.5)

    async def run_and_go() -> None:
        async with embedded_broker(state) as address, Bus.connect(address, NAMESPACE, "run") as bus:
            await begun(bus)
            submitted.set()
            await gone.wait()

    async def look(bus: Bus, order: Order) -> dict[str, JobSubmitted]:
        if gone.is_set():
            return await read(bus, order)
        gone.set()
        await eventually(lambda: not bus.is_connected)
        return await read(bus, order)

    async with anyio.create_task_group() as group:
        group.start_soon(run_and_go)
        await submitted.wait()
        monkeypatch.setattr(killing, "open_jobs", look)
        with anyio.fail_after(30):
            _, ended = await killing.kill(Place(state), AllScope(), "enough")
    assert [one.closed.status for one in ended if one.closed] == ["killed"]


async def test_open_jobs_are_known_by_their_own_chains(bus: Bus) -> None:
    """Jobs that are open are told with their teams; one that was closed is not, and one that was put back is."""
    jobs = [await give(bus, team_of({"step": "s", "for_each": [1]}), name) for name in ("one", "two", "three")]
    for job in jobs[:2]:
        await close_killed(bus, Tracing(), job, "enough")
    assert {job: one.team.team for job, one in (await killing.open_jobs(bus)).items()} == {"three": "t"}
    state = await read_job(bus, "two")
    await bus.append(JobRetried(id="r", ns=bus.ns, job="two", at=datetime.now(UTC), answers=state.head, tasks=("s:0",)))
    assert sorted(await killing.open_jobs(bus)) == ["three", "two"]


async def test_what_an_order_has_ended_already_is_told_as_ended_by_it(bus: Bus) -> None:
    """A job that an order closed before anybody looked is among those that it bound; one that ended before is not."""
    for name in ("before", "by-it", "open"):
        await give(bus, team_of({"step": "s", "for_each": [1]}), name)
    await close_killed(bus, Tracing(), "before", "enough")
    order = await command(bus, AllScope(), stop=True, reason="it went wrong")
    await close_killed(bus, Tracing(), "by-it", describe_order(order))
    assert sorted(await killing.open_jobs(bus, order)) == ["by-it", "open"]
